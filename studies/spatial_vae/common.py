"""What the four studies share: their form, tables of scores, pictures of a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modpose.config import DenseFieldConfig, ImplicitFieldConfig, MlpEncoderConfig
from modpose.estimator import PoseModel
from modpose.plot import grids
from modpose.plot.figures import DisplayStyle
from modpose.plot.grids import Floats, Origin
from studies.common import study
from studies.common.page import Row
from studies.common.study import Fit, Options, Result, processor_minutes
from studies.spatial_vae.budgets import Plan

Setting = study.Setting[Plan]
"""What an experiment was requested."""


def noise_of(plan: Plan) -> Options:
    """Return the likelihood of measurements: as printed, every pixel has a spread of its own."""
    return {"kind": "gaussian", "noise": "per-pixel" if plan.as_printed else "learned", "std": 1.0}


def score_row(result: Result, labels: Row) -> Row:
    """Return a row of a table of scores."""
    score = result.score
    return {
        **labels,
        "z dim": result.run.config.model.z_dim,
        "seed": result.fit.seed,
        "ELBO": score.elbo,
        "s.e.": score.elbo_se,
        "reconstruction": score.recon,
        "KL pose": score.kl_pose,
        "KL content": score.kl_content,
        "IW bound": score.importance_bound,
        "epochs": score.epochs,
        "minutes": score.seconds / 60,
        "processor minutes": processor_minutes(result),
    }


def score_note(results: Sequence[Result]) -> str:
    """Say what the columns of a table of scores are."""
    score = results[0].score
    return (
        f"ELBO: single-sample estimate with the exact KL, mean over {score.images} held-out "
        "images, nats per image, and its standard error over images (comparisons between models "
        "on the same images are much finer). IW bound: importance-weighted bound on the first "
        f"{score.importance_images} of them with K = {score.importance_samples}."
    )


def networks(fits: Sequence[Fit]) -> str:
    """Say the sizes of encoder and decoder of each recipe that fits use."""
    said = {}
    for fit in fits:
        model = fit.config().model
        field = model.field
        if not isinstance(field, ImplicitFieldConfig | DenseFieldConfig):
            continue
        of_field = f"{field.depth} × {field.hidden} {field.activation}"
        if isinstance(field, ImplicitFieldConfig) and field.fourier is not None:
            of_field += f" on {field.fourier.count} random Fourier features"
        encoder = model.encoder
        if isinstance(encoder, MlpEncoderConfig):
            of_encoder = f"{encoder.depth} × {encoder.hidden} {encoder.activation}"
            said[fit.recipe] = f"`{fit.recipe}` {of_encoder} and {of_field}"
    return f"Hidden layers of encoder and decoder: {'; '.join(said.values())}."


# --- pictures of a model ----------------------------------------------------------------------


def manifold(model: PoseModel, n: int, look: DisplayStyle) -> Floats:
    """Upright pictures in [0, 1] on a walk of n quantiles a latent (one or two latents)."""
    codes = grids.manifold_codes(np.zeros((1, model.config.model.z_dim)), n)
    return look.prediction(model.decode(codes))


def samples(model: PoseModel, count: int, seed: int) -> Floats:
    """Upright pictures of content from the prior."""
    return model.sample(count, seed)


def held_out_pictures(result: Result, rows: Sequence[int]) -> Floats:
    """Held-out images as the model sees them."""
    dataset = result.model().dataset(result.fit.sample.open_test())
    images = dataset.batch(np.asarray(rows, dtype=np.int64)).image.numpy()
    return grids.as_pictures(images)


def measured_look(images: Floats, predictions: Floats, origin: Origin = "lower") -> DisplayStyle:
    """Grey levels of noisy images and of predictions, each from its own values."""
    return DisplayStyle(grids.grey_range(images), grids.grey_range(predictions), origin)

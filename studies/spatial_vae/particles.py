"""Real particles: Figure 6, Appendix Figures 6, 7 and 8."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modpose.data.dataset import split
from modpose.data.source import open_source
from modpose.plot import figures
from modpose.plot.grids import interpolation_codes
from studies.common import plots
from studies.common.conduct import Study
from studies.common.null import LABEL, NOTE, null_row
from studies.common.page import Page
from studies.common.samples import Sample, index_sample
from studies.common.study import Fit, Result
from studies.spatial_vae.budgets import configured
from studies.spatial_vae.common import (
    Setting,
    held_out_pictures,
    manifold,
    measured_look,
    networks,
    noise_of,
    samples,
    score_note,
    score_row,
)

FILE = "spa/apoferritin_empiar10146_64.star"
CROP, BOX = 56, 40
"""Pixels kept of each side, and the box that they are reduced to."""
SHIFT_STD = 2.0
"""Prior of the shift, pixels of the box: N(0, 4), as printed."""
PAIRS, STEPS, ACROSS = 8, 10, 10


def prepare(setting: Setting) -> Study | str:
    """Split the particles and say which fits they need, or why there are none."""
    file = setting.find(FILE)
    if file is None:
        return f"Real particles (Figure 6, Appendix 6-8) were left out: no {FILE} in --data."
    sample = _sample(setting, file)
    budget = setting.plan.particles
    fits = [_fit(setting, sample, z) for z in budget.z_dims]
    said = (
        f"spatial-VAE with {', '.join(map(str, budget.z_dims))} latents, uniform rotation, "
        f"shifts N(0, {SHIFT_STD:g}²) px, encoder input turned at random. {networks(fits)} (The "
        "paper: 2 × 1000 tanh.) A tenth of the fitted images chooses the epoch."
    )
    return Study(
        "Real particles: Figure 6, Appendix Figures 6, 7 and 8",
        [sample.description, said],
        fits,
        lambda results, page: _show(setting, [results[fit.name] for fit in fits], page),
    )


def _sample(setting: Setting, file: Path) -> Sample:
    budget, n = setting.plan.particles, open_source(file).n
    train, test = split(n, 0.1, setting.seed)
    train, test = train[: budget.images], test[: budget.held_out]
    description = (
        f"{len(train):,} cryo-EM images of apoferritin (EMPIAR-10146) to fit and {len(test):,} "
        f"held out, in place of the paper's two negative-stain sets, which are not public: the "
        f"central {CROP} px of 64, Fourier-cropped to {BOX} × {BOX} px, inverted so that protein "
        "is bright, each image of zero mean and unit standard deviation, pixels outside the "
        "inscribed circle left out. No contrast transfer function is known for them."
    )
    return index_sample(setting.samples, "particles", description, str(file), train, test)


def _fit(setting: Setting, sample: Sample, z_dim: int) -> Fit:
    plan, budget = setting.plan, setting.plan.particles
    data = {"invert": True, "crop": CROP, "box": BOX, "normalize": "image", "mask": 1.0}
    more: dict[str, Any] = {
        "data": data | {"val_fraction": 0.1},
        "model": {"likelihood": noise_of(plan), "shift": {"std_px": SHIFT_STD}},
    }
    recipe, options = configured(plan, budget, "spatial-vae", z_dim, more)
    return Fit(
        name=f"particles-spatial-vae-z{z_dim}",
        sample=sample,
        recipe=recipe,
        options=options,
        seed=setting.seed,
        max_minutes=budget.minutes,
        importance=budget.importance,
    )


# --- what is shown ----------------------------------------------------------------------------


def _show(setting: Setting, results: Sequence[Result], page: Page) -> Sequence[str]:
    z_dims = [r.run.config.model.z_dim for r in results]
    lines = {"spatial-VAE": (z_dims, [r.score.elbo for r in results])}
    rows = [score_row(r, {"model": "spatial-VAE"}) for r in results]
    rows.append(null_row(results[0], rows[0], {"model": LABEL}))
    return [
        "### Figure 6: interpolations",
        _interpolations(setting, results[-1], page),
        "### Appendix Figure 6: ELBO against the dimension of content",
        page.figure(
            "appendix-6",
            plots.against_z({"apoferritin": lines}),
            "Appendix Figure 6: held-out ELBO",
        ),
        page.table("appendix-6", "Appendix Figure 6: scores", rows),
        score_note(results),
        NOTE,
        "### Appendix Figures 7 and 8: manifold and samples",
        _samples(setting, results, page),
    ]


def _interpolations(setting: Setting, result: Result, page: Page) -> str:
    """Between random pairs of held-out images, in the content of the model with most latents."""
    model, latents = result.model(), result.held_out()
    k = model.config.model.z_dim
    z = latents[[f"z_{i}" for i in range(k)]].to_numpy(np.float64)
    pairs = min(PAIRS, len(z) // 2)
    chosen = np.random.default_rng(setting.seed).permutation(len(z))[: 2 * pairs]
    images = held_out_pictures(result, chosen.tolist())
    codes = [interpolation_codes(z[a], z[b], STEPS) for a, b in chosen.reshape(-1, 2)]
    drawn = model.decode(np.concatenate(codes))
    paths = drawn.reshape(pairs, STEPS, *drawn.shape[1:])
    figure = figures.interpolations(images[::2], paths, images[1::2], measured_look(images, drawn))
    caption = (
        f"Figure 6: from one random held-out image to another through the {k}-D content of "
        "spatial-VAE; rotation and shift are zero between them"
    )
    return page.figure("figure-6", figure, caption)


def _samples(setting: Setting, results: Sequence[Result], page: Page) -> str:
    tiles = {}
    for result in results:
        model = result.model()
        k = model.config.model.z_dim
        drawn = samples(model, ACROSS**2, setting.seed)
        look = measured_look(drawn, drawn)
        if k == 2:
            tiles["2-D: manifold"] = manifold(model, ACROSS, look)
        else:
            tiles[f"{k}-D: samples"] = look.prediction(drawn)
    caption = (
        "Appendix Figures 7 and 8: the manifold of 2-D content through the inverse normal "
        "distribution function, and samples with content from its prior"
    )
    return page.figure("appendix-7", plots.titled_mosaics(tiles, ACROSS, 2), caption)

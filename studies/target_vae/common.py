"""What the studies share: setting, samples, fits, tables that are kept, curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from modpose.content.clustering import cluster
from modpose.files.writing import replace_atomically
from studies.common import samples, study
from studies.common.null import LABEL, NOTE, null_row
from studies.common.page import Page
from studies.common.samples import Made, Sample
from studies.common.study import Fit, Options, Result, learning_curve
from studies.spatial_vae.common import score_note, score_row
from studies.target_vae import figures
from studies.target_vae.budgets import Contender, Plan, Sizes, configured

if TYPE_CHECKING:
    import pandas as pd

    from modpose.estimator import PoseModel

By = Mapping[Contender, Result]
"""The result of each contender of a study."""
Linkage = Literal["ward", "kmeans", "average", "complete"]
MOST_CLUSTERED = 10_000
"""Rows of content that are clustered at most."""


Setting = study.Setting[Plan]
"""What an experiment was requested."""


# --- images -----------------------------------------------------------------------------------


def sample_once(setting: Setting, name: str, description: str, make: Callable[[], Made]) -> Sample:
    """Make a sample, or open it where the experiment made it before."""
    return samples.sample_once(setting.samples, name, description, make)


def eight_bit(pictures: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Round pictures in [0, 1] to 0…255."""
    return np.asarray(np.rint(255 * pictures), np.uint8)


# --- fits -------------------------------------------------------------------------------------


def make_fit(
    setting: Setting,
    sizes: Sizes,
    sample: Sample,
    study: str,
    contender: Contender,
    more: Options,
    *,
    particles: bool = False,
) -> Fit:
    """Lay out one fit; parameters as in :func:`budgets.configured`."""
    recipe, options = configured(setting.plan, sizes, contender, more, particles=particles)
    return Fit(
        name=f"{study}-{contender.slug}",
        sample=sample,
        recipe=recipe,
        options=options,
        seed=setting.seed,
        max_minutes=sizes.minutes,
        importance=sizes.importance,
    )


def make_fits(
    setting: Setting,
    sizes: Sizes,
    sample: Sample,
    study: str,
    more: Options,
    *,
    particles: bool = False,
) -> dict[Contender, Fit]:
    """Lay out the fits of every contender of a study."""
    return {
        c: make_fit(setting, sizes, sample, study, c, more, particles=particles)
        for c in sizes.contenders
    }


def of_contenders(fits: Mapping[Contender, Fit], results: Mapping[str, Result]) -> By:
    """Pick the results of these fits."""
    return {contender: results[fit.name] for contender, fit in fits.items()}


def quiet_model(result: Result) -> PoseModel:
    """Load a trained model that shows no progress."""
    model = result.model()
    model.quiet = True
    return model


# --- what is known of a fit -------------------------------------------------------------------


def kept(result: Result, name: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """Read a table beside a run, making it first where it is not there yet."""
    import pandas as pd

    path = result.run.path / f"{name}.parquet"
    if not path.is_file():
        replace_atomically(path, make().to_parquet, overwrite=True)
    return pd.read_parquet(path)


def clusters(
    z: NDArray[np.float64], k: int, method: Linkage = "ward", seed: int = 0
) -> NDArray[np.int64]:
    """Group content into at most ``k`` clusters: Ward, k-means, average or complete linkage.

    The number falls where fewer rows differ (content that collapsed to a point).
    """
    k = min(k, len(np.unique(z, axis=0)))
    if method == "ward" or method == "kmeans" or k == 1:
        return cluster(z, k, "kmeans" if method == "kmeans" else "ward", seed)
    from sklearn.cluster import AgglomerativeClustering

    return np.asarray(AgglomerativeClustering(k, linkage=method).fit_predict(z), np.int64)


# --- what every section shows -----------------------------------------------------------------


def scores(
    page: Page, name: str, title: str, results: Mapping[str, Result], images_printed: int = 0
) -> Sequence[str]:
    """Show the table of scores and the learning curves of fits by the names of their models.

    ``images_printed`` is how many images the paper's training sees at most; 0: not said.
    """
    rows = _score_rows(results)
    null = null_row(next(iter(results.values())), rows[0], {"model": LABEL})
    bound = float(null["ELBO"])
    curves = {label: learning_curve(r) for label, r in results.items()}
    seen = f"; the paper trains on up to {images_printed:,}" if images_printed else ""
    return [
        page.table(f"{name}-scores", f"{title}: scores", [*rows, null]),
        score_note(list(results.values())),
        NOTE,
        page.figure(
            f"{name}-curves",
            figures.learning(curves, {LABEL: bound}),
            f"{title}: validation ELBO against images seen{seen}",
        ),
    ]


def _score_rows(results: Mapping[str, Result]) -> list[dict[str, str | int | float | None]]:
    return [
        {**score_row(r, {"model": label}), "parameters": parameters(r)}
        for label, r in results.items()
    ]


def parameters(result: Result) -> int:
    """Count the numbers that a fit learns."""
    return sum(p.numel() for p in result.model().vae.parameters() if p.requires_grad)


def named(by: By) -> dict[str, Result]:
    """Results by the names of their models."""
    return {contender.name: result for contender, result in by.items()}

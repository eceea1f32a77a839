"""What the studies share: measurements of a fit, and the figure of arrows."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from modpose.config import merge
from studies.amortisation.budgets import GridBudget, Plan, StudyBudget
from studies.amortisation.moves import Displacement, Mode, Move, displace
from studies.common import study
from studies.common.page import Row
from studies.common.study import Result, processor_minutes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from modpose.simulate.projections import ProjectionSettings

SNR, EXTENT = 0.1, 160.0
"""Of the simulated images; side of the box, Å."""
LABELLED = 10
"""Images whose moves are drawn as arrows, as in the paper."""


Setting = study.Setting[Plan]
"""What the experiment was requested."""


def fit_options(
    recipe: str, budget: StudyBudget | GridBudget, z_dim: int, epochs: int
) -> dict[str, Any]:
    """Return what a budget lays on a recipe for posed images, so that all see the same images."""
    options = merge({"model": {"z_dim": z_dim}, "train": {"epochs": epochs}}, dict(budget.options))
    if recipe == "vlt":  # a table has no width
        options["model"].pop("encoder", None)
        return options
    return merge(options, {"data": {"val_fraction": 0.0}})


def projection_settings(setting: Setting) -> ProjectionSettings:
    """Return how the studies' projections are simulated, fitted and held-out ones together."""
    from modpose.simulate.projections import ProjectionSettings

    budget = setting.plan.particles
    return ProjectionSettings(
        n=budget.images + budget.held_out,
        box=budget.box,
        pixel_size=EXTENT / budget.box,
        snr=SNR,
        ctf=True,
        shift_std_px=0.03 * budget.box,
        seed=setting.seed,
    )


def has_table(result: Result) -> bool:
    """Return whether a fit has a lookup table in place of an encoder."""
    return result.run.config.model.encoder.kind == "table"


def displacement(result: Result, move: Move, mode: Mode, count: int) -> Displacement:
    """Measure where the encoder puts images that it was fitted to, once they are moved."""
    source = result.fit.sample.open_train()
    some = source.subset(np.arange(min(count, source.n)))
    return displace(result.model(), some, move, mode)


def displacement_row(result: Result, name: str, move: Move, mode: Mode, count: int) -> Row:
    """Return a row of a table of displacements."""
    found = displacement(result, move, mode, count)
    return {
        "model": name,
        "move": move.name,
        "mode": mode,
        "displacement / pair distance": found.of_pairs(),
        "displacement / posterior s.d.": found.in_std(),
    }


def gap_row(result: Result, name: str, budget: StudyBudget) -> Row:
    """Return a row: bounds of the images fitted to and held out, and the amortisation gaps.

    The gap is what refining each image's own posterior by gradient gains over what the encoder
    (or the table) says of it.
    """
    latents = result.run.latents()
    trained = latents[latents["split"] == "train"]
    score = result.score
    model = result.model()
    model.quiet = True
    source = result.fit.sample.open_train()
    some = source.subset(np.arange(min(budget.measured, source.n)))
    began = time.perf_counter()
    if not has_table(result):
        model.encode(some)
    encoding = time.perf_counter() - began
    row: dict[str, str | int | float | None] = {
        "model": name,
        "z dim": model.config.model.z_dim,
        "ELBO, fitted": float(trained["elbo"].mean()),
        "ELBO, held out": score.elbo,
        "KL, fitted": float(trained["kl_content"].mean()),
        "KL, held out": score.kl_content,
        "epochs": score.epochs,
        "minutes": score.seconds / 60,
        "processor minutes": processor_minutes(result),
        "ms per image to encode": None if has_table(result) else 1e3 * encoding / some.n,
    }
    return row | _gaps(result, budget)


def _gaps(result: Result, budget: StudyBudget) -> dict[str, float | None]:
    model = result.model()
    model.quiet = True
    gaps: dict[str, float | None] = {}
    config = result.run.config.model
    can_refine = config.poses == "given" or config.rotation.prior != "none"
    for part, source in (
        ("fitted", result.fit.sample.open_train()),
        ("held out", result.fit.sample.open_test()),
    ):
        gaps[f"gap, {part}"] = None
        if not can_refine or (part == "held out" and has_table(result)):
            continue
        rows = np.arange(min(budget.refined, source.n))
        gain = model.encode(source, search=budget.search, rows=rows).elbo_gain
        gaps[f"gap, {part}"] = None if gain is None else float(gain.mean(dtype=np.float64))
    return gaps


def arrows(panels: Mapping[str, Displacement]) -> Figure:
    """Draw where images go when they are moved: two principal components of content.

    All images are dots; of the first ten, an arrow leads from where an image is to where its moved
    copy is.
    """
    from modpose.content.embedding import principal_axes
    from modpose.plot.figures import BLUE, INK, MUTED, ORANGE, SMALL, new_figure, style

    fig = new_figure(3.1 * -(-len(panels) // 2), 6.6)
    axes = np.atleast_1d(fig.subplots(-(-len(panels) // 2), min(2, len(panels)))).ravel()
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    for ax, (title, found) in zip(axes, panels.items(), strict=False):
        mean, directions, _ = principal_axes(np.asarray(found.before, float))
        plane = directions[:2]
        before, after = ((part - mean) @ plane.T for part in (found.before, found.after))
        if before.shape[1] == 1:
            before, after = (np.pad(part, ((0, 0), (0, 1))) for part in (before, after))
        style(ax, "PC 1", "PC 2", title)
        ax.scatter(*before.T, s=3, color=MUTED, alpha=0.4, linewidths=0)
        few = slice(0, min(LABELLED, len(before)))
        for number, (start, end) in enumerate(zip(before[few], after[few], strict=True), 1):
            kind = {"arrowstyle": "->", "color": BLUE, "lw": 0.9}
            ax.annotate("", xy=tuple(end), xytext=tuple(start), arrowprops=kind)
            ax.text(*start, str(number), fontsize=SMALL - 1, color=INK)
        ax.scatter(*after[few].T, s=8, color=ORANGE, linewidths=0)
    return fig

"""Where an encoder generalises and where it memorises: SNR, number of images, width of the encoder.

The paper's conjecture, on a grid.  In each cell, encoders of two widths, their evil twins, a lookup
table and a null model are fitted to the same images, and all see the same number of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from modpose.config import TableEncoderConfig, merge
from modpose.data.source import Source
from modpose.evaluate.metrics import spearman
from modpose.plot.figures import INK, SMALL, WIDTH, new_figure, style
from studies.amortisation.budgets import GridBudget
from studies.amortisation.common import EXTENT, Setting, fit_options, has_table
from studies.common.conduct import Study
from studies.common.page import Page
from studies.common.plots import COLOURS, curves_in_images
from studies.common.samples import Sample, index_sample
from studies.common.study import Fit, Result, processor_minutes, training_curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NULL = {"init": "random", "mean": 0.0, "spread": 0.0, "log_std": 0.0, "log_std_spread": 0.0}
_ROWS = _NULL | {"spread": 0.1, "log_std": -0.5, "lr": 0.1}
"""Rows that start near the mean of the prior.  At the authors' rate of 0.01 a row moves by 0.01 a
visit, and with 10,000 images it has few visits; so 0.1."""
_LARGE = {"model": {"encoder": {"hidden": 1024, "depth": 6}}}
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "null": ("null: one volume", "vlt", {"model": {"encoder": _NULL | {"frozen": True}}}),
    "table": ("table", "vlt", {"model": {"encoder": _ROWS}}),
    "encoder": ("encoder 3×256", "cryodrgn", {}),
    "large": ("encoder 5×1024", "cryodrgn", _LARGE),
    "twin": ("evil twin 3×256", "evil-twin", {}),
    "twin-large": ("evil twin 5×1024", "evil-twin-large", {}),
}
"""Title, recipe, options; widths in the authors' terms."""
_DECODER: dict[str, Any] = {
    "model": {
        "field": {"kind": "principal", "motions": 4, "cycles": 8},
        "likelihood": {"noise": "shells", "std": 1.0},
    },
    "train": {
        "lr": 1e-3,
        "schedule": "cosine",
        "batch_size": 64,
        "beta": {"kind": "constant", "end": 1.0},
    },
}


NEIGHBOURS = 10
"""Fitted images, nearest in content, whose hinge angles are averaged."""
MEASURED = [
    *(f"{name}, {part}" for name in ("ELBO", "gap") for part in ("fitted", "held out")),
    *(f"motion, {part}" for part in ("fitted", "held out", "refined")),
]
AXES = {"gap": "gap (nats per image)", "motion": "motion (rank correlation)"}
Array = NDArray[np.float64]


@dataclass(frozen=True, order=True)
class Cell:
    """A set of images: its signal-to-noise ratio, how many are fitted, the seed; a longer fit."""

    snr: float
    images: int
    seed: int
    longer: bool = False

    @property
    def name(self) -> str:
        """Of its sample, and the first part of the names of its runs."""
        name = f"grid-snr{self.snr:g}-n{self.images}-seed{self.seed}"
        return f"{name}-longer" if self.longer else name

    def epochs(self, budget: GridBudget) -> int:
        """Return how often a fit sees each image."""
        return max(1, (budget.longer if self.longer else budget.seen) // self.images)


def cells(budget: GridBudget, seed: int) -> list[Cell]:
    """Return the cells of the grid with one seed, its corners with the next, and longer fits."""
    grid = [Cell(snr, n, seed) for n in budget.images for snr in budget.snrs]
    ends = {budget.images[0], budget.images[-1]}
    corners = [Cell(c.snr, c.images, seed + 1) for c in grid if c.images in ends]
    return grid + corners + [Cell(snr, budget.images[-1], seed, True) for snr in budget.snrs]


def prepare(setting: Setting) -> Study:
    """Encoders, evil twins and tables over SNR, number of images and width."""
    budget = setting.plan.grid
    grid = cells(budget, setting.seed)
    fits = [
        _fit(setting, cell, sample, name)
        for cell in grid
        for sample in [_sample(setting, cell)]
        for name in MODELS
    ]
    return Study(
        "Where an encoder generalises, and where it memorises",
        [
            f"Projections of the built-in molecule, whose arm turns by up to 30° either way: "
            f"{budget.box} × {budget.box} px, CTF, Haar poses that are given; "
            f"{budget.held_out:,} more images are held out. Every fit sees {budget.seen:,} images, "
            "so each image is seen more often where there are fewer; with "
            f"{budget.images[-1]:,} images there are also fits that see {budget.longer:,}. A step "
            "decodes a random choice "
            f"of {budget.pixels or 'all'} coefficients a step, which leaves the bound's gradient "
            f"unbiased. Content has {budget.z_dim} dimensions.",
            "The decoder is that of `modpose-posed`: maps of the mean and of four motions, found "
            "from the fitted images before training and then kept, and a small perceptron from "
            "content to their amplitudes. The authors' decoder draws the mean alone after this "
            "time. The bound that is trained is the one shown (weight 1 of the KL, noise of every "
            "shell from the residuals), in nats per image.",
            f"*Gap*: what refining an image's own posterior gains ({budget.search.refine_steps} "
            "steps of Adam, the decoder frozen), from where the encoder puts it. Held-out images "
            "of a table have no rows: new ones start from the best of 16 groups of its rows and "
            f"take the same steps. Gaps and bounds are those of the first {budget.refined} images "
            "of each kind, the same for all models; *table − it* is how far they lie below the "
            "table's. *Motion*: rank correlation of the hinge with the mean hinge of the "
            f"{NEIGHBOURS} fitted images whose content is nearest: of all fitted images (each "
            "without itself), of all held-out ones as the encoder reads them, and of those "
            "refined. *Null*: a table whose rows stay at the prior, so that one volume is drawn.",
        ],
        fits,
        lambda results, page: _show(budget, grid, results, page),
    )


def _sample(setting: Setting, cell: Cell) -> Sample:
    """Take the first images of a stack to fit, and hold its last ones out."""
    from modpose.simulate.projection_files import write_projections
    from modpose.simulate.projections import ProjectionSettings, simulate_projections

    budget = setting.plan.grid
    most, n = budget.images[-1], budget.images[-1] + budget.held_out
    folder = setting.samples / f"grid-snr{cell.snr:g}-seed{cell.seed}" / "images"
    if not (folder / "particles.star").is_file():
        settings = ProjectionSettings(
            n=n,
            box=budget.box,
            pixel_size=EXTENT / budget.box,
            snr=cell.snr,
            ctf=True,
            shift_std_px=0.03 * budget.box,
            seed=cell.seed,
        )
        write_projections(simulate_projections(settings), folder, overwrite=True)
    description = f"{cell.images:,} projections at an SNR of {cell.snr:g}"
    star, train, test = str(folder / "particles.star"), np.arange(cell.images), np.arange(most, n)
    return index_sample(setting.samples, cell.name, description, star, train, test)


def _fit(setting: Setting, cell: Cell, sample: Sample, name: str) -> Fit:
    budget = setting.plan.grid
    _, recipe, own = MODELS[name]
    options = merge(
        _DECODER | {"train": _DECODER["train"] | {"pixels": budget.pixels}},
        fit_options(recipe, budget, budget.z_dim, cell.epochs(budget)),
    )
    return Fit(
        name=f"{cell.name}-{name}",
        sample=sample,
        recipe=recipe,
        options=merge(own, options),
        seed=cell.seed,
        max_minutes=budget.minutes,
        importance=(2, 2),
        table_images=2,  # they are fitted below, like those of the encoders
    )


# --- what is measured -------------------------------------------------------------------------


def _show(
    budget: GridBudget, grid: Sequence[Cell], results: Mapping[str, Result], page: Page
) -> Sequence[str]:
    rows = list(_rows(budget, grid, results))
    first = [cell for cell in grid if cell.seed == grid[0].seed]
    of_first = [row for row in rows if row["seed"] == grid[0].seed]
    longest = {(r["SNR"], r["images"], r["model"]): r for r in of_first}  # the last is the longest
    digits = {"SNR": 2, "motion, fitted": 2, "motion, held out": 2, "motion, refined": 2}
    blocks = [
        page.table("generalisation", "Fitted and held-out images", rows, digits),
        page.figure(
            "generalisation",
            _figure([*longest.values()], budget),
            "Gap to the refined posterior, and motion found in content: held-out images (lines) "
            "and fitted images (dashed), first seed, the longest fit of each",
        ),
    ]
    for cell in (first[0], *first[-len(budget.snrs) :]):
        blocks.append(
            page.figure(
                f"learning-{cell.name}",
                _learning(cell, results),
                f"The bound of fitted images in training: SNR {cell.snr:g}, {cell.images:,} images",
            )
        )
    return blocks


def _rows(
    budget: GridBudget, grid: Sequence[Cell], results: Mapping[str, Result]
) -> Iterator[dict[str, Any]]:
    for cell in grid:
        found = {name: _measure(results[f"{cell.name}-{name}"], budget) for name in MODELS}
        for name, (title, *_) in MODELS.items():
            own, table = found[name], found["table"]
            beside = {
                f"table − it, {part}": _difference(table, own, f"ELBO, {part}")
                for part in ("fitted", "held out")
            }
            named = {"SNR": cell.snr, "images": cell.images, "seed": cell.seed, "model": title}
            yield named | own | beside


def _difference(one: Mapping[str, Any], other: Mapping[str, Any], name: str) -> float | None:
    if one[name] is None or other[name] is None:
        return None
    return float(one[name]) - float(other[name])


def _measure(result: Result, budget: GridBudget) -> dict[str, Any]:
    """Bounds, gaps and motion of the images fitted and of those held out."""
    fitted, held_out = result.fit.sample.open_train(), result.fit.sample.open_test()
    latents = result.run.latents()
    rows = np.arange(min(budget.refined, held_out.n, fitted.n))
    row: dict[str, Any] = {
        "epochs": result.score.epochs,
        "images seen": result.score.epochs * fitted.n,
        "processor minutes": processor_minutes(result),
        **dict.fromkeys(MEASURED),
    }
    model = result.model()
    model.quiet = True
    encoder = result.run.config.model.encoder
    if isinstance(encoder, TableEncoderConfig) and encoder.frozen:  # the null model: the prior
        as_it_is = replace(budget.search, refine_steps=0)
        for part, source in (("fitted", fitted), ("held out", held_out)):
            found = model.encode(source, search=as_it_is, rows=rows)
            row[f"ELBO, {part}"] = float(found.elbo.mean())
        return row
    z = {"fitted": latents[[f"z_{k}" for k in range(budget.z_dim)]].to_numpy(float)}
    for part, source in (("fitted", fitted), ("held out", held_out)):
        refined = model.encode(source, search=budget.search, rows=rows)
        gain = None if refined.elbo_gain is None else float(refined.elbo_gain.mean())
        row[f"ELBO, {part}"] = float(refined.elbo.mean()) - (gain or 0.0)
        row[f"gap, {part}"] = gain
        z["refined"] = refined.z  # of the held-out images, which come last
    if not has_table(result):
        z["held out"] = model.encode(held_out).z
    hinge = {part: _hinge(fitted if part == "fitted" else held_out) for part in z}
    near = cKDTree(z["fitted"])
    for part, content in z.items():
        guess = read_hinge(near, hinge["fitted"], content, own=part == "fitted")
        row[f"motion, {part}"] = abs(spearman(guess, hinge[part][: len(guess)]))
    return row


def read_hinge(near: cKDTree, known: Array, z: Array, *, own: bool) -> Array:
    """Read each image's hinge from its content: the mean of the fitted images nearest to it.

    Parameters
    ----------
    near
        Content of the fitted images.
    known
        (N,) their hinge angles.
    z
        (M, k) content to read.
    own
        Whether ``z`` is that of the fitted images, each of which then counts for others alone.
    """
    count = min(NEIGHBOURS, len(known) - own)
    _, which = near.query(z, count + own)
    return np.asarray(known[which.reshape(len(z), -1)[:, int(own) :]].mean(1))


def _hinge(source: Source) -> Array:
    truth = source.particles.truth()
    assert truth is not None
    return truth["hinge_deg"].to_numpy(float)


def _figure(rows: Sequence[Mapping[str, Any]], budget: GridBudget) -> Figure:
    """Gap and motion against the number of images: a column per SNR."""
    fig = new_figure(5.4, WIDTH)
    axes = fig.subplots(2, len(budget.snrs), sharex=True, squeeze=False)
    for line, quantity in enumerate(("gap", "motion")):
        for ax, snr in zip(axes[line], budget.snrs, strict=True):
            style(ax, "images fitted" if line else "", AXES[quantity], f"SNR {snr:g}")
            ax.set_xscale("log")
            mine = [row for row in rows if row["SNR"] == snr]
            for (title, *_), colour in zip([*MODELS.values()][1:], (*COLOURS, INK), strict=True):
                for part, dash in (("held out", "-"), ("fitted", "--")):
                    points = [
                        (row["images"], row[f"{quantity}, {part}"])
                        for row in mine
                        if row["model"] == title and row[f"{quantity}, {part}"] is not None
                    ]
                    label = title if part == "held out" else None
                    across, up = zip(*points, strict=True) if points else ((), ())
                    ax.plot(across, up, dash, color=colour, marker="o", ms=3, label=label)
    axes[1][-1].legend(frameon=False, fontsize=SMALL, labelcolor=INK)
    return fig


def _learning(cell: Cell, results: Mapping[str, Result]) -> Figure:
    """Bound of the fitted images in training against the images seen."""
    curves = {
        title: training_curve(results[f"{cell.name}-{name}"])
        for name, (title, *_) in MODELS.items()
    }
    _, null = curves.pop(MODELS["null"][0])
    lines = {title: [curve] for title, curve in curves.items()}
    return curves_in_images(lines, {MODELS["null"][0]: null[-1]}, y="ELBO, fitted (nats per image)")

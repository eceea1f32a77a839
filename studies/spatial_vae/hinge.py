"""The hinged protein: Table 1, Figure 4, Appendix Figures 4 and 5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from modpose.evaluate import metrics
from modpose.evaluate.recovery import recover
from modpose.plot import figures
from modpose.plot.grids import Floats, drawn, grey_range, manifold_codes, to_unit
from studies.common import plots
from studies.common.conduct import Study
from studies.common.null import LABEL, NOTE, null_row
from studies.common.page import Page, Row
from studies.common.samples import Sample, write_sample
from studies.common.study import Fit, Result, learning_curve
from studies.spatial_vae.budgets import Model, configured
from studies.spatial_vae.common import (
    Setting,
    held_out_pictures,
    measured_look,
    networks,
    noise_of,
    score_note,
    score_row,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from modpose.simulate.particles import HingeSettings

ACROSS = 10
"""Pictures in a row of Figure 4."""
IMAGES_SEEN = 500 * 16_000
"""In the paper."""


@dataclass(frozen=True)
class Contender:
    """A model of Table 1."""

    title: str
    model: Model
    z_dim: int


SPATIAL, VAE_1, VAE_2 = CONTENDERS = (
    Contender("spatial-VAE", "spatial-vae-rotation", 1),
    Contender("VAE (1-d)", "vae", 1),
    Contender("VAE (2-d)", "vae", 2),
)
By = Mapping[Contender, Sequence[Result]]
"""Results of each contender, a seed after the other."""


def prepare(setting: Setting) -> Study:
    """Simulate the images and say which fits they need."""
    sample = _sample(setting)
    seeds = range(setting.seed, setting.seed + setting.plan.hinge.seeds)
    fits = {c: [_fit(setting, sample, c, seed) for seed in seeds] for c in CONTENDERS}
    every = [fit for each in fits.values() for fit in each]
    train = fits[SPATIAL][0].config().train
    said = (
        "Images have zero mean and unit standard deviation, and every model "
        + (
            "draws a noise level for every pixel"
            if setting.plan.as_printed
            else "learns one noise level"
        )
        + ". As in the paper, spatial-VAE infers the rotation only, with a uniform prior, its "
        "encoder input is rotated at random, and content is held at zero at first, here for "
        f"{train.delay_z_steps:,} steps of {train.batch_size} images (the paper: two epochs, 320 "
        f"steps of 100). {networks(every)} Seeds: {', '.join(map(str, seeds))}."
    )
    return Study(
        "Hinged protein: Table 1, Figure 4, Appendix Figures 4 and 5",
        [sample.description, said],
        every,
        lambda results, page: _show(
            setting, {c: [results[fit.name] for fit in each] for c, each in fits.items()}, page
        ),
    )


def _settings(setting: Setting) -> HingeSettings:
    from modpose.simulate.particles import HingeSettings

    budget = setting.plan.hinge
    n = budget.images + budget.held_out
    return HingeSettings(n=n, box=40, snr=0.5, shift_std_px=0.0, seed=setting.seed)


def _sample(setting: Setting) -> Sample:
    from modpose.simulate.particles import simulate_particles

    made, budget = _settings(setting), setting.plan.hinge
    high = made.hinge_range_deg[1]
    description = (
        f"{budget.images:,} simulated images to fit and {budget.held_out:,} held out, "
        f"{made.box} × {made.box} px of {made.pixel_size:g} Å: a two-domain macromolecule (not "
        f"5HDB, whose file is not at hand) with a hinge uniform in ±{high:g}°, uniform "
        f"rotation in the plane, no shift, SNR {made.snr:g} (the variance of the signal over that "
        "of the noise, inside the box; the paper's is not printed)."
    )
    simulated = simulate_particles(made)
    return write_sample(
        setting.samples, "hinge", description, simulated.images, budget.held_out, simulated.truth
    )


def _fit(setting: Setting, sample: Sample, contender: Contender, seed: int) -> Fit:
    plan, budget = setting.plan, setting.plan.hinge
    more = {"data": {"normalize": "image"}, "model": {"likelihood": noise_of(plan)}}
    recipe, options = configured(plan, budget, contender.model, contender.z_dim, more)
    return Fit(
        name=f"hinge-{contender.model}-z{contender.z_dim}-seed{seed}",
        sample=sample,
        recipe=recipe,
        options=options,
        seed=seed,
        max_minutes=budget.minutes,
        importance=budget.importance,
    )


# --- what is shown ----------------------------------------------------------------------------


def _show(setting: Setting, by: By, page: Page) -> Sequence[str]:
    best = {c: max(results, key=lambda r: r.score.elbo) for c, results in by.items()}
    scores = [score_row(r, {"model": c.title}) for c, results in by.items() for r in results]
    null = null_row(best[SPATIAL], scores[0], {"model": LABEL})
    return [
        "### Table 1: content and rotation against the truth",
        *_table_1(by, page),
        "### Figure 4: conformations",
        _figure_4(setting, best, page),
        "### Appendix Figure 4: ELBO during training",
        page.figure("appendix-4", _curves(by, null), "Appendix Figure 4: one line per seed"),
        page.table("appendix-4", "Appendix Figure 4: scores", [*scores, null]),
        score_note([r for results in by.values() for r in results]),
        NOTE,
        "### Appendix Figure 5: the manifold of the 2-d VAE",
        _appendix_5(best[VAE_2], page),
    ]


def _table_1(by: By, page: Page) -> Sequence[str]:
    seeds: list[Row] = []
    for contender, results in by.items():
        for result in results:
            seeds += variable_rows(contender.title, result)
    summary = [_mean_and_sd(title, variable, seeds) for title, variable in _variables(seeds)]
    digits = dict.fromkeys(["|r| hinge", "sd", "R rotation", "resultant", "JS", "JS sd"], 3)
    digits |= {"resultant sd": 3, "|r| sd": 3, "R sd": 3}
    note = (
        "On held-out images. |r| hinge: Pearson's r with the hinge angle (for θ: of the hinge's "
        "best fit by cos θ and sin θ). R rotation: the same for z with the true rotation, the best "
        "fit by its cosine and sine; how much content knows of pose, at best what chance gives, "
        "about √(2/images). Resultant length and RMSE (degrees) of the errors of θ after the one "
        "rotation of the model's frame are the main figures for rotation; 'given hinge' lets the "
        "frame turn with the arm. JS: circular correlation of Jammalamadaka & SenGupta, the "
        "paper's measure (of z as an angle in radians, without its sign), ill-conditioned for "
        "uniform angles: standard deviation about .2 over repeats of a perfect experiment. The "
        "paper reports, for conformation and rotation (JS): spatial-VAE .95 and .01 of z, .01 and "
        ".92 of θ; VAE .00 and .18 (1-d), .09 and .02, .07 and .04 (2-d)."
    )
    return [
        page.table("table-1", "Table 1: mean and standard deviation over seeds", summary, digits),
        page.table("table-1-seeds", "Table 1: every seed", seeds, digits),
        note,
    ]


def variable_rows(title: str, result: Result) -> list[Row]:
    """Return a row of figures for each inferred variable of a fit: z's, then the angle."""
    latents, truth = result.held_out(), result.fit.sample.truth_of_test()
    hinge = truth["hinge_deg"].to_numpy(float)
    angle = truth["angle_deg"].to_numpy(float)
    direction = _on_circle(angle)
    rows: list[Row] = []
    empty = dict.fromkeys(["resultant", "RMSE", "RMSE given hinge"])
    for k in range(result.run.config.model.z_dim):
        z = latents[f"z_{k}"].to_numpy(float)
        labels: Row = {"model": title, "variable": f"z{k + 1}", "seed": result.fit.seed}
        r, turn = abs(metrics.pearson(z, hinge)), metrics.multiple_correlation(direction, z)
        circular = abs(metrics.circular_correlation(np.rad2deg(z), angle))
        rows.append({**labels, "|r| hinge": r, "R rotation": turn, **empty, "JS": circular})
    if "angle_deg" in latents:
        found = recover(latents, truth)
        inferred = _on_circle(latents["angle_deg"].to_numpy(float))
        rows.append(
            {
                "model": title,
                "variable": "θ",
                "seed": result.fit.seed,
                "|r| hinge": metrics.multiple_correlation(inferred, hinge),
                "R rotation": None,
                "resultant": found.rotation_resultant,
                "RMSE": found.rotation_rmse_deg,
                "RMSE given hinge": found.rotation_rmse_given_hinge_deg,
                "JS": found.rotation_circular_correlation,
            }
        )
    return rows


def _on_circle(angle_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    radians = np.deg2rad(angle_deg)
    return np.column_stack([np.cos(radians), np.sin(radians)])


def _variables(rows: Sequence[Row]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((str(row["model"]), str(row["variable"])) for row in rows))


def _mean_and_sd(title: str, variable: str, rows: Sequence[Row]) -> Row:
    """Summarise the seeds of one variable; the standard deviation is that of the sample."""
    mine = [row for row in rows if (row["model"], row["variable"]) == (title, variable)]
    summary: dict[str, str | int | float | None] = {
        "model": title,
        "variable": variable,
        "seeds": len(mine),
    }
    short = {"|r| hinge": "|r| sd", "R rotation": "R sd"}
    for column in ("|r| hinge", "R rotation", "resultant", "RMSE", "RMSE given hinge", "JS"):
        values = [float(v) for row in mine if (v := row[column]) is not None]
        summary[column] = float(np.mean(values)) if values else None
        several = len(values) > 1
        spread = float(np.std(values, ddof=1)) if several else None
        summary[short.get(column, f"{column} sd")] = spread
    return summary


def _figure_4(setting: Setting, best: Mapping[Contender, Result], page: Page) -> str:
    ours = best[SPATIAL]
    noisy = held_out_pictures(ours, range(ACROSS))
    truth = _conformations(setting, ours)
    rows = {
        "truth": drawn(to_unit(truth, grey_range(truth, 0.1)), "lower"),
        "images": drawn(to_unit(noisy, grey_range(noisy)), "lower"),
        "spatial-VAE": _walk(ours),
        "VAE (1-d)": _walk(best[VAE_1]),
    }
    caption = (
        "Figure 4: true conformations from one end of the hinge to the other, turned as the model "
        "draws them; images; what spatial-VAE and the 1-d VAE draw as z goes through the inverse "
        "normal distribution function (of each, the seed with the best held-out ELBO)"
    )
    return page.figure("figure-4", plots.strips(rows), caption)


def _conformations(setting: Setting, result: Result) -> Floats:
    """Draw the truth in equal steps of the hinge, the way up that the model has it."""
    made = _settings(setting)
    latents, truth = result.held_out(), result.fit.sample.truth_of_test()
    _, offset = metrics.align_angles(latents["angle_deg"], truth["angle_deg"])
    low, high = made.hinge_range_deg
    hinge = low + (high - low) * (np.arange(ACROSS) + 0.5) / ACROSS
    if metrics.pearson(latents["z_0"], truth["hinge_deg"]) < 0:
        hinge = hinge[::-1]
    return conformations(made, hinge, offset)


def conformations(made: HingeSettings, hinge_deg: Floats, offset_deg: float) -> Floats:
    """Project the built-in molecule in the upright frame of a model, without noise.

    A model that finds every angle too large by an offset draws its upright object rotated by
    minus that offset.

    Parameters
    ----------
    made
        Box and pixel size.
    hinge_deg
        (n,) hinge angles.
    offset_deg
        Inferred angle minus the true one.

    Returns
    -------
    Floats
        (n, H, W).
    """
    from modpose.simulate.molecules import axis_rotations, hinged_molecule, project
    from modpose.simulate.particles import BEAM

    molecule, n = hinged_molecule(), len(hinge_deg)
    return project(
        molecule.conformations(np.asarray(hinge_deg, np.float64)),
        molecule.sigmas,
        molecule.masses,
        axis_rotations(BEAM, np.full(n, -offset_deg)),
        np.zeros((n, 2)),
        made.box,
        made.pixel_size,
    )


def _walk(result: Result) -> Floats:
    model = result.model()
    pictures = model.decode(manifold_codes(np.zeros((1, 1)), ACROSS))
    return measured_look(pictures, pictures).prediction(pictures)


def _curves(by: By, null: Row) -> Figure:
    lines = {c.title: [learning_curve(result) for result in results] for c, results in by.items()}
    return plots.curves_in_images(lines, {LABEL: float(null["ELBO"] or 0)}, printed=IMAGES_SEEN)


def _appendix_5(result: Result, page: Page) -> str:
    model, n = result.model(), 10
    pictures = model.decode(manifold_codes(np.zeros((1, 2)), n))
    look = measured_look(pictures, pictures)
    caption = (
        "Appendix Figure 5: what the 2-d VAE draws; a model without pose must spend content on "
        "rotation"
    )
    return page.figure("appendix-5", figures.manifold(pictures, n, look, ["z₁", "z₂"]), caption)

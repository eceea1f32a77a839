"""Tables 1 and 2, Figures 2 and 3 of Yi et al. 2021."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modpose.config import merge
from modpose.evaluate import metrics
from modpose.evaluate.recovery import space_errors
from modpose.infer.latents import content_of_table
from modpose.plot import figures, grids
from modpose.plot.figures import DisplayStyle
from modpose.report.volumes import VARIABLES, pose_walk
from studies.common import study
from studies.common.conduct import Study
from studies.common.null import LABEL, NOTE, null_bounds, null_row, null_study
from studies.common.page import Page, Row
from studies.common.study import Fit, Options, Result, processor_minutes
from studies.subtomograms.budgets import COMPARED, MODELS, OURS, Plan
from studies.subtomograms.sets import (
    CENTRAL,
    SNRS,
    VolumeSet,
    clean_volumes,
    make_set,
    symmetries,
)

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

SHOWN = 6
SNAPS = 5


Setting = study.Setting[Plan]
"""What the experiment was requested."""


def make_volumes(setting: Setting, name: str, snr: float | None = None) -> VolumeSet:
    """Simulate a set."""
    plan = setting.plan
    return make_set(
        setting.samples,
        name,
        snr=snr,
        per_class=plan.per_class * (1 if name == "S" else 2),
        held_out=plan.held_out,
        box=plan.box,
        data=setting.data,
        seed=setting.seed,
    )


def make_fit(setting: Setting, model: str, one: VolumeSet) -> Fit:
    """Return the fit of a model to a set."""
    plan = setting.plan
    base: dict[str, Any] = {"data": {"val_fraction": 0.05}, "train": {"epochs": plan.epochs}}
    if model == OURS:
        base = merge(base, _searched(one))
    return Fit(
        name=f"{model}-{one.name}-{one.snr:g}",
        sample=one.sample,
        recipe=model,
        options=merge(base, dict(plan.options.get(model, {}))),
        seed=setting.seed,
        max_minutes=plan.minutes,
        importance=plan.importance,
    )


def _searched(one: VolumeSet) -> dict[str, Any]:
    """What `modpose-3d` is told of a set: how many molecules, how far they move, the wedge."""
    low, high = one.tilt_range_deg
    return {
        "model": {
            "wedge": f"{low:g},{high:g}",
            "encoder": {"max_shift_px": one.reach_px},
            "shift": {"std_px": one.reach_px / math.sqrt(3)},
        },
        "train": {"start": {"classes": len(np.load(one.upright, mmap_mode="r"))}},
    }


# --- Table 1, Figures 2 and 3 -----------------------------------------------------------------


def prepare_noise(setting: Setting) -> Study:
    """The paper's models and ours at three signal-to-noise ratios."""
    sets = [make_volumes(setting, "S", snr) for snr in SNRS]
    fits = {(m, one.snr): make_fit(setting, m, one) for one in sets for m in COMPARED}

    def show(results: Mapping[str, Result], page: Page) -> Sequence[str]:
        found = {key: results[fit.name] for key, fit in fits.items()}
        alike = symmetries(sets[-1])
        rows: list[Row] = []
        for one in sets:
            rows += _rows_of_set({m: found[m, one.snr] for m in COMPARED}, one, alike)
        return [
            page.table("table-1", "Table 1: ELBO and KL at three noise levels", rows),
            "ELBO and KL: nats a held-out volume, constants of the Gaussian density included, so "
            "not comparable with the numbers printed in the paper, whose scale it does not say; "
            "the exact KL of pose and content. IW: importance-weighted bound. Rotation and shift: "
            "median errors after one global rotation and offset per class, modulo its symmetry; "
            "chance: what turning at random gives so. kNN: 5 nearest neighbours in content, chance "
            "12.5 % of eight classes. *Over null*: the ELBO minus that of the null model; where it "
            f"is not above zero, a model has learned nothing yet. {NOTE} A fit is scored by what "
            f"its encoder says; *by search*: the same fit of `{OURS}`, held-out volumes searched "
            "as by `modpose encode --search`.",
            "### Figure 2: truth beside reconstructions",
            _figure_2({m: found[m, CENTRAL] for m in COMPARED}, sets[-1], page),
            "### Figure 3: the six pose variables",
            *(_figure_3(found[m, CENTRAL], m, page) for m in MODELS[1:]),
        ]

    said = [*(one.sample.description for one in sets), _what_was_fitted(setting)]
    return Study("Noise: Table 1, Figures 2 and 3", said, list(fits.values()), show)


def _rows_of_set(found: Mapping[str, Result], one: VolumeSet, alike: Sequence[Tensor]) -> list[Row]:
    """Return the rows of Table 1 of one noise level, the null model's first."""
    rows = [score_row(result, model, one, alike) for model, result in found.items()]
    rows.append(_searched_row(found[OURS], one, alike))
    null = null_row(found["vae-3d"], rows[0], {"model": LABEL, "SNR": f"{one.snr:g}"})
    return [
        {**dict(list(row.items())[:3]), "over null": over_null(row, null), **row}
        for row in [null, *rows]
    ]


def over_null(row: Row, null: Row) -> float:
    """Return how many nats a bound is above that of the null model."""
    return float(row["ELBO"] or 0.0) - float(null["ELBO"] or 0.0)


def score_row(result: Result, model: str, one: VolumeSet, alike: Sequence[Tensor]) -> Row:
    """Return the row of a fit in a table of bounds and recovered poses."""
    score = result.score
    return {
        "model": model,
        "SNR": f"{one.snr:g}",
        "ELBO": score.elbo,
        "s.e.": score.elbo_se,
        "KL": score.kl_pose + score.kl_content,
        "KL pose": score.kl_pose,
        "IW": score.importance_bound,
        **_recovered(result.held_out(), one, alike),
        "epochs": score.epochs,
        "minutes": score.seconds / 60,
        "processor minutes": processor_minutes(result),
    }


def _searched_row(result: Result, one: VolumeSet, alike: Sequence[Tensor]) -> Row:
    """Score a fit by the search for the poses of the held-out volumes."""
    model = result.model()
    model.quiet = True
    found = model.encode(one.sample.open_test(), search=True)
    pose = float(found.kl_pose.mean(dtype=np.float64))
    return {
        "model": f"{OURS}, by search",
        "SNR": f"{one.snr:g}",
        "ELBO": float(found.elbo.mean(dtype=np.float64)),
        "s.e.": float(found.elbo.std(dtype=np.float64) / math.sqrt(len(found.elbo))),
        "KL": pose + float(found.kl_content.mean(dtype=np.float64)),
        "KL pose": pose,
        "IW": None,
        **_recovered(found.to_dataframe(), one, alike),
        "epochs": None,
        "minutes": None,
        "processor minutes": None,
    }


def _recovered(found: pd.DataFrame, one: VolumeSet, alike: Sequence[Tensor]) -> Row:
    """Compare what was inferred of the held-out volumes with the truth."""
    truth = one.sample.truth_of_test()
    posed = "r00" in found
    aligned, _, moved = space_errors(found, truth, alike) if posed else (None, None, None)
    classes = truth["class"].to_numpy()
    k = min(5, len(classes) - 1)
    return {
        "rotation (°)": None if aligned is None else float(np.median(aligned)),
        "shift (px)": None if moved is None else float(np.median(moved)),
        "kNN (%)": 100 * metrics.knn_accuracy(content_of_table(found), classes, k),
    }


def _figure_2(results: Mapping[str, Result], one: VolumeSet, page: Page) -> str:
    """Clean held-out volumes, what was recorded of them, and each model's reconstruction."""
    count = min(SHOWN, len(np.load(one.sample.test)))
    rows = np.arange(count, dtype=np.int64)
    source = one.sample.open_test().subset(rows)
    lines = {"truth": clean_volumes(one, rows)}
    for name, result in results.items():
        model = result.model()
        if "recorded" not in lines:
            lines["recorded"] = model.dataset(source).batch(rows).image[:, 0].numpy()
        lines[name] = model.reconstruct(source)
    pictures = {k: _unit(grids.volume_pictures(v)) for k, v in lines.items()}
    figure = figures.traversals(np.stack(list(pictures.values())), list(pictures), _UNIT)
    caption = (
        "Figure 2: held-out volumes without noise, as recorded, and as reconstructed; each is its "
        "mean along z, y and x, each row has its own grey scale"
    )
    return page.figure("figure-2", figure, caption)


def _figure_3(result: Result, name: str, page: Page) -> str:
    model, found = result.model(), result.held_out()
    z = content_of_table(found).astype(np.float32)[0]
    walk = pose_walk(model, z, SNAPS)
    levels = grids.grey_range(walk, 0.1)
    figure = figures.traversals(walk, VARIABLES, DisplayStyle(levels, levels, "lower"))
    caption = (
        f"Figure 3, {name}: content of the first held-out volume while yaw, pitch and roll go from "
        "-2 to 2 radians and shifts from -0.3 to 0.3 of the box, one at a time"
    )
    file = name.replace("+", "p")
    return page.figure(f"figure-3-{file}", figure, caption)


_UNIT = DisplayStyle((0.0, 1.0), (0.0, 1.0), "lower")


def _unit(pictures: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(grids.to_unit(pictures, grids.grey_range(pictures, 0.2)))


def _what_was_fitted(setting: Setting) -> str:
    plan, said = setting.plan, []
    for model in COMPARED:
        given = plan.options.get(model)
        said.append(f"`{model}`" + ("" if not given else f" with {_flat(given)}"))
    until = f"epochs: {plan.epochs}" if plan.minutes is None else f"{plan.minutes:g} minutes each"
    return (
        f"Recipes {'; '.join(said)}; {until}. None is told of the CTF; `modpose-3d` is told of the "
        "wedge, how far objects are moved at most, and how many molecules there are."
    )


def _flat(options: Options, prefix: str = "") -> str:
    parts = []
    for key, value in options.items():
        name = f"{prefix}{key}"
        nested = isinstance(value, Mapping)
        parts.append(_flat(value, f"{name}.") if nested else f"`{name}={value}`")
    return ", ".join(parts)


def prepare_null(setting: Setting) -> Study:
    """The null model of every set, without a fit."""
    sets = [make_volumes(setting, "S", snr) for snr in SNRS]
    sets += [make_volumes(setting, name) for name in ("R", "C")]
    named = {f"{one.name}, SNR {one.snr:g}": make_fit(setting, "vae-3d", one) for one in sets}
    return null_study(named)


# --- Table 2 ----------------------------------------------------------------------------------


def prepare_domains(setting: Setting) -> Study:
    """Train on one set, test on another."""
    sets = {
        "S": make_volumes(setting, "S", CENTRAL),
        "R": make_volumes(setting, "R"),
        "C": make_volumes(setting, "C"),
    }
    fits = {(m, name): make_fit(setting, m, one) for name, one in sets.items() for m in MODELS}
    columns = [("S", "S"), ("R", "R"), ("C", "C"), ("S", "R"), ("S", "C"), ("C", "R"), ("R", "C")]

    def show(results: Mapping[str, Result], page: Page) -> Sequence[str]:
        rows: list[Row] = []
        for m in MODELS:
            row: dict[str, str | float] = {"model": m}
            for train, test in columns:
                result = results[fits[m, train].name]
                if train == test:
                    row[f"{train}→{test}"] = result.score.elbo
                    continue
                model = result.model()
                model.quiet = True
                elbo = model.encode(sets[test].sample.open_test()).elbo
                row[f"{train}→{test}"] = float(elbo.mean(dtype=np.float64))
            rows.append(row)
        nulls: dict[str, str | float] = {"model": LABEL}
        for train, test in columns:
            of_mean = null_bounds(fits["vae-3d", train], sets[test].sample.open_test())
            nulls[f"{train}→{test}"] = float(of_mean.mean())
        rows.append(nulls)
        return [
            page.table("table-2", "Table 2: ELBO of models trained on one set, on another", rows),
            NOTE,
            "Nats a held-out volume of the set named second; every volume has zero mean and unit "
            "standard deviation.",
        ]

    said = [one.sample.description for one in sets.values()]
    said.append(
        "R and C stand in for the paper's two real sets (bacterial RNA polymerase, and seven kinds "
        "of single particles), which are not public in this form: other molecules, other noise, "
        "another tilt range."
    )
    return Study("Domains: Table 2", said, list(fits.values()), show)

"""The alphanumeric set: Figures 3, 6, 8, 10, 11 and 12, and pose as geometry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from modpose.evaluate.metrics import align_angles, resultant_length
from modpose.simulate import characters
from studies.affinity import figures
from studies.affinity.budgets import BETA, GAMMA, WEIGHTED, Model, affinity_vae, beta_vae
from studies.affinity.common import (
    DIGITS,
    NAME,
    NOTE,
    SEEN,
    Found,
    Setting,
    class_matrix,
    found_all,
    make_fit,
    metric_of_characters,
)
from studies.affinity.pose_channel import linearity_by_class
from studies.common.conduct import Study
from studies.common.null import LABEL, null_row
from studies.common.null import NOTE as NULL_NOTE
from studies.common.page import Page, Row
from studies.common.samples import Made, Sample, sample_once
from studies.common.study import Fit, Options, Result

MORE: Options = {"data": {"normalize": "range"}}
Show = Callable[[dict[Model, Found], Mapping[str, Result], Page], Sequence[str]]


# --- data and fits ----------------------------------------------------------------------------


def sample_of(setting: Setting) -> Sample:
    """Seen characters, some of them held out, and the unseen ones."""
    sizes = setting.plan.characters
    description = (
        f"Characters in Pillow's font, |θ| < 45°, {sizes.box} × {sizes.box} binary pixels: "
        f"{sizes.images:,} of {', '.join(characters.SEEN)} to fit, {sizes.held_out:,} of them held "
        f"out, {sizes.unseen:,} of {', '.join(characters.UNSEEN)}, which no fit sees."
    )
    return sample_once(setting.samples, "characters", description, lambda: _make(setting))


def _make(setting: Setting) -> Made:
    sizes = setting.plan.characters
    parts = [
        characters.simulate_alphanumeric(
            characters.CharacterSettings(n=n, characters=which, box=sizes.box, seed=seed)
        )
        for seed, (which, n) in enumerate(
            [(characters.SEEN, sizes.images + sizes.held_out), (characters.UNSEEN, sizes.unseen)],
            start=setting.seed,
        )
    ]
    images = np.concatenate([part.images for part in parts])
    truth = pd.concat([part.truth for part in parts], ignore_index=True)
    truth = truth.rename(columns={"template": NAME}).drop(columns="class")
    truth[SEEN] = np.repeat([1, 0], [len(part.images) for part in parts])
    return (255 * images).astype(np.uint8), sizes.held_out + sizes.unseen, truth


def _fit(setting: Setting, model: Model) -> Fit:
    from modpose.simulate.digits import glyphs

    names, box = characters.SEEN, setting.plan.characters.box
    templates = glyphs(names, box)
    matrix = class_matrix(setting, "characters", model.similarity, templates, names)
    sample = sample_of(setting)
    return make_fit(setting, setting.plan.characters, sample, model, matrix, MORE)


def _study(setting: Setting, title: str, said: str, models: Sequence[Model], show: Show) -> Study:
    fits = {model: _fit(setting, model) for model in models}

    def shown(results: Mapping[str, Result], page: Page) -> Sequence[str]:
        return show(found_all(fits, results), results, page)

    return Study(title, [sample_of(setting).description, said], list(fits.values()), shown)


def _table(
    page: Page, name: str, caption: str, by: Mapping[Model, Found], **more: Mapping[Model, Any]
) -> str:
    rows: list[Row] = [
        {"model": model.title, **found.row(), **{k: v[model] for k, v in more.items()}}
        for model, found in by.items()
    ]
    return page.table(name, caption, rows, DIGITS | dict.fromkeys(more, 3))


def shaped(gamma: float = GAMMA) -> Model:
    """affinity-VAE with the affinities that characters have."""
    return affinity_vae(gamma, metric_of_characters()[0])


def with_geometry() -> Model:
    """The same affinity on a model whose pose is geometry."""
    metric = metric_of_characters()[0]
    return Model(
        f"modpose-{metric}",
        f"modpose with affinity, γ = {GAMMA:g}",
        beta=None,
        similarity=metric,
        recipe="modpose",
        options={"model": {"likelihood": {"kind": "bernoulli"}, "shift": {"std_px": 2.0}}},
    )


def _computed() -> str:
    """Say what the affinities of characters are."""
    metric, called = metric_of_characters()
    if metric == "soap":
        return "Affinities of upright characters by SOAP, as in the paper."
    return (
        f"Affinities of upright characters by the {called}, **not by SOAP** as in the paper: the "
        "package dscribe, which SOAP needs, is not installed."
    )


# --- Figures 3, 6 and 8 -----------------------------------------------------------------------


def prepare(setting: Setting) -> Study:
    """Fit affinity-VAE with SOAP, and β-VAE."""
    return _study(
        setting,
        "Characters: Figures 3, 6 and 8",
        f"{_computed()} affinity-VAE, γ = {GAMMA:g}, β = {BETA:g}, against the β-VAE "
        f"(γ = 0, no pose channel). {WEIGHTED} {NOTE}",
        [shaped(), beta_vae()],
        lambda by, results, page: _show(setting, by, page),
    )


def _show(setting: Setting, by: dict[Model, Found], page: Page) -> list[str]:
    plain, quick = beta_vae(), setting.plan.small
    named = shaped()
    found = by[named]
    taken = found.confusion("within")
    nearest = found.confusion().most_often()
    kin = "; ".join(f"{name} → {nearest[name]}" for name in characters.UNSEEN)
    panels = {model.title: by[model] for model in (plain, named)}
    return [
        _table(page, "characters", "Characters", by),
        page.figure(
            "figure-3-embedding",
            figures.embeddings({named.title: found}, setting.seed, quick),
            "Figure 3, left: fitted (faint), held-out and unseen (crosses) characters",
        ),
        page.figure(
            "figure-3",
            figures.confusions(
                {"two standard deviations": taken, "five neighbours": found.confusion()}
            ),
            "Figure 3, right: what held-out seen and unseen characters (rows) are taken for",
        ),
        f"Most unseen characters fall to: {kin}.",
        *_pose(found, page),
        page.figure(
            "figure-8-embedding",
            figures.embeddings(panels, setting.seed, quick, across=2),
            "Figure 8, top: without affinity (left) and with it",
        ),
        page.figure(
            "figure-8",
            figures.proximity({title: one.known for title, one in panels.items()}),
            "Figure 8, bottom: distances between the centres of classes, the largest 100",
        ),
    ]


def _pose(found: Found, page: Page) -> list[str]:
    """Figure 6: the pose channel against the true angle."""
    if found.channel is None:
        return []
    seen = found.seen
    angle = found.truth["angle_deg"].to_numpy(float)[seen]
    channel, names = found.channel[seen], found.names[seen]
    by_class = linearity_by_class(channel, angle, names)
    told = np.isin(names, list(by_class))
    angle, channel, names = angle[told], channel[told], names[told]
    rows: list[Row] = [
        {
            "character": name,
            "component": one.component,
            "r": one.pearson,
            "slope (1/°)": one.slope,
            "r, whole channel": one.multiple,
        }
        for name, one in by_class.items()
    ]
    own = np.array([by_class[name].component for name in names])
    line = channel[np.arange(len(channel)), own]
    return [
        page.table(
            "figure-6",
            "Figure 6: the pose channel against the true angle, by character",
            rows,
            {"r": 3, "slope (1/°)": 4, "r, whole channel": 3},
        ),
        page.figure(
            "figure-6",
            figures.pose_lines(angle, line, names, list(by_class)),
            "Figure 6: the component that follows the angle best, with the line of least squares",
        ),
    ]


# --- sweeps -----------------------------------------------------------------------------------


def prepare_beta(setting: Setting) -> Study:
    """Fit β-VAEs of several β."""
    models = [beta_vae(beta) for beta in setting.plan.betas]
    return _study(
        setting,
        "β, without affinity: Figure 10",
        "γ = 0 and no pose channel.",
        models,
        lambda by, results, page: _sweep(setting, by, page, "figure-10", "β", "beta"),
    )


def prepare_gamma(setting: Setting) -> Study:
    """Fit affinity-VAEs of several γ."""
    models = [shaped(gamma) for gamma in setting.plan.gammas]
    return _study(
        setting,
        "γ: Figure 11",
        f"β = {BETA:g}, with the pose channel throughout. {_computed()} {WEIGHTED}",
        models,
        lambda by, results, page: _sweep(setting, by, page, "figure-11", "γ", "gamma"),
    )


def _sweep(
    setting: Setting, by: dict[Model, Found], page: Page, name: str, symbol: str, attribute: str
) -> list[str]:
    at = [float(getattr(model, attribute)) for model in by]
    panels = {f"{symbol} = {value:g}": found for value, found in zip(at, by.values(), strict=True)}
    follows = [matrix_agreement(setting, found) for found in by.values()]
    lines = {
        "kNN 5 accuracy": (at, [found.accuracy() for found in by.values()]),
        "centres follow affinities (r)": (at, follows),
    }
    number = name.removeprefix("figure-")
    return [
        _table(
            page,
            name,
            f"Characters, {symbol}",
            by,
            follows=dict(zip(by, follows, strict=True)),
        ),
        "Follows: correlation, over pairs of classes, of the cosine between their mean contents "
        "with their affinity.",
        page.figure(
            name,
            figures.embeddings(panels, setting.seed, setting.plan.small),
            f"Figure {number}: contents of characters for several {symbol}",
        ),
        page.figure(
            f"{name}-curves", figures.against(symbol, lines), f"Figure {number} in two numbers"
        ),
    ]


def matrix_agreement(setting: Setting, found: Found) -> float:
    """Correlate cosines between class means with their affinities."""
    from modpose.affinity import read_affinity
    from modpose.simulate.digits import glyphs

    names, box = characters.SEEN, setting.plan.characters.box
    metric = metric_of_characters()[0]
    path = class_matrix(setting, "characters", metric, glyphs(names, box), names)
    wanted = read_affinity(path).subset(found.known.names).values
    unit = found.known.centroids()
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    pairs = np.triu_indices(len(unit), 1)
    return float(np.corrcoef((unit @ unit.T)[pairs], wanted[pairs])[0, 1])


# --- Figure 12, pose as geometry --------------------------------------------------------------


def prepare_similarity(setting: Setting) -> Study:
    """Fit affinity-VAE with SOAP and with FRC."""
    models = [shaped(), affinity_vae(similarity="fsc")]
    called = metric_of_characters()[1]
    titles = dict(zip(models, (called, "FSC (ring correlation)"), strict=True))

    def show(by: dict[Model, Found], results: Mapping[str, Result], page: Page) -> list[str]:
        panels = {titles[model]: found for model, found in by.items()}
        rows: list[Row] = [
            {
                "affinity": titles[model],
                **found.row(),
                "reconstruction": results[_fit(setting, model).name].score.recon,
            }
            for model, found in by.items()
        ]
        rows.append(null_row(next(iter(results.values())), rows[0], {"affinity": LABEL}))
        return [
            page.table("figure-12", "Characters, by what the affinities are", rows, DIGITS),
            NULL_NOTE,
            page.figure(
                "figure-12",
                figures.embeddings(panels, setting.seed, setting.plan.small, across=2),
                f"Figure 12: contents with affinities by {called} and by FSC",
            ),
        ]

    said = f"{_computed()} Beside them Fourier ring correlation."
    return _study(setting, f"{called} against FSC: Figure 12", said, models, show)


def prepare_pose(setting: Setting) -> Study:
    """Fit affinity on a model whose pose is geometry."""

    def show(by: dict[Model, Found], results: Mapping[str, Result], page: Page) -> list[str]:
        rows: list[Row] = [
            {"model": model.title, **found.row(), **_angles(setting, model, found, results)}
            for model, found in by.items()
        ]
        digits = DIGITS | {"angle, resultant": 3, "angle, RMS (°)": 1}
        return [page.table("pose", "Where the pose goes", rows, digits)]

    return _study(
        setting,
        "Pose as a channel, or as geometry",
        f"{_computed()} The same affinities on the recipe `modpose`, whose pose is an angle and a "
        "shift, so that content is free of them. Of the pose channel the angle is read by its "
        "best linear fit within each class, made on these very images; of `modpose` it is "
        "inferred, and one offset per class is taken off.",
        [shaped(), with_geometry()],
        show,
    )


def _angles(
    setting: Setting, model: Model, found: Found, results: Mapping[str, Result]
) -> dict[str, Any]:
    """Errors of the angle after each class's own offset (or linear fit of the pose channel)."""
    seen = found.seen
    true, names = found.truth["angle_deg"].to_numpy(float)[seen], found.names[seen]
    errors = []
    for name in sorted(set(names)):
        mine = names == name
        if found.channel is not None:
            design = np.column_stack([np.ones(mine.sum()), found.channel[seen][mine]])
            fitted = design @ np.linalg.lstsq(design, true[mine], rcond=None)[0]
            errors.append(fitted - true[mine])
        else:
            table = results[_fit(setting, model).name].held_out()
            errors.append(align_angles(table["angle_deg"].to_numpy()[seen][mine], true[mine])[0])
    every = np.concatenate(errors)
    return {
        "angle, resultant": resultant_length(every),
        "angle, RMS (°)": float(np.sqrt(np.mean(every**2))),
    }

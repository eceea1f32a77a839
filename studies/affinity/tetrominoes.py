"""Tetrominoes in three dimensions: Figures 4 and 13, γ to 1000, widths, and the descriptors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modpose.evaluate.latent_map import Between
from modpose.search.alignment import LEAST_BOX
from modpose.simulate import tetrominoes
from modpose.simulate.subtomogram_settings import SubtomogramSettings
from modpose.simulate.subtomograms import simulate_subtomograms
from studies.affinity import descriptors, figures
from studies.affinity.budgets import (
    BETA_3D,
    CLEAN,
    GAMMA_3D,
    WEIGHTED,
    Z_DIM,
    Z_DIM_3D,
    Condition,
    Model,
    affinity_vae_3d,
    beta_vae,
)
from studies.affinity.common import (
    DIGITS,
    NAME,
    NOTE,
    SEEN,
    Found,
    Setting,
    class_matrix,
    make_fit,
)
from studies.common.conduct import Study
from studies.common.null import LABEL, null_row
from studies.common.null import NOTE as NULL_NOTE
from studies.common.page import Page, Row
from studies.common.samples import Made, Sample, sample_once
from studies.common.study import Fit, Options, Result

CUBE = 6 / 32
"""Side of a cube as a fraction of the box."""
GAMMA_SEARCHED = 10.0
"""Weight of the affinity where content starts as structures far from one another."""
MOVED: Options = {"train": {"augment": {"rotate": "quarter-turns", "shift_px": 2}}}
AFFINITY = affinity_vae_3d()
MOVING = Model("affinity-fsc-moved", "affinity-VAE, moved images", None, None, options=MOVED)
"""The recipe's own weights, and training images that are rotated and shifted afresh each epoch."""
HARMONIC = Model("affinity-harmonic", "affinity-harmonic", None, None, recipe="affinity-harmonic")
"""Content that cannot turn with the object."""
HALVED = Model(
    "affinity-harmonic-half-box",
    "affinity-harmonic, half box",
    None,
    None,
    recipe="affinity-harmonic",
    options={"train": {"augment": {"shift_px": 1}}},
)
"""The same of volumes brought to half as many voxels a side."""
SEARCHED = Model(
    "affinity-modpose-half-box",
    "modpose-3d and affinity, half box",
    GAMMA_SEARCHED,
    None,
    recipe="modpose-3d",
    options={"train": {"start": {"classes": len(tetrominoes.CLASSES), "motions": 0}}},
)
"""Poses and as many structures as there are classes are searched for without labels; then affinity.

The wedge is part of the model.
"""
PLAIN = beta_vae(BETA_3D, Z_DIM_3D)
MODELS = (PLAIN, AFFINITY, MOVING, HALVED)
PLACES = DIGITS | {"EL to E": 2, "EL to L": 2}
"""Decimals of tables that place the fusion, too."""


# --- data -------------------------------------------------------------------------------------


def sample_of(setting: Setting, condition: Condition = CLEAN) -> Sample:
    """Volumes of the six classes, some of them held out, and of the fusion."""
    sizes = setting.plan.tetrominoes
    description = (
        f"Tetrominoes, {sizes.box}³ voxels, Haar rotations, {condition.title}: {sizes.images:,} of "
        f"{', '.join(tetrominoes.CLASSES)} to fit, {sizes.held_out:,} of them held out, "
        f"{sizes.unseen:,} of {tetrominoes.UNSEEN}, which no fit sees."
    )
    make = partial(_make, setting, condition)
    return sample_once(setting.samples, f"tetrominoes-{condition.slug}", description, make)


def _make(setting: Setting, condition: Condition) -> Made:
    """Simulate all of them at once, so that one noise variance holds for the set."""
    sizes = setting.plan.tetrominoes
    known = sizes.images + sizes.held_out
    kinds = len(tetrominoes.CLASSES)
    shares = (*(known / kinds for _ in range(kinds)), float(sizes.unseen))
    made = simulate_subtomograms(
        SubtomogramSettings(
            n=known + sizes.unseen,
            box=sizes.box,
            pixel_size=1.0,
            noise="none" if condition.snr is None else "white",
            snr=condition.snr or 1.0,
            max_shift_px=condition.shift,
            tilt_range_deg=(-condition.tilt, condition.tilt),
            abundances=shares,
            seed=setting.seed,
        ),
        tetrominoes.tetromino_species((*tetrominoes.CLASSES, tetrominoes.UNSEEN), CUBE * sizes.box),
    )
    truth = made.truth.rename(columns={"template": NAME}).drop(columns=["class", "elongation"])
    truth[SEEN] = (truth[NAME] != tetrominoes.UNSEEN).astype(int)
    order = np.argsort(1 - truth[SEEN].to_numpy(), kind="stable")
    volumes = made.volumes(order)
    if condition.snr is None and condition.tilt == 90.0:
        volumes = np.rint(255 * volumes).astype(np.uint8)
    n_test = len(order) - sizes.images
    return volumes, n_test, truth.iloc[order].reset_index(drop=True)


def templates(setting: Setting) -> NDArray[np.float32]:
    """Return the six classes upright, (6, D, H, W)."""
    box = setting.plan.tetrominoes.box
    return np.stack(
        [
            tetrominoes.tetromino(name, CUBE * box).place(np.eye(3), np.zeros(3), box, 1.0)
            for name in tetrominoes.CLASSES
        ]
    )


# --- fits -------------------------------------------------------------------------------------


def fit_of(setting: Setting, model: Model, seed: int = 0, condition: Condition = CLEAN) -> Fit:
    """Lay out one fit of tetrominoes."""
    names = tetrominoes.CLASSES
    matrix = class_matrix(setting, "tetrominoes", model.similarity, templates(setting), names)
    exact = condition.snr is None and condition.tilt == 90.0
    more: dict[str, Any] = {"data": {"normalize": "range" if exact else "image"}}
    half = setting.plan.tetrominoes.box // 2
    if model == HALVED or (model == SEARCHED and half >= LEAST_BOX):
        more["data"]["box"] = half
    if model == SEARCHED and condition.tilt < 90.0:
        more["model"] = {"wedge": f"{-condition.tilt:g},{condition.tilt:g}"}
    sample = sample_of(setting, condition)
    return make_fit(setting, setting.plan.tetrominoes, sample, model, matrix, more, seed)


By = dict[Model, list[Found]]


def _study(setting: Setting, title: str, said: str, models: Sequence[Model], show: Any) -> Study:
    """Fit each model with each of its seeds and show what they found, by model."""
    seeds = range(setting.plan.seeds) if models == MODELS else range(1)
    fits = {model: [fit_of(setting, model, seed) for seed in seeds] for model in models}

    def shown(results: Mapping[str, Result], page: Page) -> Sequence[str]:
        by = {m: [Found.of(results[f.name]) for f in each] for m, each in fits.items()}
        return list(show(by, {m: results[each[0].name] for m, each in fits.items()}, page))

    every = [fit for each in fits.values() for fit in each]
    return Study(title, [sample_of(setting).description, said], every, shown)


def prepare(setting: Setting) -> Study:
    """Fit affinity-VAE and β-VAE, each with several seeds."""
    count = setting.plan.seeds
    return _study(
        setting,
        "Tetrominoes: Figure 4",
        f"FSC affinities of upright shapes; z = {Z_DIM_3D}, β = {BETA_3D:g}, γ = {GAMMA_3D:g}. "
        f"{WEIGHTED} {count} {'seeds' if count > 1 else 'seed'}, means and "
        "standard deviations over them. "
        + NOTE
        + " Moved images: the recipe's own γ and β, and training "
        "images that are rotated and shifted afresh each epoch; so for `affinity-harmonic`, which "
        "sees volumes of half as many voxels a side.",
        MODELS,
        lambda by, results, page: _show(setting, by, page),
    )


def _show(setting: Setting, by: By, page: Page) -> list[str]:
    panels = {m.title: each[0] for m, each in by.items()}
    rows: list[Row] = [
        {"model": m.title, **mean_row(each), **_fusion(each)} for m, each in by.items()
    ]
    return [
        page.table("tetrominoes", "Tetrominoes", rows, PLACES),
        "EL to E, to L: distance of the centre of the unseen fusion to that of either, over the "
        "distance between the two, mean over seeds; it lies between them where both are below 1.",
        page.figure(
            "figure-4",
            figures.embeddings(panels, setting.seed, setting.plan.small),
            "Figure 4: fitted (faint), held-out and unseen (crosses) tetrominoes, first seed",
        ),
        page.figure(
            "figure-4-distances",
            figures.proximity({t: found.whole() for t, found in panels.items()}),
            "Distances between the centres of classes, the largest 100",
        ),
    ]


def mean_row(each: Sequence[Found]) -> dict[str, Any]:
    """Average the columns of a table over seeds, with the spread of the first."""
    tables = [found.row() for found in each]
    averaged: dict[str, Any] = {}
    for name in tables[0]:
        values = [table[name] for table in tables]
        averaged[name] = None if values[0] is None else float(np.mean(values))
    if len(each) > 1:
        averaged["s.d."] = float(np.std([table["kNN 5"] for table in tables], ddof=1))
    return averaged


def _fusion(each: Sequence[Found]) -> dict[str, Any]:
    places = [Between.of(found.whole(), tetrominoes.UNSEEN, "E", "L") for found in each]
    held = sum(place.holds for place in places)
    return {
        "EL to E": float(np.mean([place.to_first for place in places])),
        "EL to L": float(np.mean([place.to_second for place in places])),
        "between": f"{held} of {len(places)}",
    }


# --- sweeps -----------------------------------------------------------------------------------


def prepare_gamma(setting: Setting) -> Study:
    """Fit several γ."""
    models = [PLAIN, *(affinity_vae_3d(gamma) for gamma in setting.plan.gammas_3d)]
    return _study(
        setting,
        "γ on tetrominoes, to 1000: section 3.5",
        f"β = {BETA_3D:g}, z = {Z_DIM_3D}; γ = 0 is the β-VAE. {WEIGHTED}",
        models,
        lambda by, results, page: _sweep(setting, by, results, page, "gamma-3d", "γ", "gamma"),
    )


def prepare_width(setting: Setting) -> Study:
    """Fit several widths of content."""
    models = [affinity_vae_3d(z_dim=width) for width in setting.plan.widths]
    return _study(
        setting,
        "Dimensions of content: section 3.5",
        f"γ = {GAMMA_3D:g}, β = {BETA_3D:g}; the paper finds 5 to 9 best.",
        models,
        lambda by, results, page: _sweep(setting, by, results, page, "width", "z", "z_dim"),
    )


def _sweep(
    setting: Setting,
    by: By,
    results: Mapping[Model, Result],
    page: Page,
    name: str,
    symbol: str,
    attribute: str,
) -> list[str]:
    at = [float(getattr(model, attribute)) for model in by]
    recon = [results[model].score.recon for model in by]
    rows: list[Row] = [
        {symbol: value, **mean_row(each), "reconstruction": loss}
        for value, each, loss in zip(at, by.values(), recon, strict=True)
    ]
    lines = {
        "kNN 5 accuracy": (at, [each[0].accuracy() for each in by.values()]),
        "reconstruction (nats)": (at, recon),
    }
    rows.append(null_row(next(iter(results.values())), rows[0], {symbol: LABEL}))
    return [
        page.table(name, f"Tetrominoes, {symbol}", rows, DIGITS | {symbol: 0}),
        NULL_NOTE,
        page.figure(name, figures.against(symbol, lines), f"Tetrominoes, {symbol}"),
    ]


def prepare_similarity(setting: Setting) -> Study:
    """Fit no affinity, mean difference and FSC."""
    titles = {
        PLAIN: "none",
        affinity_vae_3d(similarity="mean-difference"): "mean difference",
        affinity_vae_3d(similarity="mean-absolute-difference"): "mean absolute difference",
        AFFINITY: "FSC",
    }

    def show(by: By, results: Mapping[Model, Result], page: Page) -> list[str]:
        panels = {titles[m]: each[0] for m, each in by.items()}
        rows: list[Row] = [{"affinity": titles[m], **mean_row(each)} for m, each in by.items()]
        return [
            page.table("figure-13", "Tetrominoes, by what the affinities are", rows, DIGITS),
            page.figure(
                "figure-13",
                figures.embeddings(panels, setting.seed, setting.plan.small, across=4),
                "Figure 13: contents with no affinity, mean difference and FSC",
            ),
        ]

    return _study(
        setting,
        "No affinity, mean difference, FSC: Figure 13",
        "The published mean difference is signed; these shapes have one volume, so it makes all "
        "of them alike. The mean absolute difference stands beside it.",
        list(titles),
        show,
    )


# --- against its own descriptor ---------------------------------------------------------------


def prepare_descriptors(setting: Setting) -> Study:
    """Fit the models under every condition, and compare with descriptors that need no fit."""
    models = (MOVING, HALVED)
    fits = {
        (condition, model): fit_of(setting, model, 0, condition)
        for condition in setting.plan.conditions
        for model in models
    }

    def show(results: Mapping[str, Result], page: Page) -> list[str]:
        blocks = [NOTE]
        for condition in setting.plan.conditions:
            rows: list[Row] = [
                {"way": way, **found.row(), **_fusion([found])}
                for way, found in descriptors.found_by_descriptors(
                    sample_of(setting, condition)
                ).items()
            ]
            for model in models:
                found = Found.of(results[fits[condition, model].name])
                rows.append({"way": model.title, **found.row(), **_fusion([found])})
            title = f"Tetrominoes, {condition.title}"
            blocks.append(page.table(f"descriptors-{condition.slug}", title, rows, PLACES))
        return blocks

    return Study(
        "Against its own descriptor",
        [
            "Descriptors need no training: the same five neighbours among the same fitted volumes, "
            "in the space of the voxels (raw cosine), of whitened spectra (FSC, as they lie), of "
            "rotation-invariant power by radius and harmonic degree about the centre of the box or "
            f"of the mass, and of SOAP where its package is installed; at half box, of volumes "
            "brought to half as many voxels a "
            f"side first, which leaves out much of the noise. {Z_DIM} dimensions of content.",
        ],
        list(fits.values()),
        show,
    )


# --- beside a pose that is geometry -------------------------------------------------------------


def prepare_posed(setting: Setting) -> Study:
    """Fit `modpose-3d` with the affinity wherever there is noise, which it learns from."""
    noisy = [condition for condition in setting.plan.conditions if condition.snr is not None]
    fits = {condition: fit_of(setting, SEARCHED, 0, condition) for condition in noisy}

    def show(results: Mapping[str, Result], page: Page) -> list[str]:
        rows: list[Row] = []
        for condition in noisy:
            result = results[fits[condition].name]
            by = {"encoder": Found.of(result), "search": Found.by_search(result)}
            rows += [
                {"volumes": condition.title, "held out by": way, **found.row(), **_fusion([found])}
                for way, found in by.items()
            ]
        return [NOTE, page.table("posed", "modpose-3d and affinity", rows, PLACES)]

    return Study(
        "Tetrominoes with a pose that is geometry",
        [
            f"Recipe `modpose-3d`, γ = {GAMMA_SEARCHED:g}, volumes of half as many voxels a side: "
            "poses and six structures are searched for without labels, then the affinity places "
            "them. The volumes are those of the study `descriptors`."
        ],
        list(fits.values()),
        show,
    )

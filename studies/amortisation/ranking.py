"""Recipes for posed images ranked by the truth, after equal time: maps, motion, classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modpose.config import merge
from modpose.model.settings import SearchSettings
from studies.amortisation.common import (
    SNR,
    Setting,
    fit_options,
    projection_settings,
)
from studies.common.conduct import Study
from studies.common.page import Page, Row
from studies.common.samples import Sample, index_sample
from studies.common.study import Fit, Result

if TYPE_CHECKING:
    import pandas as pd

    from modpose.data.source import Source
    from modpose.evaluate.true_maps import TrueMap

HELD_OUT = 8
REFINING = SearchSettings(refine_steps=10, samples=2)
"""A few steps per image."""


@dataclass(frozen=True)
class Moving:
    """A simulated set.

    Attributes
    ----------
    title
        What tables call it.
    states
        Classes of the built-in molecule; None for one.
    hinge
        Whether its arm turns within 30° either way.
    maps
        True maps of each class.
    z_dim
        Dimensions of content that every recipe gets.
    """

    title: str
    states: int | None
    hinge: bool
    maps: int
    z_dim: int


SETS = {
    "hinge": Moving("hinge", None, True, 10, 1),
    "mixture": Moving("mixture of three", 3, False, 1, 2),
    "both": Moving("mixture of three, all hinged", 3, True, 5, 4),
}
RECIPES = {
    "cryodrgn": "encoder (cryoDRGN)",
    "vlt": "table, random start",
    "evil-twin": "evil twin, another image",
    "modpose-posed": "modpose-posed",
}
REFINED = "encoder, then ten steps per image"


def prepare(setting: Setting) -> Study:
    """Maps against true ones, content against true motion and classes."""
    samples = {name: _sample(setting, name) for name in SETS}
    fits = {(name, r): _fit(setting, samples[name], name, r) for name in SETS for r in RECIPES}
    return Study(
        "Ranked by the truth: a hinge, a mixture, and both",
        [
            " ".join(samples[name].description for name in SETS),
            "*FSC*: mean Fourier shell correlation of the map drawn for each true state with the "
            "true one. *Motion*: |Spearman| of the first principal component of content with the "
            "hinge angle, class by class. *ARI*: k-means of content against the classes; *ARI, "
            "linear*: what a linear discriminant of content says, fitted to other images. *Truth "
            "known*: back-projection of the images of each true state, and the exact posterior "
            "over the true maps.",
        ],
        list(fits.values()),
        lambda results, page: _show(setting, results, page),
    )


def _folder(setting: Setting, name: str) -> Path:
    return setting.samples / f"ranking-{name}" / "images"


def _sample(setting: Setting, name: str) -> Sample:
    from modpose.simulate.conformations import built_in_conformers
    from modpose.simulate.projection_files import write_projections
    from modpose.simulate.projections import BUILT_IN_HINGE, simulate_projections

    budget, moving, folder = setting.plan.particles, SETS[name], _folder(setting, name)
    n = budget.images + budget.held_out
    if not (folder / "particles.star").is_file():
        settings = projection_settings(setting)
        if moving.hinge and moving.states is not None:
            settings = replace(settings, hinge_range_deg=BUILT_IN_HINGE)
        kinds = None if moving.states is None else built_in_conformers(moving.states)
        made = simulate_projections(settings, kinds)
        write_projections(made, folder, moving.maps, overwrite=True)
    description = (
        f"{moving.title.capitalize()}: {budget.images:,} projections to fit, "
        f"{budget.box} × {budget.box} px, SNR {SNR:g}, CTF, Haar poses that are given, z of "
        f"{moving.z_dim}."
    )
    train, test = np.split(np.arange(n), [budget.images])
    test = test[:HELD_OUT]  # nothing of them is shown, and a table has to be fitted to each
    star = str(folder / "particles.star")
    return index_sample(setting.samples, f"ranking-{name}", description, star, train, test)


def _fit(setting: Setting, sample: Sample, name: str, recipe: str) -> Fit:
    budget, z_dim = setting.plan.particles, SETS[name].z_dim
    options = fit_options(recipe, budget, z_dim, budget.epochs)
    if recipe != "modpose-posed":
        # batches of 8 at 1e-4 are for days of a GPU
        learning = {"lr": 1e-3, "batch_size": 32}
        options = merge(options, {"train": learning})
    return Fit(
        name=f"ranking-{name}-{recipe}",
        sample=sample,
        recipe=recipe,
        options=options,
        seed=setting.seed,
        max_minutes=budget.minutes,
        importance=budget.importance,
    )


def _show(setting: Setting, results: Mapping[str, Result], page: Page) -> Sequence[str]:
    rows: list[Row] = []
    for name, moving in SETS.items():
        of_set = {r: results[f"ranking-{name}-{r}"] for r in RECIPES}
        rows += _rows(setting, name, moving, of_set)
    digits = {"FSC": 3, "motion": 3, "ARI": 3, "ARI, linear": 3}
    return [page.table("ranking", "Ranked by the truth", rows, digits)]


def _rows(setting: Setting, name: str, moving: Moving, results: Mapping[str, Result]) -> list[Row]:
    """Score every recipe on a set, and who knows the truth."""
    from modpose.evaluate.conformations import score_conformations
    from modpose.evaluate.true_maps import read_true_maps

    maps = read_true_maps(_folder(setting, name) / "maps")
    source = results["cryodrgn"].fit.sample.open_train()
    truth = source.particles.truth()
    assert truth is not None
    truth = truth.reset_index(drop=True)
    columns = [f"z_{k}" for k in range(moving.z_dim)]
    rows: list[Row] = []
    for recipe, title in RECIPES.items():
        result = results[recipe]
        model = result.model()
        model.quiet = True
        contents = {title: result.run.latents()[columns].to_numpy(float)}
        if recipe == "cryodrgn":
            contents[REFINED] = model.encode(source, search=REFINING).z
        for said, z in contents.items():
            found = score_conformations(model.decode, z, truth, maps, seed=setting.seed)
            rows.append(
                {
                    "set": moving.title,
                    "model": said,
                    "FSC": float(np.mean(found.areas)),
                    "motion": found.motion,
                    "ARI": found.classes,
                    "ARI, linear": found.discriminant,
                    "minutes": result.score.seconds / 60,
                }
            )
    return [*rows, _known(moving, source, truth, maps)]


def _known(moving: Moving, source: Source, truth: pd.DataFrame, maps: Sequence[TrueMap]) -> Row:
    """Score back-projections of the images of each true state, and who has the true maps."""
    from modpose.backprojection.halves import open_posed
    from modpose.evaluate.conformations import reference_areas
    from modpose.evaluate.known_maps import score_known_maps

    dataset = open_posed(source)
    known = score_known_maps(dataset, truth, maps, quiet=True)
    return {
        "set": moving.title,
        "model": "truth known",
        "FSC": float(np.mean(reference_areas(dataset, truth, maps, quiet=True))),
        "motion": known.motion,
        "ARI": known.classes,
        "ARI, linear": None,
        "minutes": None,
    }

"""Which models each study compares under each budget, on how many images, and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from modpose.config import merge
from studies.common.study import Budget, Options

BY_TIME = 1_000_000
"""So many epochs that the time ends the fit."""
GAMMA, BETA, Z_DIM = 8.0, 5.0, 8
"""Of the characters: γ and β of the paper's Figure 3."""
GAMMA_3D, BETA_3D, Z_DIM_3D = 1000.0, 2.0, 7
"""Of tetrominoes and proteins: where accuracy saturates, a small β above 1, and 5 to 9 dimensions,
as section 3.5 of the paper has them."""
WEIGHTED = (
    "γ weighs the affinity term as equation 3 has it: every ordered pair of a batch, over the "
    "number of images (`train.affinity=ordered-pairs`). The authors' program takes the mean over "
    "pairs (`pair-mean`), about a batch size (64) less, and scales the other terms otherwise, too."
)


@dataclass(frozen=True)
class Model:
    """A model that a study fits.

    Attributes
    ----------
    slug, title
        In names of run folders, and in tables.
    gamma, beta
        Weights of the affinity (0 leaves it out) and of the content KL; None: the recipe's own.
    z_dim
        Dimensions of content.
    similarity
        Which matrix it follows: a metric of :data:`modpose.affinity.METRICS`.
    recipe
        ``affinity-vae``, ``conv-vae`` (without affinity and pose channel), or another.
    options
        Laid on the rest.
    """

    slug: str
    title: str
    gamma: float | None = GAMMA
    beta: float | None = BETA
    z_dim: int = Z_DIM
    similarity: str = "fsc"
    recipe: str = "affinity-vae"
    options: Options = field(default_factory=dict, hash=False)


def beta_vae(beta: float = BETA, z_dim: int = Z_DIM) -> Model:
    """Neither affinity nor pose channel: the paper's γ = 0."""
    return Model(f"vae-beta{beta:g}", f"β-VAE, β = {beta:g}", 0.0, beta, z_dim, recipe="conv-vae")


def affinity_vae(
    gamma: float = GAMMA, similarity: str = "fsc", z_dim: int = Z_DIM, beta: float = BETA
) -> Model:
    """affinity-VAE as published."""
    slug = f"affinity-{similarity}-gamma{gamma:g}-beta{beta:g}-z{z_dim}"
    return Model(slug, f"affinity-VAE, γ = {gamma:g}", gamma, beta, z_dim, similarity)


def affinity_vae_3d(
    gamma: float = GAMMA_3D, similarity: str = "fsc", z_dim: int = Z_DIM_3D
) -> Model:
    """affinity-VAE with the weights of the paper's volumes."""
    return affinity_vae(gamma, similarity, z_dim, BETA_3D)


@dataclass(frozen=True)
class Sizes:
    """Sizes of one data set.

    Attributes
    ----------
    images, held_out, unseen
        Numbers to fit, to score on, and of classes that no fit sees.
    box
        Side, pixels.
    epochs, minutes
        What ends a fit; None if time does not.
    importance
        Held-out images, and samples of each, for the importance-weighted bound.
    """

    images: int
    held_out: int
    unseen: int
    box: int
    epochs: int
    minutes: float | None
    importance: tuple[int, int] = (50, 10)


@dataclass(frozen=True)
class Plan:
    """A budget in full.

    Attributes
    ----------
    jobs
        Fits side by side.
    small
        Tiny networks and principal components in place of t-SNE, to try everything in seconds.
    characters, tetrominoes, proteins
        Sizes of the three data sets.
    seeds
        Fits of each model whose mean is requested.
    betas, gammas, gammas_3d, widths
        What the sweeps go through.
    conditions
        Signal-to-noise ratio (None: clean), largest shift and tilt range of the volumes on which
        models are compared with descriptors.
    as_printed
        Only the models of the paper see the proteins.
    """

    jobs: int
    small: bool
    characters: Sizes
    tetrominoes: Sizes
    proteins: Sizes
    seeds: int
    betas: tuple[float, ...]
    gammas: tuple[float, ...]
    gammas_3d: tuple[float, ...]
    widths: tuple[int, ...]
    conditions: tuple[Condition, ...]
    as_printed: bool = False

    def lasting(self, minutes: float) -> Plan:
        """Return the plan with another time for every fit."""
        return replace(
            self,
            characters=replace(self.characters, minutes=minutes),
            tetrominoes=replace(self.tetrominoes, minutes=minutes),
            proteins=replace(self.proteins, minutes=minutes),
        )


@dataclass(frozen=True)
class Condition:
    """How volumes are seen.

    Attributes
    ----------
    snr
        var(signal) / var(noise); None: no noise.
    shift
        Largest shift on an axis, voxels.
    tilt
        Largest tilt, degrees; 90: nothing is missing.
    """

    snr: float | None = None
    shift: float = 0.0
    tilt: float = 90.0

    @property
    def slug(self) -> str:
        """Return it as folders have it."""
        noise = "clean" if self.snr is None else f"snr{self.snr:g}"
        return f"{noise}-shift{self.shift:g}-tilt{self.tilt:g}"

    @property
    def title(self) -> str:
        """Say it as tables do."""
        words = ["clean" if self.snr is None else f"SNR {self.snr:g}"]
        if self.shift:
            words.append(f"shifts ±{self.shift:g}")
        if self.tilt < 90:
            words.append(f"tilts ±{self.tilt:g}°")
        return ", ".join(words)


CLEAN = Condition()
_NOISY = (Condition(0.1, 2.0), Condition(0.05, 2.0), Condition(0.1, 2.0, 60.0))

_SMOKE = Sizes(64, 32, 6, 16, 3, None, (2, 2))
PLANS: dict[Budget, Plan] = {
    "smoke": Plan(
        jobs=1,
        small=True,
        characters=_SMOKE,
        tetrominoes=_SMOKE,
        proteins=_SMOKE,
        seeds=1,
        betas=(1.0, BETA),
        gammas=(0.0, GAMMA),
        gammas_3d=(1.0, GAMMA_3D),
        widths=(2, Z_DIM_3D),
        conditions=(CLEAN, Condition(0.1, 2.0, 60.0)),
    ),
    "scaled": Plan(
        jobs=2,
        small=False,
        characters=Sizes(4000, 800, 300, 64, BY_TIME, 4.0),
        tetrominoes=Sizes(1000, 200, 100, 32, BY_TIME, 8.0),
        proteins=Sizes(600, 200, 100, 32, BY_TIME, 8.0),
        seeds=3,
        betas=(1.0, 2.0, 3.0, 4.0, 5.0),
        gammas=(0.0, 1.0, 3.0, 6.0, 10.0, 20.0),
        gammas_3d=(1.0, 10.0, 100.0, 1000.0),
        widths=(3, 5, 8, 16),
        conditions=(CLEAN, *_NOISY),
    ),
    "full": Plan(
        jobs=1,
        small=False,
        characters=Sizes(8000, 2000, 600, 64, 500, None),
        tetrominoes=Sizes(6000, 1200, 1000, 32, 500, None),
        proteins=Sizes(8000, 1600, 1000, 64, 500, None),
        seeds=3,
        betas=(1.0, 2.0, 3.0, 4.0, 5.0),
        gammas=(0.0, 1.0, 3.0, 4.0, 6.0, 10.0, 20.0),
        gammas_3d=(1.0, 10.0, 100.0, 1000.0),
        widths=(2, 3, 5, 7, 9, 16),
        conditions=(CLEAN, *_NOISY),
    ),
}
PLANS["printed"] = replace(
    PLANS["scaled"],
    jobs=1,
    proteins=Sizes(600, 200, 100, 64, BY_TIME, 60.0),
    tetrominoes=Sizes(1000, 200, 100, 32, BY_TIME, 60.0),
    as_printed=True,
)
"""Boxes and weights of the paper, for a time."""

_SMALL: Mapping[str, Options] = {
    "affinity-harmonic": {
        "encoder": {"lmax": 2, "hidden": 8},
        "field": {"channels": 2, "depth": 2},
    },
    "affinity-vae": {
        "encoder": {"channels": 2, "depth": 2},
        "field": {"channels": 2, "depth": 2},
    },
    "modpose": {
        "encoder": {"angles": 16, "channels": 4, "hidden": 16},
        "field": {"hidden": 16},
    },
    "modpose-3d": {
        "encoder": {"hidden": 16, "cells": 2, "drawn": 1, "hypotheses": 2},
        "field": {"count": 6, "hidden": 8},
    },
}


def configured(plan: Plan, sizes: Sizes, model: Model, more: Options) -> dict[str, Any]:
    """Return the options that budget and study lay on a model's recipe."""
    options: dict[str, Any] = {
        "data": {"val_fraction": 0.1},
        "model": {"z_dim": model.z_dim},
        "train": {
            "epochs": sizes.epochs,
            **{
                name: {"kind": "constant", "end": weight}
                for name, weight in (("beta", model.beta), ("gamma", model.gamma))
                if weight is not None
            },
        },
    }
    if plan.small:
        recipe = "affinity-vae" if model.recipe == "conv-vae" else model.recipe
        options["model"] |= _SMALL[recipe]
        options["train"]["warmup_steps"] = 0
        if recipe == "modpose-3d":
            options["train"]["start"] = {"rounds": 6, "refine_rounds": 1, "rotations": 200}
    for laid in (more, model.options):
        options = merge(options, dict(laid))
    return options

"""How large the studies are under each budget, and how long their fits last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from modpose.config import merge
from studies.common.study import Budget, Options

MODELS = ("vae-3d", "3d-spvae", "3d-spvae++")
"""Of the paper."""
OURS = "modpose-3d"
COMPARED = (*MODELS, OURS)


@dataclass(frozen=True)
class Collapse:
    """The fits that follow the KL at several noise levels.

    Attributes
    ----------
    snrs
        Signal-to-noise ratios.
    per_class
        Volumes of a molecule.
    epochs
        Passes of each fit; time does not end it.
    importance, options
        As of the plan.
    """

    snrs: tuple[float, ...]
    per_class: int
    epochs: int
    importance: tuple[int, int]
    options: Mapping[str, Options]


@dataclass(frozen=True)
class Plan:
    """Sizes and training of the fits of a budget.

    Attributes
    ----------
    jobs
        Fits side by side.
    per_class, held_out, box
        Volumes of a molecule, the fraction of them held out, their side.
    epochs, minutes
        Training ends with whichever is first.
    importance
        Number of held-out volumes and of samples per volume for the importance-weighted bound.
    options
        Laid on every recipe, and by name on one.
    collapse
        The fits of the study of the KL.
    """

    jobs: int
    per_class: int
    held_out: float
    box: int
    epochs: int
    minutes: float | None
    importance: tuple[int, int]
    options: Mapping[str, Options]
    collapse: Collapse

    def lasting(self, minutes: float) -> Plan:
        """Return the plan with another time for every fit."""
        return replace(self, minutes=minutes)


_FAST: dict[str, Any] = {"train": {"lr": 1e-3, "batch_size": 64, "schedule": "cosine"}}
_STEPS: dict[str, Any] = {
    "data": {"val_fraction": 0.0},
    "train": {"lr": 1e-3, "batch_size": 16, "schedule": "cosine"},
}
_COLLAPSE = Collapse(
    snrs=(0.01, 0.05, 0.1, 10.0),
    per_class=20,
    epochs=50,
    importance=(4, 5),
    options={"vae-3d": _STEPS, "3d-spvae": merge(_STEPS, {"train": {"pixels": 100}})},
)
"""Networks as printed, which take 69 GFLOP to decode a volume; so few volumes, no validation."""
_SMOKE: dict[str, Options] = {
    name: {
        "model": {"z_dim": 3, "encoder": {"hidden": 16}, "field": {"hidden": 16} | more},
        "train": {"chunk": 8},
    }
    for name, more in zip(MODELS, ({}, {}, {"channels": [4]}), strict=True)
}
PLANS: dict[Budget, Plan] = {
    "smoke": Plan(
        jobs=1,
        per_class=4,
        held_out=0.25,
        box=16,
        epochs=1,
        minutes=None,
        importance=(3, 2),
        options=_SMOKE
        | {
            OURS: {
                "model": {
                    "encoder": {"hidden": 16, "cells": 2, "drawn": 1, "hypotheses": 2},
                    "field": {"count": 2, "hidden": 8},
                },
                "train": {
                    "start": {"classes": 1, "rounds": 4, "refine_rounds": 1, "rotations": 100}
                },
            }
        },
        collapse=Collapse((0.1, 10.0), 4, 1, (3, 2), _SMOKE),
    ),
    "scaled": Plan(
        jobs=1,
        per_class=100,
        held_out=0.2,
        box=28,
        epochs=100_000,
        minutes=5.0,
        importance=(16, 20),
        options={
            "vae-3d": _FAST,
            "3d-spvae": merge(_FAST, {"model": {"field": {"hidden": 256}}}),
            "3d-spvae++": merge(_FAST, {"model": {"field": {"channels": [16, 8]}}}),
        },
        collapse=_COLLAPSE,
    ),
    "printed": Plan(
        jobs=1,
        per_class=400,
        held_out=0.2,
        box=28,
        epochs=400,
        minutes=60.0,
        importance=(16, 20),
        options={},
        collapse=_COLLAPSE,
    ),
    "full": Plan(
        jobs=1,
        per_class=400,
        held_out=0.2,
        box=28,
        epochs=400,
        minutes=None,
        importance=(100, 100),
        options={"3d-spvae": {"train": {"pixels": None, "chunk": 16}}},
        collapse=_COLLAPSE,
    ),
}

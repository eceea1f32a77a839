"""Ours: pose by search against the model's own prediction."""

from __future__ import annotations

from modpose.recipes.recipe import DENSE, Options, Recipe

_OPTIONS: Options = {
    "model": {
        "z_dim": 2,
        "encoder": {"kind": "polar", "hypotheses": 4},
        "field": DENSE | {"hidden": 512, "activation": "leaky-relu"},
        "rotation": {"prior": "uniform"},
        "shift": {"prior": "gaussian", "std_px": 5.0},
    },
    "train": {
        "lr": 2e-3,
        "batch_size": 50,
        "schedule": "cosine",
        "warmup_steps": 500,
        "pixels": 800,
        "augment_rotation": True,
        "beta": {"kind": "linear", "start": 0.0, "end": 1.0, "steps": 1000},
        "cells": {"kind": "top", "count": 2},
    },
}

MODPOSE: dict[str, Recipe] = {
    "modpose": Recipe(
        title="Rotation by search against the model's own picture, shift by attention",
        description=(
            "An encoder finds the centre and a content that does not turn with the object; every "
            "angle is compared at once with the picture that the model draws of it, and the best "
            "few are kept, each with its weight."
        ),
        paper="this program",
        options=_OPTIONS,
    ),
}

"""How much of each study is done under each budget, and how it is trained."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from modpose.config import merge
from studies.common.study import Budget, Options

BY_TIME = 1_000_000
"""So many epochs that the time ends the fit."""

Model = Literal["spatial-vae", "spatial-vae-rotation", "spatial-vae-fixed", "vae"]


@dataclass(frozen=True)
class StudyBudget:
    """Sizes of one study.

    Attributes
    ----------
    images, held_out
        Largest numbers of images to fit and to score on.
    z_dims
        Dimensions of content.
    epochs, minutes
        What ends a fit; None if time does not.
    importance
        Held-out images, and samples of each, for the importance-weighted bound.
    hidden, encoder_hidden
        Units in each of the two hidden layers of the decoder and of the encoder; None leaves
        those of the recipe.
    seeds
        Number of fits of each model, where a mean is requested.
    options
        Laid on the recipe of models that decode coordinates: how much of the printed training is
        done where all of it would take days.
    """

    images: int
    held_out: int
    z_dims: tuple[int, ...]
    epochs: int
    minutes: float | None
    importance: tuple[int, int]
    hidden: int | None = None
    encoder_hidden: int | None = None
    seeds: int = 1
    options: Options = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A budget in full.

    Attributes
    ----------
    jobs
        Fits side by side.
    as_printed
        Networks and training of the paper (recipe ``spatial-vae-paper``); otherwise each recipe's
        own.
    digits, hinge, galaxies, particles
        Of each study.
    """

    jobs: int
    as_printed: bool
    digits: StudyBudget
    hinge: StudyBudget
    galaxies: StudyBudget
    particles: StudyBudget

    def lasting(self, minutes: float) -> Plan:
        """Return the plan with another time for every fit."""
        return replace(
            self,
            digits=replace(self.digits, minutes=minutes),
            hinge=replace(self.hinge, minutes=minutes),
            galaxies=replace(self.galaxies, minutes=minutes),
            particles=replace(self.particles, minutes=minutes),
        )


_SMOKE = StudyBudget(
    images=60,
    held_out=12,
    z_dims=(2,),
    epochs=3,
    minutes=None,
    importance=(8, 5),
    hidden=16,
    encoder_hidden=16,
)
_SCALED = StudyBudget(
    images=5000,
    held_out=1000,
    z_dims=(2, 5, 10),
    epochs=BY_TIME,
    minutes=5.0,
    importance=(200, 100),
)
_FULL = StudyBudget(
    images=60_000,
    held_out=10_000,
    z_dims=(2, 3, 5, 10, 20, 50),
    epochs=200,
    minutes=None,
    importance=(500, 100),
)

PLANS: dict[Budget, Plan] = {
    "smoke": Plan(
        jobs=1,
        as_printed=False,
        digits=_SMOKE,
        hinge=replace(_SMOKE, seeds=2),
        galaxies=replace(_SMOKE, z_dims=(2, 3), encoder_hidden=32),
        particles=replace(_SMOKE, z_dims=(2, 3)),
    ),
    "scaled": Plan(
        jobs=2,
        as_printed=False,
        digits=replace(_SCALED, images=20_000, held_out=2_000),
        hinge=replace(_SCALED, minutes=8.0, seeds=2, importance=(50, 20)),
        galaxies=replace(
            _SCALED, z_dims=(20, 50, 100), encoder_hidden=1280, minutes=8.0, importance=(100, 100)
        ),
        particles=replace(_SCALED, z_dims=(2, 5, 10, 20), minutes=6.0),
    ),
    "full": Plan(
        jobs=1,
        as_printed=True,
        digits=_FULL,
        hinge=replace(_FULL, images=16_000, held_out=4_000, epochs=500, seeds=3),
        galaxies=replace(
            _FULL, z_dims=(20, 50, 100), encoder_hidden=5000, epochs=300, importance=(200, 100)
        ),
        particles=replace(
            _FULL, z_dims=(2, 5, 10, 20), hidden=1000, encoder_hidden=1000, epochs=1000
        ),
    ),
}

_FEWER: Options = {"train": {"pixels": 50, "lr": 1e-3}}
"""A random choice of pixels, without bias, and ten times the printed rate."""
_BY_HOURS = replace(_FULL, minutes=15.0, options=_FEWER, importance=(50, 20))
PLANS["printed"] = Plan(
    jobs=1,
    as_printed=True,
    digits=replace(_BY_HOURS, images=20_000, held_out=1_000, z_dims=(2, 10), minutes=5.0),
    hinge=replace(_BY_HOURS, images=3_000, held_out=500, epochs=150, seeds=2),
    galaxies=replace(_BY_HOURS, z_dims=(20, 50, 100), encoder_hidden=5000, held_out=200),
    particles=replace(_BY_HOURS, z_dims=(2, 20), hidden=1000, encoder_hidden=1000),
)

_NO_POSE = {"rotation": {"prior": "none"}, "shift": {"prior": "none"}}
_AS_PRINTED: dict[Model, tuple[str, Options]] = {
    "spatial-vae": ("spatial-vae-paper", {"train": {"delay_z_steps": 0}}),
    "spatial-vae-rotation": ("spatial-vae-paper", {"model": {"shift": {"prior": "none"}}}),
    "spatial-vae-fixed": (
        "spatial-vae-paper",
        {"model": _NO_POSE, "train": {"augment": {"rotate": "none"}, "delay_z_steps": 0}},
    ),
    "vae": ("vae", {"train": {"lr": 1e-4}}),
}
"""Recipe and options; the paper holds content in the study of the hinge only."""
_OURS: Options = {"train": {"schedule": "cosine"}}
"""The recipe ``vae`` alone has another schedule."""


def configured(
    plan: Plan, budget: StudyBudget, model: Model, z_dim: int, more: Options
) -> tuple[str, dict[str, Any]]:
    """Return the recipe of a model and the options that the budget lays on it.

    Parameters
    ----------
    plan, budget
        Training and sizes.
    model
        Which of the compared models.
    z_dim
        Dimensions of content.
    more
        What the study sets (likelihood, priors, data), laid on last.
    """
    recipe, training = _AS_PRINTED[model] if plan.as_printed else (model, _OURS)
    if model == "vae":
        budget = replace(budget, options={})
    options: dict[str, Any] = {
        "data": {"val_fraction": 0.05},
        "model": {"z_dim": z_dim},
        "train": {"epochs": budget.epochs},
    }
    for part, units in (("field", budget.hidden), ("encoder", budget.encoder_hidden)):
        if units is not None:
            options["model"][part] = {"hidden": units}
    for laid in (training, budget.options, more):
        options = merge(options, dict(laid))
    return recipe, options

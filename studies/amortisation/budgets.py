"""How much of each study is done under each budget."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from modpose.model.settings import SearchSettings
from studies.common.study import Budget

BY_TIME = 1_000_000
"""So many epochs that the time ends the fit."""


_THOROUGH = SearchSettings(refine_steps=100, samples=8, modes=1)
_SHORT = SearchSettings(refine_steps=30, samples=8)
_BRIEF = SearchSettings(angles=8, nodes=8, modes=1, climb_steps=0, refine_steps=2, samples=2)


@dataclass(frozen=True)
class StudyBudget:
    """Sizes of one study.

    Attributes
    ----------
    images, held_out
        Numbers of images to fit and to score on.
    epochs, minutes
        What ends a fit; None if time does not.
    importance
        Held-out images, and samples of each, for the importance-weighted bound.
    measured
        Images that displacements are measured on.
    refined
        Images, of those fitted and of those held out, whose posteriors are refined for the
        amortisation gap; held-out images that a lookup table is fitted to.
    box
        Side of the images, pixels.
    z_dim
        Dimensions of content, where the study says nothing else.
    options
        Laid on every recipe.
    search
        How long posteriors are refined for the amortisation gap.
    models
        Those of the digits that are fitted, the first of which is the VAE.
    """

    images: int
    held_out: int
    epochs: int
    minutes: float | None
    importance: tuple[int, int]
    measured: int
    refined: int
    box: int
    z_dim: int
    options: dict[str, Any]
    search: SearchSettings = field(default_factory=SearchSettings)
    models: tuple[str, ...] = ("vae", "table", "fixed", "pose", "equivariant")


@dataclass(frozen=True)
class GridBudget:
    """Sizes of the study of generalisation.

    Attributes
    ----------
    snrs, images
        Signal-to-noise ratios, and numbers of images to fit, rising: the sides of the grid.
    held_out
        Number of images that no fit sees.
    seen, longer
        Images that every fit sees, which sets its epochs; and those that fits of the largest
        number of images see once more, from the start.
    pixels
        Random coefficients of an image that are decoded in a step; None decodes all.
    refined
        Images of each kind whose posteriors are refined.
    search
        How long they are.
    box, z_dim
        Side of the images, pixels, and dimensions of content.
    minutes
        What ends a fit before its epochs; None if nothing does.
    options
        Laid on every recipe.
    """

    snrs: tuple[float, ...] = (1.0, 0.1)
    images: tuple[int, ...] = (1000, 3000, 10_000)
    held_out: int = 300
    seen: int = 60_000
    longer: int = 200_000
    pixels: int | None = 128
    refined: int = 100
    search: SearchSettings = _THOROUGH
    box: int = 32
    z_dim: int = 2
    minutes: float | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A budget in full: particles (the moves and the controls), digits, and the grid.

    Fits run one after the other: a table that starts from an encoder's content needs it finished.
    """

    particles: StudyBudget
    digits: StudyBudget
    grid: GridBudget = GridBudget()
    jobs: int = 1

    def lasting(self, minutes: float) -> Plan:
        """Return the plan with another time for every fit."""
        return replace(
            self,
            particles=replace(self.particles, minutes=minutes),
            digits=replace(self.digits, minutes=minutes),
            grid=replace(self.grid, minutes=minutes),
        )


_TINY = {"encoder": {"hidden": 8}, "field": {"hidden": 8, "depth": 1}}

PLANS: dict[Budget, Plan] = {
    "smoke": Plan(
        particles=StudyBudget(24, 4, 1, None, (2, 2), 6, 3, 16, 2, {"model": _TINY}, _BRIEF),
        digits=StudyBudget(40, 4, 1, None, (2, 2), 6, 3, 28, 2, {}, _BRIEF),
        grid=GridBudget((1.0,), (24,), 6, 24, 48, 20, 3, _BRIEF, 16, options={"model": _TINY}),
    ),
    "scaled": Plan(
        particles=StudyBudget(
            3000, 300, BY_TIME, 5.0, (100, 20), 300, 60, 32, 8, {"train": {"lr": 1e-3}}, _SHORT
        ),
        digits=StudyBudget(
            10_000, 1000, BY_TIME, 3.0, (100, 50), 1000, 200, 28, 2, {"train": {"lr": 1e-3}}, _SHORT
        ),
    ),
    "printed": Plan(
        particles=StudyBudget(10_000, 300, 50, 60.0, (100, 20), 300, 60, 64, 8, {}, _SHORT),
        digits=StudyBudget(
            20_000,
            1000,
            100,
            None,
            (100, 20),
            1000,
            100,
            28,
            2,
            {"train": {"lr": 1e-3}},
            _SHORT,
            models=("vae", "table", "table-longer"),
        ),
        grid=GridBudget(seen=1_000_000, longer=4_000_000, pixels=None),
    ),
    "full": Plan(
        particles=StudyBudget(130_000, 2000, 50, None, (500, 100), 2000, 500, 128, 8, {}),
        digits=StudyBudget(
            60_000, 10_000, 50, None, (500, 100), 2000, 500, 28, 2, {"train": {"lr": 1e-2}}
        ),
        grid=GridBudget(
            images=(1000, 10_000, 100_000), seen=2_000_000, longer=10_000_000, pixels=None
        ),
    ),
}

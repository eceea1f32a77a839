"""Settings of an alignment; needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from modpose.errors import InputError
from modpose.limits import check_seed, check_whole

LEAST_BOX = 16
MOST_MOTIONS = 8


@dataclass(frozen=True)
class Schedule:
    """Settings of the search and the refinement of poses and classes.

    Attributes
    ----------
    rounds
        Rounds of the search.
    limits
        Frequency limit of its first and last round, cycles per voxel.
    rotations
        Rotations of the grid.
    grid_limit
        Highest frequency of the grid search, cycles per voxel; the optimisation uses the rest.
    hypotheses
        Number of optimised poses per volume, over all classes.
    climb_steps
        Gauss-Newton steps per round.
    refine_rounds
        Rounds of refinement in two independent halves.
    refine_limit
        Highest frequency of the refinement, cycles per voxel; lower if the halves disagree.
    search_again
        Whether the refinement searches all poses and look-alikes again.  Averages of few volumes
        are poorer than a map that a search started from.
    """

    rounds: int = 40
    limits: tuple[float, float] = (0.10, 0.25)
    rotations: int = 1000
    grid_limit: float = 0.15
    hypotheses: int = 4
    climb_steps: int = 2
    refine_rounds: int = 10
    refine_limit: float = 0.4
    search_again: bool = True


@dataclass(frozen=True)
class AlignSettings:
    """Settings of an alignment.

    Attributes
    ----------
    classes
        Number of structures.
    box
        Volumes are first Fourier-cropped to this many voxels per side; None: not cropped.
    mask_diameter_px
        Averages are zero outside this sphere, voxels of that box; None: the box minus four.
    max_shift_px
        Largest shift along an axis, voxels of that box.
    invert
        Whether molecules are darker than their surroundings.
    rounds, refine_rounds
        Rounds of the search and of the refinement.
    rotations
        Rotations in the grid.
    motions
        Number of principal motions within each class.
    seed
        Seed of all random numbers.
    """

    classes: int = 1
    box: int | None = None
    mask_diameter_px: float | None = None
    max_shift_px: float = 3.0
    invert: bool = False
    rounds: int = Schedule.rounds
    refine_rounds: int = Schedule.refine_rounds
    rotations: int = Schedule.rotations
    motions: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        diameter = 1.0 if self.mask_diameter_px is None else self.mask_diameter_px
        side = LEAST_BOX if self.box is None else self.box
        expectations = (
            ("classes", self.classes, self.classes >= 1, "at least 1"),
            ("box", side, side >= LEAST_BOX, f"at least {LEAST_BOX} voxels"),
            ("mask diameter", diameter, 0 < diameter < math.inf, "more than 0"),
            ("max shift", self.max_shift_px, 0 <= self.max_shift_px < math.inf, "0 or more voxels"),
            ("rounds", self.rounds, self.rounds >= 1, "at least 1"),
            ("refine rounds", self.refine_rounds, self.refine_rounds >= 1, "at least 1"),
            ("rotations", self.rotations, self.rotations >= 24, "at least 24"),
            ("motions", self.motions, 0 <= self.motions <= MOST_MOTIONS, f"0 to {MOST_MOTIONS}"),
            ("seed", self.seed, self.seed >= 0, "0 or more"),
        )
        for name, value, good, expected in expectations:
            if not good:
                raise InputError.of("align", name, value, expected)
        for name, value, low, high in (
            ("classes", self.classes, 1, 1000),
            ("box", side, LEAST_BOX, 4096),
            ("rounds", self.rounds, 1, 100_000),
            ("refine rounds", self.refine_rounds, 1, 100_000),
            ("rotations", self.rotations, 24, 1_000_000),
        ):
            check_whole("align", name, value, low, high)
        check_seed("align", self.seed)

    @property
    def schedule(self) -> Schedule:
        """The rounds."""
        return Schedule(
            rounds=self.rounds, rotations=self.rotations, refine_rounds=self.refine_rounds
        )

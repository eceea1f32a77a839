"""What is asked of an alignment, and what it finds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from modpose.errors import InputError
from modpose.fourier.fsc import resolution_shell
from modpose.limits import check_seed, check_whole
from modpose.search.classify import Assignment, Schedule
from modpose.search.motion import Motions
from modpose.search.refine import HalfMaps

LEAST_BOX = 16
MOST_MOTIONS = 8


@dataclass(frozen=True)
class AlignSettings:
    """What is asked of an alignment.

    Attributes
    ----------
    classes
        How many structures.
    box
        Volumes are Fourier-cropped to so many voxels a side first; None keeps them as they are.
    mask_diameter_px
        Averages are zero beyond this sphere, voxels of that box; None for the box less four.
    max_shift_px
        Largest shift along an axis, voxels of that box.
    invert
        Whether molecules are darker than what is around them.
    rounds, refine_rounds
        Of the search and of the refinement.
    rotations
        Of the grid.
    motions
        How many principal motions are sought within each class.
    seed
        Of everything random.
    """

    classes: int = 1
    box: int | None = None
    mask_diameter_px: float | None = None
    max_shift_px: float = 3.0
    invert: bool = False
    rounds: int = 40
    refine_rounds: int = 10
    rotations: int = 1000
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


class Alignment(NamedTuple):
    """What an alignment found.

    Attributes
    ----------
    assignment
        Pose and class of each volume; shifts in voxels of the averages.
    maps
        Averages of all volumes and of two independent halves, a class each.
    half
        (N,) 0 or 1, which half each volume is in.
    motions
        How the volumes of each class differ; a row of ``z`` a volume of the class, in input order.
        Empty where it was not asked for.
    binning
        Side of a voxel of the averages, in voxels of the input.
    """

    assignment: Assignment
    maps: HalfMaps
    half: Tensor
    motions: list[Motions] = []  # noqa: RUF012  (a tuple's default, never changed)
    binning: float = 1.0

    @property
    def shift_px(self) -> Tensor:
        """Shifts (N, 3), voxels of the input."""
        return self.binning * self.assignment.shift

    def resolution(self, pixel_size: float | None, box: int) -> list[str]:
        """Say the resolution of each class: where the halves' correlation falls below 0.143.

        Parameters
        ----------
        pixel_size, box
            Of the input: Å a voxel or None, and voxels a side.
        """
        unit, size = ("voxels", 1.0) if pixel_size is None else ("Å", pixel_size)
        shells = resolution_shell(self.maps.fsc).tolist()
        return [f"{size * box / shell:.1f} {unit}" if shell else "none" for shell in shells]

    def lines(self, pixel_size: float | None, box: int) -> list[str]:
        """Say what was found, a line a class."""
        counts = torch.bincount(self.assignment.class_index, minlength=len(self.maps.fsc)).tolist()
        found = zip(counts, self.resolution(pixel_size, box), strict=True)
        return [
            f"class {number}: {count} volumes, resolution {text}"
            for number, (count, text) in enumerate(found, 1)
        ]

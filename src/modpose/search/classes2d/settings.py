"""Settings of 2-D classes; needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from modpose.errors import InputError
from modpose.limits import check_seed, check_whole

LEAST_BOX = 24
PER_CLASS = 10
"""Smallest mean number of images per class."""
MASK, REACH = 0.9, 0.08
"""Default diameter of the averages and largest shift, as fractions of the box."""


@dataclass(frozen=True)
class Classes2dSettings:
    """Settings of 2-D classes.

    Attributes
    ----------
    classes
        Number of averages.
    box
        Larger images are Fourier-cropped to this many pixels per side.
    mask_diameter_px
        Averages are zero outside this circle, pixels of that box; None: 0.9 of the box.
    max_shift_px
        Largest shift, pixels of that box; None: 0.08 of the box.
    invert
        Whether particles are darker than their surroundings.
    rounds
        Rounds of the search, each with a random part of the images.
    refine_rounds
        Rounds with all images after that.
    seed
        Seed of all random numbers.
    """

    classes: int = 50
    box: int = 64
    mask_diameter_px: float | None = None
    max_shift_px: float | None = None
    invert: bool = False
    rounds: int = 40
    refine_rounds: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        check_whole("align", "classes", self.classes, 1, 1000)
        check_whole("align", "box", self.box, LEAST_BOX, 512)
        check_whole("align", "rounds", self.rounds, 1, 100_000)
        check_whole("align", "refine rounds", self.refine_rounds, 1, 1000)
        check_seed("align", self.seed)
        for name, value, least in (
            ("mask diameter", self.mask_diameter_px, 1e-6),
            ("max shift", self.max_shift_px, 0.0),
        ):
            if value is not None and not (math.isfinite(value) and least <= value <= self.box):
                expected = f"from {least:g} to the {self.box} pixels of the box"
                raise InputError.of("align", name, value, expected)

    def for_side(self, side: int) -> tuple[float, float]:
        """Diameter of the averages and largest shift, pixels of a box of ``side``."""
        diameter = MASK * side if self.mask_diameter_px is None else self.mask_diameter_px
        reach = REACH * side if self.max_shift_px is None else self.max_shift_px
        return diameter, reach


@dataclass(frozen=True)
class Plan:
    """The rounds; frequencies are cycles in the box of the images."""

    radii: tuple[float, float] = (4.0, 9.0)
    """Highest frequency in the first and in the last round of the search."""
    last_radius: float = 11.0
    """Highest frequency of the rounds with all images."""
    angles: int = 36
    """In-plane angles of half a turn; the other half is had without cost."""
    images: int = 1000
    """Least images of a round of the search, drawn anew."""
    images_per_class: int = 20
    """Least images of such a round for each class."""
    draws: int = 4
    """Poses drawn from the posterior of an image, each with one over so much weight."""
    memory: float = 0.6
    """How much of the sums of a round of the search is left in the next."""
    sparse: float = 0.2
    """A class with less than this share of the mean number of images is filled again."""
    fine: int = 8
    """Steps between two of the angles when the final poses are optimised."""
    last_angles: int = 90
    """Angles of half a turn at which the final averages are made."""

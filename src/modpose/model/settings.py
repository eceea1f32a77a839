"""How thoroughly poses are searched."""

from __future__ import annotations

from dataclasses import dataclass

from modpose.errors import InputError
from modpose.limits import check_real, check_whole


@dataclass(frozen=True)
class SpaceSearch:
    """How thoroughly poses of volumes are searched.

    Attributes
    ----------
    rotations
        Of the grid.
    hypotheses
        Poses that are optimised.
    climb_steps
        Steps of Gauss-Newton.
    """

    rotations: int = 2000
    hypotheses: int = 8
    climb_steps: int = 6

    def __post_init__(self) -> None:
        most = (("rotations", 24, 1_000_000), ("hypotheses", 1, 1000), ("climb_steps", 0, 10_000))
        for name, low, high in most:
            check_whole("search", name, getattr(self, name), low, high)


@dataclass(frozen=True)
class SearchSettings:
    """How finely poses are searched, and how long they are refined.

    Attributes
    ----------
    angles
        Angles of the grid, a multiple of 4.
    nodes
        Intervals of the coarse lattice across the box (never finer than the pixels).
    reach_std
        Largest shift along an axis, in standard deviations of its prior (at most half the box).
    modes
        Distinct modes that are kept.
    climb_steps
        Steps of Fisher scoring on the full image.  With 0, the modes stay on the grid and a
        parabola gives the maximum between its nodes.
    refine_steps
        Steps of gradient on the variational parameters.
    refine_pixels
        Pixels drawn afresh for each of these steps; None takes all.
    samples
        Samples of the latent variables that estimate a bound; the same number of others choose.
    in_space
        Settings for volumes, instead of all the above.
    """

    angles: int = 64
    nodes: int = 28
    reach_std: float = 3.0
    modes: int = 4
    climb_steps: int = 5
    refine_steps: int = 50
    refine_pixels: int | None = 1000
    samples: int = 16
    in_space: SpaceSearch = SpaceSearch()

    def __post_init__(self) -> None:
        if self.angles < 4 or self.angles % 4:
            raise InputError.of("search", "angles", self.angles, "a multiple of 4")
        for name in ("angles", "nodes", "modes", "samples"):
            check_whole("search", name, getattr(self, name), 1, 10_000)
        for name in ("climb_steps", "refine_steps"):
            check_whole("search", name, getattr(self, name), 0, 100_000)
        check_real("search", "reach_std", self.reach_std, 0, 1000, low_counts=False)

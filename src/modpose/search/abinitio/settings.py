"""What is asked of a search for maps without poses; torch is not needed for it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from modpose.errors import InputError
from modpose.limits import check_seed, check_whole

MOST_CLASSES, MOST_MOTIONS = 32, 12
CONFORMATIONS = 3
"""Maps of a structure that moves, with which its search begins."""
AUTO = "auto"
"""In place of a point group: one that held-out images prefer to none."""


@dataclass(frozen=True)
class AbInitioSettings:
    """What is asked of a search for maps without poses."""

    classes: int = 1
    """How many structures."""
    similar: bool = False
    """Whether the structures are states of one: its map and poses are found first."""
    motions: int = 0
    """Principal motions of one structure, with which its poses are found; 0: it is rigid."""
    starts: int = 3
    """Random starts; the best is kept."""
    symmetry: str = "C1"
    """Point group that is imposed, its main axis along z: C1, C2, ..., D2, ..., T, O or I; or
    auto: a group that the map has and held-out images confirm."""
    max_shift: float = 0.08
    """Largest shift of a particle, as a fraction of the box."""
    box: int = 48
    """Side of the refined maps, pixels; images are Fourier-cropped to it where they are larger."""
    diameter: float = 0.9
    """Diameter of the ball that maps are zero outside of, as a fraction of the box."""
    seed: int = 0
    """Of everything random."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        check_whole("abinitio", "classes", self.classes, 1, MOST_CLASSES)
        check_whole("abinitio", "starts", self.starts, 1, 100)
        check_whole("abinitio", "box", self.box, 24, 256)
        check_seed("abinitio", self.seed)
        check_whole("abinitio", "motions", self.motions, 0, MOST_MOTIONS)
        if self.motions and (self.classes > 1 or self.symmetry.strip().upper() != "C1"):
            expected = "0 with several classes or a symmetry"
            raise InputError.of("abinitio", "motions", self.motions, expected)
        if self.similar and self.classes == 1:
            raise InputError.of("abinitio", "classes", 1, "2 or more states with --similar")
        for name, value, high in (
            ("max_shift", self.max_shift, 0.4),
            ("diameter", self.diameter, 1.0),
        ):
            if not (math.isfinite(value) and 0 < value <= high):
                raise InputError.of("abinitio", name, value, f"more than 0, at most {high}")

    @property
    def box_given(self) -> int | None:
        """The box, if it is not the usual one; smaller images are searched in their own."""
        return None if self.box == AbInitioSettings.box else self.box

    def begun(self) -> AbInitioSettings:
        """Return what random starts and the first refinement are asked for."""
        if self.motions:
            return replace(self, classes=CONFORMATIONS, motions=0)
        return replace(self, classes=1, similar=False) if self.similar else self


@dataclass(frozen=True)
class StartPlan:
    """Rounds of a random start; frequencies are cycles in the box of the images."""

    box: int = 24
    """Side of the maps, voxels."""
    radii: tuple[float, float] = (4.0, 9.0)
    """Highest frequency in the first and in the last round."""
    rotations: tuple[int, int] = (2304, 4608)
    """Rotations of the grid in the first and in the last round."""
    rounds: int = 100
    images: int = 500
    """Images of a round, drawn anew."""
    draws: int = 4
    """Poses drawn from the posterior of an image, each inserted with one over so much weight."""
    memory: float = 0.67
    """How much of the sums of a round is left in the next."""
    in_plane: bool = False
    """Whether rotations are about z only: the map is then an average in the plane."""
    regroup: bool = True
    """Whether a class that is hardly needed gives way to half of another."""

    @property
    def compared(self) -> int:
        """Rounds after which starts are compared; only the best goes on."""
        return math.ceil(0.6 * self.rounds)

    def of_several(self) -> StartPlan:
        """Half of the rounds, with twice the images: a round of several maps costs more."""
        return replace(
            self,
            rounds=math.ceil(self.rounds / 2),
            images=2 * self.images,
            memory=self.memory**2,
        )

    def radius(self, number: int) -> float:
        """Highest frequency of a round."""
        return self.radii[0] + (self.radii[1] - self.radii[0]) * self._part(number)

    def grid(self, number: int) -> int:
        """Rotations of the grid of a round."""
        return int(self.rotations[0] + (self.rotations[1] - self.rotations[0]) * self._part(number))

    def _part(self, number: int) -> float:
        return number / max(1, self.rounds - 1)


@dataclass(frozen=True)
class RefinePlan:
    """Rounds of the refinement in halves; frequencies are cycles in the box of the images."""

    search_radius: float = 10.0
    """Highest frequency of the search of all rotations; 9 in the first round."""
    first_radius: float = 13.0
    """Highest frequency of the maps of the first round."""
    last_radius: float = 23.0
    """Highest frequency of the maps of the last rounds."""
    rounds: int = 7
    searches: tuple[int, ...] = (0, 1, 2, 4)
    """Rounds with a search of all rotations."""
    rotations: int = 6000
    hypotheses: int = 4
    """Poses of an image that are climbed, apart from the one that it has."""
    apart_deg: float = 22.0
    """Least angle between these."""
    steps: int = 2
    """Steps of Gauss-Newton."""

    @property
    def radii(self) -> list[tuple[float, float]]:
        """Highest frequency of the search and of the maps, for each round."""
        growing = max(1, self.rounds - 2)
        parts = [min(1.0, number / growing) for number in range(self.rounds)]
        highs = [self.first_radius + (self.last_radius - self.first_radius) * p for p in parts]
        return [(self.search_radius - (n == 0), high) for n, high in enumerate(highs)]

"""Symmetry that a map seems to have: axes by self-correlation, and the point groups they make."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modpose.fourier.coefficients import half_sphere, map_coefficients, phases, transform
from modpose.fourier.reference import make_references, sample, turned
from modpose.geometry.grids import bright_centre
from modpose.geometry.groups import GOLDEN, so3_grid, symmetry_group
from modpose.geometry.rotations import rotation_of_vector, vector_of_rotation
from modpose.search.abinitio.symmetry import Frame, back
from modpose.search.so3_climb import climb
from modpose.search.so3_search import search, shift_grid

SEARCHED, CLIMBED = 8.0, 12.0
"""Highest frequencies, cycles a box, of the search of axes and of what follows."""
ROTATIONS = 6000
PEAKS = 100
APART_DEG = 12.0
"""Least angle between two peaks of the self-correlation."""
LARGEST_ORDER = 12
"""Of the axes that are looked for where no group is named."""
LEAST = 0.35
"""Mean self-correlation of a group that is worth a test."""
NEAR_DEG = 9.0
"""How well axes must agree with the angle that a group has between them."""
TRIED = 6
"""Pairs of axes that are tried for each group."""

SECOND = {
    "T": (2, 3, (1.0, 1.0, 1.0)),
    "O": (4, 3, (1.0, 1.0, 1.0)),
    "I": (2, 5, (0.0, 1.0, GOLDEN)),
}
"""Orders of the axis along z and of a second axis, and where this one is."""
ABOUT_X = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
"""Columns of a frame so that the axis along z comes to lie along x."""


@dataclass(frozen=True)
class Candidate:
    """A point group that a map seems to have.

    Attributes
    ----------
    name
        C2, D7, T, ...
    frame
        Where its axes are.
    correlation
        Mean correlation of the map with itself, turned by the group.
    """

    name: str
    frame: Frame
    correlation: float


def candidates(volume: Tensor, radius: float, named: str | None = None) -> list[Candidate]:
    """Find the point groups that a map (D, D, D) seems to have, the largest first.

    Every shell counts alike, and the mean over all rotations is taken off.

    Parameters
    ----------
    volume
        The map.
    radius
        Highest frequency that can be trusted, cycles a box.
    named
        Look for this group only, whatever its order.
    """
    own = _Self(volume, min(radius, CLIMBED))
    turns, shifts = own.peaks(min(radius, SEARCHED))
    if not len(turns):
        return []
    centre = _centre(turns, shifts)
    axes = _axes(turns)
    tried = range(2, LARGEST_ORDER + 1) if named is None else _orders_of(named)
    orders = [own.orders(axis, centre, tried) for axis in axes]
    found: dict[str, Candidate] = {}
    for name, rotation in _frames(axes, orders):
        if named not in (None, name):
            continue
        group = symmetry_group(name).float()[1:]
        value = own.correlation(rotation @ group @ rotation.T, centre)
        if name not in found or value > found[name].correlation:
            found[name] = Candidate(name, Frame(rotation, centre), value)
    refined = [own.refined(one) for one in found.values()]
    good = [one for one in refined if one.correlation >= LEAST]
    return sorted(good, key=lambda one: (-len(symmetry_group(one.name)), -one.correlation))


def with_axes(volume: Tensor, name: str, radius: float) -> Candidate | None:
    """Return where a map (D, D, D) has the axes of a point group; None if it has not."""
    if name == "D1":  # half a turn about x
        found = with_axes(volume, "C2", radius)
        if found is None:
            return None
        rotation, centre = found.frame
        return Candidate(name, Frame(rotation @ ABOUT_X, centre), found.correlation)
    return next(iter(candidates(volume, radius, name)), None)


def _orders_of(name: str) -> list[int]:
    """Orders of the axes that a point group is found by."""
    if name in SECOND:
        return list(SECOND[name][:2])
    return sorted({int(name[1:]), 2} if name[0] == "D" else {int(name[1:])})


class _Self:
    """Correlation of a map with itself, turned.

    Parameters
    ----------
    volume
        (D, D, D).
    radius
        Highest frequency, cycles a box.
    """

    def __init__(self, volume: Tensor, radius: float) -> None:
        box = volume.shape[-1]
        middle = bright_centre(volume[None])
        frequency, place = half_sphere(box, radius / box)
        value = transform(volume[None], place) * phases(frequency, -middle)
        shell = (frequency.norm(dim=1) * box).round().long()
        number = torch.bincount(shell).clamp(min=1)
        mean = torch.zeros(len(number)).index_add_(0, shell, value[0].real) / number
        value = value - mean[shell]
        power = torch.zeros(len(number)).index_add_(0, shell, value[0].abs().square()) / number
        white = value / power.clamp(min=1e-12).sqrt()[shell]
        self.flat = back(white, place, torch.zeros_like(volume[None]))
        self.middle, self.box, self.radius = middle[0], box, radius
        self.references = make_references(self.flat, radius / box, slopes=True)
        self.data = map_coefficients(self.flat, radius / box)

    def peaks(self, radius: float) -> tuple[Tensor, Tensor]:
        """Rotations (P, 3, 3) and shifts (P, 3) at which the map resembles itself."""
        low = self.data.within(radius / self.box)
        plain = make_references(self.flat, radius / self.box)
        grid, shifts = so3_grid(ROTATIONS).float(), shift_grid(1.0, 1.0)
        apart = math.radians(APART_DEG)
        found = search(low, plain, grid, shifts, top=PEAKS, apart=apart)
        turns, moved = found.rotation[0, 0], found.shift[0, 0]
        turns, moved, value = self._climbed(turns, moved)
        angle = vector_of_rotation(turns).norm(dim=1)
        good = (angle > 0.9 * 2 * math.pi / LARGEST_ORDER) & (value > LEAST)
        order = value[good].argsort(descending=True)
        return turns[good][order], moved[good][order]

    def _climbed(self, turns: Tensor, shifts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        zero = torch.zeros(len(turns), dtype=torch.int64)
        top = climb(self.data, self.references, zero, zero, turns, shifts, steps=6)
        energy = 2 * self.data.value[0].abs().square().sum()
        return top.rotation, top.shift, (2 * top.score / energy).sqrt()

    def correlation(self, turns: Tensor, centre: Tensor) -> float:
        """Mean correlation with the map turned by each of (G, 3, 3) about a centre."""
        first = torch.zeros(len(turns), dtype=torch.int64)
        value = sample(self.references, first, turned(self.data.frequency, turns))
        value = value[..., 0] * phases(self.data.frequency, centre - turns @ centre)
        inner = (value.conj() * self.data.value).real.sum(1)
        energy = value.abs().square().sum(1) * self.data.value.abs().square().sum(1)
        return float((inner / energy.sqrt()).mean())

    def orders(self, axis: Tensor, centre: Tensor, tried: Sequence[int]) -> set[int]:
        """Return by which of some orders the map seems to turn into itself about an axis."""
        found = set()
        for n in tried:
            angle = 2 * math.pi / n * torch.arange(1, n // 2 + 1)
            if self.correlation(rotation_of_vector(angle[:, None] * axis), centre) > LEAST:
                found.add(n)
        return found

    def refined(self, one: Candidate) -> Candidate:
        """Fit the frame of a group to the peaks near its rotations."""
        rotation, centre = one.frame
        group = symmetry_group(one.name).float()[1:]
        identity = torch.eye(3)
        for _ in range(2):
            near = rotation @ group @ rotation.T
            turns, shifts, _ = self._climbed(near, centre - near @ centre)
            move = vector_of_rotation(turns @ near.transpose(1, 2))
            rows = (identity - near).flatten(0, 1)
            step = torch.linalg.lstsq(rows, move.flatten(), driver="gelsd").solution
            rotation = rotation_of_vector(step[None])[0] @ rotation
            rows = (identity - turns).flatten(0, 1)
            centre = torch.linalg.lstsq(rows, shifts.flatten(), driver="gelsd").solution
        value = self.correlation(rotation @ group @ rotation.T, centre)
        if value < one.correlation:
            rotation, centre, value = *one.frame, one.correlation
        return Candidate(one.name, Frame(rotation, centre + self.middle), value)


def _centre(turns: Tensor, shifts: Tensor) -> Tensor:
    """Fit the point (3,) that does not move under turns with shifts: t = c - R c."""
    rows = (torch.eye(3) - turns).flatten(0, 1)
    found: Tensor = torch.linalg.lstsq(rows, shifts.flatten(), driver="gelsd").solution
    return found


def _axes(turns: Tensor) -> list[Tensor]:
    """Axes of rotations, the best first, each direction once."""
    found: list[Tensor] = []
    limit = math.cos(math.radians(APART_DEG))
    for vector in vector_of_rotation(turns):
        axis = vector / vector.norm()
        if all(abs(float(axis @ other)) < limit for other in found):
            found.append(axis)
    return found[:40]


def _frames(axes: list[Tensor], orders: list[set[int]]) -> list[tuple[str, Tensor]]:
    """Propose groups and where their axes are."""
    found: list[tuple[str, Tensor]] = []
    count: dict[str, int] = {}

    def propose(name: str, rotation: Tensor | None) -> None:
        if rotation is not None and count.get(name, 0) < TRIED:
            count[name] = count.get(name, 0) + 1
            found.append((name, rotation))

    up, across = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([1.0, 0.0, 0.0])
    for axis, own in zip(axes, orders, strict=True):
        other = across if abs(float(axis[0])) < 0.8 else torch.tensor([0.0, 1.0, 0.0])
        for n in own:
            propose(f"C{n}", _aligned((up, across), (axis, other), math.inf))
    for (a, first), (b, second) in itertools.permutations(zip(axes, orders, strict=True), 2):
        if 2 in second:
            for n in first:
                propose(f"D{n}", _aligned((up, across), (a, b), NEAR_DEG))
        for name, (one, two, where) in SECOND.items():
            if one in first and two in second:
                place = torch.tensor(where)
                propose(name, _aligned((up, place / place.norm()), (a, b), NEAR_DEG))
    return found


def _aligned(
    standard: tuple[Tensor, Tensor], found: tuple[Tensor, Tensor], most_deg: float
) -> Tensor | None:
    """Turn two axes of a group to two that were found; None if their angles differ by more."""
    (u, v), (a, b) = standard, found
    b = b if float(a @ b) * float(u @ v) >= 0 else -b
    angles = [math.acos(max(-1.0, min(1.0, float(p @ q)))) for p, q in ((u, v), (a, b))]
    if abs(angles[0] - angles[1]) > math.radians(most_deg):
        return None
    return _triad(a, b) @ _triad(u, v).T


def _triad(first: Tensor, second: Tensor) -> Tensor:
    """Orthonormal axes in columns: the first, the second made perpendicular, and their product."""
    second = second - (second @ first) * first
    second = second / second.norm()
    return torch.stack([first, second, torch.linalg.cross(first, second)], 1)

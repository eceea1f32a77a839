"""Posed coefficients as interpolation of upright lattices: what least squares needs.

A coefficient of a posed volume, or of a projection, is a mixture of the eight points of an upright
Fourier lattice about R^T k.  The points and their shares are kept: several maps are read at once,
and all coefficients are inserted at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from modpose import ranks
from modpose.devices import HOST, near
from modpose.fourier.coefficients import Coefficients, phases
from modpose.fourier.insertion import (
    OVERSAMPLING,
    FourierSums,
    insert,
    lattice_side,
    solve_jointly,
)
from modpose.fourier.reference import corners, make_references, read, turned

POINTS_AT_ONCE = 1 << 17
"""Coefficients that are placed at a time."""
KEPT_POINTS = 1 << 22
"""Coefficients whose points are kept: eight points of eight bytes each."""


class SliceOperator:
    """Some coefficients, (N, K), in the upright frames of their objects, where they are computed.

    Parameters
    ----------
    data
        N volumes or projections, whitened.
    rotation, shift
        (N, 3, 3) and (N, 3) pixels.
    """

    def __init__(self, data: Coefficients, rotation: Tensor, shift: Tensor) -> None:
        self.home = data.value.device
        data = data.to(near(data.value))
        rotation, shift = rotation.to(data.frequency), shift.to(data.frequency)
        self.limit = float(data.radius[-1])
        self.padded = OVERSAMPLING * data.box
        self.side = lattice_side(self.limit, self.padded)
        self.transfer = data.transfer.expand(len(data), -1)
        self.value = data.value * phases(data.frequency, -shift)
        self._places = corners(turned(data.frequency, rotation), self.side, self.padded)

    def predictions(self, table: Tensor) -> Tensor:
        """Coefficients (N, J, K) that maps with a ``table`` (:func:`table_of`) would have given."""
        pairs = read(*self._places, table).reshape(*self.value.shape, -1, 2)
        return torch.view_as_complex(pairs).transpose(1, 2) * self.transfer[:, None]

    def insert_slices(self, amount: Tensor, second: Tensor, total: Tensor) -> None:
        """Sum up what least squares for J maps asks for, at every point of the lattice.

        Parameters
        ----------
        amount
            (N, J) amplitude of each map in each object.
        second
            (N, Q) expected products of two amounts, whichever pairs.
        total
            (m^3, 2 J + Q) where the coefficients are; changed in place.  Sums of transfer times
            coefficient times amount, real and imaginary part of each map, then of squared
            transfers times products.
        """
        count = amount.shape[1]
        amount, second = amount.to(self.transfer), second.to(self.transfer)
        size = max(1, POINTS_AT_ONCE // self.value.shape[1])
        parts = (*self._places, self.value, self.transfer, amount, second)
        for index, share, value, transfer, some, two in zip(
            *(torch.split(part, size) for part in parts), strict=True
        ):
            seen = torch.view_as_real(value * transfer)
            held = (seen[:, :, None] * some[:, None, :, None]).reshape(-1, 2 * count)
            squared = (transfer.square()[..., None] * two[:, None]).flatten(0, 1)
            insert(index, share, torch.cat([held, squared], 1), total)


def table_of(maps: Tensor, limit: float) -> Tensor:
    """Upright lattice (m^3, 2 J) of real maps (J, D, D, D), to ``limit`` cycles per pixel."""
    references = make_references(maps, limit, oversampling=OVERSAMPLING)
    return references.table.reshape(len(maps), -1, 2).transpose(0, 1).flatten(1).contiguous()


class PlacedBlock(NamedTuple):
    """Some objects of a set: their half of it, 0 or 1, their rows (B,), and where they are."""

    half: int
    rows: Tensor
    placed: SliceOperator


class PlacedBlocks:
    """A set placed block by block; again and again, where it does not fit in memory.

    Parameters
    ----------
    data, rotation, shift
        As of :class:`SliceOperator`.
    """

    def __init__(self, data: Coefficients, rotation: Tensor, shift: Tensor) -> None:
        self.limit, self.count = float(data.radius[-1]), len(data)
        self.box, self._set = data.box, (data, rotation, shift)
        self._kept: list[PlacedBlock] | None = None

    def __iter__(self) -> Iterator[PlacedBlock]:
        """Give the blocks that this process computes (:func:`modpose.ranks.share`)."""
        if self._kept is None and self._set[0].value.numel() <= KEPT_POINTS:
            self._kept = list(self._place())
        return iter(self._place() if self._kept is None else self._kept)

    def _place(self) -> Iterator[PlacedBlock]:
        data, rotation, shift = self._set
        step = max(1, min(POINTS_AT_ONCE // data.width, math.ceil(len(data) / 2)))
        blocks = torch.split(torch.arange(len(data)), step)
        numbered = list(enumerate(blocks))
        if data.place is None:
            numbered = list(ranks.share(numbered))
        else:
            own = data.place >= 0
            numbered = [(number, rows[own[rows]]) for number, rows in numbered]
        for number, rows in numbered:
            if not len(rows):
                continue
            placed = SliceOperator(data.rows(rows), rotation[rows], shift[rows])
            yield PlacedBlock(number % 2, rows, placed)


class NormalEquations:
    """Least squares for J maps whose mixtures were seen, added up block by block.

    Parameters
    ----------
    maps
        How many, J.
    """

    def __init__(self, maps: int) -> None:
        self.maps = maps
        self.pairs = torch.triu_indices(maps, maps)
        self._total: Tensor | None = None
        self._side, self._padded, self._home = 0, 0, HOST

    def add(self, placed: SliceOperator, amount: Tensor, second: Tensor) -> None:
        """Add objects that hold ``amount`` (N, J); ``second`` (N, J, J) expected products."""
        if self._total is None:
            columns = 2 * self.maps + self.pairs.shape[1]
            self._total = placed.transfer.new_zeros(placed.side**3, columns)
            self._side, self._padded, self._home = placed.side, placed.padded, placed.home
        placed.insert_slices(amount, second[:, self.pairs[0], self.pairs[1]], self._total)

    def sums(self, side: int) -> Tensor:
        """Sums (m^3, 2 J + Q) on a lattice with ``side`` points an axis, where the data are."""
        if self._total is None:
            return torch.zeros(side**3, 2 * self.maps + self.pairs.shape[1])
        return self._total.to(self._home)

    def set(self, total: Tensor, side: int, padded: int) -> None:
        """Replace the sums (:meth:`sums`)."""
        self._total, self._side, self._padded = total, side, padded

    def join(self, other: NormalEquations) -> None:
        """Add another set of objects; its sums are given up."""
        assert self._total is not None and other._total is not None, "nothing was added"
        self._total.add_(other._total)
        other._total = None

    def first(self) -> FourierSums:
        """Sums of the first map alone, as if there were no others."""
        total = self._sums
        value, weight = torch.complex(total[..., 0], total[..., 1]), total[..., 2 * self.maps]
        axes = (0, 1, 2)
        value, weight = value + value.flip(axes).conj(), weight + weight.flip(axes)
        return FourierSums(value[None], weight[None], self._padded)

    def solve(self, mask: Tensor, variance: Tensor) -> Tensor:
        """Return the maps (J, D, D, D).

        Parameters
        ----------
        mask
            (D, D, D) that the maps are multiplied by.
        variance
            (J, shells) expected of each map's coefficients.
        """
        return solve_jointly(*self._half_lattice(), self._padded, mask, variance)

    @property
    def _sums(self) -> Tensor:
        """(m, m, m, 2 J + Q)."""
        assert self._total is not None, "nothing was added"
        return self._total.reshape(*(self._side,) * 3, -1)

    def _half_lattice(self) -> tuple[Tensor, Tensor]:
        """Sums where x is not negative: what is at -k is, conjugate, at k too."""
        middle, parts, total = self._side // 2, 2 * self.maps, self._sums
        near, far = total[:, :, middle:], total[:, :, : middle + 1].flip((0, 1, 2))
        real = near[..., :parts:2] + far[..., :parts:2]
        imaginary = near[..., 1:parts:2] - far[..., 1:parts:2]
        return torch.complex(real, imaginary), near[..., parts:] + far[..., parts:]


Halves = tuple[NormalEquations, NormalEquations]


def halved(blocks: PlacedBlocks, amount: Tensor, second: Tensor) -> Halves:
    """Add up two halves of a set, every other block in the second.

    Parameters
    ----------
    blocks
        At least two.
    amount, second
        (N, J) how much of each map the objects hold, and (N, J, J) expected products.
    """
    maps = amount.shape[1]

    def own() -> Halves:
        halves = NormalEquations(maps), NormalEquations(maps)
        for half, rows, placed in blocks:
            halves[half].add(placed, amount[rows], second[rows])
        return halves

    return sums_of_halves(own, maps, blocks.limit, blocks.box)


def sums_of_halves(make: Callable[[], Halves], maps: int, limit: float, box: int) -> Halves:
    """Add up what several processes make; one may have nothing of a half.

    ``limit`` is the highest frequency of what is added, and ``box`` its side.
    """
    padded = OVERSAMPLING * box
    side = lattice_side(limit, padded)
    sums = ranks.total(lambda: tuple(half.sums(side) for half in make()))
    halves = NormalEquations(maps), NormalEquations(maps)
    for half, total in zip(halves, sums, strict=True):
        half.set(total, side, padded)
    return halves

"""Posed coefficients as interpolation of upright lattices: what least squares needs.

A coefficient of a posed volume, or of a projection, is a mixture of the eight points of an upright
Fourier lattice about R^T k.  The points and their shares are kept: several maps are read at once,
and all coefficients are inserted at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from modpose import ranks
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
    """Some coefficients, (N, K), in the upright frames of their objects.

    Parameters
    ----------
    data
        N volumes or projections, whitened.
    rotation, shift
        (N, 3, 3) and (N, 3) pixels.
    """

    def __init__(self, data: Coefficients, rotation: Tensor, shift: Tensor) -> None:
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

    def insert_slices(self, amount: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Sum up what least squares for J maps asks for, at every point of the lattice.

        Parameters
        ----------
        amount
            (N, J) amplitude of each map in each object.
        second
            (N, Q) expected products of two amounts, whichever pairs.

        Returns
        -------
        values, weights
            (m^3, J) complex sums of transfer times coefficient times amount, and (m^3, Q) of
            squared transfers times products.
        """
        count = amount.shape[1]
        seen = torch.view_as_real(self.value * self.transfer)
        held = (seen[:, :, None] * amount[:, None, :, None]).reshape(-1, 2 * count)
        squared = self.transfer.square()[..., None] * second[:, None]
        both = torch.cat([held, squared.flatten(0, 1)], 1)
        found = both.new_zeros(self.side**3, both.shape[1])
        insert(*self._places, both, found)
        values, weights = found[:, : 2 * count], found[:, 2 * count :]
        return torch.complex(values[:, ::2], values[:, 1::2]), weights


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
        self._set = data, rotation, shift
        self._kept = list(self._place()) if data.value.numel() <= KEPT_POINTS else None

    def __iter__(self) -> Iterator[PlacedBlock]:
        """Give the blocks that this process computes (:func:`modpose.ranks.share`)."""
        return iter(self._place() if self._kept is None else self._kept)

    def _place(self) -> Iterator[PlacedBlock]:
        data, rotation, shift = self._set
        step = max(1, min(POINTS_AT_ONCE // len(data.frequency), math.ceil(len(data) / 2)))
        blocks = torch.split(torch.arange(len(data)), step)
        for number, rows in ranks.share(list(enumerate(blocks))):
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
        self._values: Tensor | None = None
        self._weights: Tensor | None = None
        self._side, self._padded = 0, 0

    def add(self, placed: SliceOperator, amount: Tensor, second: Tensor) -> None:
        """Add objects that hold ``amount`` (N, J); ``second`` (N, J, J) expected products."""
        values, weights = placed.insert_slices(amount, second[:, self.pairs[0], self.pairs[1]])
        self._values = values if self._values is None else self._values.add_(values)
        self._weights = weights if self._weights is None else self._weights.add_(weights)
        self._side, self._padded = placed.side, placed.padded

    @property
    def shape(self) -> tuple[int, int] | None:
        """Points of the lattice along an axis, and in a step of one cycle; None if empty."""
        return None if self._values is None else (self._side, self._padded)

    def add_up(self, shape: tuple[int, int]) -> None:
        """Add what other processes have, on a lattice of this shape."""
        self._side, self._padded = shape
        points = self._side**3
        if self._values is None or self._weights is None:
            self._values = torch.zeros(points, self.maps, dtype=torch.complex64)
            self._weights = torch.zeros(points, self.pairs.shape[1])
        ranks.sum(torch.view_as_real(self._values))
        ranks.sum(self._weights)

    def __add__(self, other: object) -> NormalEquations:
        """Join two sets of objects."""
        if not isinstance(other, NormalEquations):
            return NotImplemented
        joined = NormalEquations(self.maps)
        (values, weights), (more_values, more_weights) = self._sums, other._sums
        joined._values, joined._weights = values + more_values, weights + more_weights
        joined._side, joined._padded = self._side, self._padded
        return joined

    def first(self) -> FourierSums:
        """Sums of the first map alone, as if there were no others."""
        values, weights = self._symmetric()
        return FourierSums(values[None, ..., 0], weights[None, ..., 0], self._padded)

    def solve(self, mask: Tensor, variance: Tensor) -> Tensor:
        """Return the maps (J, D, D, D).

        Parameters
        ----------
        mask
            (D, D, D) that the maps are multiplied by.
        variance
            (J, shells) expected of each map's coefficients.
        """
        return solve_jointly(*self._symmetric(), self._padded, mask, variance)

    @property
    def _sums(self) -> tuple[Tensor, Tensor]:
        assert self._values is not None and self._weights is not None, "nothing was added"
        return self._values, self._weights

    def _symmetric(self) -> tuple[Tensor, Tensor]:
        """Sums on the lattice: what is at k is, conjugate, at -k too."""
        values, weights = (part.reshape(*(self._side,) * 3, -1) for part in self._sums)
        axes = (0, 1, 2)
        return values + values.flip(axes).conj(), weights + weights.flip(axes)


def halved(
    blocks: Iterable[PlacedBlock], amount: Tensor, second: Tensor
) -> tuple[NormalEquations, NormalEquations]:
    """Add up two halves of a set, every other block in the second.

    Parameters
    ----------
    blocks
        At least two.
    amount, second
        (N, J) how much of each map the objects hold, and (N, J, J) expected products.
    """
    halves = NormalEquations(amount.shape[1]), NormalEquations(amount.shape[1])
    for half, rows, placed in blocks:
        halves[half].add(placed, amount[rows], second[rows])
    return sums_of_halves(halves)


def sums_of_halves(
    halves: tuple[NormalEquations, NormalEquations],
) -> tuple[NormalEquations, NormalEquations]:
    """Add up what several processes have; one may have nothing of a half."""
    each = ranks.gathered([half.shape for half in halves])
    for number, half in enumerate(halves):
        half.add_up(next(shape for shapes in each if (shape := shapes[number]) is not None))
    return halves

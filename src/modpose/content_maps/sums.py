"""Sums of images, cell by cell, and the equations that they make."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.content_maps.equations import Equations, MaskBox
from modpose.content_maps.lattice import HalfLattice, PlacedImages

CELLS_AT_ONCE, BYTES_AT_ONCE = 16, 1 << 28
"""Cells that are on the lattice together: so many, or what their sums may take."""


class CellSums:
    """Sums of images that come sorted by cell: some cells are on the lattice at a time.

    Parameters
    ----------
    lattice
        Where images are placed.
    box
        Where the maps are.
    values
        (K, J) amounts of the maps in each cell.

    Attributes
    ----------
    at_once
        Cells that are on the lattice together.
    """

    def __init__(self, lattice: HalfLattice, box: MaskBox, values: Tensor) -> None:
        self._lattice, self._box, self._values = lattice, box, values
        self._right = lattice.zeros(values.shape[1]), lattice.zeros(values.shape[1])
        self._kernels = values.new_zeros(len(values), len(box.seen))
        self._kernel = lattice.kernels(2 * box.reach)
        self._columns: dict[int, Tensor] = {}
        self.at_once = max(min(CELLS_AT_ONCE, BYTES_AT_ONCE // (12 * len(lattice))), 1)

    def add(self, placed: PlacedImages, cell: NDArray[np.int64]) -> None:
        """Add B images of cells (B,), equal ones side by side."""
        edges = [0, *(np.flatnonzero(np.diff(cell)) + 1), len(cell)]
        for first, last in pairwise(edges):
            column = self._column(int(cell[first]))
            self._lattice.add(column, placed.rows(slice(first, last)))

    def equations(self) -> Equations:
        """Convert all sums; nothing can be added any more."""
        self._flush()
        real, imag = self._right
        right = self._values.new_empty(real.shape[1], *self._box.mask.shape)
        for one, *parts in zip(right, real.T, imag.T, strict=True):
            one.copy_(self._lattice.backward(torch.complex(*parts), len(one)))
        return Equations(self._box, right, self._kernels, self._values)

    def _column(self, cell: int) -> Tensor:
        """Return what a cell's images are added to, (L, 3)."""
        if cell not in self._columns:
            if len(self._columns) == self.at_once:
                self._flush()
            self._columns[cell] = self._lattice.zeros(3)
        return self._columns[cell]

    def _flush(self) -> None:
        """Convert the weights of the cells on the lattice; add them to maps by their amounts."""
        if not self._columns:
            return
        for cell, column in self._columns.items():
            kernel = self._kernel(column[:, 2].contiguous()).flatten()
            self._kernels[cell] += kernel[self._box.seen]
        amount = torch.stack([self._values[cell] for cell in self._columns])
        for number, total in enumerate(self._right):
            held = torch.stack([column[:, number] for column in self._columns.values()], 1)
            total.addmm_(held, amount)
        self._columns.clear()

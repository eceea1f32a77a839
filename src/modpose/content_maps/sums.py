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
"""Cells that are added to the sums of maps together: so many, or what their sums may take."""


class CellSums:
    """Sums of images that come sorted by cell: one cell is on the lattice at a time.

    Parameters
    ----------
    lattice
        Where images are placed.
    box
        Where the maps are.
    values
        (K, J) amounts of the maps in each cell.
    """

    def __init__(self, lattice: HalfLattice, box: MaskBox, values: Tensor) -> None:
        self._lattice, self._box, self._values = lattice, box, values
        self._right = lattice.zeros(values.shape[1]), lattice.zeros(values.shape[1])
        self._kernels = values.new_zeros(len(values), len(box.seen))
        self._kernel = lattice.kernels(2 * box.reach)
        self._cell, self._column = -1, lattice.zeros(3)
        self._done: dict[int, Tensor] = {}
        self._at_once = max(min(CELLS_AT_ONCE, BYTES_AT_ONCE // (8 * len(lattice))), 1)

    def add(self, placed: PlacedImages, cell: NDArray[np.int64]) -> None:
        """Add B images of cells (B,), equal ones side by side."""
        edges = [0, *(np.flatnonzero(np.diff(cell)) + 1), len(cell)]
        for first, last in pairwise(edges):
            if cell[first] != self._cell:
                self._close()
                self._cell = int(cell[first])
            self._lattice.add(self._column, placed.rows(slice(first, last)))

    def equations(self) -> Equations:
        """Convert all sums; nothing can be added any more."""
        self._close()
        self._flush()
        seen = torch.complex(*self._right).T.contiguous()
        right = torch.stack([self._box.cut(self._lattice.backward(column)) for column in seen])
        return Equations(self._box, right, self._kernels, self._values)

    def _close(self) -> None:
        """End a cell: keep its sums, convert its weights."""
        if self._cell < 0:
            return
        if self._cell in self._done or len(self._done) == self._at_once:
            self._flush()
        real_and_imaginary, weight = self._column[:, :2], self._column[:, 2]
        self._kernels[self._cell] += self._kernel(weight).flatten()[self._box.seen]
        self._done[self._cell] = real_and_imaginary.T.contiguous()
        self._column.zero_()
        self._cell = -1

    def _flush(self) -> None:
        """Add the cells that ended to the sums of maps, each by its amounts."""
        if self._done:
            amount = torch.stack([self._values[cell] for cell in self._done])
            held = torch.stack(list(self._done.values()), 1)
            for total, columns in zip(self._right, held, strict=True):
                total.addmm_(columns.T, amount)
            self._done.clear()

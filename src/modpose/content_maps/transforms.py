"""Fourier transforms of padded volumes, of which few frequencies are wanted, by three matrices.

This takes more steps than a fast transform.  But no frequency is computed that is not wanted, and
matrix products run at nearly the full speed of a processor.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


class MatrixTransform:
    """Transforms real volumes (n, n, n) to the frequencies up to a limit, along each axis.

    The frequencies are a flat table, (x, z, y) with x from 0 to ``highest``, and z and y from
    ``-highest`` on.

    Parameters
    ----------
    places
        (n,) voxels along an axis, counted from the origin.
    highest
        Largest frequency along an axis, in steps of ``1 / period`` cycles per voxel; at most half
        of the period.
    period
        Side of the padded box.
    device
        Where volumes are.
    """

    def __init__(self, places: Tensor, highest: int, period: int, device: torch.device) -> None:
        self.highest, self._side = highest, len(places)
        frequency = torch.arange(-highest, highest + 1, dtype=torch.float64)
        angle = -2 * math.pi / period * places.double()[:, None] * frequency
        turns = torch.polar(torch.ones_like(angle), angle).to(torch.complex64).to(device)
        self._turns, self._back = turns, turns.conj().resolve_conj()
        half = torch.view_as_real(turns[:, highest:].contiguous())
        self._real = half.reshape(len(places), -1)
        twice = half.new_full((highest + 1, 1), 2.0)  # a coefficient at k stands for -k too
        twice[0] = 1.0
        self._real_back = (half * twice).reshape(len(places), -1).T.contiguous()

    def __len__(self) -> int:
        return (self.highest + 1) * (2 * self.highest + 1) ** 2

    def number(self, z: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Return where frequencies are in the table; x is not negative."""
        wide = 2 * self.highest + 1
        return (x * wide + z + self.highest) * wide + y + self.highest

    def forward(self, volume: Tensor) -> Tensor:
        """Transform a volume (n, n, n), without a factor, to a table."""
        n, low = self._side, self.highest + 1
        lines = (volume.reshape(n * n, n) @ self._real).reshape(n, n * low, 2)
        planes = torch.view_as_complex(lines).T @ self._turns
        found: Tensor = planes.reshape(n, -1).T @ self._turns
        return found.flatten()

    def backward(self, table: Tensor) -> Tensor:
        """Sum up a table's waves, and those of its opposite frequencies, in a volume (n, n, n)."""
        n, low, wide = self._side, self.highest + 1, 2 * self.highest + 1
        planes = (self._back @ table.reshape(low * wide, wide).T).reshape(n * low, wide)
        lines = torch.view_as_real((self._back @ planes.T).reshape(n * n, low))
        found: Tensor = lines.reshape(n * n, 2 * low) @ self._real_back
        return found.reshape(n, n, n)

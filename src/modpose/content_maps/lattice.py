"""Half of a Fourier lattice: images are summed on it, and maps are read from it.

A real volume has F(-k) = conj F(k), so a coefficient with negative x is taken at -k.  Only points
within the frequency limit are kept: a quarter of the whole lattice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from modpose.content_maps.transforms import MatrixTransform
from modpose.devices import HOST
from modpose.fourier.coefficients import phases
from modpose.fourier.insertion import OVERSAMPLING, insert, lattice_side
from modpose.fourier.reference import blur, corners, read, turned
from modpose.search.projections import PosedImages

TABLES = 8
"""Maps that are transformed before they are written to a table."""


@dataclass(frozen=True)
class PlacedImages:
    """Some images on the lattice: B of them with K coefficients each.

    Attributes
    ----------
    index, share
        (B, K, 8) lattice points about each coefficient, and their shares.
    value
        (B, K) complex, whitened, the shift undone; conjugate where -k was taken.
    transfer
        (B, K) what the object's coefficient was multiplied by.
    opposite
        (B, K) where -k was taken.
    """

    index: Tensor
    share: Tensor
    value: Tensor
    transfer: Tensor
    opposite: Tensor

    def __len__(self) -> int:
        return len(self.value)

    def part(self, which: slice) -> PlacedImages:
        """Keep some coefficients of each image."""
        return PlacedImages(*(field[:, which] for field in self._fields()))

    def rows(self, which: slice) -> PlacedImages:
        """Keep some images."""
        return PlacedImages(*(field[which] for field in self._fields()))

    def _fields(self) -> tuple[Tensor, ...]:
        return self.index, self.share, self.value, self.transfer, self.opposite

    def upright(self, values: Tensor) -> Tensor:
        """Values (B, K) at k, of those at the points that were taken."""
        return torch.where(self.opposite, values.conj(), values)


def points(box: int, limit: float) -> int:
    """Return the number of points of a lattice of so large a box, without making it."""
    padded = OVERSAMPLING * box
    near = lattice_side(limit, padded) // 2
    square = torch.arange(-near, near + 1).square()
    left = (_square(limit, padded) - (square[:, None] + square).double()).flatten()
    return int((left[left >= 0].sqrt().floor().clamp(max=near) + 1).sum())


def _square(limit: float, padded: int) -> float:
    """Square of the radius of a lattice: to the limit, and the corners about it."""
    return (limit * padded + math.sqrt(3)) ** 2


class _Waves(NamedTuple):
    """What transforms maps of some side, and the blur by which they are divided."""

    transform: MatrixTransform
    blur: Tensor


class HalfLattice:
    """The points with x >= 0 of a lattice twice as fine as the box, to a frequency limit.

    Parameters
    ----------
    box
        Side D of the maps, even.
    limit
        Highest frequency, cycles per voxel.
    device
        Where sums and tables are.
    """

    def __init__(self, box: int, limit: float, device: torch.device = HOST) -> None:
        self.box, self.padded, self.device = box, OVERSAMPLING * box, device
        self._side = side = lattice_side(limit, self.padded)
        self._near = near = side // 2
        axis, half = torch.arange(-near, near + 1), torch.arange(near + 1)
        inside = (axis.square()[:, None] + axis.square())[..., None] + half.square() <= _square(
            limit, self.padded
        )
        number = torch.full((side, side, side), -1, dtype=torch.int32)
        count = torch.arange(int(inside.sum()), dtype=torch.int32)
        number[..., near:][inside] = count
        place = inside.flatten().nonzero().squeeze(1)
        row = place // (near + 1)
        x = place - row * (near + 1)
        plane = (x == 0).nonzero().squeeze(1)
        opposite = number.flatten()[(side**2 - 1 - row[plane]) * side + near].long()
        entry = x.mul_(side**2).add_(row)  # as MatrixTransform.number
        self._number, self._entry, self._compact = (
            part.to(device) for part in (number.flatten(), entry, place)
        )
        self._plane, self._opposite = plane.to(device), opposite.to(device)
        self._waves: dict[int, _Waves] = {}

    def __len__(self) -> int:
        return len(self._entry)

    # --- images -------------------------------------------------------------------------------

    def place(self, images: PosedImages) -> PlacedImages:
        """Find the lattice points of every coefficient of some images."""
        data = images.data
        frequency = turned(data.frequency, images.rotation)
        value = data.value * phases(data.frequency, -images.shift)
        opposite = frequency[..., 0] < 0
        frequency = torch.where(opposite[..., None], -frequency, frequency)
        index, share = corners(frequency, self._side, self.padded)
        value = torch.where(opposite, value.conj(), value)
        return PlacedImages(self._number[index], share, value, data.transfer, opposite)

    def add(self, column: Tensor, placed: PlacedImages) -> None:
        """Add images to a sum (L, 3): real and imaginary part, and squared transfers."""
        seen = placed.value * placed.transfer
        values = torch.stack([seen.real, seen.imag, placed.transfer.square()], -1)
        index, share = placed.index.flatten(0, 1), placed.share.flatten(0, 1)
        insert(index, share, values.flatten(0, 1), column)

    def zeros(self, columns: int) -> Tensor:
        """Return empty sums (L, columns)."""
        return torch.zeros(len(self), columns, device=self.device)

    def read(self, placed: PlacedImages, table: Tensor) -> Tensor:
        """Return what J maps (:meth:`table`) would give in images: real and imaginary parts.

        (B, K, 2, J).
        """
        found = read(placed.index, placed.share, table).reshape(*placed.value.shape, 2, -1)
        return found.mul_(placed.transfer[..., None, None])

    # --- volumes ------------------------------------------------------------------------------

    def table(self, maps: Tensor) -> Tensor:
        """Return the coefficients of maps (J, b, b, b), to be read.

        The maps may be the middle of the box alone.

        Returns
        -------
        Tensor
            (L, 2 J): the real parts of all maps, then the imaginary ones.
        """
        waves = self._for(maps.shape[-1])
        found = maps.new_empty(len(self), 2, len(maps))
        for first in range(0, len(maps), TABLES):
            some = maps[first : first + TABLES] / waves.blur
            made = [waves.transform.forward(one)[self._entry] for one in some]
            parts = torch.view_as_real(torch.stack(made, 1) / self.box**1.5)
            found[..., first : first + TABLES] = parts.transpose(1, 2)
        return found.flatten(1)

    def backward(self, total: Tensor, side: int) -> Tensor:
        """Right side of the least squares, of a column (L,) of complex sums.

        (b, b, b), the middle of the box, ``side`` voxels wide.
        """
        waves = self._for(side)
        total = total.index_add(0, self._plane, total[self._opposite].conj())
        table = total.new_zeros(len(waves.transform)).index_copy_(0, self._entry, total)
        del total
        return waves.transform.backward(table).div_(waves.blur * self.box**1.5)

    def _for(self, side: int) -> _Waves:
        """Return what transforms maps (b, b, b), ``side`` voxels wide."""
        if side not in self._waves:
            place = torch.arange(side) - side // 2
            transform = MatrixTransform(place, self._near, self.padded, self.device)
            self._waves[side] = _Waves(transform, blur(side, self.padded).to(self.device))
        return self._waves[side]

    def kernels(self, reach: int) -> Callable[[Tensor], Tensor]:
        """Return what transforms the convolution that a column (L,) of summed weights stands for.

        The result is real, (2 reach, 2 reach, reach + 1) in the order of an FFT.  Distances of
        ``reach`` voxels and more are left out of a convolution; that is a product of three
        matrices, which are made once.
        """
        side, near = self._side, self._near
        place = torch.arange(1 - reach, reach, dtype=torch.float64)
        kept = 1 / (torch.special.sinc(place / self.padded).square() * self.box)
        found = torch.fft.fftfreq(2 * reach, dtype=torch.float64)[:, None]
        given = torch.arange(-near, near + 1) / self.padded
        turn = 2 * math.pi * (found - given)[..., None] * place
        both = (turn.cos() @ kept).float().to(self.device)
        above, below = both[: reach + 1, near:], both[: reach + 1, : near + 1].flip(1)
        wide = torch.zeros(side * side * (near + 1), device=self.device)

        def transform(total: Tensor) -> Tensor:
            wide[self._compact] = total
            half = (both @ wide.reshape(side, -1)).reshape(2 * reach, side, -1)
            half = both @ half
            # a real weight at k stands for -k too
            other = (half @ below.T).flip(0, 1).roll((1, 1), (0, 1))
            found: Tensor = half @ above.T + other
            return found

        return transform

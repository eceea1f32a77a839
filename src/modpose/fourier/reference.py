"""Upright objects whose Fourier transforms are read at rotated frequencies.

A reference is padded and transformed once; a value at any frequency is trilinear interpolation on
that finer lattice, whose blur is divided out of the object beforehand.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from modpose.devices import at_once, near
from modpose.geometry.grids import lattice

POINTS_AT_ONCE = 1 << 19
"""Frequencies interpolated at a time."""


class References(NamedTuple):
    """Transforms of C upright volumes on a fine lattice, as far as a frequency limit.

    Attributes
    ----------
    table
        (C m^3, channels) float32: real and imaginary part, and with slopes those of the
        derivatives by a turn about x, y and z.
    side
        m, points of the lattice along an axis, odd.
    padded
        Side of the padded box: points of the lattice in a step of one cycle per voxel.
    slopes
        Whether the derivatives are there.
    """

    table: Tensor
    side: int
    padded: int
    slopes: bool

    def __len__(self) -> int:
        return len(self.table) // self.side**3


def make_references(
    volumes: Tensor, limit: float, *, oversampling: int = 2, slopes: bool = False
) -> References:
    """Transform upright volumes; on the device for computing (:mod:`modpose.devices`).

    Parameters
    ----------
    volumes
        (C, D, D, D) real; zero towards the edge of the box.
    limit
        Highest frequency that will be read, cycles per voxel.
    oversampling
        Side of the padded box over that of the volumes.
    slopes
        Also the derivatives by a turn: with R exp([w]), d F(R^T k) / dw at w = 0.
    """
    box, volumes = volumes.shape[-1], volumes.to(near(volumes))
    padded = oversampling * box
    reach = math.ceil(limit * padded) + 1
    side = 2 * reach + 1
    flat = volumes / blur(box, padded).to(volumes)
    fields = [flat]
    if slopes:  # of f under a turn: -(w x x).grad f has the transform -(w x k).grad F
        x = lattice((box,) * 3).reshape(box, box, box, 3).to(flat)
        fields += [x[..., axis] * flat for axis in range(3)]
    low = _low(torch.stack(fields, 1).flatten(0, 1), padded, reach, box)
    low = low.reshape(len(volumes), -1, side**3)
    if slopes:
        k = lattice((side,) * 3).to(flat) / padded
        gradient = -2j * math.pi * low[:, 1:].transpose(1, 2)  # dF/dk of (C, m^3, 3)
        turned = -torch.linalg.cross(k.to(gradient).expand_as(gradient), gradient)
        low = torch.cat([low[:, :1], turned.transpose(1, 2)], 1)
    table = torch.view_as_real(low.transpose(1, 2).contiguous()).flatten(2).flatten(0, 1)
    return References(table.contiguous(), side, padded, slopes)


def side_by_side(references: References) -> References:
    """Lay C references without slopes into one, whose samples (B, K, C) hold them all."""
    count = len(references)
    table = references.table.reshape(count, -1, 2).transpose(0, 1).flatten(1)
    return References(table.contiguous(), references.side, references.padded, slopes=False)


def sample(references: References, which: Tensor, frequency: Tensor) -> Tensor:
    """Read references at frequencies.

    Parameters
    ----------
    references
        C of them.
    which
        (B,) int64 which one each row reads.
    frequency
        (B, K, 3) cycles per voxel, within the limit.

    Returns
    -------
    Tensor
        (B, K) complex, or (B, K, 4) with the slopes behind the values, or (B, K, C) of references
        side by side; on the device of the frequencies.
    """
    rows, count = frequency.shape[:2]
    home, device = frequency.device, references.table.device
    channels = references.table.shape[1]
    out = references.table.new_empty(rows * count, channels)
    step = max(1, at_once(POINTS_AT_ONCE, device) // count)
    for first in range(0, rows, step):
        part = slice(first, first + step)
        index, weight = corners(frequency[part].to(device), references.side, references.padded)
        index += (which[part].to(device) * references.side**3).int()[:, None, None]
        out[first * count : (first + step) * count] = read(index, weight, references.table)
    values = torch.view_as_complex(out.reshape(rows, count, channels // 2, 2)).to(home)
    return values if references.slopes or channels > 2 else values.squeeze(-1)


def read(index: Tensor, share: Tensor, table: Tensor) -> Tensor:
    """Interpolate a table (P, q) at points (..., 8) with their shares; (F, q)."""
    return functional.embedding_bag(
        index.flatten(0, -2), table, per_sample_weights=share.flatten(0, -2), mode="sum"
    )


def read_side_by_side(references: References, frequency: Tensor, rotation: Tensor) -> Tensor:
    """Read references that stand side by side at frequencies rotated by (B, 3, 3), (B, K, C)."""
    first = torch.zeros(len(rotation), dtype=torch.int64, device=rotation.device)
    return sample(references, first, turned(frequency, rotation))


def corners(frequency: Tensor, side: int, padded: int) -> tuple[Tensor, Tensor]:
    """Find the eight lattice points about frequencies (..., 3), and their trilinear weights.

    Returns
    -------
    index, weight
        (..., 8) int32 into a flattened (m, m, m) lattice with the origin in the middle.
    """
    # axes first: inner dimensions of two and three are slow to multiply
    place = (frequency * padded + side // 2).movedim(-1, 0).contiguous()
    floor = place.floor().clamp_(0, side - 2)
    part = place - floor
    i, j, k = floor.int()
    base = (k * side + j) * side + i
    steps = torch.tensor(
        [0, 1, side, side + 1, side**2, side**2 + 1, side**2 + side, side**2 + side + 1],
        dtype=torch.int32,
        device=frequency.device,
    )
    x, y, z = torch.stack([1 - part, part]).unbind(1)  # (2, ...) each
    weight = z[:, None, None] * (y[:, None] * x)  # (2, 2, 2, ...)
    return base[..., None] + steps, weight.flatten(0, 2).movedim(0, -1).contiguous()


def blur(box: int, padded: int) -> Tensor:
    """(D, D, D) envelope that trilinear interpolation on the fine lattice multiplies by."""
    axis = torch.special.sinc((torch.arange(box, dtype=torch.float32) - box // 2) / padded) ** 2
    envelope: Tensor = axis[:, None, None] * axis[:, None] * axis
    return envelope


def turned(frequency: Tensor, rotation: Tensor) -> Tensor:
    """Return R^T k, (B, K, 3), of frequencies ([B,] K, 3) and rotations (B, 3, 3)."""
    if frequency.ndim == 3:
        return frequency @ rotation.to(frequency)
    return torch.einsum("kj,bji->bki", frequency, rotation.to(frequency))


def _low(volumes: Tensor, padded: int, reach: int, box: int) -> Tensor:
    """Unitary (for the box) transform on the padded lattice, the middle (2 reach + 1)^3 of it."""
    half = box // 2
    wide = volumes.new_zeros(len(volumes), padded, padded, padded)
    cut = slice(padded // 2 - half, padded // 2 - half + box)
    wide[:, cut, cut, cut] = volumes
    spectrum = torch.fft.rfftn(torch.fft.ifftshift(wide, dim=(1, 2, 3)), dim=(1, 2, 3))
    near = torch.arange(-reach, reach + 1, device=volumes.device) % padded
    right = spectrum[:, near][:, :, near][..., : reach + 1] / box**1.5
    left = right[..., 1:].conj().flip((1, 2, 3))
    return torch.cat([left, right], -1).resolve_conj()

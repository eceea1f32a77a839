"""The 24 rotations of the cube: how they permute Fourier coefficients, and cells around them."""

from __future__ import annotations

import torch
from torch import Tensor

from modpose.geometry.groups import nearest, octahedral, so3_grid
from modpose.geometry.rotations import geodesic

GRID = 200
"""Candidate rotations per cell, from which the cells are chosen."""


def permutations(frequency: Tensor, box: int) -> tuple[Tensor, Tensor]:
    """Find where the coefficients of a volume come from after each inverse cube rotation.

    If a volume has the coefficients y(k), the volume rotated by the inverse of g has y(g k); if
    only -g k is listed, the conjugates.

    Parameters
    ----------
    frequency
        (K, 3) cycles per voxel, one of each pair k and -k, all of each length.
    box
        Side of the volume.

    Returns
    -------
    index, sign
        (24, K) int64; and (24, K) 1, or -1 for conjugates.
    """
    steps = (frequency * box).round().long()
    side = 2 * box + 1

    def number(k: Tensor) -> Tensor:
        return ((k[..., 2] + box) * side + k[..., 1] + box) * side + k[..., 0] + box

    table = torch.full((side**3,), -1)
    table[number(steps)] = torch.arange(len(steps))
    turned_steps = steps @ octahedral().round().long().transpose(-1, -2)  # (24, K, 3)
    plain, mirrored = table[number(turned_steps)], table[number(-turned_steps)]
    return torch.where(plain >= 0, plain, mirrored), torch.where(plain >= 0, 1.0, -1.0)


def cell_rotations(count: int) -> Tensor:
    """Spread rotations evenly over those whose nearest cube rotation is the identity.

    Returns
    -------
    Tensor
        (count, 3, 3), each as far as possible from the previous ones.
    """
    turns = octahedral().float()
    identity = int(nearest(torch.eye(3), turns))
    grid = so3_grid(GRID * count).float()
    inside = grid[nearest(grid, turns) == identity]
    chosen = [int(geodesic(inside, torch.eye(3)).argmin())]
    distance = geodesic(inside, inside[chosen[0]])
    while len(chosen) < count:
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, geodesic(inside, inside[chosen[-1]]))
    return inside[chosen]

"""How much maps resemble each other, after the best alignment of each pair."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from modpose.fourier.coefficients import map_coefficients
from modpose.fourier.reference import make_references
from modpose.geometry.groups import so3_grid
from modpose.search.so3_climb import climb
from modpose.search.so3_search import search, shift_grid

ROTATIONS, REACH = 1000, 2.0
"""Rotations of the grid; largest shift of the grid, voxels."""


class Alike(NamedTuple):
    """Each of V maps (first index) compared with each one as a reference (second index).

    Attributes
    ----------
    power
        (V, V) power of a map that the posed reference explains, over that which the map itself
        explains; the root of it is their correlation.
    rotation, shift
        (V, V, 3, 3), and (V, V, 3) voxels, of the reference.
    """

    power: Tensor
    rotation: Tensor
    shift: Tensor


def compare(volumes: Tensor, *, grid_limit: float, limit: float, tried: int) -> Alike:
    """Compare volumes (V, D, D, D) with each other.

    Parameters
    ----------
    volumes
        The maps.
    grid_limit, limit
        Highest frequencies of the search of all rotations, and of the comparison, cycles per voxel.
    tried
        Poses of each pair that are climbed.
    """
    count, seen = len(volumes), map_coefficients(volumes, limit)
    found = search(
        seen.within(grid_limit),
        make_references(volumes, grid_limit),
        so3_grid(ROTATIONS).float(),
        shift_grid(REACH, 1.0),
        top=tried,
    )
    number = torch.arange(count, device=volumes.device)
    owner, which = (
        index.flatten().repeat_interleave(tried)
        for index in torch.meshgrid(number, number, indexing="ij")
    )
    references = make_references(volumes, limit, slopes=True)
    start = found.rotation.reshape(-1, 3, 3), found.shift.reshape(-1, 3)
    top = climb(seen, references, owner, which, *start, steps=5, reach=2 * REACH)
    score, at = top.score.view(count, count, tried).max(2)
    pairs = torch.arange(count * count, device=volumes.device)
    best = at.flatten() + tried * pairs
    rotation = top.rotation[best].view(count, count, 3, 3)
    own = score.diagonal().clamp(min=1e-12)
    return Alike(score / own[:, None], rotation, top.shift[best].view(count, count, 3))

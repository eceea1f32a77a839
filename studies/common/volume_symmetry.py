"""Rotations that leave a volume (nearly) unchanged: the symmetry of its voxels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modpose.fourier.coefficients import map_coefficients
from modpose.fourier.reference import make_references
from modpose.geometry.groups import so3_grid
from modpose.geometry.rotations import geodesic
from modpose.search.so3_climb import climb
from modpose.search.so3_search import search

GRID_LIMIT, LIMIT = 0.15, 0.45
"""Frequencies up to here choose where to climb from, and are compared, cycles per voxel."""
ROTATIONS, TRIED = 2000, 72
"""Of the grid, and of those that are climbed: more than the icosahedral group has."""
APART_DEG, SAME_DEG = 15.0, 8.0
"""Least angle between starts, and between rotations that are distinguished."""
ALIKE = 0.99
"""Lowest correlation between a volume and its rotated copy that counts as a symmetry."""


def volume_symmetry(volume: Tensor, alike: float = ALIKE) -> Tensor:
    """Find the rotations about its origin that leave a volume (nearly) unchanged.

    Parameters
    ----------
    volume
        (D, D, D), free of noise; shifts are allowed for.
    alike
        Lowest correlation, up to 0.45 cycles per voxel, between the volume and its rotated copy.

    Returns
    -------
    (G, 3, 3), the identity first, then by decreasing correlation.  If the volume is round, so that
    more than a few dozen rotations leave it unchanged, some of them.
    """
    one = volume[None].float()
    seen = map_coefficients(one, LIMIT)
    found = search(
        seen.within(GRID_LIMIT),
        make_references(one, GRID_LIMIT),
        so3_grid(ROTATIONS).float(),
        torch.zeros(1, 3),
        top=TRIED,
        apart=math.radians(APART_DEG),
    )
    start = torch.cat([torch.eye(3)[None], found.rotation[0, 0]])
    first = torch.zeros(len(start), dtype=torch.long)
    references = make_references(one, LIMIT, slopes=True)
    top = climb(seen, references, first, first, start, torch.zeros(len(start), 3), steps=6)
    # the score is half the squared correlation, times the power of what is seen
    correlation = (top.score / top.score[0]).clamp(min=0).sqrt()
    kept = [torch.eye(3)]
    for place in correlation.argsort(descending=True).tolist():
        turn = top.rotation[place]
        apart = min(float(geodesic(turn, other)) for other in kept)
        if correlation[place] >= alike and apart > math.radians(SAME_DEG):
            kept.append(turn)
    return torch.stack(kept)

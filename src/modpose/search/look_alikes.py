"""Look-alikes: rotations after which an average looks nearly the same.

An irregular chain looks similar after half a turn about its long axis, especially at low frequency.
So a search at low frequencies gives some volumes the look-alike of the right pose.  The two poses
are far apart, and no local optimisation leads from one to the other; the look-alikes must be tried.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from modpose.fourier.coefficients import map_coefficients
from modpose.fourier.reference import make_references
from modpose.geometry.groups import so3_grid
from modpose.geometry.rotations import geodesic
from modpose.search.so3_climb import climb
from modpose.search.so3_search import search, shift_grid

GRID_LIMIT, LIMIT = 0.15, 0.25
"""Highest frequency for the start of the optimisation and for the comparison, cycles per voxel."""
ROTATIONS, TRIED = 1000, 24
"""Number of rotations in the grid, and of those that are optimised."""
REACH = 2.0
"""Largest shift of the grid on an axis, voxels; if an average is not centred, the rotation axis
does not pass through the origin.
"""
SMALLEST_DEG, APART_DEG = 40.0, 20.0
"""Smallest angle of a rotation, and between rotations."""


class LookAlikes(NamedTuple):
    """Rotations of each of C objects, the most similar first: f(g^T (x - s)) is nearly f(x).

    Attributes
    ----------
    rotation, shift
        (C, S, 3, 3) g, and (C, S, 3) s, voxels.
    """

    rotation: Tensor
    shift: Tensor

    def of(self, class_index: Tensor, rotation: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """Compose poses (N, ...) of objects (N,) with their rotations: (N, S, 3, 3), (N, S, 3)."""
        turned = rotation[:, None] @ self.rotation[class_index]
        moved = shift[:, None] + torch.einsum("nij,nsj->nsi", rotation, self.shift[class_index])
        return turned, moved


def look_alikes(volumes: Tensor, count: int) -> LookAlikes:
    """Find the ``count`` rotations after which upright volumes (C, D, D, D) look most similar."""
    classes, seen = len(volumes), map_coefficients(volumes, LIMIT)
    found = search(
        seen.within(GRID_LIMIT),
        make_references(volumes, GRID_LIMIT),
        so3_grid(ROTATIONS).float(),
        shift_grid(REACH, 1.0),
        top=TRIED,
        apart=math.radians(1.5 * APART_DEG),
    )
    own = torch.arange(classes, device=volumes.device)
    start = found.rotation[own, own].flatten(0, 1)
    owner = own.repeat_interleave(TRIED)
    references = make_references(volumes, LIMIT, slopes=True)
    # shifts of the grid only select rotations; the optimisation finds its own shifts
    top = climb(seen, references, owner, owner, start, start.new_zeros(len(owner), 3), steps=5)
    rotation, shift = top.rotation.reshape(classes, -1, 3, 3), top.shift.reshape(classes, -1, 3)
    score = top.score.reshape(classes, -1)
    still = torch.eye(3, device=rotation.device)
    score[geodesic(rotation, still) < math.radians(SMALLEST_DEG)] = -math.inf
    places = []
    for _ in range(count):
        best = score.argmax(1)
        places.append(best)
        near = geodesic(rotation, rotation[own, best][:, None]) < math.radians(APART_DEG)
        score[near] = -math.inf
    place = torch.stack(places, 1)
    return LookAlikes(rotation[own[:, None], place], shift[own[:, None], place])

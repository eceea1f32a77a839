"""Directions from which posed projections show the object, and what they leave out.

A projection along v tells the Fourier coefficients of the object in the plane across v.  A
direction k of Fourier space is told by the images whose plane passes near it: those with |k.v|
small (central-slice theorem).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DIRECTIONS = 1000
"""Directions of Fourier space that are looked at, evenly spread over half the sphere."""
NEAR = 0.1
"""Sine of the angle within which a plane passes near a direction: one coefficient in ten."""
HARDLY = 0.1
"""A direction told by fewer than this share of the images that even views would give is a gap."""
MOST, COMPARED = 200_000, 20_000
"""Largest number of directions, and of those that are compared with Fourier space; of more, evenly
taken ones are."""


class Views(NamedTuple):
    """How evenly views tell the directions of Fourier space.

    Attributes
    ----------
    gap
        Share of the directions that hardly any image tells.
    worth
        Even views of this share of the images would tell the other directions as well: the harmonic
        mean of the number of images that tell a direction, relative to even views.  It is the
        sampling compensation factor of Baldwin & Lyumkis (2020), without the gap.
    """

    gap: float
    worth: float


def directions_of(
    rotation: NDArray[np.floating], group: NDArray[np.floating] | None = None
) -> Floats:
    """Return the viewing directions (N, 3), in the object's frame, of rotations (N, 3, 3).

    With the G rotations (G, 3, 3) of the object's symmetry, they are (G N, 3): a view is as good as
    those that symmetry makes equal.  Of many images, some represent all.
    """
    turns = np.eye(3)[None] if group is None else group
    step = -(-len(rotation) * len(turns) // MOST)
    seen = np.asarray(rotation[::step, 2], np.float64)
    return np.concatenate([seen @ element for element in turns])


def evenness(directions: NDArray[np.floating]) -> Views:
    """Measure viewing directions (N, 3), unit vectors.  Less than about 100 have gaps by chance."""
    step = -(-len(directions) // COMPARED)
    across = np.abs(np.asarray(directions, np.float64)[::step] @ half_sphere(DIRECTIONS).T)
    told = (across < NEAR).mean(0) / NEAR  # |k.v| of even views is uniform from 0 to 1
    seen = told >= HARDLY
    worth = 0.0 if not seen.any() else float(1 / (1 / told[seen]).mean())
    return Views(float(1 - seen.mean()), min(worth, 1.0))


def half_sphere(count: int) -> Floats:
    """Return so many directions (count, 3), evenly spread over the half sphere z > 0."""
    number = np.arange(count)
    z = (number + 0.5) / count
    angle = number * math.pi * (3 - math.sqrt(5))  # the golden angle
    ring = np.sqrt(1 - z**2)
    return np.stack([ring * np.cos(angle), ring * np.sin(angle), z], 1)

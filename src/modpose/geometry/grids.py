"""Pixel lattices: the centre, and the unit of the networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from modpose.geometry.windows import soft_window

EDGE = 3.0
"""Voxels over which a spherical mask falls."""
FAINT = 0.2
"""Pixels below this fraction of the largest have no mass."""


def lattice(shape: Sequence[int]) -> Tensor:
    """Coordinates of every pixel, relative to the box centre.

    The centre is index n//2 on each axis, as in an FFT.

    Parameters
    ----------
    shape
        Array shape, (H, W) or (D, H, W).

    Returns
    -------
    Tensor
        (P, d) float32 in pixels, in the array's own (row-major) order; the last dimension is
        (x, y[, z]), x along the last array axis, each increasing with its array index.
    """
    axes = [torch.arange(n, dtype=torch.float32) - n // 2 for n in shape]
    mesh = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([axis.reshape(-1) for axis in reversed(mesh)], dim=-1)


def centre_of_mass(images: Tensor, background: Tensor) -> Tensor:
    """Centre of mass of each image or volume above its background.

    Parameters
    ----------
    images
        (N, *shape), d axes each.
    background
        (N,) level; pixels at or below it have no mass.

    Returns
    -------
    Tensor
        (N, d) pixels as in :func:`lattice`; zero if nothing is above the background.
    """
    mass = (images.flatten(1) - background[:, None]).clamp(min=0)
    return mass @ lattice(images.shape[1:]) / mass.sum(1, keepdim=True).clamp(min=1e-12)


def bright_centre(images: Tensor) -> Tensor:
    """Centre of mass (N, d) of each image or volume above ``FAINT`` times its largest value."""
    return centre_of_mass(images, FAINT * images.flatten(1).amax(1))


def half_box(shape: Sequence[int]) -> float:
    """Pixels per network unit: coordinates divided by this are in about [-1, 1]."""
    return max(shape) / 2


def soft_sphere(box: int, diameter: float) -> Tensor:
    """(D, D, D) mask: one inside the diameter (voxels), falling to zero over ``EDGE`` voxels."""
    radius = diameter / 2
    window = soft_window((box,) * 3, radius / (box / 2), (radius + EDGE) / (box / 2))
    return torch.from_numpy(window)


def frequencies(shape: Sequence[int]) -> Tensor:
    """Frequencies of an unshifted FFT of (D, H, W), (D, H, W, 3), ordered (x, y, z), cycles/px."""
    axes = [torch.fft.fftfreq(side) for side in shape]
    mesh = torch.meshgrid(*axes, indexing="ij")
    return torch.stack(mesh[::-1], -1)

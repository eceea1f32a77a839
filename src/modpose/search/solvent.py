"""The region of a molecule; the rest of an average is noise and can be removed."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from modpose.geometry.grids import lattice, soft_sphere

BLUR, AROUND, EDGE = 0.03, 0.03, 0.06
"""Standard deviation of the smoothing Gaussian, margin around the region, and width of its soft
edge; fractions of the box.
"""
DEVIATIONS, SHARES = 4.0, (0.02, 0.15)
"""Threshold above the noise in standard deviations, and its smallest and largest value as a share
of the peak.
"""
TO_DEVIATION = 1.4826
"""Median absolute deviation of a Gaussian to its standard deviation."""


def molecule_mask(volumes: Tensor, diameter: float) -> Tensor:
    """Return a soft mask (D, D, D) of the region above the noise, in the mean or any motion.

    The noise is measured on the smoothed volumes themselves, by the median absolute deviation, so
    a molecule should fill less than half of the sphere.  If it fills more, everything above a share
    of the peak is kept.

    Parameters
    ----------
    volumes
        (J + 1, D, D, D): the mean, bright or dark, and J motions of one standard deviation each.
    diameter
        Diameter of the sphere outside which nothing is kept, voxels.
    """
    box = volumes.shape[-1]
    smooth = _smoothed(volumes, BLUR * box)
    mean = smooth[0]
    height = mean * mean.flatten()[mean.abs().argmax()].sign()
    height = height + smooth[1:].square().sum(0).sqrt()
    ball = soft_sphere(box, diameter)
    inside = height[ball > 0.5]
    middle = inside.median()
    noise = TO_DEVIATION * (inside - middle).abs().median()
    above = height - middle
    least, most = (share * above.amax() for share in SHARES)
    level = (DEVIATIONS * noise).clamp(least, most)
    molecule = (above > level) & (ball > 0.5)
    away = torch.from_numpy(distance_transform_edt(~molecule.numpy()).astype(np.float32))
    beyond = ((away - AROUND * box) / (EDGE * box)).clamp(0, 1)
    return ball * (0.5 + 0.5 * torch.cos(math.pi * beyond))


def _smoothed(volumes: Tensor, deviation: float) -> Tensor:
    """Convolve (C, D, D, D) with a Gaussian of so many voxels."""
    box = volumes.shape[-1]
    axes = (1, 2, 3)
    squares = lattice((box,) * 3).square().sum(-1).reshape(box, box, box)
    kernel = torch.fft.ifftshift(torch.exp(-squares / (2 * deviation**2)))
    filtered = torch.fft.rfftn(volumes, dim=axes) * torch.fft.rfftn(kernel / kernel.sum())
    smooth: Tensor = torch.fft.irfftn(filtered, s=(box,) * 3, dim=axes)
    return smooth

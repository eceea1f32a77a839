"""Local Wiener filter: where a map has little density, it has little detail.

In each of six bands of frequency the signal's variance at a voxel is taken to be proportional to
the square of the map about it; the noise has the variance that the solution predicts.
"""

from __future__ import annotations

import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from modpose.content_maps.equations import MaskBox

EDGES = (0.0, 9 / 64, 13 / 64, 17 / 64, 21 / 64, 25 / 64, 0.51)
"""Bounds of the bands, cycles per voxel."""
BLUR = 1.0
"""Voxels over which the square of the map is averaged."""
SOFT = 2.0
"""Shells over which two bands cross."""


def error_spectrum(power: Tensor, noise: Tensor) -> Tensor:
    """Error (J, shells) of maps with this mean power per unit of mask, solved with a Wiener prior.

    With gain g, the power of a posterior mean is g² N / (1 - g) and its error g N.

    Parameters
    ----------
    power
        (J, shells) of the maps.
    noise
        (J, shells) error without a prior, N.
    """
    ratio = (power / noise).clamp(min=1e-9)
    gain = 0.5 * ((ratio.square() + 4 * ratio).sqrt() - ratio)
    return gain * noise


def local_wiener(volume: Tensor, error: Tensor, box: MaskBox) -> Tensor:
    """Filter a map.

    Parameters
    ----------
    volume
        (b, b, b).
    error
        (shells,) variance of its unitary coefficients' error.
    box
        Where it is.
    """
    spectrum = box.forward(volume[None])
    local = torch.from_numpy(gaussian_filter(volume.square().numpy(), BLUR))
    within = (local * box.mask).sum().clamp(min=1e-30)
    out = torch.zeros_like(volume)
    for window in bands(box):
        part = box.backward(spectrum * window)[0]
        noise = (error[box.shell] * window.square() * box.weight).sum() / box.side**3
        expected = (part.square() * box.mask).sum() / within * local
        out += part * (expected / (expected + noise).clamp(min=1e-30))
    return out


def bands(box: MaskBox) -> list[Tensor]:
    """Windows (F,) over frequencies that add up to one."""
    shell = box.shell.float()
    rise = [
        ((shell - edge * box.box) / SOFT + 0.5).clamp(0, 1) if edge else torch.ones_like(shell)
        for edge in EDGES
    ]
    return [high - low for high, low in zip(rise[:-1], [*rise[1:-1], 0 * shell], strict=True)]

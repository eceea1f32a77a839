"""Noise that the images of a particle share: what surrounds it in the specimen.

The noise of the detector is new in each image.  What lies around a particle, in a cell above all,
is seen in all its images, and adds up as the particle does.  This shows where central slices
overlap: there, sums over images hold more noise than that of single images explains.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from modpose.fourier.coefficients import Coefficients, measure_noise
from modpose.fourier.gridded import gridded

AT_ONCE = 64
"""Particles whose sums are transformed together."""


def without_background(data: Coefficients) -> Coefficients:
    """Divide out, shell by shell, the noise that the images of a particle share.

    Parameters
    ----------
    data
        N tilt series, whitened by the noise of single images.

    Returns
    -------
    Coefficients
        The same, where each shell counts as much as the sums over all images of a particle say.
    """
    return divided(data, shared_noise(data))


def divided(data: Coefficients, variance: Tensor) -> Coefficients:
    """Divide out noise with a variance (shells,)."""
    scale = variance.rsqrt()[(data.radius * data.box).round().long()]
    return replace(data, value=data.value * scale, transfer=data.transfer * scale)


def shared_noise(data: Coefficients) -> Tensor:
    """Return the variance (shells,) of sums over images, over that of independent noise; >= 1.

    It is measured in the corners of the box, outside the particle, and compared with the same sums
    of numbers drawn at random.
    """
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(data.value.shape, dtype=data.value.dtype, generator=generator)
    found, alone = (_in_corners(each) for each in (data, replace(data, value=drawn)))
    last = int(float(data.radius[-1]) * data.box)
    ratio = torch.ones(data.box // 2 + 2)
    ratio[1:last] = (found[1:last] / alone[1:last]).clamp(min=1)
    ratio[0] = ratio[1]
    return ratio


def _in_corners(data: Coefficients) -> Tensor:
    """Return the power (shells,) of the sums over the images of a particle, in the corners."""
    low, box = gridded(data), data.box
    x, y, z = (low.frequency * box).round().long().unbind(1)
    whole = torch.ones(1, box, box, box // 2 + 1)

    def volumes(rows: Tensor) -> Tensor:
        spectrum = torch.zeros(len(rows), box, box, box // 2 + 1, dtype=low.value.dtype)
        spectrum[:, z % box, y % box, x] = low.value[rows]
        axes = (1, 2, 3)
        made = torch.fft.irfftn(spectrum, s=(box,) * 3, dim=axes, norm="ortho")
        centred: Tensor = torch.fft.fftshift(made, dim=axes)
        return centred

    parts = torch.split(torch.arange(len(low)), AT_ONCE)
    return measure_noise(((volumes(rows), whole) for rows in parts), box).amplitude.square()

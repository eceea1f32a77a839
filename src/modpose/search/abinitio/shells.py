"""Maps whose Fourier shells are weighted or cut off."""

from __future__ import annotations

import torch
from torch import Tensor

from modpose.geometry.grids import lattice


def low_passed(maps: Tensor, cut: float) -> Tensor:
    """Keep the frequencies of maps (C, D, D, D) up to so many cycles a box."""
    return _multiplied(maps, _radius(maps.shape[-1]) <= cut)


def weighted_by_shell(maps: Tensor, weight: Tensor) -> Tensor:
    """Multiply the shells of maps (C, D, D, D) by weights (shells,), the last one beyond these."""
    return _multiplied(
        maps, weight[_radius(maps.shape[-1]).round().long().clamp(max=len(weight) - 1)]
    )


def _radius(box: int) -> Tensor:
    radius: Tensor = lattice((box,) * 3).norm(dim=1)
    return radius.reshape(box, box, box)


def _multiplied(maps: Tensor, factor: Tensor) -> Tensor:
    axes = (1, 2, 3)
    spectrum = torch.fft.fftn(maps, dim=axes) * torch.fft.ifftshift(factor)
    found: Tensor = torch.fft.ifftn(spectrum, dim=axes).real
    return found

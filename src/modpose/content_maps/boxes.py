"""Volumes and masks in boxes of more or fewer voxels."""

from __future__ import annotations

import torch
from torch import Tensor

from modpose.search.solvent import RINGING


def in_box(mask: Tensor, side: int) -> Tensor:
    """Sample a mask (D, D, D) in a box of fewer pixels."""
    if side == mask.shape[-1]:
        return mask
    small = resampled(mask[None], side)[0] * (mask.shape[-1] / side)
    return torch.where(small < RINGING, 0.0, small).clamp(max=1)


def resampled(volumes: Tensor, side: int) -> Tensor:
    """Keep or add the highest frequencies of volumes (J, D, D, D), so that they have this side.

    Central slices of the result are those of the volumes, where these are the transforms of images
    with unitary coefficients (:class:`modpose.search.projections.ImageReader`).
    """
    before = volumes.shape[-1]
    reach = (min(before, side) - 1) // 2
    old, new = (slice(n // 2 - reach, n // 2 + reach + 1) for n in (before, side))
    axes, found = (0, 1, 2), volumes.new_empty(len(volumes), *(side,) * 3)
    for one, volume in zip(found, volumes, strict=True):
        spectrum = torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(volume)), dim=axes)
        other = spectrum.new_zeros((side,) * 3)
        other[new, new, new] = spectrum[old, old, old]
        other = torch.fft.ifftn(torch.fft.ifftshift(other)).real * (side / before)
        one.copy_(torch.fft.fftshift(other))
    return found

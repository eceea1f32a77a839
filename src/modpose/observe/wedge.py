"""The measured part of a volume's Fourier transform in a tilt series, and the missing wedge.

**Convention.**  The specimen is tilted about the y axis and imaged along z.  The tilt α is the
right-handed rotation R_y(α) about +y, so the image's transform is the central slice of the
specimen's transform that contains the y axis and the direction (cos α, 0, sin α).  Tilts from α₀
to α₁ therefore measure the frequencies with an angle atan(k_z / k_x) between them.  The rest is a
wedge about the z axis (two wedges, mirror images through the origin).  For a symmetric range, such
as ±60°, the direction of the tilt does not matter.

The wedge belongs to the instrument: it does not move with the pose of the object.  If a volume was
rotated after reconstruction (for example, extracted along a filament), its wedge rotates with it;
use ``rotation`` for this.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from modpose.errors import InputError
from modpose.geometry.grids import frequencies

EDGE_DEG = 1e-3
"""Frequencies this close to the edge of the wedge count as measured (because of rounding)."""


def check_tilt_range(tilt_range: Tensor, where: str = "wedge") -> None:
    """Refuse tilt ranges (..., 2), degrees, that are impossible or measure nothing."""
    flat = tilt_range.reshape(-1, 2)
    low, high = flat.unbind(-1)
    bad = ~((low >= -90) & (low < high) & (high <= 90))  # NaN is bad too
    if bad.any():
        row = int(bad.nonzero()[0, 0])
        found = f"{flat[row, 0]:g} to {flat[row, 1]:g} degrees"
        if low[row] >= high[row]:
            found += ", a wedge that hides everything"
        raise InputError.of(
            where, "the tilt range", found, "two angles from -90 to 90, the smaller first"
        )


def is_measured(frequency: Tensor, tilt_range: Tensor) -> Tensor:
    """Return which frequencies lie outside the missing wedge.

    Parameters
    ----------
    frequency
        (..., 3), ordered (x, y, z), any unit.
    tilt_range
        (..., 2) smallest and largest tilt, degrees, broadcast against the frequencies.

    Returns
    -------
    Tensor
        (...) bool.  The y axis and the origin are measured at every tilt.
    """
    x, z = frequency[..., 0], frequency[..., 2]
    angle = torch.rad2deg(torch.atan2(z, x))
    angle = angle - 180 * torch.round(angle / 180)  # a line has no direction: [-90, 90]
    low, high = tilt_range[..., 0] - EDGE_DEG, tilt_range[..., 1] + EDGE_DEG
    inside = (angle >= low) & (angle <= high)
    upright = (90 - angle.abs()) < EDGE_DEG  # +90 and -90 are the same line
    inside = inside | (upright & ((high >= 90) | (low <= -90)))
    return inside | ((x == 0) & (z == 0))


def wedge_mask(
    tilt_range: Tensor,
    shape: Sequence[int],
    *,
    rotation: Tensor | None = None,
    rfft: bool = True,
) -> Tensor:
    """Mark the measured frequencies on the lattice of an unshifted FFT.

    Parameters
    ----------
    tilt_range
        (B, 2) smallest and largest tilt of each particle's tomogram, degrees.
    shape
        (D, H, W).
    rotation
        (B, 3, 3) rotation of each volume after its reconstruction; None for no rotation.
    rfft
        Half of the last axis as in ``torch.fft.rfftn``, or all of it.

    Returns
    -------
    Tensor
        (B, D, H, W // 2 + 1), or (B, D, H, W) with ``rfft=False``: float32, 1 where measured, 0 in
        the wedge.  It is symmetric under reflection through the origin, also at the highest
        frequency of an even side, so a filtered volume stays real.

    Raises
    ------
    InputError
        If a tilt range is invalid, or nothing is measured.
    """
    if tilt_range.ndim != 2 or tilt_range.shape[1] != 2:
        found = tuple(tilt_range.shape)
        raise InputError.of("wedge", "the array of tilt ranges", found, "shape (particles, 2)")
    check_tilt_range(tilt_range)
    frequency = frequencies(shape).to(tilt_range.device)
    limits = tilt_range.to(frequency)[:, None, None, None]
    if rotation is None:
        measured = is_measured(frequency, limits)
    else:
        turned = torch.einsum("zyxi,bij->bzyxj", frequency, rotation.to(frequency))
        nearly = turned.abs() < 1e-6 * turned.abs().amax(-1, keepdim=True)
        measured = is_measured(turned.masked_fill(nearly, 0.0), limits)
    axes = (1, 2, 3)
    mirrored = measured.flip(axes).roll((1, 1, 1), axes)
    mask = (measured & mirrored).float()
    return mask[..., : shape[-1] // 2 + 1] if rfft else mask


def whole_mask(half: Tensor, width: int) -> Tensor:
    """Complete a mask (B, D, H, W // 2 + 1) of half the frequencies to (B, D, H, W)."""
    mirrored = half.flip((1, 2)).roll((1, 1), (1, 2)).flip(3)
    first = width // 2 + 1
    start = 1 if width % 2 == 0 else 0
    return torch.cat([half, mirrored[..., start : start + width - first]], -1)


def filter_volumes(volumes: Tensor, transfer: Tensor) -> Tensor:
    """Multiply the Fourier transforms of volumes (B, D, H, W) by (B | 1, D, H, W // 2 + 1)."""
    spectrum = torch.fft.rfftn(volumes, dim=(1, 2, 3)) * transfer
    filtered: Tensor = torch.fft.irfftn(spectrum, s=volumes.shape[1:], dim=(1, 2, 3))
    return filtered

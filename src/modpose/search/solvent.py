"""The region of a molecule; the rest of an average is noise and can be removed."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from modpose.data.dataset import Dataset
from modpose.data.preprocess import resize
from modpose.errors import InputError
from modpose.fourier.fsc import read_map
from modpose.geometry.grids import lattice, soft_sphere

logger = logging.getLogger("modpose")

BLUR, AROUND, EDGE = 0.03, 0.03, 0.06
"""Standard deviation of the smoothing Gaussian, margin around the region, and width of its soft
edge; fractions of the box.
"""
DEVIATIONS, SHARES = 4.0, (0.02, 0.15)
"""Threshold above the noise in standard deviations, and its smallest and largest value as a share
of the peak.
"""
SAME_SIZE = 0.01
"""Largest relative difference of two pixel sizes that are the same."""
RINGING = 0.05
"""Values of a mask below this are zero: cutting off frequencies leaves small waves beside it."""
OTHER_HAND = 0.1
"""Share of a map's power by which a mirrored mask may hold more."""
MISSED = 0.02
"""Share of a map's power that a mask may miss, though its mirror misses less than half of that."""
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
    return molecule_within(volumes, soft_sphere(volumes.shape[-1], diameter))


def molecule_within(volumes: Tensor, ball: Tensor) -> Tensor:
    """Return :func:`molecule_mask` within any soft region (D, D, D) instead of a sphere."""
    box = volumes.shape[-1]
    smooth = _smoothed(volumes, BLUR * box)
    mean = smooth[0]
    height = mean * mean.flatten()[mean.abs().argmax()].sign()
    height = height + smooth[1:].square().sum(0).sqrt()
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


def without_solvent(maps: Tensor, ball: Tensor) -> Tensor:
    """Set maps (C, D, D, D) to zero outside of their molecules, each within a soft region.

    Noise around a molecule makes wrong poses as likely as right ones where images tell little.
    """
    return maps * torch.stack([molecule_within(one[None], ball) for one in maps])


def read_mask(path: Path, box: int, pixel_size: float | None = None) -> Tensor:
    """Read a mask of the molecule, (D, D, D), 0 in the solvent and 1 in the molecule.

    Parameters
    ----------
    path
        An MRC file.
    box, pixel_size
        Side of the images in pixels, and their pixel size in Å where it is known.

    Raises
    ------
    InputError
        If the mask has another box or pixel size, a value outside 0 to 1, or is empty or full.
    """
    volume, size = read_map(path)
    mask = torch.from_numpy(np.ascontiguousarray(volume))
    check_mask(mask, box, path)
    if size and pixel_size and abs(size / pixel_size - 1) > SAME_SIZE:
        found = f"{size:.4g} A"
        raise InputError.of(path, "the pixel size", found, f"{pixel_size:.4g} A, as the images")
    return mask


def check_mask(mask: Tensor, box: int, name: Path | str = "mask") -> None:
    """Refuse a mask of another box, with a value outside 0 to 1, or empty or full."""
    if mask.shape != (box,) * 3:
        found = " x ".join(map(str, mask.shape))
        raise InputError.of(name, "the box", found, f"{box} x {box} x {box}, that of the images")
    if not mask.isfinite().all() or mask.min() < 0 or mask.max() > 1:
        raise InputError(f"{name}: a value is outside 0 to 1, expected a mask")
    inside = mask > 0.5
    if not inside.any():
        raise InputError(f"{name}: the mask is empty, expected 1 where the molecule is")
    if inside.all():
        raise InputError(f"{name}: the mask is full, expected 0 where there is solvent")


def mask_of_images(path: Path, dataset: Dataset) -> Tensor:
    """Read a mask in the box of the stored images; return it in the box that a model sees."""
    mask = read_mask(path, dataset.source.stack.shape[-1], dataset.source.pixel_size)
    sizes = dataset.config.model_copy(update={"invert": False})
    resized: Tensor = torch.from_numpy(resize(mask.numpy()[None, None], sizes)[0, 0])
    return torch.where(resized < RINGING, 0.0, resized).clamp(max=1)


def check_fit(mask: Tensor, mean: Tensor, name: str) -> None:
    """Refuse a mask that misses the molecule, or is one of the other hand.

    A mask that misses much less after it was mirrored is of the other hand, or of a molecule that
    it does not cover: that is only warned of.

    Parameters
    ----------
    mask, mean
        (D, D, D) the mask, and a map from the images.
    name
        Of the mask, for the message.
    """
    power = mean.square()
    inside = float((power * mask).sum() / power.sum())
    held = f"holds {inside:.0%} of the power of the map of the images"
    mirrored = {
        axis: float((power * _mirrored(mask, number)).sum() / power.sum())
        for number, axis in enumerate("zyx")
    }
    axis = max(mirrored, key=lambda one: mirrored[one])
    both = f"{name}: the mask {held}, and mirrored along {axis} {mirrored[axis]:.0%}"
    if mirrored[axis] > inside + OTHER_HAND:
        raise InputError(
            f"{both}: it is of the other hand, expected that of the poses (modpose hand mirrors it "
            "along z)"
        )
    if inside < float(mask.mean()):
        raise InputError(f"{name}: the mask {held}, expected a mask of the molecule in its place")
    if 1 - inside > MISSED and 1 - mirrored[axis] < (1 - inside) / 2:
        logger.warning("%s: it may be of the other hand (modpose hand mirrors it along z)", both)


def _mirrored(mask: Tensor, axis: int) -> Tensor:
    """Mirror along an axis about the centre n // 2."""
    flipped = mask.flip(axis)
    return flipped if len(mask) % 2 else flipped.roll(1, axis)


def _smoothed(volumes: Tensor, deviation: float) -> Tensor:
    """Convolve (C, D, D, D) with a Gaussian of so many voxels."""
    box = volumes.shape[-1]
    axes = (1, 2, 3)
    squares = lattice((box,) * 3).square().sum(-1).reshape(box, box, box)
    kernel = torch.fft.ifftshift(torch.exp(-squares / (2 * deviation**2)))
    filtered = torch.fft.rfftn(volumes, dim=axes) * torch.fft.rfftn(kernel / kernel.sum())
    smooth: Tensor = torch.fft.irfftn(filtered, s=(box,) * 3, dim=axes)
    return smooth

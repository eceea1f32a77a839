"""Preprocessing of images between the user's file and the model.

These are pure functions of arrays (B, C, *shape).  The centre of a side of n pixels is always index
n // 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modpose.config import DataConfig
from modpose.errors import InputError

Images = NDArray[np.float32]


def crop(images: Images, size: int) -> Images:
    """Keep the central ``size`` pixels of each side; the centre n // 2 becomes size // 2."""
    cuts = tuple(slice(n // 2 - size // 2, n // 2 - size // 2 + size) for n in images.shape[2:])
    return images[(slice(None), slice(None), *cuts)]


def fourier_crop(images: Images, box: int) -> Images:
    """Down-sample to ``box`` pixels per side by keeping the low frequencies.

    Exact for images without content at or beyond the new Nyquist frequency.  The centre n // 2
    becomes box // 2, and constant values do not change.

    Parameters
    ----------
    images
        (B, C, n, n) or (B, C, n, n, n).
    box
        New side, at most n.
    """
    side = images.shape[-1]
    if box == side:
        return images
    axes = tuple(range(2, images.ndim))
    spectrum = np.fft.fftshift(
        np.fft.rfftn(np.fft.ifftshift(images, axes=axes), axes=axes), axes=axes[:-1]
    )
    low = slice(side // 2 - box // 2, side // 2 - box // 2 + box)
    keep = (slice(None), slice(None), *[low] * (len(axes) - 1), slice(0, box // 2 + 1))
    small = np.fft.irfftn(
        np.fft.ifftshift(spectrum[keep], axes=axes[:-1]), s=(box,) * len(axes), axes=axes
    )
    scale = (box / side) ** len(axes)
    out: Images = (np.fft.fftshift(small, axes=axes) * scale).astype(np.float32)
    return out


def standardize(
    images: Images, where: NDArray[np.bool_] | None = None
) -> tuple[Images, NDArray[np.float64]]:
    """Give each image zero mean and unit s.d., measured on all pixels or on those in ``where``.

    Returns
    -------
    images, std
        The images, and the (B,) s.d. that divided them (1 in place of 0).
    """
    pixels = images.reshape(*images.shape[:2], -1)
    pixels = pixels if where is None else pixels[..., where.reshape(-1)]
    mean = pixels.mean(axis=(1, 2), dtype=np.float64)
    std = pixels.std(axis=(1, 2), dtype=np.float64)
    around = (-1, *[1] * (images.ndim - 1))
    divisor = np.where(std > 0, std, 1.0)
    scaled = (images - mean.reshape(around)) / divisor.reshape(around)
    return scaled.astype(np.float32), std


def to_unit_range(images: Images, low: float, high: float) -> Images:
    """Map [low, high] to [0, 1]; values outside are set to the nearer end."""
    scaled: Images = ((images - low) / (high - low)).astype(np.float32)
    return np.clip(scaled, 0.0, 1.0)


@dataclass(frozen=True)
class Geometry:
    """Sizes after cropping, as the model sees them.

    Attributes
    ----------
    shape
        Spatial shape.
    pixel_size_factor
        Factor by which pixels have grown.
    """

    shape: tuple[int, ...]
    pixel_size_factor: float


def geometry(shape: tuple[int, ...], config: DataConfig, name: str) -> Geometry:
    """Compute the sizes after cropping and Fourier cropping; refuse impossible ones."""
    if config.crop is not None:
        if config.crop > min(shape):
            raise InputError.of("data.crop", "the size", config.crop, f"at most {min(shape)} px")
        shape = (config.crop,) * len(shape)
    if len(shape) == 3 and len(set(shape)) != 1:
        raise InputError.of(name, "the shape of the volumes", _by(shape), "a cube (see data.crop)")
    factor = 1.0
    if config.box is not None:
        if len(set(shape)) != 1:
            raise InputError.of(
                name, "the shape", _by(shape), "a square for data.box (see data.crop)"
            )
        if config.box > shape[0]:
            raise InputError.of("data.box", "the size", config.box, f"at most {shape[0]} px")
        factor = shape[0] / config.box
        shape = (config.box,) * len(shape)
    return Geometry(shape, factor)


def resize(images: Images, config: DataConfig) -> Images:
    """Apply the first steps: crop, Fourier crop, invert."""
    if config.crop is not None:
        images = crop(images, config.crop)
    if config.box is not None:
        images = fourier_crop(images, config.box)
    return -images if config.invert else images


def stored_range(dtype: np.dtype[Any], invert: bool) -> tuple[float, float] | None:
    """Return the range implied by the type of the stored numbers (8 bits or boolean)."""
    if dtype == np.uint8:
        return (-255.0, 0.0) if invert else (0.0, 255.0)
    if dtype == np.bool_:
        return (-1.0, 0.0) if invert else (0.0, 1.0)
    return None


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in shape)

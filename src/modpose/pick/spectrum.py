"""An image made even, its power spectrum, and filters that bring out what is looked for.

A filter is applied to the whole image by Fourier transform, and what it gives is divided by the
standard deviation that noise alone would have there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft, ndimage

from modpose.devices import near

Floats = NDArray[np.float32]

EVEN_OVER = 4.0
"""Mean and contrast are made the same over so many radii to each side."""
CLIPPED = 5.0
"""Standard deviations beyond which a pixel counts no more: hot pixels, and a few bright objects."""
RINGS = 512
"""Rings of the spectrum, from zero to the corner's frequency."""
PIXEL_NOISE = 0.3
"""Cycles a pixel, beyond which an image is noise alone where objects are packed."""
BORDER = 2.0
"""Radii by which an image is continued beyond its edges, mirrored."""


def even(image: NDArray[Any], radius: float) -> Floats:
    """Subtract the local mean and divide by the local standard deviation; (H, W)."""
    side = 2 * round(EVEN_OVER * radius) + 1

    def local(values: Floats) -> Floats:
        once = ndimage.uniform_filter(values, side, mode="reflect")
        twice: Floats = ndimage.uniform_filter(once, side, mode="reflect")
        return twice

    level = np.asarray(image, np.float64)
    values = (level - level.mean()).astype(np.float32)
    values -= local(values)
    spread = np.sqrt(np.maximum(local(values * values), 1e-12 * float(values.var()) + 1e-30))
    clipped: Floats = np.clip(values / spread, -CLIPPED, CLIPPED)
    return clipped


@dataclass(frozen=True)
class Spectrum:
    """The transform of an even image, continued beyond its edges.

    Attributes
    ----------
    transform
        (H', W' // 2 + 1) complex64.
    frequency
        (H', W' // 2 + 1) cycles per pixel.
    power
        (H', W' // 2 + 1) mean power in the ring of each frequency; of white noise of variance 1
        it is 1.
    shape
        Of the image, (H, W).
    padded
        (H', W').
    border
        Pixels that were added before the first row and column.
    """

    transform: NDArray[np.complex64]
    frequency: Floats
    power: Floats
    shape: tuple[int, int]
    padded: tuple[int, int]
    border: int

    @property
    def weight(self) -> Floats:
        """How many coefficients of the whole plane each column stands for, (W' // 2 + 1,)."""
        weight = np.full(self.frequency.shape[1], 2.0, np.float32)
        weight[0] = 1
        if self.padded[1] % 2 == 0:
            weight[-1] = 1
        return weight

    def pixel_noise(self) -> float:
        """Power of the finest details, which is that of white noise."""
        fine = self.frequency > PIXEL_NOISE
        return float(self.power[fine].mean()) if fine.any() else float(self.power.min())

    def apply(self, response: NDArray[Any]) -> Floats:
        """Multiply the transform by a real or complex filter and return the image, (H, W).

        This and the mixing of images is what takes the time: it is done on the chosen device
        (:mod:`modpose.devices`).
        """
        filtered = torch.from_numpy(self.transform * response)
        whole = torch.fft.irfft2(filtered.to(near(filtered)), s=self.padded)
        (height, width), border = self.shape, self.border
        cut = whole[border : border + height, border : border + width]
        return np.ascontiguousarray(cut.cpu().numpy(), np.float32)

    def sum_of(self, power: NDArray[Any]) -> float:
        """Mean over the whole plane of a power given on the half plane."""
        total = float((power.astype(np.float64).sum(0) * self.weight).sum())
        return total / math.prod(self.padded)

    def roughness(self, power: NDArray[Any]) -> float:
        """Variance of the slope along an axis over the variance, of noise of this power."""
        slope = self.sum_of(power * self.frequency**2) * (2 * math.pi) ** 2 / 2
        return slope / self.sum_of(power)


def spectrum_of(image: Floats, radius: float) -> Spectrum:
    """Transform an even image (H, W), continued by mirrored copies of its edges."""
    height, width = image.shape
    border = min(round(BORDER * radius), height - 1, width - 1)
    padded = (
        fft.next_fast_len(height + 2 * border, True),
        fft.next_fast_len(width + 2 * border, True),
    )
    after = [p - n - border for p, n in zip(padded, image.shape, strict=True)]
    continued = np.pad(image, [(border, after[0]), (border, after[1])], mode="symmetric")
    transform: Any = fft.rfft2(continued.astype(np.float32), workers=-1)
    ky = fft.fftfreq(padded[0]).astype(np.float32)[:, None]
    kx = fft.rfftfreq(padded[1]).astype(np.float32)[None]
    frequency = np.hypot(ky, kx)
    rings = max(1, min(RINGS, min(padded) // 2))
    ring = np.minimum((frequency * (rings / math.sqrt(0.5))).astype(np.int32), rings)
    power = (transform.real**2 + transform.imag**2) / math.prod(padded)
    count = np.bincount(ring.ravel(), minlength=rings + 1)
    total = np.bincount(ring.ravel(), power.ravel(), minlength=rings + 1)
    mean = np.maximum(total / np.maximum(count, 1), 1e-12).astype(np.float32)
    evened = min(rings, round(rings / math.sqrt(0.5) / (2 * EVEN_OVER * radius)))
    mean[:evened] = mean[evened]  # waves that were taken out with the local mean
    return Spectrum(transform, frequency, mean[ring], (height, width), padded, border)


def blob(frequency: Floats, radius: float) -> Floats:
    """Transform of the negative Laplacian of a Gaussian, which fits a disc of ``radius`` pixels."""
    phase = (2 * math.pi * radius / math.sqrt(2) * frequency) ** 2
    return phase * np.exp(-phase / 2)

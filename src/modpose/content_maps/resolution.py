"""Local resolution: where two half maps agree, and to which detail."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfftn, rfftn

Volume = NDArray[np.float32]

THRESHOLD = 0.5
"""Local correlation below which detail is not resolved; windows are small, so 0.143 would be met
by chance."""
WINDOW = 1.5
"""Standard deviation of the window in which maps are correlated, over the wavelength."""
STEP = 2
"""Shells from one band to the next, and the width of a band."""


def local_resolution(first: Volume, second: Volume, pixel_size: float | None = None) -> Volume:
    """Return the finest detail in which two half maps agree about each voxel.

    Parameters
    ----------
    first, second
        (D, D, D) half maps.
    pixel_size
        Å; None: the result is in pixels.

    Returns
    -------
    array
        (D, D, D): the wavelength where the correlation of the two, in a band of frequencies and a
        Gaussian window of 1.5 wavelengths, first falls below 0.5; the box, where it never is above.
    """
    box = len(first)
    axes = np.meshgrid(
        np.fft.fftfreq(box), np.fft.fftfreq(box), np.fft.rfftfreq(box), indexing="ij"
    )
    radius = (box * np.sqrt(sum(axis**2 for axis in axes))).astype(np.float32)
    spectra = [rfftn(volume.astype(np.float32)) for volume in (first, second)]
    found, going = np.full(first.shape, float(box)), np.ones(first.shape, bool)
    for shell in range(STEP, box // 2, STEP):
        band = np.exp(-0.5 * ((radius - shell) / (STEP / 2)) ** 2)
        a, b = (irfftn(part * band, s=first.shape) for part in spectra)
        window = np.exp(-2 * (np.pi * WINDOW / shell * radius) ** 2)  # the transform of a Gaussian
        cross, one, other = (
            irfftn(rfftn(x) * window, s=first.shape) for x in (a * b, a * a, b * b)
        )
        going &= cross >= THRESHOLD * np.sqrt(np.maximum(one * other, 1e-30))
        found[going] = box / shell
    return (found * (pixel_size or 1.0)).astype(np.float32)

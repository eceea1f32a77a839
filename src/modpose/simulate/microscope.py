"""The microscope's effect on a projection: CTF and noise."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from modpose.errors import InputError

VOLTAGE_KV = 300.0
CS_MM = 2.7
AMPLITUDE_CONTRAST = 0.1
ASTIGMATISM = 200.0
"""Standard deviation of half the difference of the two defoci (astigmatism), Å."""


def draw_ctf_parameters(
    n: int, pixel_size: float, defocus_range: tuple[float, float], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw the CTF of each image: a 300 kV microscope with a little astigmatism.

    Parameters
    ----------
    n
        Number of images.
    pixel_size
        Å per pixel.
    defocus_range
        Smallest and largest mean defocus, Å; uniform between.
    rng
        Random number generator.

    Returns
    -------
    array
        (n, 9), columns as in :class:`modpose.observe.ctf.CtfColumn`; no phase plate, no envelope.
    """
    mean = rng.uniform(*defocus_range, size=n)
    half_difference = np.abs(rng.normal(0.0, ASTIGMATISM, size=n))
    axis = rng.uniform(0.0, 180.0, size=n)
    constant = np.ones(n)
    columns = [
        pixel_size * constant,
        mean + half_difference,
        mean - half_difference,
        axis,
        VOLTAGE_KV * constant,
        CS_MM * constant,
        AMPLITUDE_CONTRAST * constant,
        0.0 * constant,
        0.0 * constant,
    ]
    return np.stack(columns, axis=1)


def filter_by_ctf(
    images: NDArray[np.float32], parameters: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Filter (N, H, W) images, each with its row of the (N, 9) CTF parameters."""
    import torch

    from modpose.observe.ctf import apply_ctf

    filtered = np.empty_like(images)
    for start in range(0, len(images), 512):
        part = slice(start, start + 512)
        batch = torch.from_numpy(images[part])[:, None]
        ctf = torch.from_numpy(parameters[part]).float()
        filtered[part] = apply_ctf(batch, ctf)[:, 0].numpy()
    return filtered


def scale_to_snr(signal: NDArray[np.float32], snr: float) -> NDArray[np.float32]:
    """Scale a whole set so that unit noise gives the signal-to-noise ratio ``snr``.

    SNR = var(signal) / var(noise), both over all pixels of all images, after the observation,
    with one noise variance for the set.

    Raises
    ------
    InputError
        If all images are empty.
    """
    return signal * np.float32(scale_for_snr(float(signal.var(dtype=np.float64)), snr))


def scale_for_snr(variance: float, snr: float) -> float:
    """Return the factor by which a signal of this variance has that SNR in unit noise.

    Raises
    ------
    InputError
        If the signal is constant.
    """
    if not variance > 0:
        expected = "an object in some (are shifts larger than the box?)"
        raise InputError.of("simulate", "every image", "empty", expected)
    return math.sqrt(snr / variance)


def add_unit_noise(signal: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Add white Gaussian noise of unit variance."""
    return signal + rng.standard_normal(signal.shape, dtype=np.float32)

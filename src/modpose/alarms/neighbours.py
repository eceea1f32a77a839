"""Other particles in the box than the one at its centre."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from modpose.alarms.sample import Floats, Sample, smaller
from modpose.run.alarm import Alarm

BLUR = 1 / 14
"""Standard deviation of the filter that detects blobs, as a fraction of the side."""
CENTRE, RIM = 0.5, 0.9
"""Radius that contains the centre of the particle, and radius beyond which others are searched."""
NOISE = 4.0
"""Smallest height of a blob in standard deviations of the noise."""
AS_STRONG = 0.35
"""Smallest height of a neighbour, as a fraction of that of the central particle."""
GAP = 0.65
"""The line from the centre to a neighbour must fall below this fraction of its height."""
STEPS = 16
FRACTION, COUNT, CHANCE = 0.025, 4, 3.0
"""Smallest numbers of images with a neighbour for an alarm: their fraction, their number, and
their number in standard deviations of chance.
"""
FEWEST, MOST = 20, 400
"""Number of images that are checked."""


def neighbours_alarm(sample: Sample) -> Alarm | None:
    """Check whether many images have a second blob at the rim, as strong as that at the centre."""
    if not sample.particle_like or len(sample.rows) < FEWEST or min(sample.shape) < 12:
        return None
    bright, dark, looked_at = count_neighbours(sample)
    excess = bright - dark
    if excess < max(FRACTION * looked_at, COUNT, CHANCE * np.sqrt(bright + dark)):
        return None
    return Alarm(
        "neighbours",
        f"At least {100 * excess / looked_at:.0f} % of the boxes hold parts of a neighbouring "
        "particle at their rim. Use a smaller box (--set data.crop=N), or mask the rim (--set "
        "data.mask=0.8).",
    )


def count_neighbours(sample: Sample) -> tuple[int, int, int]:
    """Count images with a neighbour, with a dark neighbour (for chance), and all images."""
    sample = smaller(sample, MOST)
    deviation = _deviation(sample.shape, BLUR * min(sample.shape))
    blobs = np.stack([_blobs(image, sample) / deviation for image in sample.images])
    centre = sample.radius <= CENTRE
    if float(np.median(blobs[:, centre].mean(axis=1))) < 0:  # inverted contrast
        blobs = -blobs
    height = float(np.median(blobs[:, centre].max(axis=1)))
    bright = sum(_has_neighbour(image, height, sample) for image in blobs)
    dark = sum(_has_neighbour(-image, height, sample) for image in blobs)
    return bright, dark, len(blobs)


def _blobs(image: NDArray[np.float32], sample: Sample) -> Floats:
    """Blur an image, in standard deviations of its white noise; it is zero outside the box."""
    from scipy.ndimage import gaussian_filter

    rim = sample.radius > 0.9
    level = float(np.median(image[rim]))
    noise = float(np.diff(image, axis=-1)[rim[..., 1:]].std()) / np.sqrt(2)
    sigma = BLUR * min(sample.shape)
    blurred = gaussian_filter(image - level, sigma, mode="constant", truncate=3.0)
    return np.asarray(blurred / max(noise, 1e-12), np.float64)


def _deviation(shape: tuple[int, ...], sigma: float) -> Floats:
    """Return the standard deviation of blurred white noise of unit variance, at each pixel."""
    from scipy.ndimage import gaussian_filter1d

    total = np.ones(shape)
    for axis, side in enumerate(shape):
        kernel = gaussian_filter1d(np.eye(side), sigma, axis=0, mode="constant", truncate=3.0)
        around = [-1 if i == axis else 1 for i in range(len(shape))]
        total *= np.sqrt((kernel**2).sum(axis=1)).reshape(around)
    return total


def _has_neighbour(blobs: Floats, height: float, sample: Sample) -> bool:
    """Check whether the highest blob at the rim is a separate particle."""
    rim = np.where(sample.radius > RIM, blobs, -np.inf)
    place = np.array(np.unravel_index(int(rim.argmax()), blobs.shape))
    peak = float(rim.max())
    if peak < max(NOISE, AS_STRONG * height):
        return False
    centre = np.array(blobs.shape) // 2
    line = np.linspace(0, 1, STEPS)[:, None] * (place - centre) + centre
    along = blobs[tuple(line.round().astype(int).T)]
    return bool(along.min() < GAP * peak and along[STEPS // 2 : -1].max() < peak)

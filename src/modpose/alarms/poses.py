"""Given poses that do not match the images."""

from __future__ import annotations

import numpy as np

from modpose.alarms.sample import Sample
from modpose.alarms.shells import Shells
from modpose.backprojection.check import CHANCE, MARGIN, MISTAKES, check_poses
from modpose.data import preprocess
from modpose.errors import InputError
from modpose.geometry.windows import soft_window
from modpose.run.alarm import Alarm

IMAGES, BOX = 400, 32
"""Number of images that are back-projected, and the side to which they are Fourier-cropped."""
FEWEST = 50
EXPECTED = 0.15
"""With right poses, half maps must be expected to agree better than chance by this much."""
LEAST_CHANCE = 0.03
"""Smallest value for the agreement by chance; one shuffled set may give less by luck."""
FALLS_SHORT = 0.4
"""Right poses reach more than this fraction of the expected agreement."""


def poses_alarm(sample: Sample) -> Alarm | None:
    """Check whether a few back-projections contradict the given poses."""
    dataset = sample.dataset
    if dataset.rotation is None or len(sample.shape) != 2 or dataset.n < FEWEST:
        return None
    try:
        check = check_poses(dataset, quiet=True, images=IMAGES, box=BOX)
    except InputError:  # not square, an odd box, or only in-plane poses: nothing to compare
        return None
    given, chance = check.agreement["given"], check.agreement["shuffled"]
    best = max(MISTAKES, key=lambda name: check.agreement[name])
    better = check.agreement[best]
    if better > max(given + MARGIN, chance + CHANCE):
        return Alarm(
            "poses",
            f"The given poses do not fit the images: {MISTAKES[best][0]}. Half maps agree to "
            f"{better:.2f} when this is corrected, and to {given:.2f} as given.",
        )
    expected = expected_agreement(sample, check.images)
    by_chance = given < max(chance, LEAST_CHANCE) + MARGIN and given < FALLS_SHORT * expected
    if by_chance and expected > chance + EXPECTED:
        return Alarm(
            "poses",
            "The given poses do not match the images: half maps agree no better than with "
            f"shuffled poses ({given:.2f} and {chance:.2f}). Check that the rows of the poses "
            "are those of the images.",
        )
    return None


def expected_agreement(sample: Sample, images: int) -> float:
    """Estimate how well half maps would agree if the poses were right.

    A voxel of a half map at k cycles per box is hit by about n / 4k of n / 2 slices.  Power above
    the noise at high frequencies counts as signal.
    """
    small = sample.images[:, None]
    if min(sample.shape) > BOX:
        small = preprocess.fourier_crop(small, BOX)
    shells = Shells(small.shape[2:], first=1)
    window = soft_window(small.shape[2:], 0.9, 1.0)
    power = shells.mean(np.abs(np.fft.rfft2(small[:, 0] * window)) ** 2).mean(axis=0)
    k = np.arange(1, len(power) + 1)
    signal = np.maximum(power / power.min() - 1, 0.0) * images / (4 * k)
    return float(np.average(signal / (1 + signal), weights=k))

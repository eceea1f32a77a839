"""An empty wedge in the Fourier transforms of volumes that was not declared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modpose.alarms.sample import Floats, Sample
from modpose.geometry.windows import soft_window
from modpose.run.alarm import Alarm

BIN_DEG = 5
BINS = 180 // BIN_DEG
"""Number of bins of the tilt that measures a frequency, from -90 to 90 degrees."""
LEAST_RADIUS = 2.5
"""Frequencies nearer to the tilt axis than this, in pixels of the transform, are left out."""
WIDEST, NARROWEST = 35, 80
"""Limits of the tilts, degrees, that are tried."""
DEEP, CLEAR, STEP = 0.85, -5.0, 0.4
"""Limits for an empty wedge: largest ratio of the power beyond the limits to that within, largest
number of standard errors, smallest fraction of the variation with tilt explained by a step.
"""
FEWEST = 8


@dataclass(frozen=True)
class EmptyWedge:
    """The range of tilts that best explains the power as a function of tilt.

    Attributes
    ----------
    limits
        Smallest and largest tilt with power, degrees.
    ratio
        Power beyond the limits over that between them.
    z
        Logarithm of the ratio, in standard errors over the volumes.
    explained, smooth
        Fractions of the variation with tilt explained by the step and by a cosine; preferred
        orientations of the particles give roughly a cosine.
    """

    limits: tuple[int, int]
    ratio: float
    z: float
    explained: float
    smooth: float

    @property
    def is_empty(self) -> bool:
        """Whether there is certainly a wedge without power."""
        is_step = self.explained > max(STEP, self.smooth)
        return is_step and self.ratio < DEEP and self.z < CLEAR


def wedge_alarm(sample: Sample) -> Alarm | None:
    """Check whether volumes have a missing wedge about z that was not declared."""
    if len(sample.shape) != 3 or sample.dataset.wedges is not None or len(sample.rows) < FEWEST:
        return None
    if min(sample.shape) < 12:
        return None
    found = find_wedge(sample.images)
    if not found.is_empty:
        return None
    low, high = found.limits
    return Alarm(
        "wedge",
        f"The volumes have almost no power beyond tilts of about {low} and {high} degrees: they "
        "have a missing wedge, but none is given. Poses and classes will be poor; run again "
        f"with the tilts of the series, such as --wedge={low},{high}.",
    )


def find_wedge(volumes: NDArray[np.float32]) -> EmptyWedge:
    """Find the range of tilts about y outside which (N, D, H, W) volumes have no power."""
    profile = tilt_profiles(volumes)
    mean = profile.mean(axis=0)
    centre = np.asarray(-90 + BIN_DEG * (np.arange(BINS) + 0.5), np.float64)
    best: tuple[float, int, int] | None = None
    for low in range(-NARROWEST, -WIDEST + 1, BIN_DEG):
        for high in range(WIDEST, NARROWEST + 1, BIN_DEG):
            inside = (centre > low) & (centre < high)
            rest = _scatter(mean[inside]) + _scatter(mean[~inside])
            if best is None or rest < best[0]:
                best = rest, low, high
    assert best is not None
    rest, low, high = best
    inside = (centre > low) & (centre < high)
    between, beyond = profile[:, inside].mean(axis=1), profile[:, ~inside].mean(axis=1)
    log_ratio = np.log(np.maximum(beyond, 1e-12) / np.maximum(between, 1e-12))
    error = float(log_ratio.std() / np.sqrt(len(log_ratio)))
    return EmptyWedge(
        (low, high),
        float(beyond.mean() / between.mean()),
        float(log_ratio.mean()) / max(error, 1e-12),
        1 - rest / max(_scatter(mean), 1e-12),
        _explained_by_cosine(mean, centre),
    )


def _explained_by_cosine(profile: Floats, centre_deg: Floats) -> float:
    """Return the fraction of the variation that a + b cos 2t + c sin 2t explains."""
    twice = np.deg2rad(2 * centre_deg)
    terms = np.stack([np.ones_like(twice), np.cos(twice), np.sin(twice)], axis=1)
    fitted = terms @ np.linalg.lstsq(terms, profile, rcond=None)[0]
    return 1 - float(((profile - fitted) ** 2).sum()) / max(_scatter(profile), 1e-12)


def _scatter(values: Floats) -> float:
    return float(((values - values.mean()) ** 2).sum())


def tilt_profiles(volumes: NDArray[np.float32]) -> Floats:
    """Return each volume's power at each tilt, relative to the mean of shells, (N, BINS).

    Each shell is weighted by the fraction of its power above the noise at high frequencies.
    """
    shape = volumes.shape[1:]
    window = soft_window(shape, 0.8, 1.0)
    kz, ky, kx = np.meshgrid(
        np.fft.fftfreq(shape[0], 1 / shape[0]),
        np.fft.fftfreq(shape[1], 1 / shape[1]),
        np.fft.rfftfreq(shape[2], 1 / shape[2]),
        indexing="ij",
    )
    shell = np.sqrt(kx**2 + ky**2 + kz**2).round().astype(int)
    last = min(shape) // 2
    power = np.stack([np.abs(np.fft.rfftn(v * window)) ** 2 for v in volumes])
    mean = power.mean(axis=0)
    count = np.bincount(shell.ravel(), minlength=last + 1)
    of_shell = np.bincount(shell.ravel(), mean.ravel())[: last + 1] / count[: last + 1]
    floor = of_shell[max(1, last - 2) :].min()
    worth = np.clip(1 - floor / np.maximum(of_shell, 1e-30), 0.01, 1.0) ** 2
    used = (np.hypot(kx, kz) >= LEAST_RADIUS) & (shell <= last) & ((kx > 0) | (kz > 0))
    tilt = np.rad2deg(np.arctan2(kz[used], kx[used]))  # kx >= 0: from -90 to 90
    bins = np.clip(((tilt + 90) / BIN_DEG).astype(int), 0, BINS - 1)
    shells = shell[used]
    weight = worth[shells] / np.maximum(of_shell[shells], 1e-30)
    total = np.bincount(bins, worth[shells], minlength=BINS)
    sums = [np.bincount(bins, p[used] * weight, minlength=BINS) for p in power]
    profile = np.stack(sums) / np.maximum(total, 1e-30)
    profile[:, total == 0] = 1.0
    return profile

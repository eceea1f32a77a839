"""A CTF that does not fit the power spectra of the images.

Defocus differs between images.  So at each frequency the CTF is large in some images and small in
others, and the power of the images must follow it.  The strength of this relation, over all images
and shells, is compared with that for other defoci.  The result does not depend on a single image,
nor on the background and the particle's own spectrum, which are the same for all images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from modpose.alarms.sample import Floats, Sample
from modpose.alarms.shells import Shells
from modpose.data import preprocess
from modpose.geometry.windows import soft_window
from modpose.observe.ctf import CtfColumn, ctf_2d
from modpose.run.alarm import Alarm

FACTORS = tuple(np.geomspace(0.4, 2.5, 33).round(3))
"""Factors on the defocus that are tried."""
NEAR = 1.12
"""A factor up to this, or down to its inverse, counts as the given CTF."""
SHUFFLES = 20
FIRST_SHELL = 2
"""Cycles per box below which uneven backgrounds dominate the power."""
CLEAR = 15.0
"""Nats by which another CTF must be better than the given one, and better than chance."""
WORSE = 0.93
"""For an alarm, the gain of the given CTF must be at most this fraction of that of the other."""
EXPECTED = 40.0
"""Smallest expected gain of a right CTF, nats, for an alarm if the given one gains nothing."""
FEWEST = 50
MOST, BOX = 500, 64
"""Number of images that are checked, and the side to which they are Fourier-cropped."""

Parameters = NDArray[np.float32]


@dataclass(frozen=True)
class CtfFit:
    """How well CTFs explain the power spectra.

    Attributes
    ----------
    given
        Log-likelihood that the given CTF gains, nats.
    best, factor
        Largest gain of another defocus, and its factor on the given one.
    chance, spread
        Mean and standard deviation of the gain of CTFs from other images.
    expected
        Gain of a right CTF if all power above the noise came through the microscope.
    """

    given: float
    best: float
    factor: float
    chance: float
    spread: float
    expected: float

    @property
    def other_fits_better(self) -> bool:
        """Whether another defocus explains the spectra clearly better."""
        clear = self.best > self.chance + CLEAR + 6 * self.spread
        return clear and self.best > self.given + CLEAR and self.given < WORSE * self.best

    @property
    def none_fits(self) -> bool:
        """Whether the given CTF explains nothing although a right one would explain much."""
        nothing = self.given < self.chance + 3 * self.spread + 1
        return nothing and self.expected > max(EXPECTED, 10 * self.chance)


def ctf_alarm(sample: Sample) -> Alarm | None:
    """Check whether the power spectra contradict the CTF."""
    ctf = sample.dataset.ctf
    if ctf is None or len(sample.shape) != 2 or len(sample.rows) < FEWEST:
        return None
    if not sample.particle_like:
        return None
    fit = fit_ctf(sample, ctf[sample.rows])
    if fit.other_fits_better:
        return Alarm(
            "ctf",
            "The CTF does not fit the power spectra of the images, which fit better with "
            f"{fit.factor:.2g} times the defocus. Check defocus, voltage, pixel size and box.",
        )
    if fit.none_fits:
        return Alarm(
            "ctf",
            "The power spectra of the images do not follow their CTF. Check whether the CTFs "
            "belong to these images, and whether the images were corrected for the CTF.",
        )
    return None


def fit_ctf(sample: Sample, ctf: Parameters) -> CtfFit:
    """Compare the spectra with the given CTFs, with other defoci, and with CTFs of other images."""
    images, ctf = _small(sample, ctf)
    shells = Shells(images.shape[1:], first=FIRST_SHELL)
    power, noise = _log_power(images, shells)
    given_squares = _squared_ctf(shells, ctf)
    given = _gain(power, given_squares)
    best, factor = -np.inf, 1.0
    for tried in FACTORS:
        if 1 / NEAR < tried < NEAR:
            continue
        changed = ctf.copy()
        changed[:, [CtfColumn.DEFOCUS_U, CtfColumn.DEFOCUS_V]] *= tried
        gain = _gain(power, _squared_ctf(shells, changed))
        if gain > best:
            best, factor = gain, float(tried)
    rng = np.random.default_rng(0)
    dealt = [_gain(power, given_squares[rng.permutation(len(ctf))]) for _ in range(SHUFFLES)]
    expected = _expected(power, given_squares, noise)
    return CtfFit(given, best, factor, float(np.mean(dealt)), float(np.std(dealt)), expected)


def _squared_ctf(shells: Shells, parameters: Parameters) -> Floats:
    """Return the square of each CTF, averaged over shells."""
    parts = []
    for start in range(0, len(parameters), 256):
        chunk = torch.from_numpy(parameters[start : start + 256])
        parts.append(shells.mean(ctf_2d(chunk, shells.shape).square().numpy()))
    return np.concatenate(parts)


def _log_power(images: NDArray[np.float32], shells: Shells) -> tuple[Floats, float]:
    """Return the logarithm of the power of each image in shells, and of that of the noise."""
    window = soft_window(shells.shape, 0.8, 1.0)
    rim = window < 0.5
    parts = []
    for start in range(0, len(images), 256):
        part = images[start : start + 256]
        level = part[:, rim].mean(axis=1)[:, None, None]
        parts.append(shells.mean(np.abs(np.fft.rfft2((part - level) * window)) ** 2))
    power = np.log(np.maximum(np.concatenate(parts), 1e-12))
    mean = power.mean(axis=0)
    return power, float(mean[-max(2, len(mean) // 4) :].mean())


def _small(sample: Sample, ctf: Parameters) -> tuple[NDArray[np.float32], Parameters]:
    """Return some of the images, in a small box, with their CTFs."""
    rows = slice(None, None, max(1, len(ctf) // MOST))
    images, parameters = sample.images[rows], ctf[rows].copy()
    side = min(sample.shape)
    if side > BOX and len(set(sample.shape)) == 1:
        images = preprocess.fourier_crop(images[:, None], BOX)[:, 0]
        parameters[:, CtfColumn.PIXEL_SIZE] *= side / BOX
    return images, parameters


def _gain(power: Floats, squares: Floats) -> float:
    """Return the gain in log-likelihood of a straight line in ``squares``, over all shells.

    Power that falls while the CTF rises gains nothing.
    """
    x, y = squares - squares.mean(axis=0), power - power.mean(axis=0)
    spread = np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))
    r = np.where(spread > 0, (x * y).sum(axis=0) / np.maximum(spread, 1e-30), 0.0)
    r = np.clip(r, 0.0, 0.9999)
    return float(-0.5 * len(power) * np.log1p(-(r**2)).sum())


def _expected(power: Floats, squares: Floats, noise: float) -> float:
    """Return the gain of the CTF if all power above the noise were proportional to its square."""
    mean = np.exp(power.mean(axis=0))
    signal = np.maximum(mean - np.exp(noise), 0.0) / np.maximum(squares.mean(axis=0), 1e-6)
    predicted = np.log(np.exp(noise) + signal * squares)
    explained = predicted.var(axis=0) / np.maximum(power.var(axis=0), 1e-30)
    return float(-0.5 * len(power) * np.log1p(-np.clip(explained, 0.0, 0.9)).sum())

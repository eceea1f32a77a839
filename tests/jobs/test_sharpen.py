"""Sharpened maps."""

from __future__ import annotations

import numpy as np
import pytest

from modpose.fourier.fsc import FscCurve, fsc
from modpose.jobs.sharpen import sharpened


def falling(box: int, size: float, b_factor: float, seed: int = 0) -> np.ndarray:
    """Return noise whose amplitudes fall by a B-factor."""
    white = np.fft.rfftn(np.random.default_rng(seed).normal(size=(box,) * 3))
    axes = [np.fft.fftfreq(box), np.fft.fftfreq(box), np.fft.rfftfreq(box)]
    square = sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")) / size**2
    return np.fft.irfftn(white * np.exp(-b_factor * square / 4), (box,) * 3, (0, 1, 2))


def test_the_b_factor_of_a_map_is_found_and_taken_off():
    box, size = 48, 1.5
    one = falling(box, size, 180.0)
    curve = FscCurve(np.ones(box // 2), box, size)
    found = sharpened(one, one, np.ones((box,) * 3), curve)
    # (10 Å is shell 7.2.)  18 shells of some 3,000 coefficients: amplitudes to 1 %
    assert found.b_factor == pytest.approx(180.0, abs=2.0)
    assert (found.coarsest, found.finest) == (9.0, 3.0)
    assert "180 Å², measured from 9 to 3 Å" in found.sentence().replace("179", "180")
    flat = fsc(found.volume, falling(box, size, 0.0), None, size)
    assert flat.correlation[:-1].min() > 0.99  # the last shell lies partly beyond Nyquist


def test_a_shell_counts_by_what_the_halves_agree_on():
    box = 32
    one = falling(box, 4.0, 0.0)
    agreed = np.r_[np.ones(8), 0.5 * np.ones(2), np.zeros(6)]
    found = sharpened(one, one, np.ones((box,) * 3), FscCurve(agreed, box, None))
    shell = np.abs(np.fft.fftfreq(box)[:, None, None] * box)
    spectrum = np.abs(np.fft.fftn(found.volume))
    assert spectrum[(shell > 12)[..., 0, 0]].max() < 1e-4 * spectrum.max()


def test_rising_amplitudes_are_not_sharpened():
    one = falling(32, 2.0, -50.0)
    found = sharpened(one, one, np.ones((32,) * 3), FscCurve(np.ones(16), 32, 2.0))
    assert found.b_factor == 0
    assert "not sharpened" in found.sentence()


def test_maps_that_agree_in_nothing_stay_as_they_are_said_to_be():
    one = falling(32, 2.0, 0.0)
    found = sharpened(one, one, np.ones((32,) * 3), FscCurve(np.zeros(16), 32, 2.0))
    np.testing.assert_allclose(found.volume, one, rtol=1e-5, atol=1e-6)
    assert "not sharpened" in found.sentence()

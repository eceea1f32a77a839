"""Fourier shell correlation against loops over coefficients; its files and its verb."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from modpose.cli import app
from modpose.data.mrc import write_mrcs
from modpose.errors import InputError
from modpose.fourier.fsc import FscCurve, fsc
from modpose.geometry.windows import soft_window


def noise(box: int, seed: int, dims: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(box,) * dims)


def by_loops(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    box, k = len(a), np.fft.fftfreq(len(a)) * len(a)
    cross, first, second = np.zeros(box), np.zeros(box), np.zeros(box)
    fa, fb = np.fft.fftn(a), np.fft.fftn(b)
    for place in np.ndindex(a.shape):
        shell = round(float(np.sqrt(sum(k[i] ** 2 for i in place))))
        if shell <= box // 2:
            cross[shell] += (fa[place] * fb[place].conj()).real
            first[shell] += abs(fa[place]) ** 2
            second[shell] += abs(fb[place]) ** 2
    shells = slice(1, box // 2 + 1)
    return cross[shells] / np.sqrt(first * second)[shells]


@settings(deadline=None, max_examples=12)
@given(box=st.integers(6, 11), seed=st.integers(0, 99), dims=st.sampled_from([2, 3]))
def test_every_shell_is_what_loops_over_its_coefficients_give(box, seed, dims):
    if box % 2:  # round() takes halves to even numbers, so compare where there are none
        box += 1
    a, b = noise(box, seed, dims), noise(box, seed + 1, dims) + noise(box, seed, dims)
    np.testing.assert_allclose(fsc(a, b).correlation, by_loops(a, b), atol=1e-12)


def test_equal_maps_agree_whatever_their_scale_and_noise_does_not():
    a, b = noise(24, 0), noise(24, 1)
    np.testing.assert_allclose(fsc(a, 7 * a + 3).correlation, 1.0)
    np.testing.assert_allclose(fsc(a, -a).correlation, -1.0)
    assert abs(fsc(a, b).area()) < 0.05
    assert fsc(a, a).area() == pytest.approx(1.0)
    assert (fsc(a, np.zeros_like(a)).correlation == 0).all()


def test_two_halves_with_noise_agree_as_their_signal_to_noise_ratio_says():
    signal = noise(40, 0)
    first, second = signal + noise(40, 1), signal + noise(40, 2)
    assert fsc(first, second).area() == pytest.approx(0.5, abs=0.02)  # SNR / (SNR + 1)
    assert fsc(first, signal).area() == pytest.approx(0.5**0.5, abs=0.02)


def test_the_resolution_is_read_between_shells():
    curve = FscCurve(np.array([1.0, 0.9, 0.3, 0.2, 0.6]), 10, 2.0)
    assert curve.crossing(0.5) == pytest.approx((2 + 0.4 / 0.6) / 10)
    assert curve.resolution(0.5) == pytest.approx(2.0 / curve.crossing(0.5))
    assert curve.crossing(0.1) == 0.5
    assert "Nyquist" in curve.sentence(0.1)
    assert FscCurve(np.zeros(5), 10).resolution(0.5) == np.inf
    assert "from the first shell" in FscCurve(np.zeros(5), 10).sentence(0.5)
    assert curve.area(0.2) == pytest.approx(0.95)


def test_a_mask_hides_what_lies_outside():
    a = noise(24, 0)
    mask = soft_window((24,) * 3, 0.5, 0.6)
    assert mask[12, 12, 12] == 1
    assert mask[0, 0, 0] == 0
    outside = a + 5 * noise(24, 3) * (mask == 0)
    assert fsc(a, outside).area() < 0.5
    np.testing.assert_allclose(fsc(a, outside, mask).correlation, 1.0)


def test_the_verb_prints_and_writes_the_curve(tmp_path):
    a, b = tmp_path / "a.mrc", tmp_path / "b.mrc"
    maps = noise(16, 0), noise(16, 0) + 0.3 * noise(16, 1)
    for path, values in zip((a, b), maps, strict=True):
        write_mrcs(path, values[None], 3.0)
    out, png = tmp_path / "c.csv", tmp_path / "c.png"
    command = ["fsc", str(a), str(b), "-o", str(out), "--figure", str(png)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "FSC = 0.5 at 6 Å (Nyquist" in done.output
    table = pd.read_csv(out)
    np.testing.assert_allclose(table["fsc"], fsc(*maps).correlation, atol=1e-5)
    np.testing.assert_allclose(table["resolution_A"], 48 / np.arange(1, 9))
    assert png.read_bytes()[:4] == b"\x89PNG"
    again = CliRunner().invoke(app, command)
    assert isinstance(again.exception, InputError)


def test_what_cannot_be_compared_is_refused(tmp_path):
    for name, values, size in (("a", noise(8, 0), 3.0), ("b", noise(8, 0), 4.0)):
        write_mrcs(tmp_path / f"{name}.mrc", values[None], size)
    write_mrcs(tmp_path / "c.mrc", noise(10, 0)[None], 3.0)
    write_mrcs(tmp_path / "two.mrc", np.stack([noise(8, 0)] * 2), 3.0)
    for other, extra, sentence in (
        ("b.mrc", [], "the pixel size is 3 Å in"),
        ("c.mrc", [], "two cubes of one size"),
        ("no.mrc", [], "no such file"),
        ("two.mrc", [], "the number of maps is 2"),
        ("a.mrc", ["--radius", "0"], "--radius is 0"),
        ("a.mrc", ["--mask", str(tmp_path / "c.mrc")], "the shape of the mask"),
    ):
        done = CliRunner().invoke(
            app, ["fsc", *[str(tmp_path / n) for n in ("a.mrc", other)], *extra]
        )
        assert isinstance(done.exception, InputError)
        assert sentence in str(done.exception)
    with pytest.raises(InputError, match="NaN"):
        fsc(np.full((8, 8, 8), np.nan), noise(8, 0))

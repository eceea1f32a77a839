"""The FSC of half maps: masks, random phases, directions, and the files of curves."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import starfile
from typer.testing import CliRunner

from modpose.cli import app
from modpose.data.mrc import write_mrcs
from modpose.errors import InputError
from modpose.fourier.fsc import fsc
from modpose.geometry.windows import soft_window
from modpose.jobs.curve_files import write_resolution
from modpose.jobs.resolution import (
    half_sphere,
    resolution,
    resolution_of_files,
    with_random_phases,
)

BOX = 32


def filtered(values: np.ndarray, gain: np.ndarray) -> np.ndarray:
    return np.fft.irfftn(np.fft.rfftn(values) * gain, s=values.shape, axes=(0, 1, 2))


def frequency(box: int = BOX) -> np.ndarray:
    axes = np.fft.fftfreq(box), np.fft.fftfreq(box), np.fft.rfftfreq(box)
    return np.sqrt(sum(part**2 for part in np.meshgrid(*axes, indexing="ij")))


def halves(level: float = 0.3, limit: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Two maps that share everything below ``limit`` cycles per pixel, and noise in each."""
    rng = np.random.default_rng(0)
    shared = filtered(rng.normal(size=(BOX,) * 3), frequency() < limit)
    shared /= shared.std()
    one, other = (shared + level * rng.normal(size=shared.shape) for _ in range(2))
    return one, other


def test_random_phases_keep_amplitudes_and_leave_low_shells_alone() -> None:
    volume, _ = halves()
    drawn = with_random_phases(volume, 6, seed=1)
    before, after = np.fft.rfftn(volume), np.fft.rfftn(drawn)
    np.testing.assert_allclose(np.abs(after), np.abs(before), rtol=1e-9, atol=1e-9)
    low = frequency() * BOX < 5.5
    np.testing.assert_allclose(after[low], before[low], atol=1e-9)
    curve = fsc(volume, drawn).correlation
    assert (curve[:5] > 1 - 1e-9).all()
    # each of N independent phases adds a correlation of s.d. 1 / sqrt(N / 2); N > 300 in shell 6
    assert np.abs(curve[5:]).max() < 0.35


def test_what_a_tight_mask_adds_is_taken_off() -> None:
    a, b = halves()
    mask = soft_window((BOX,) * 3, 0.4, 0.45)  # tight: it correlates neighbouring shells' noise
    found = resolution(a, b, mask, 2.0, randomise=True)
    assert found.beyond is not None
    assert found.masked is not None
    assert 5 <= found.beyond <= 8  # the shared signal ends at shell 6.4
    late = slice(found.beyond + 2, None)
    assert np.abs(found.curve.correlation[late]).mean() < 0.25
    assert (
        found.curve.correlation[: found.beyond] == found.masked.correlation[: found.beyond]
    ).all()
    assert found.curve.resolution(0.143) >= found.masked.resolution(0.143) - 1e-9
    assert "phases are random beyond" in found.lines()[0]
    assert f"(shell {found.beyond})" in found.lines()[0]


def test_a_map_that_is_worse_along_one_axis_shows_it() -> None:
    rng = np.random.default_rng(1)
    axes = np.meshgrid(
        np.fft.fftfreq(BOX), np.fft.fftfreq(BOX), np.fft.rfftfreq(BOX), indexing="ij"
    )
    along_z = np.abs(axes[0]) > 0.8 * np.maximum(frequency(), 1e-9)
    gain = np.where(along_z, frequency() < 0.15, frequency() < 0.35).astype(float)
    shared = filtered(rng.normal(size=(BOX,) * 3), gain)
    a, b = (shared + 0.02 * rng.normal(size=shared.shape) for _ in range(2))
    found = resolution(a, b, None, 1.0, cones=60)
    assert found.cones is not None
    resolutions = found.cones.resolutions(0.143)
    worst = found.cones.direction[resolutions.argmax()]
    assert abs(worst[2]) > 0.8
    assert resolutions.max() == pytest.approx(1 / 0.15, rel=0.15)
    assert resolutions.min() == pytest.approx(1 / 0.35, rel=0.15)
    assert "by direction: best" in found.lines()[-1]


def test_cones_are_corrected_for_the_mask_too() -> None:
    a, b = halves()
    mask = soft_window((BOX,) * 3, 0.4, 0.45)
    plain = resolution(a, b, mask, 1.5, cones=30)
    found = resolution(a, b, mask, 1.5, randomise=True, cones=30)
    assert plain.cones is not None
    assert found.cones is not None
    assert found.beyond is not None
    assert "not taken off" in plain.lines()[-1]
    assert "not taken off" not in found.lines()[-1]
    late = slice(found.beyond + 2, None)  # nothing is shared there but the mask
    assert np.nanmedian(plain.cones.correlation[:, late]) > 0.3
    assert abs(np.nanmedian(found.cones.correlation[:, late])) < 0.15
    whole = resolution(a, b, mask, 1.5, randomise=True, cones=1, cone_deg=90)
    assert whole.cones is not None
    np.testing.assert_allclose(whole.cones.correlation[0], whole.curve.correlation, atol=1e-6)


def test_cones_together_are_the_whole() -> None:
    a, b = halves()
    found = resolution(a, b, cones=1, cone_deg=90)
    assert found.cones is not None
    np.testing.assert_allclose(found.cones.correlation[0], found.curve.correlation, atol=1e-9)
    directions = half_sphere(200)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    np.testing.assert_allclose(directions.T @ directions / 200, np.eye(3) / 3, atol=0.01)


def test_curves_as_table_xml_and_star(tmp_path: Path) -> None:
    a, b = halves()
    found = resolution(a, b, soft_window((BOX,) * 3, 0.7, 0.8), 1.5, randomise=True, cones=20)
    for suffix in (".csv", ".xml", ".star"):
        write_resolution(found, tmp_path / f"fsc{suffix}")
    table = pd.read_csv(tmp_path / "fsc.csv")
    np.testing.assert_allclose(table["fsc"], found.curve.correlation)
    assert list(table.columns[-3:]) == [f"fsc_cone_{x}" for x in ("lowest", "median", "highest")]
    points = ElementTree.parse(tmp_path / "fsc.xml").getroot()
    assert points.tag == "fsc"
    x = [float(point.findtext("x", "")) for point in points]
    y = [float(point.findtext("y", "")) for point in points]
    np.testing.assert_allclose(x, found.curve.frequency / 1.5, atol=1e-6)
    np.testing.assert_allclose(y, found.curve.correlation, atol=1e-6)
    star = starfile.read(tmp_path / "fsc.star")
    np.testing.assert_allclose(
        star["rlnFourierShellCorrelationCorrected"][1:], found.curve.correlation, atol=1e-6
    )
    np.testing.assert_allclose(star["rlnAngstromResolution"][1], BOX * 1.5)
    with pytest.raises(InputError, match="already exists"):
        write_resolution(found, tmp_path / "fsc.xml")
    unknown = resolution(a, b)
    with pytest.raises(InputError, match="pixel size of the maps is not known"):
        write_resolution(unknown, tmp_path / "none.xml")
    with pytest.raises(InputError, match=r"extension is '\.txt', expected \.csv, \.xml or \.star"):
        write_resolution(unknown, tmp_path / "none.txt")


def test_bad_questions_are_refused() -> None:
    a, b = halves()
    with pytest.raises(InputError, match="without a mask, expected --mask"):
        resolution(a, b, randomise=True)
    with pytest.raises(InputError, match="smallest FSC is 1, expected maps whose FSC falls below"):
        resolution(a, a, soft_window((BOX,) * 3, 0.7, 0.8), randomise=True)
    with pytest.raises(InputError, match="the seed is -1, expected a whole number"):
        resolution(a, b, seed=-1)
    with pytest.raises(InputError, match="a cone is 3 of 95 degrees"):
        resolution(a, b, cones=3, cone_deg=95)


def test_a_map_and_itself_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, volume in zip("abc", [*halves(), halves()[0]], strict=True):
        write_mrcs(tmp_path / f"{name}.mrc", volume[None].astype(np.float32), 1.5)
    resolution_of_files(tmp_path / "a.mrc", tmp_path / "b.mrc")
    assert not caplog.text
    resolution_of_files(tmp_path / "a.mrc", tmp_path / "c.mrc")
    assert "a.mrc and" in caplog.text and "hold the same map" in caplog.text


def test_the_verb(tmp_path: Path) -> None:
    for name, volume in zip("ab", halves(), strict=True):
        write_mrcs(tmp_path / f"{name}.mrc", volume[None].astype(np.float32), 1.5)
    words = [str(tmp_path / "a.mrc"), str(tmp_path / "b.mrc"), "--radius", "0.8", "--randomise"]
    words += ["--cones", "20", "-o", str(tmp_path / "f.csv"), "-o", str(tmp_path / "f.xml")]
    words += ["--figure", str(tmp_path / "f.png")]
    done = CliRunner().invoke(app, ["fsc", *words])
    assert done.exit_code == 0, done.output
    assert "phases are random beyond" in done.output
    assert all((tmp_path / f"f.{suffix}").is_file() for suffix in ("csv", "xml", "png"))
    again = CliRunner().invoke(app, ["fsc", *words])
    assert isinstance(again.exception, InputError)

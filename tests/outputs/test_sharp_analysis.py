"""Sharp content of many dimensions with known truth: its density, its path, its variance map."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from numpy.typing import NDArray

from modpose import Run
from modpose.content_maps import ContentMaps
from modpose.outputs.analyze import analyze_run
from modpose.outputs.content_maps import stored_content_maps
from modpose.outputs.landscape import Analysis, analyze_content
from tests.outputs.test_sharp_volumes import drawn, folder  # noqa: F401

MANY = 49
NOISE = 0.5
"""Spread of axes that tell nothing, in usual errors: below 1, as content is a posterior mean."""


@pytest.fixture
def maps(folder: Path, drawn: Path) -> ContentMaps:  # noqa: F811
    found = stored_content_maps(Run.open(folder / "run"))
    assert found is not None
    return found


def among_many(true: NDArray[np.float64]) -> NDArray[np.float64]:
    """Content (N, d) beside axes of noise, turned so that no axis is one of the true ones."""
    rng = np.random.default_rng(1)
    z = NOISE * rng.standard_normal((len(true), MANY))
    z[:, : true.shape[1]] += true
    turn, _ = np.linalg.qr(rng.standard_normal((MANY, MANY)))
    return np.asarray(z @ turn)


def analysed(
    folder: Path,  # noqa: F811
    maps: ContentMaps,
    z: NDArray[np.float64],
    path: str | None = None,
) -> Analysis:
    of_z = replace(maps, z=z, std=np.full_like(z, 0.3))
    return analyze_content(Run.open(folder / "run"), k=6, path=path, steps=15, content_maps=of_z)


def test_a_path_among_many_dimensions_follows_the_ring(
    folder: Path,  # noqa: F811
    maps: ContentMaps,
) -> None:
    rng = np.random.default_rng(0)
    angle = np.deg2rad(rng.uniform(45, 315, 4000))
    z = among_many(5 * np.stack([np.cos(angle), np.sin(angle)], 1))
    degrees = np.rad2deg(angle)
    ends = f"{np.abs(degrees - 55).argmin()}..{np.abs(degrees - 305).argmin()}"
    found = analysed(folder, maps, z, ends)
    assert len(found.few.axes) == 2
    assert any("Content has 49 dimensions.  Density and path are" in one for one in found.lines)
    assert found.along.shape == (15, MANY) and found.path is not None
    centre = found.few.on(np.zeros((1, MANY)))
    radius = np.linalg.norm(found.few.on(found.along) - centre, axis=1)
    assert np.abs(radius - 5).max() < 0.4
    position = found.columns["path_position"]
    inner = (degrees > 65) & (degrees < 295)
    assert np.isfinite(position[inner]).mean() > 0.5
    error = np.abs(55 + 250 * position[inner] - degrees[inner])
    assert np.nanmedian(error) < np.rad2deg(NOISE / 5)  # an image is told no better
    energy = found.columns["free_energy"][inner]
    assert energy.std() < 1  # uniform along the ring, blurred across it


def test_two_states_in_many_dimensions_are_two_wells(
    folder: Path,  # noqa: F811
    maps: ContentMaps,
) -> None:
    state = np.arange(5000) < 4000  # four times as many images
    found = analysed(folder, maps, among_many(8.0 * state[:, None]))
    assert len(found.few.axes) == 2
    energy = found.columns["free_energy"]
    small, large = energy[~state].min(), energy[state].min()
    assert large == 0 and small == pytest.approx(np.log(4), abs=0.5)
    first = found.energy.ticks[0]
    along = np.nan_to_num(found.energy.energy, nan=np.inf).min(axis=1)
    low = float(found.few.on(found.z)[~state].mean(0)[0])
    high = float(found.few.on(found.z)[state].mean(0)[0])
    wells = [along[np.abs(first - place) < 1].min() for place in (low, high)]
    assert wells[1] == 0 and wells[0] == pytest.approx(np.log(4), abs=0.25)
    between = along[np.abs(first - (low + high) / 2) < 1]
    assert between.min() > 4


def test_the_variance_map_is_that_of_the_sharp_maps(
    folder: Path,  # noqa: F811
    maps: ContentMaps,
    tmp_path: Path,
) -> None:
    """Of the maps of all images, before they are filtered."""
    shutil.copytree(folder / "run", tmp_path / "run")
    run = Run.open(tmp_path / "run")
    analyze_run(run, tmp_path / "out", k=3, content_maps=maps, quiet=True)
    every = np.tensordot(maps.basis(maps.z), maps.bands[0].maps, 1)
    found = mrcfile.read(tmp_path / "out" / "variance.mrc")
    largest = float(every.var(0).max())
    assert largest > 0
    reach, middle = every.shape[-1] // 2, found.shape[-1] // 2
    inside = (slice(middle - reach, middle + reach),) * 3
    np.testing.assert_allclose(found[inside], every.var(0), atol=1e-4 * largest)
    assert found.sum() == pytest.approx(found[inside].sum())

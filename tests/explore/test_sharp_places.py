"""The page of a run with sharp maps: its content is that of the maps, and they draw it."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modpose.content_maps import ContentBasis
from modpose.content_maps.files import read_about, read_content_maps, write_content_maps
from modpose.explore.folder import write_folder
from modpose.explore.opened import OpenRun
from modpose.explore.pictures import _png, _slices
from modpose.explore.places import Places
from modpose.outputs.content_maps import content_maps_of, sharp_columns
from modpose.plot.surface import surface_of
from modpose.run import Run
from modpose.run.added import add_columns
from modpose.run.folder import CONTENT_MAPS
from tests.explore.asking import Page
from tests.outputs.test_sharp_volumes import folder  # noqa: F401

MANY = 10


@pytest.fixture(scope="module")
def sharp(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:  # noqa: F811
    """A run whose maps have content of their own: a half circle among ten dimensions."""
    place = tmp_path_factory.mktemp("explored") / "run"
    shutil.copytree(folder / "run", place)
    run = Run.open(place)
    maps = content_maps_of(run, functions=3, quiet=True)
    rng = np.random.default_rng(0)
    angle = np.pi * rng.permutation(len(maps.z)) / len(maps.z)
    z = 0.1 * rng.standard_normal((len(angle), MANY))
    z[:, :2] += 8 * np.stack([np.cos(angle), np.sin(angle)], 1)
    basis = ContentBasis.fit(z, np.ones(MANY), len(maps.basis))
    values, std = basis(z), np.full_like(z, 0.3)
    own = replace(maps, basis=basis, z=z, std=std, moment=values.T @ values)
    path = place / CONTENT_MAPS
    write_content_maps(own, path, read_about(path))
    earlier = sharp_columns(run.latents())
    columns = {f"sharp_{k}": column for k, column in enumerate(z.T)}
    add_columns(run, columns, "a half circle", overwrite=True, remove=earlier)
    return Run.open(place)


@pytest.fixture
def page(sharp: Run) -> Page:
    return Page(sharp)


def numbers(z: np.ndarray) -> str:
    return ",".join(repr(float(value)) for value in z)


def test_content_is_that_of_the_sharp_maps(page: Page, sharp: Run) -> None:
    [about] = page.ask("runs").json
    maps = read_content_maps(sharp.path / CONTENT_MAPS)
    assert about["sharp"] and about["volumes"] and not about["quick"]
    assert about["content"] == [f"sharp_{k}" for k in range(MANY)]
    assert {"z_0", "pca_0", "pca_1"} <= {one["name"] for one in about["columns"]}
    circle = np.frombuffer(page.ask("runs/0/column?name=pca_0").body, "<f4")
    assert abs(np.corrcoef(circle, maps.z[:, 0])[0, 1]) > 0.99
    for k, name in enumerate(about["content"]):
        values = np.frombuffer(page.ask(f"runs/0/column?name={name}").body, "<f4")
        np.testing.assert_allclose(values, maps.z[:, k], rtol=1e-5, atol=1e-6)


def test_places_are_drawn_by_the_sharp_maps(page: Page, sharp: Run) -> None:
    maps, model = read_content_maps(sharp.path / CONTENT_MAPS), page.runs[0].places.model
    volume = maps.volume(maps.z[5])
    expected = _png(_slices(volume), False)
    assert page.ask(f"runs/0/place?z={numbers(maps.z[5])}").body == expected
    assert page.ask("runs/0/picture?row=5&kind=reconstruction").body == expected
    of_model = np.asarray(model.decode(sharp.content()[5:6].astype(np.float32)))[0]
    assert _png(_slices(of_model), False) != expected
    surface = page.ask(f"runs/0/surface?z={numbers(maps.z[5])}&height=2").body
    assert surface == surface_of(volume, float(volume.mean() + 2 * volume.std())).packed()


def test_places_of_the_content_of_the_model_are_refused(page: Page, sharp: Run) -> None:
    width = len(page.runs[0].places.names)
    answer = page.ask(f"runs/0/place?z={numbers(np.zeros(width + 1))}")
    assert answer.status == 400 and answer.body.endswith(f"expected {width} numbers".encode())


def test_a_path_goes_along_the_half_circle(page: Page) -> None:
    z = page.runs[0].places.z
    angle = np.arctan2(z[:, 1], z[:, 0])
    ends = z[angle.argsort()[[len(z) // 8, 7 * len(z) // 8]]]
    answer = page.ask(f"runs/0/path?from={numbers(ends[0])}&to={numbers(ends[1])}&steps=5")
    path = np.array(answer.json)
    assert path.shape == (5, MANY)
    assert (np.linalg.norm(path[:, :2], axis=1) > 7).all()  # a straight way passes at 3
    far = np.linalg.norm(path[[0, -1], :2] - ends[:, :2], axis=1)
    assert (far < 1.5).all()


def test_maps_of_other_latents_are_not_used(sharp: Run, tmp_path: Path) -> None:
    shutil.copytree(sharp.path, tmp_path / "run")
    kept = tmp_path / "run" / CONTENT_MAPS
    write_content_maps(read_content_maps(kept), kept, {"latents": "of an earlier fit"})
    run = Run.open(tmp_path / "run")
    places = Places(run, run.latents())
    assert not places.sharp
    assert places.names == ["z_0", "z_1"]


def test_a_folder_shows_sharp_maps(sharp: Run, tmp_path: Path) -> None:
    write_folder([sharp], tmp_path / "out", quiet=True)
    maps = read_content_maps(sharp.path / CONTENT_MAPS)
    run = OpenRun(sharp)
    drawn = (tmp_path / "out" / "run0" / "images" / "7-reconstruction.png").read_bytes()
    assert drawn == run.pictures.place(maps.z[7])
    with Image.open(io.BytesIO(drawn)) as picture:
        assert picture.size == (48, 16)

"""The analysis of a run: its files, its columns, its refusals."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile

from modpose import PoseModel, Run
from modpose.errors import InputError
from modpose.outputs.analyze import FILES, SUMMARY, analyze_run, map_variance
from modpose.outputs.landscape import analyze_content
from modpose.outputs.select import choose
from tests.outputs.test_columns import made  # noqa: F401
from tests.outputs.test_volumes import folder, run_cli  # noqa: F401


@pytest.fixture
def pictures(made: Path, tmp_path: Path) -> Run:  # noqa: F811
    """A run of pictures with content on an arc."""
    shutil.copytree(made, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    table = run.latents()
    angle = np.linspace(0, np.pi, len(table))
    table["z_0"], table["z_1"] = np.cos(angle), np.sin(angle)
    run.write_latents(table.assign(z_0_std=0.05, z_1_std=0.05).drop(columns="cluster"))
    return run


def test_maps_tables_and_pictures_stand_in_one_folder(
    folder: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    run, out = tmp_path / "run", tmp_path / "out"
    command = ["analyze", str(run), "-o", str(out), "--k", "3", "--path", "0..39", "--steps", "4"]
    assert run_cli(*command) == 0
    assert "free energy is -ln of the density" in capsys.readouterr().out
    for name in (*FILES, SUMMARY):
        assert (out / name).stat().st_size, name
    script = (out / "series.cxc").read_text()
    maps = re.findall(r"series/volume-\d+\.mrc", script)
    assert len(maps) == 4 and all((out / name).is_file() for name in maps)
    assert len(list((out / "clusters").glob("volume-*.mrc"))) == 3
    stops = pd.read_csv(out / "path.csv")
    content = pd.read_csv(out / "series" / "content.csv")
    assert np.allclose(stops[list(content)], content, rtol=1e-5)
    with mrcfile.open(out / "variance.mrc") as file:
        assert file.data.shape == (16, 16, 16) and (file.data >= 0).all()
        assert float(file.voxel_size.x) == pytest.approx(10)
    latents = Run.open(run).latents()
    assert latents["free_energy"].min() == 0 and latents["cluster"].nunique() == 3
    near = latents["path_position"] > 0.5
    selected = tmp_path / "half.star"
    where = ["--where", "path_position > 0.5", "-o", str(selected)]
    assert run_cli("select", str(run), *where) == 0
    assert len(starfile.read(selected)["particles"]) == near.sum() > 0
    assert run_cli(*command) == 2
    assert "already exists" in capsys.readouterr().err
    assert run_cli(*command[:-4], "--overwrite", "--flip-hand") == 0


def test_the_variance_is_that_of_the_maps(folder: Path) -> None:  # noqa: F811
    model, z = PoseModel.load(folder / "run"), np.zeros((5, 8))
    assert np.allclose(map_variance(model, z, np.zeros_like(z), 0, quiet=True), 0, atol=1e-9)
    z[:, 0] = 1e3 * np.arange(5)
    rows = np.random.default_rng(0).integers(0, 5, 100)
    maps = model.decode(z[rows].astype(np.float32)).astype(np.float64)
    found = map_variance(model, z, np.zeros_like(z), 0, quiet=True)
    assert np.allclose(found, maps.var(0, ddof=1), rtol=1e-3, atol=1e-9)


def test_a_model_of_pictures_gets_no_maps(pictures: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="draws pictures, expected one of volumes"):
        analyze_run(pictures, tmp_path / "out", flip_hand=True, quiet=True)
    found = analyze_run(pictures, tmp_path / "out", k=4, steps=5, quiet=True)
    assert not (tmp_path / "out" / "series").exists()
    assert not (tmp_path / "out" / "series.cxc").exists()
    latents = pictures.latents()
    assert np.array_equal(latents["path_distance"], found.columns["path_distance"])
    assert np.array_equal(choose(pictures, cluster="2"), found.labels == 2)
    table = pd.read_csv(tmp_path / "out" / "free-energy.csv")
    assert np.nanmin(table["free_energy"]) == 0
    assert found.path is not None
    assert np.abs(np.linalg.norm(found.along, axis=1) - 1).max() < 0.3  # wide means of few images
    assert list(found.stops["stop"]) == [1, 2, 3, 4, 5]


def test_clusters_of_the_run_are_taken_and_nothing_is_written(pictures: Run) -> None:
    table = pictures.latents()
    table["cluster"] = np.where(np.arange(len(table)) < 5, -1, np.arange(len(table)) // 30)
    pictures.write_latents(table)
    before = sorted(path.name for path in pictures.path.iterdir())
    found = analyze_content(pictures)
    assert list(found.clusters["cluster"]) == [0, 1] and found.clusters["images"].sum() == 55
    assert sorted(path.name for path in pictures.path.iterdir()) == before
    assert any("uncertainty of one image is 0.05" in line for line in found.lines)


def test_two_islands_have_clusters_and_no_path(pictures: Run, tmp_path: Path) -> None:
    table = pictures.latents()
    rng = np.random.default_rng(0)
    table[["z_0", "z_1"]] = rng.standard_normal((len(table), 2))
    table.loc[30:, "z_0"] += 1e4
    pictures.write_latents(table)
    with pytest.raises(InputError, match="separate regions"):
        analyze_run(pictures, tmp_path / "out", k=2, path="0..59", quiet=True)
    assert not (tmp_path / "out").exists()
    assert "free_energy" not in pictures.latents()
    found = analyze_run(pictures, tmp_path / "out", k=2, quiet=True)
    assert found.path is None and any("There is no path" in line for line in found.lines)
    assert not (tmp_path / "out" / "path.csv").exists()
    assert np.isnan(pictures.latents()["path_position"]).all()


def test_refuses_content_that_is_constant(pictures: Run, tmp_path: Path) -> None:
    table = pictures.latents()
    table[["z_0", "z_1"]] = 1.0
    pictures.write_latents(table)
    with pytest.raises(InputError, match="the same content"):
        analyze_run(pictures, tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()

"""``--json``: one object on standard output, with the figures that the lines have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from modpose.cli import main
from modpose.cli.answer import answer
from modpose.data.mrc import write_mrcs
from modpose.simulate.particles import HingeSettings, simulate_particles, write_particles


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("json")
    made = simulate_particles(HingeSettings(n=48, box=24, pixel_size=7.0, seed=3))
    star = write_particles(made, folder)
    small = ["--set", "model.encoder.hidden=8", "--set", "model.field.hidden=8"]
    with pytest.raises(SystemExit) as leaving:
        main(["fit", str(star), "-o", str(folder / "run"), "--epochs", "1", "--quiet", *small])
    assert leaving.value.code == 0
    return folder / "run"


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    with pytest.raises(SystemExit) as leaving:
        main([*map(str, arguments), "--json"])
    assert leaving.value.code == 0
    return json.loads(capsys.readouterr().out)


def test_a_fit_tells_its_last_epoch(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, "fit", "--resume", run, "--epochs", "2", "--quiet")
    assert (found["images"], found["last_epoch"]["epoch"]) == (48, 2)
    assert found["run"] == str(run) and isinstance(found["alarms"], dict)


def test_inspect_select_cluster_embed_and_export(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(capsys, "inspect", run)["facts"]["images"] == "48"
    added = told(capsys, "cluster", run, "--k", 3, "--name", "three")
    assert added["column"] == "three" and sum(added["sizes"]) == 48
    assert told(capsys, "embed", run, "--dims", 1)["columns"] == ["pca_0"]
    kept = told(capsys, "select", run, "--where", "three == 0", "-o", tmp_path / "some.star")
    assert kept["kept"] == added["sizes"][0] and kept["images"] == 48
    written = told(capsys, "export", run, "-o", tmp_path / "z.csv")["written"]
    assert written == [str(tmp_path / "z.csv")]


def test_the_resolution_of_half_maps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    volume = np.random.default_rng(0).normal(size=(16, 16, 16)).astype(np.float32)
    write_mrcs(tmp_path / "a.mrc", volume[None], 2.0)
    found = told(capsys, "fsc", tmp_path / "a.mrc", tmp_path / "a.mrc")
    assert found["mean_fsc"] == pytest.approx(1.0, abs=1e-6) and found["unit"] == "A"
    assert found["resolution_0.143"] == pytest.approx(4.0)


def test_two_dimensional_classes(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    star, few = run.parent / "particles.star", ["--classes", 2, "--rounds", 1]
    found = told(capsys, "align", star, "-o", tmp_path / "classes", *few, "--refine-rounds", 1)
    assert sum(one["images"] for one in found["classes"]) == 48 and found["unit"] == "A"
    assert found["written"][0] == str(tmp_path / "classes" / "particles.star")


def test_an_affinity_and_its_projection(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "three.npy", np.random.default_rng(0).normal(size=(3, 12, 12)))
    out = tmp_path / "affinity.csv"
    found = told(capsys, "affinity", tmp_path / "three.npy", "-o", out, "--project")
    assert len(found["names"]) == 3 and found["positive"] is True
    assert -1 <= found["smallest"] <= found["largest"] <= 1 and found["written"] == [str(out)]


def test_names_of_images_are_in_the_latents(run: Path, tmp_path: Path) -> None:
    latents = pd.read_parquet(run / "latents.parquet")
    assert list(latents.columns[:2]) == ["index", "name"]
    assert list(latents["name"][:2]) == ["1@particles.mrcs", "2@particles.mrcs"]
    with pytest.raises(SystemExit) as leaving:
        main(
            ["encode", str(run), str(run.parent / "particles.star"), "-o", str(tmp_path / "e.csv")]
        )
    assert leaving.value.code == 0
    assert list(pd.read_csv(tmp_path / "e.csv")["name"]) == list(latents["name"])


def test_what_json_lacks_is_null_and_paths_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"a": float("nan"), "b": np.float32(2.5), "c": [Path("x"), np.array([1, 2])], "d": None}
    answer(facts, [], True)
    found = json.loads(capsys.readouterr().out)
    assert found == {"a": None, "b": 2.5, "c": ["x", [1, 2]], "d": None}

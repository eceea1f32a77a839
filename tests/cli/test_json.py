"""``--json``: one object on standard output, with the figures that the lines have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.main import get_command

from modpose.cli import app, experiment, main
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


def test_every_command_has_json() -> None:
    plain = get_command(app)
    verbs = {f"simulate {name}": verb for name, verb in plain.commands["simulate"].commands.items()}
    verbs |= {name: verb for name, verb in plain.commands.items() if name != "simulate"}
    without = [n for n, v in verbs.items() if not any("--json" in p.opts for p in v.params)]
    assert len(verbs) > 35 and not without


def test_simulated_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--images", 4, "--box", 40, "--pixel-size", 4]
    for kind in ("particles", "projections", "alphanumeric"):
        here = ["--images", 4, "--characters", "ab"] if kind == "alphanumeric" else small
        found = told(capsys, "simulate", kind, "-o", tmp_path / kind, *here)
        assert found == {"images": 4, "written": [str(tmp_path / kind / "particles.star")]}
    small = ["--volumes", 6, "--box", 32]
    found = told(capsys, "simulate", "subtomograms", "-o", tmp_path / "s", *small, "--check")
    assert found["volumes"] == 6 and found["snr_in_box"] > 0
    assert found["check"]["correlation"] > 0.9
    found = told(capsys, "simulate", "tetrominoes", "-o", tmp_path / "t", *small)
    assert found == {"volumes": 6, "written": [str(tmp_path / "t" / "particles.star")]}
    small = ["--particles", 3, "--tilts", 3, "--tomograms", 1, "--box", 32]
    found = told(capsys, "simulate", "tilt-series", "-o", tmp_path / "tilts", *small)
    assert (found["particles"], found["tilts"]) == (3, 3) and Path(found["written"][0]).is_file()
    found = told(capsys, "simulate", "field", "-o", tmp_path / "f", "--objects", 2, "--side", 128)
    assert found == {"molecules": 2, "written": [str(tmp_path / "f" / "field.mrc")]}


def test_small_jobs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = tmp_path / "made"
    size = ["--images", 4, "--box", 40, "--pixel-size", 4, "--maps", 1]
    told(capsys, "simulate", "projections", "-o", made, *size)
    star, new = made / "particles.star", tmp_path / "new.star"
    expanded = told(capsys, "expand", star, "-o", new, "--symmetry", "C2")
    assert expanded == {"rows_before": 4, "rows": 8, "written": [str(new)]}
    joined = told(capsys, "join", new, "-o", tmp_path / "one.star")
    assert (joined["rows_before"], joined["rows"]) == (8, 4)
    unbinned = told(capsys, "unbin", star, star, "-o", tmp_path / "unbinned.star")
    assert (unbinned["rows_before"], unbinned["rows"]) == (4, 4)
    flipped = told(capsys, "hand", star, "-o", tmp_path / "hand")
    assert flipped == {"written": [str(tmp_path / "hand" / "particles.star")]}
    small = told(capsys, "preprocess", star, "-o", tmp_path / "small", "--normalise")
    assert small["images"] == 4 and Path(small["written"][0]).is_file()
    volume = next((made / "maps").glob("*.mrc"))
    command = ["subtract", star, "-o", tmp_path / "rest", "--map", volume, "--mask", volume]
    rest = told(capsys, *command, "--scale", "1")
    assert (rest["scale"], rest["images"]) == (1.0, 4) and Path(rest["written"][0]).is_file()


def test_coordinates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told(capsys, "simulate", "field", "-o", tmp_path / "f", "--objects", 4, "--side", 256)
    picked = tmp_path / "f" / "coordinates.star"
    pixel = ["--micrograph-pixel-size", 2]
    near = told(capsys, "duplicates", picked, "-o", tmp_path / "once.star", "--distance", 1, *pixel)
    assert (near["rows_before"], near["rows"]) == (4, 4)
    moved = told(capsys, "recentre", picked, "-o", tmp_path / "moved.star", *pixel)
    assert moved["written"] == [str(tmp_path / "moved.star")]


def test_an_exported_page(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, "explore", run, "--export", tmp_path / "page")
    assert found == {"written": [str(tmp_path / "page" / "index.html")]}


def test_an_experiment_prints_nothing_else(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tmp_path / "studies" / "spatial_vae"
    study.mkdir(parents=True)
    (tmp_path / "studies" / "__init__.py").touch()
    (study / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    (study / "__main__.py").write_text("print('a line of the study')")
    monkeypatch.setattr(experiment, "find_repository", lambda: tmp_path)
    with pytest.raises(SystemExit) as leaving:
        main(["experiment", "spatial-vae", "--out", "out", "--json"])
    printed = capfd.readouterr()
    assert leaving.value.code == 0 and "a line of the study" in printed.err
    assert json.loads(printed.out)["written"] == [str(Path("out") / "index.md")]


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

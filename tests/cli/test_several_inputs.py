"""Runs of several inputs, and of some rows of a table whose other files are gone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import starfile
from typer.testing import CliRunner, Result

from modpose.cli import app
from modpose.data.mrc import write_mrcs
from modpose.data.source import open_source
from modpose.data.star import write_star
from modpose.errors import InputError

SMALL = ["--epochs", "1", "--z-dim", "1", "--recipe", "vae"]
SMALL += ["--set", "model.encoder.hidden=4", "--set", "model.field.hidden=4"]


def verb(*arguments: object) -> Result:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output or done.exception
    return done


def part(folder: Path, name: str, seed: int, missing: int = 0) -> Path:
    """Write a stack of 8 images and its table, which also names images that are not there."""
    images = np.random.default_rng(seed).normal(size=(8, 16, 16)).astype(np.float32)
    folder.mkdir(exist_ok=True)
    write_mrcs(folder / f"{name}.mrcs", images, 2.0)
    names = [f"{i + 1}@gone.mrcs" for i in range(missing)]
    names += [f"{i + 1}@{name}.mrcs" for i in range(8)]
    table = pd.DataFrame({"rlnImageName": names, "rlnOpticsGroup": 1})
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnImagePixelSize": [2.0]})
    write_star(folder / f"{name}.star", table, optics)
    return folder / f"{name}.star"


def test_a_run_of_two_tables_is_fitted_resumed_reported_and_selected_from(tmp_path: Path) -> None:
    first, second = part(tmp_path / "x", "a", 0), part(tmp_path / "y", "b", 1)
    run = tmp_path / "run"
    verb("fit", first, second, "-o", run, *SMALL)
    assert json.loads((run / "environment.json").read_text())["input"] == [str(first), str(second)]
    assert len(pd.read_parquet(run / "latents.parquet")) == 16
    verb("resume", run, "--epochs", "2")
    verb("report", run)
    verb("select", run, "--where", "index >= 7", "-o", tmp_path / "x/kept.star")
    kept = starfile.read(tmp_path / "x/kept.star")["particles"]["rlnImageName"].tolist()
    assert kept[:2] == ["8@a.mrcs", "1@../y/b.mrcs"] and len(kept) == 9
    verb("fit", tmp_path / "x/kept.star", "-o", tmp_path / "again", *SMALL)
    verb("encode", run, second, first, "-o", tmp_path / "new.csv")
    assert len(pd.read_csv(tmp_path / "new.csv")) == 16


def test_an_input_that_is_given_twice_is_refused_and_shared_images_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = part(tmp_path / "x", "a", 0), part(tmp_path / "y", "b", 1)
    with pytest.raises(InputError, match=r"a\.star: it is given twice"):
        open_source([first, second, tmp_path / "y/../x/a.star"])
    assert open_source([first, second]).n == 16
    assert "several of the tables" not in caplog.text
    table = pd.DataFrame({"rlnImageName": ["3@a.mrcs", "5@a.mrcs"], "rlnOpticsGroup": 1})
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnImagePixelSize": [2.0]})
    write_star(tmp_path / "x" / "some.star", table, optics)
    assert open_source([first, tmp_path / "x" / "some.star"]).n == 10
    assert "in several of the tables, and count several times: 2" in caplog.text


def test_no_output_replaces_one_of_several_inputs(tmp_path: Path) -> None:
    first, second = part(tmp_path / "x", "a", 0), part(tmp_path / "y", "b", 1)
    run, before = tmp_path / "run", second.read_bytes()
    verb("fit", first, second, "-o", run, *SMALL)
    arguments = ["select", run, "--where", "index >= 7", "-o", second, "--overwrite"]
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code != 0 and second.read_bytes() == before


@pytest.mark.parametrize("index", ["rows.txt", "rows.npy"])
def test_a_run_of_some_rows_needs_no_other_files(tmp_path: Path, index: str) -> None:
    table = part(tmp_path / "x", "a", 0, missing=3)
    rows = np.arange(3, 11)
    np.save(tmp_path / "rows.npy", rows)
    (tmp_path / "rows.txt").write_text("\n".join(map(str, rows)))
    run = tmp_path / "run"
    verb("fit", table, "--index", tmp_path / index, "-o", run, *SMALL)
    verb("resume", run, "--epochs", "2")
    verb("report", run)
    verb("select", run, "--where", "index >= 5", "-o", tmp_path / "x/kept.star")
    kept = starfile.read(tmp_path / "x/kept.star")["particles"]["rlnImageName"].tolist()
    assert kept == [f"{i}@a.mrcs" for i in range(6, 9)]


def test_images_of_two_scales_are_fitted_after_the_command_that_is_named(tmp_path: Path) -> None:
    for name, box, size in (("a", 16, 2.0), ("b", 32, 1.0)):
        images = np.random.default_rng(0).normal(size=(6, box, box)).astype(np.float32)
        write_mrcs(tmp_path / f"{name}.mrcs", images, size)
        (tmp_path / f"{name}.txt").write_text(
            "\n".join(str(i + 6 * "ab".index(name)) for i in range(6))
        )
    names = [f"{i + 1}@{name}.mrcs" for name in "ab" for i in range(6)]
    table = pd.DataFrame({"rlnImageName": names, "rlnOpticsGroup": [1] * 6 + [2] * 6})
    optics = pd.DataFrame({"rlnOpticsGroup": [1, 2], "rlnImagePixelSize": [2.0, 1.0]})
    write_star(tmp_path / "p.star", table, optics)
    done = CliRunner().invoke(
        app, ["fit", str(tmp_path / "p.star"), "-o", str(tmp_path / "run"), *SMALL]
    )
    assert "--index ROWS --box 16, --crop 16 and 32" in str(done.exception)
    assert not (tmp_path / "run").exists()
    made = []
    for name, crop in (("a", 16), ("b", 32)):
        out = tmp_path / f"small_{name}"
        index = ["--index", tmp_path / f"{name}.txt", "--box", 16, "--crop", crop]
        verb("preprocess", tmp_path / "p.star", *index, "--resolution", 100, "-o", out)
        made.append(out / "particles.star")
    verb("fit", *made, "-o", tmp_path / "run", *SMALL)
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert (environment["n"], environment["shape"], environment["pixel_size"]) == (
        12,
        [16, 16],
        2.0,
    )


def test_a_model_needs_more_than_one_image(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.random.default_rng(0).random((1, 16, 16)))
    words = ["fit", str(tmp_path / "one.npy"), "-o", str(tmp_path / "run"), *SMALL]
    done = CliRunner().invoke(app, words)
    assert "the number of images is 1, expected at least 2" in str(done.exception)
    assert not (tmp_path / "run").exists()

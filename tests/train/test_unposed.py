"""Fits of images without poses to models of given poses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import starfile
import torch
from typer.testing import CliRunner

from modpose import PoseModel
from modpose.cli import app
from modpose.data.source import open_source
from modpose.errors import InputError
from modpose.fit import resume_run
from modpose.run import Run
from modpose.search.abinitio.moving import MotionPlan
from modpose.search.abinitio.saved import Saved
from modpose.search.abinitio.settings import RefinePlan, StartPlan
from modpose.simulate.conformations import built_in_conformers
from modpose.simulate.projection_files import write_projections
from modpose.simulate.projections import simulate_projections
from modpose.simulate.settings import ProjectionSettings

SMALL = ("model.field.motions=2", "model.field.cycles=5", "model.z_dim=1", "train.epochs=1")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a table of 200 projections without poses."""
    settings = ProjectionSettings(n=200, box=24, pixel_size=6.7, snr=0.5, ctf=True)
    folder = tmp_path_factory.mktemp("unposed")
    write_projections(simulate_projections(settings, built_in_conformers(1)), folder)
    blocks = starfile.read(folder / "particles.star", always_dict=True)
    kept = [name for name in blocks["particles"] if not name.startswith(("rlnAngle", "rlnOrigin"))]
    blocks["particles"] = blocks["particles"][kept]
    starfile.write(blocks, folder / "bare.star")
    return folder / "bare.star"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make searches short, and save every state of them."""
    start = replace(StartPlan(), rounds=2, images=100, rotations=(288, 288))
    monkeypatch.setattr("modpose.search.abinitio.run.StartPlan", lambda: start)
    monkeypatch.setattr(
        "modpose.search.abinitio.run.RefinePlan",
        lambda last_radius: RefinePlan(
            last_radius=last_radius, rounds=2, searches=(0,), rotations=288
        ),
    )
    monkeypatch.setattr(
        "modpose.search.abinitio.run.MotionPlan",
        lambda: MotionPlan(rounds=1, radius=6.0, search_radius=5.0, rotations=288),
    )
    monkeypatch.setattr("modpose.search.abinitio.saved.EVERY", 0.0)


def fit(table: Path, out: Path, *more: str) -> list[str]:
    command = ["fit", str(table), "-o", str(out), "--recipe", "modpose-posed", "--quiet", *more]
    for text in SMALL:
        command += ["--set", text]
    return command


def files_of(run: Path) -> set[str]:
    """Name the files of a run without its checkpoints, whose names hold the epoch."""
    names = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    return {name for name in names if not name.startswith("checkpoints/epoch")}


def test_a_fit_finds_poses_then_conformations(table: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, fit(table, tmp_path / "run"))
    assert done.exit_code == 0, done.output
    assert "projections of volumes without poses: these are found first" in done.output
    run = Run.open(tmp_path / "run")
    assert len(run.latents()) == 200 and run.environment["poses_found"] is True
    posed = run.path / "abinitio" / "particles.star"
    found = open_source(table, poses=posed).particles.poses()
    assert found is not None
    again = run.dataset()
    np.testing.assert_allclose(again.rotation, found[0], atol=1e-5)
    np.testing.assert_allclose(again.translation, found[1], atol=1e-4)
    assert (run.path / "abinitio" / "class001_sharpened.mrc").is_file()
    # the estimator does the same in memory, and its run finds the poses again
    options: dict[str, dict[str, object]] = {"model": {}, "train": {}}
    options["model"] = {"field": {"motions": 2, "cycles": 5}}
    options["train"] = {"epochs": 1}
    model = PoseModel("modpose-posed", z_dim=1, options=options, quiet=True).fit(table)
    pd.testing.assert_frame_equal(model.latents(), run.latents())
    saved = model.save(tmp_path / "saved")
    np.testing.assert_array_equal(saved.dataset().rotation, again.rotation)
    # more epochs, and another fit in its place, leave one search in the folder
    before = files_of(run.path)
    resume_run(run.path, epochs=2, quiet=True)
    assert files_of(run.path) == before
    done = CliRunner().invoke(app, fit(table, tmp_path / "run", "--overwrite", "--seed", "1"))
    assert done.exit_code == 0, done.output
    assert files_of(run.path) == before
    other = open_source(table, poses=posed).particles.poses()
    assert other is not None and not np.allclose(other[0], found[0], atol=0.1)


def test_a_fit_that_was_interrupted_while_it_searched_goes_on(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert CliRunner().invoke(app, fit(table, tmp_path / "whole")).exit_code == 0
    write, left = Saved.write, [5]

    def interrupted(saved: Saved, values: dict[str, torch.Tensor]) -> None:
        write(saved, values)
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(Saved, "write", interrupted)
    done = CliRunner().invoke(app, fit(table, tmp_path / "parts"))
    assert done.exit_code == 130
    assert f"continue with: modpose fit --resume {tmp_path / 'parts'}" in done.output
    assert (tmp_path / "parts" / "abinitio" / "unfinished" / "start1.safetensors").is_file()
    done = CliRunner().invoke(app, ["fit", "--resume", str(tmp_path / "parts"), "--quiet"])
    assert done.exit_code == 0, done.output
    runs = [Run.open(tmp_path / name) for name in ("whole", "parts")]
    pd.testing.assert_frame_equal(runs[0].latents(), runs[1].latents())
    assert files_of(runs[0].path) == files_of(runs[1].path)


def test_too_few_images_for_a_search_are_refused_and_leave_nothing(
    table: Path, tmp_path: Path
) -> None:
    few = tmp_path / "few.npy"
    np.save(few, np.arange(50))
    done = CliRunner().invoke(app, fit(table, tmp_path / "run", "--index", str(few)))
    assert isinstance(done.exception, InputError)
    assert "is 50, expected at least 100" in str(done.exception)
    assert not (tmp_path / "run").exists()


def test_classes_of_a_fit_of_conformations_are_said_to_be_those_of_abinitio(
    table: Path, tmp_path: Path
) -> None:
    done = CliRunner().invoke(app, fit(table, tmp_path / "run", "--classes", "3"))
    assert isinstance(done.exception, InputError)
    assert "modpose-posed does not search for classes" in str(done.exception)
    assert "modpose abinitio --classes" in str(done.exception)

"""Fits of images without poses to models of given poses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import starfile
import torch
from typer.testing import CliRunner

from modpose import PoseModel
from modpose.backprojection import reconstruct_halves
from modpose.cli import app
from modpose.config import parse_config
from modpose.data.dataset import dataset_of
from modpose.data.source import open_source
from modpose.errors import InputError
from modpose.fit import resume_run
from modpose.fourier.coefficients import map_coefficients
from modpose.fourier.reference import make_references
from modpose.geometry.grids import bright_centre
from modpose.geometry.rotations import geodesic, haar_rotations, rotation_of_vector
from modpose.options import merge
from modpose.recipes import recipe_config
from modpose.run import Run
from modpose.run.folder import SEARCH, clear
from modpose.search.abinitio.moving import MotionPlan
from modpose.search.abinitio.saved import Saved
from modpose.search.abinitio.scores import SeveralPoses
from modpose.search.abinitio.settings import RefinePlan, StartPlan
from modpose.search.so3_climb import predicted
from modpose.simulate.conformations import built_in_conformers
from modpose.simulate.projection_files import write_projections
from modpose.simulate.projections import simulate_projections
from modpose.simulate.settings import ProjectionSettings
from modpose.train import better_poses
from modpose.train.better_poses import PosePlan, posed_again, with_better_poses
from modpose.train.unposed import BETTER_FILE, FOUND_FILE, _searched, with_unknown_poses

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
    plan = PosePlan(rounds=1, seen=200, searched=2, climbed=3, near=2, near_found=1, rotations=288)
    monkeypatch.setattr("modpose.train.unposed.PosePlan", lambda: plan)


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
    again = run.dataset()
    assert again.rotation is not None
    found = again.rotation, again.translation
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
    other = Run.open(run.path).dataset().rotation
    assert other is not None and not np.allclose(other, found[0], atol=0.1)


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


@pytest.mark.parametrize(
    ("kept", "step"), [(0, "train.unposed.with_better_poses"), (5, "fit._go_on")]
)
def test_a_fit_that_was_interrupted_after_its_search_does_not_search_again(
    kept: int, step: str, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ("--set", f"model.kept_poses={kept}")
    assert CliRunner().invoke(app, fit(table, tmp_path / "whole", *own)).exit_code == 0
    with monkeypatch.context() as patched:

        def interrupted(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patched.setattr(f"modpose.{step}", interrupted)
        assert CliRunner().invoke(app, fit(table, tmp_path / "run", *own)).exit_code == 130
    before = (tmp_path / "run" / "abinitio" / "particles.star").read_bytes()

    def refused(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("modpose.train.unposed.find_maps", refused)
    resumed = resume_run(tmp_path / "run", quiet=True)
    pd.testing.assert_frame_equal(resumed.latents(), Run.open(tmp_path / "whole").latents())
    assert resumed.environment["poses_found"] is True
    assert (resumed.path / "abinitio" / "particles.star").read_bytes() == before
    several = PoseModel.load(resumed.path).vae.kept
    assert (several is None) == (kept == 0)
    assert several is None or several.number.min() > 0  # poses of every image are known


@pytest.mark.parametrize("left", [1, 2])
def test_a_fit_that_was_interrupted_while_it_improved_poses_goes_on(
    left: int, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One half set is done when the work stops, or both are."""
    assert CliRunner().invoke(app, fit(table, tmp_path / "whole")).exit_code == 0
    write, improve, calls = Saved.write, better_poses._better_poses, []

    def interrupted(saved: Saved, values: dict[str, torch.Tensor]) -> None:
        write(saved, values)
        if int(values.get("done", 0)) == left:
            raise KeyboardInterrupt

    def counted(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(arguments)
        return improve(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Saved, "write", interrupted)
        assert CliRunner().invoke(app, fit(table, tmp_path / "parts")).exit_code == 130
    monkeypatch.setattr(better_poses, "_better_poses", counted)
    resumed = resume_run(tmp_path / "parts", quiet=True)
    assert len(calls) == 2 - left
    pd.testing.assert_frame_equal(resumed.latents(), Run.open(tmp_path / "whole").latents())
    assert files_of(resumed.path) == files_of(tmp_path / "whole")


def test_poses_that_were_found_are_files_of_the_run(tmp_path: Path) -> None:
    """They go with it: the next fit in the folder may be of other images."""
    (tmp_path / SEARCH).mkdir()
    for name in (FOUND_FILE, BETTER_FILE):
        (tmp_path / SEARCH / name).write_bytes(b"")
    clear(tmp_path)
    assert not (tmp_path / SEARCH).exists()


@pytest.mark.parametrize("off", [0.0, 3.0])
def test_wrong_poses_of_a_moving_structure_are_found_again(off: float, tmp_path: Path) -> None:
    """Rotations of every fifth image are random, and those of the others 5 degrees off.

    The molecule is in the right place of each image, but its map may be off the middle of the box,
    by pixels.  Then the right shift is up to twice as far from that of a wrong pose.
    """
    settings = ProjectionSettings(n=400, box=24, pixel_size=6.7, snr=1.0, ctf=True)
    write_projections(simulate_projections(settings, built_in_conformers(1)), tmp_path)
    config = parse_config(
        merge(recipe_config("modpose-posed"), {"model": {"field": {"cycles": 9}}}), "test"
    )
    right = dataset_of(open_source(tmp_path / "particles.star"), config)
    assert right.rotation is not None and right.translation is not None
    truth, shift = torch.from_numpy(right.rotation), torch.from_numpy(right.translation)
    generator = torch.Generator().manual_seed(0)
    turn = rotation_of_vector(0.08 * torch.randn(400, 3, generator=generator))
    turn[::5] = haar_rotations(80, generator)
    middle = torch.tensor([off, 0.0, 0.0])
    shift = shift - ((turn @ truth) @ middle)[:, :2]
    wrong = posed_again(right, config, turn @ truth, shift)
    found = with_better_poses(wrong, config, PosePlan(rounds=1, rotations=2304), True).rotation
    assert found is not None
    before, after = (
        torch.rad2deg(geodesic(x, truth)) for x in (turn @ truth, torch.from_numpy(found))
    )
    assert (before > 20).float().mean() > 0.19
    assert (after > 20).float().mean() < 0.05
    assert after.median() < 0.8 * before.median()


def test_a_map_moved_to_its_centre_of_mass_shows_the_same_at_the_moved_pose() -> None:
    generator = torch.Generator().manual_seed(2)
    blob = torch.zeros(2, 16, 16, 16)
    blob[0, 9:13, 5:8, 6:9] = torch.rand(4, 3, 3, generator=generator) + 0.5
    blob[1, 7:10, 8:12, 9:12] = torch.rand(3, 4, 3, generator=generator) + 0.5
    centred, middle = better_poses._centred(blob)
    assert bright_centre(centred).abs().max() <= 0.5
    rotation, shift = haar_rotations(2, generator), torch.rand(2, 3, generator=generator)
    shift[:, 2] = 0.0
    moved = shift + better_poses._seen(rotation, middle)
    seen, which = map_coefficients(blob[:1], 0.3), torch.arange(2)
    images = replace(seen, value=seen.value.expand(2, -1))
    images = replace(images, frequency=images.frequency * torch.tensor([1.0, 1.0, 0.0]))
    before, after = (
        predicted(images, make_references(maps, 0.3, slopes=True), which, rotation, at)[0]
        for maps, at in ((blob, shift), (centred, moved))
    )
    # the transform is interpolated, less well for a blob that is off the middle
    assert (after - before).norm() < 0.03 * before.norm()


@pytest.mark.parametrize(("apart", "expected"), [(1.0, [0.08]), (3.8, [0.08, 0.16])])
def test_where_many_shifts_are_near_the_largest_poses_are_searched_again(
    apart: float, expected: list[float], table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest shift of the first search is 0.08 of 24 pixels, which were halved."""
    asked = []

    def found(*arguments: Any) -> SimpleNamespace:
        asked.append(arguments[3].max_shift)
        shift = torch.tensor([[0.48, 0.0]]).repeat(200, 1) * apart / 2
        refined = SimpleNamespace(shift=shift, several=SeveralPoses.empty(200, 4))
        return SimpleNamespace(refined=refined, binning=2.0, lines=list)

    monkeypatch.setattr("modpose.train.unposed._found", found)
    config = parse_config(recipe_config("modpose-posed"), "test")
    _searched(dataset_of(with_unknown_poses(open_source(table)), config), config, None, True)
    assert asked == expected


def test_better_poses_of_noise_make_half_maps_of_noise(tmp_path: Path) -> None:
    """Poses that one model had given to both halves would make their maps agree (by 0.3)."""
    settings = ProjectionSettings(n=300, box=24, pixel_size=6.7, snr=1e-4, ctf=True)
    write_projections(simulate_projections(settings, built_in_conformers(1)), tmp_path)
    config = parse_config(
        merge(recipe_config("modpose-posed"), {"model": {"field": {"cycles": 9}}}), "test"
    )
    dataset = dataset_of(open_source(tmp_path / "particles.star"), config)
    found = with_better_poses(dataset, config, PosePlan(rounds=1, rotations=2304), True)
    curve = reconstruct_halves(found, quiet=True).curve
    assert curve.correlation[3:9].mean() < 0.15


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

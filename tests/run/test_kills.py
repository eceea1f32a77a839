"""A process that is killed at any moment loses nothing and mixes nothing up."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from modpose import InputError, Run, fit_run, open_source, resume_run
from modpose.config import Config, merge, parse_config
from modpose.estimator import PoseModel
from modpose.recipes import recipe_config
from modpose.run.folder import CHECKED, LEFTOVER, MARKER, NEW, sha256, staged

EVERY = int(os.environ.get("MODPOSE_KILLS_EVERY", "7"))
"""One in so many moments is tried; 1 tries them all."""
TINY: dict[str, Any] = {
    "model": {"z_dim": 1, "encoder": {"hidden": 4}, "field": {"hidden": 4}},
    "train": {"epochs": 2, "batch_size": 16, "pixels": 20, "accelerator": "cpu"},
}


def tiny(epochs: int = 2, seed: int = 0) -> Config:
    values = merge(merge(recipe_config("spatial-vae"), TINY), {"seed": seed})
    return parse_config(merge(values, {"train": {"epochs": epochs}}), "spatial-vae")


def killed_at(moment: int, work: Callable[[], object]) -> bool:
    """Do the work in a process that kills itself before its change number ``moment`` of a file.

    Returns
    -------
    Whether it was killed; else it came to its end.
    """
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            return True
        assert os.WEXITSTATUS(status) == 0
        return False
    try:
        _kill_before(moment)
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def _kill_before(moment: int) -> None:
    """Count what changes the names of files, and kill this process in time."""
    count = [0]

    def counted(change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*rest: Any, **named: Any) -> Any:
            count[0] += 1
            if count[0] == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return change(*rest, **named)

        return changed

    for name in ("rename", "replace", "unlink", "mkdir", "rmdir", "link", "fsync"):
        setattr(os, name, counted(getattr(os, name)))


def check_whole(path: Path) -> Run:
    """Check that latents and weights of a finished run are a pair that a fit wrote."""
    run = Run.open(path)
    assert run.finished
    run.check()
    model = PoseModel.load(run.path)
    model.quiet = True
    source = run.dataset().source
    np.testing.assert_allclose(
        model.encode(source).z[:, 0], run.latents()["z_0"], rtol=1e-4, atol=1e-5
    )
    return run


def no_leftovers(path: Path) -> bool:
    names = [p.name for p in path.rglob("*")]
    return not any(LEFTOVER.fullmatch(n) or n in (NEW, ".lock") for n in names)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "stack.npy"
    np.save(path, np.random.default_rng(0).standard_normal((32, 12, 12)).astype(np.float32))
    return path


@pytest.fixture(scope="module")
def runs(stack: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Fit what uninterrupted processes come to."""
    folder = tmp_path_factory.mktemp("runs")
    source = open_source(stack)
    fit_run(source, tiny(), folder / "short", quiet=True)
    fit_run(source, tiny(seed=1), folder / "other", quiet=True)
    shutil.copytree(folder / "short", folder / "long")
    resume_run(folder / "long", epochs=4, quiet=True)
    return {name: folder / name for name in ("short", "other", "long")}


def until_it_ends(try_once: Callable[[int], bool]) -> int:
    """Try moment after moment until one comes after the end of the work; return how many."""
    moment = 1
    while try_once(moment):
        moment += EVERY
    return moment


def test_a_new_fit(stack: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    expected = Run.open(runs["short"]).latents()

    def fit(path: Path) -> Run:
        return fit_run(open_source(stack), tiny(), path, quiet=True)

    def once(moment: int) -> bool:
        path = tmp_path / f"{moment}"
        killed = killed_at(moment, lambda: fit(path))
        if not (path / "config.yaml").is_file():
            fit(path)  # nothing had come to be, so nothing stands in the way
        elif not Run.open(path).finished:
            resume_run(path, quiet=True)
        pd.testing.assert_frame_equal(check_whole(path).latents(), expected)
        return killed

    assert until_it_ends(once) > 20


def test_a_fit_that_replaces_a_run(stack: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    old, new = (Run.open(runs[name]).latents() for name in ("short", "other"))

    def fit(path: Path) -> Run:
        return fit_run(open_source(stack), tiny(seed=1), path, overwrite=True, quiet=True)

    def once(moment: int) -> bool:
        path = Path(shutil.copytree(runs["short"], tmp_path / f"{moment}"))
        killed = killed_at(moment, lambda: fit(path))
        is_new = check_whole(path).config.seed == 1
        pd.testing.assert_frame_equal(Run.open(path).latents(), new if is_new else old)
        if not is_new and staged(path):
            resume_run(path, quiet=True)
        else:
            fit(path)
        pd.testing.assert_frame_equal(check_whole(path).latents(), new)
        assert no_leftovers(path)
        return killed

    assert until_it_ends(once) > 30


def test_a_finished_run_that_is_trained_for_longer(runs: dict[str, Path], tmp_path: Path) -> None:
    short, long = (Run.open(runs[name]).latents() for name in ("short", "long"))

    def once(moment: int) -> bool:
        path = Path(shutil.copytree(runs["short"], tmp_path / f"{moment}"))
        killed = killed_at(moment, lambda: resume_run(path, epochs=4, quiet=True))
        is_long = check_whole(path).config.train.epochs == 4
        pd.testing.assert_frame_equal(Run.open(path).latents(), long if is_long else short)
        try:
            resume_run(path, epochs=4, quiet=True)
        except InputError:  # there is nothing left to do
            assert is_long
        pd.testing.assert_frame_equal(check_whole(path).latents(), long)
        return killed

    assert until_it_ends(once) > 30


def test_the_marker_is_the_last_thing_that_a_fit_writes(runs: dict[str, Path]) -> None:
    folder = runs["short"]
    assert set(Run.open(folder).path.iterdir()) >= {folder / MARKER}
    last = (folder / MARKER).stat().st_mtime_ns
    assert all((folder / name).stat().st_mtime_ns <= last for name in CHECKED)
    assert all(sha256(folder / name) in (folder / MARKER).read_text() for name in CHECKED)

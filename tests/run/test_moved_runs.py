"""Every verb that reads the images of a run finds them after they have moved."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from modpose.cli import app
from modpose.data.mrc import write_mrcs
from modpose.data.star import write_star
from modpose.errors import InputError
from modpose.run import Run

N = 12


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and its table and stack, which have moved apart and been renamed."""
    folder = tmp_path_factory.mktemp("moved")
    old = folder / "old"
    (old / "Extract").mkdir(parents=True)
    images = np.random.default_rng(0).normal(size=(N, 16, 16)).astype(np.float32)
    write_mrcs(old / "Extract/s.mrcs", images, 2.0)
    names = [f"{i + 1:06d}@Extract/s.mrcs" for i in range(N)]
    table = pd.DataFrame({"rlnImageName": names, "rlnOpticsGroup": 1})
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnImagePixelSize": [2.0]})
    write_star(old / "p.star", table, optics)
    small = ["--epochs", "1", "--z-dim", "1", "--recipe", "vae"]
    small += ["--set", "model.encoder.hidden=4", "--set", "model.field.hidden=4"]
    done = CliRunner().invoke(app, ["fit", str(old / "p.star"), "-o", str(folder / "run"), *small])
    assert done.exit_code == 0, done.output
    (folder / "stacks").mkdir()
    (old / "Extract/s.mrcs").rename(folder / "stacks/s.mrcs")
    (old / "p.star").rename(folder / "renamed.star")
    shutil.rmtree(old)
    return folder


def verb(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    "arguments",
    [
        ("report",),
        ("export", "-o", "exported.star"),
        ("select", "--where", "z_0 < 1e9", "-o", "selected.star"),
        ("resume", "--epochs", "2"),
        ("fit", "--epochs", "3", "--datadir", "stacks", "--resume"),
    ],
)
def test_images_that_have_moved_are_found(
    fitted: Path, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(fitted)
    command, *rest = arguments
    if command != "fit":
        assert isinstance(verb(command, "run", *rest).exception, InputError)
        rest = ["run", *rest, "--input", "renamed.star", "--datadir", "stacks"]
    else:
        rest = [*rest, "run"]  # after resume, which remembers where the images are
    done = verb(command, *rest)
    assert done.exit_code == 0, done.output or done.exception


def test_the_run_is_opened_with_the_place_of_its_images(fitted: Path) -> None:
    run = Run.open(fitted / "run", input=fitted / "renamed.star", datadir=fitted / "stacks")
    assert run.dataset().n == N
    assert run.has_images

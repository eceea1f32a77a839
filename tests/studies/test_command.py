"""``modpose experiment`` starts a study of the repository as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from modpose.cli import experiment, main

ROOT = Path(__file__).parents[2]


def test_every_experiment_has_a_command_of_its_own() -> None:
    names = {p.parent.name for p in (ROOT / "studies").glob("*/__main__.py")}
    beside_peers = {"cryobench"}  # has other options
    assert names - beside_peers == set(experiment.EXPERIMENTS.values())


@pytest.mark.parametrize(
    "start", [("modpose", "experiment", "spatial-vae"), ("studies.spatial_vae",)]
)
def test_a_study_says_what_is_wrong(start: tuple[str, ...], tmp_path: Path) -> None:
    command = [sys.executable, "-m", *start, "-o", str(tmp_path / "out"), "--only", "nothing"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "expected one of digits, hinge, galaxies, particles" in done.stderr
    assert not (tmp_path / "out").exists()


def test_without_the_repository_it_says_where_studies_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed = tmp_path / "lib" / "site-packages" / "modpose" / "cli" / "experiment.py"
    monkeypatch.setattr(experiment, "__file__", str(installed))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["experiment", "spatial-vae", "-o", "out"])
    assert left.value.code == 2
    assert "not installed with modpose; download its source code" in capsys.readouterr().err

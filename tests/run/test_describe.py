"""What ``modpose inspect`` says of a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from modpose.cli import main
from modpose.errors import InputError
from modpose.run import Run
from modpose.run.alarm import Alarm

STORED = Path(__file__).parents[1] / "stored_runs"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(STORED / "vae", tmp_path / "run"))


def test_a_finished_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["inspect", str(run)])
    assert leaving.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{run}: a run"
    facts = dict(line.split(maxsplit=1) for line in lines[1:])
    assert facts["recipe"] == "vae"
    assert facts["images"] == "24"
    assert facts["box"] == "16 x 16 px of 10 A"
    assert facts["epochs"] == "2 of 2, the best is 2"
    assert facts["state"] == "finished on cpu after all epochs"


@pytest.mark.parametrize("begun", [True, False])
def test_an_interrupted_run(run: Path, begun: bool) -> None:
    (run / "latents.parquet").unlink()
    environment = json.loads((run / "environment.json").read_text())
    for name in ("finished", "stopped", "device", "best_epoch"):  # written at the end
        del environment[name]
    (run / "environment.json").write_text(json.dumps(environment))
    if not begun:
        (run / "metrics.jsonl").unlink()
    facts = Run.open(run).describe().facts
    assert facts["epochs"] == ("2 of 2" if begun else "0 of 2")
    assert facts["state"] == f"not finished; continue with: modpose resume {run}"


def test_alarms_are_problems(run: Path) -> None:
    environment = json.loads((run / "environment.json").read_text())
    environment["alarms"] = [{"name": "ctf", "sentence": "Look at the CTF."}]
    (run / "environment.json").write_text(json.dumps(environment))
    assert Run.open(run).describe().problems == ["Look at the CTF."]


def test_an_alarm_names_the_run_in_its_command() -> None:
    alarm = Alarm("outliers", "Leave them out: modpose select RUN -o good.star; RUNS stay.")
    said = "Leave them out: modpose select 'my run' -o good.star; RUNS stay."
    assert alarm.of(Path("my run")) == said


@pytest.mark.parametrize("name", ["n", "shape", "modpose"])
def test_a_damaged_run_is_refused(run: Path, name: str) -> None:
    environment = json.loads((run / "environment.json").read_text())
    del environment[name]
    (run / "environment.json").write_text(json.dumps(environment))
    with pytest.raises(InputError, match=name):
        Run.open(run).describe()


def test_a_run_without_metrics_lines(run: Path) -> None:
    (run / "metrics.jsonl").write_text("")
    assert Run.open(run).describe().facts["epochs"].startswith("0 of 2")

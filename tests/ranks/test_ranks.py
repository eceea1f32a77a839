"""Two processes give the numbers of one; a dead one ends the other."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from modpose import InputError, Run, TrainingError, processes, ranks, resume_run
from modpose.cli import main
from modpose.train.checkpoint import newest_checkpoint, read_weights
from tests.ranks.together import MODELS, fitted, numbers, write_images

TIMES = {"seconds", "images_per_second"}


def run_two(folder: Path, task: str) -> int:
    script = Path(__file__).with_name("together.py")
    return processes.launch([sys.executable, str(script), str(folder), task], 2)


def weights(run: Run) -> dict[str, torch.Tensor]:
    return read_weights(run.path / "checkpoints" / "best.safetensors")


def assert_same(one: Run, two: Run) -> None:
    """The same numbers to the rounding of sums in another order: 1e-5 relative."""
    for row, same in zip(two.epochs(), one.epochs(), strict=True):
        assert {k: v for k, v in row.items() if k not in TIMES} == pytest.approx(
            {k: v for k, v in same.items() if k not in TIMES}, rel=1e-5, abs=1e-5
        )
    for name, value in weights(one).items():
        assert torch.allclose(weights(two)[name], value, rtol=1e-4, atol=1e-5), name
    numbers = one.latents().select_dtypes("number")
    assert two.latents()[numbers.columns].to_numpy() == pytest.approx(
        numbers.to_numpy(), rel=1e-3, abs=1e-3, nan_ok=True
    )


def test_two_processes_give_the_numbers_of_one(tmp_path: Path) -> None:
    write_images(tmp_path)
    assert run_two(tmp_path, "fits") == 0
    for model in MODELS:
        assert_same(fitted(tmp_path, model, f"{model}-1"), Run.open(tmp_path / f"{model}-2"))


def test_two_processes_find_the_classes_poses_and_motions_of_one(tmp_path: Path) -> None:
    assert run_two(tmp_path, "searches") == 0
    found = torch.load(tmp_path / "found.pt")
    alone = numbers()
    # the blobs do not move: positions are compared with their prior, maps of motions with the mean
    size = {name: float(value.abs().max()) for name, value in alone.items()}
    size |= {"z": 1.0, "directions": size["maps"]}
    for name, value in alone.items():
        # another order of sums; few steps of an optimisation amplify it
        near = (1e-6 if name in ("sums", "class_index") else 2e-2) * size[name]
        assert torch.allclose(found[name], value, rtol=0, atol=near), name


def test_a_killed_process_ends_the_other_and_one_process_resumes(tmp_path: Path) -> None:
    write_images(tmp_path)
    with pytest.raises(TrainingError, match=r"process 2 of 2 was killed \(SIGKILL\)"):
        run_two(tmp_path, "dies")
    saved = newest_checkpoint(tmp_path / "killed" / "checkpoints")
    assert saved is not None and saved[1]["state"]["step"] == 7
    resumed = resume_run(tmp_path / "killed", quiet=True)
    assert_same(fitted(tmp_path, "network", "one"), resumed)


def test_two_machines_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    script = Path(__file__).with_name("together.py")
    command = [sys.executable, str(script), str(tmp_path), "sums"]
    start = f"from modpose import processes; raise SystemExit(processes.launch({command!r}, 1, 2))"
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", port)
    monkeypatch.setenv("NODE_RANK", "1")
    with subprocess.Popen([sys.executable, "-c", start]) as other:
        monkeypatch.setenv("NODE_RANK", "0")
        assert processes.launch(command, 1, 2) == 0
        assert other.wait() == 0


def test_unknown_machines_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "NODE_RANK", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="--nodes 2: the other machines are not known"):
        processes.launch(["true"], 4, 2)


def test_slurm_starts_the_processes_of_its_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/sh\necho "$@" > "$0.words"\nexit 3\n')
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.delenv("NODE_RANK", raising=False)
    assert processes.launch(["modpose", "fit"], 4, 2) == 3
    words = (tmp_path / "srun.words").read_text().split()
    assert words == ["--nodes=2", "--ntasks-per-node=4", "--kill-on-bad-exit=1", "modpose", "fit"]


def test_another_number_of_processes_than_started_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match="2"):
        main(["resume", str(tmp_path), "--devices", "2", "--nodes", "2"])
    assert "is 4, expected 2, as torchrun or srun has started" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (0, 1, 0)),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, (3, 4, 1)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, (0, 1, 0)),  # a batch script
        ({"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "0"}, (2, 4, 0)),
    ],
)
def test_the_place_of_a_process_is_that_of_its_launcher(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: tuple[int, int, int]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert ranks.place() == expected


def test_an_impossible_place_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "4")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(InputError, match="RANK=4, WORLD_SIZE=4"):
        ranks.place()


def test_classes_of_images_refuse_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match="2"):
        main(["align", str(tmp_path / "stack.npy"), "-o", str(tmp_path / "a"), "--devices", "2"])
    assert "--devices is for volumes, but" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("nodes", "first"), [("gpu[03-05,9]", "gpu03"), ("a-1,b-2", "a-1"), ("only", "only")]
)
def test_the_first_node_leads(monkeypatch: pytest.MonkeyPatch, nodes: str, first: str) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_STEP_NODELIST", nodes)
    ranks._find_leader()
    assert os.environ["MASTER_ADDR"] == first

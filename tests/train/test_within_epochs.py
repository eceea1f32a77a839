"""Checkpoints within an epoch: a resumed training gives the numbers of one without interruption."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modpose import InputError, Run, fit_run, open_source, resume_run
from modpose.config import merge, parse_config
from modpose.recipes import recipe_config
from modpose.train import loop, validation
from modpose.train.checkpoint import newest_checkpoint, read_weights

TINY: dict[str, Any] = {
    "model": {"z_dim": 1, "encoder": {"hidden": 8}, "field": {"hidden": 8}},
    "train": {"epochs": 2, "batch_size": 8, "pixels": 40, "augment": {"rotate": "encoder-input"}},
}


def fitted(folder: Path, name: str) -> Run:
    path = folder / "stack.npy"
    images = np.random.default_rng(0).normal(size=(60, 12, 12)).astype(np.float32)
    np.save(path, images)
    config = parse_config(merge(recipe_config("spatial-vae"), TINY), "test")
    return fit_run(open_source(path), config, folder / name, quiet=True)


def interrupted(folder: Path, monkeypatch: pytest.MonkeyPatch, steps: int) -> Path:
    """Fit with a checkpoint at every step, and stop after some."""
    step, done = loop._step, [0]

    def until(learner: loop.Learner, norm: float | None) -> None:
        if done[0] == steps:
            raise KeyboardInterrupt
        done[0] += 1
        step(learner, norm)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "SAVE_EVERY", 0.0)
        patched.setattr(loop, "_step", until)
        with pytest.raises(KeyboardInterrupt):
            fitted(folder, "stopped")
    return folder / "stopped"


@pytest.mark.parametrize("steps", [3, 6, 10])  # an epoch has seven
def test_a_training_stopped_within_an_epoch_resumes_to_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    whole = fitted(tmp_path, "whole")
    path = interrupted(tmp_path, monkeypatch, steps)
    saved = newest_checkpoint(path / "checkpoints")
    assert saved is not None and saved[1]["state"]["step"] == steps
    resumed = resume_run(path, quiet=True)
    expected = read_weights(whole.path / "checkpoints" / "best.safetensors")
    found = read_weights(resumed.path / "checkpoints" / "best.safetensors")
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    for row, same in zip(resumed.epochs(), whole.epochs(), strict=True):
        for name in set(same) - {"seconds", "images_per_second"}:
            assert row[name] == same[name], name
    assert len(list((path / "checkpoints").glob("epoch-*.state"))) == 1


def test_the_newest_checkpoint_is_that_of_the_most_batches(tmp_path: Path) -> None:
    for name in ("00001", "00001-000000009", "00001-000000010", "00000-999999999"):
        for suffix in ("safetensors", "state"):
            (tmp_path / f"epoch-{name}.{suffix}").touch()
    from modpose.train.checkpoint import _complete

    assert _complete(tmp_path)[-1].name == "epoch-00001-000000010.safetensors"


def test_a_checkpoint_of_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = interrupted(tmp_path, monkeypatch, 3)
    state = next((path / "checkpoints").glob("*.state"))
    values = torch.load(state, weights_only=True)
    values["begun"] = {"batches": 2}
    torch.save(values, state)
    with pytest.raises(InputError, match="of another training, or damaged"):
        resume_run(path, quiet=True)
    assert json.loads((path / "environment.json").read_text())["n"] == 60


def test_a_large_validation_set_is_sampled_evenly() -> None:
    rows = np.arange(0, 300, 3)
    assert validation._evenly(rows, 1000).tolist() == rows.tolist()
    few = validation._evenly(rows, 10)
    assert len(np.unique(few)) == 10 and few[0] == 0 and few[-1] == 297
    assert np.diff(few).max() <= 36  # 100 rows, of which every eleventh is taken

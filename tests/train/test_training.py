"""Schedules, the loop, resuming, the run folder, and PoseModel."""

from __future__ import annotations

import json
import math
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from sklearn.base import clone

from modpose import InputError, PoseModel, Run, TrainingError, fit_run, open_source, resume_run
from modpose.config import Schedule, TrainConfig, merge, parse_config
from modpose.recipes import recipe_config
from modpose.simulate.particles import HingeSettings, simulate_particles, write_particles
from modpose.suggest import suggest
from modpose.train.checkpoint import newest_checkpoint, save_checkpoint
from modpose.train.schedules import rate_factor

TINY: dict[str, Any] = {
    "model": {"z_dim": 1, "encoder": {"hidden": 8}, "field": {"hidden": 8}},
    "train": {"epochs": 4, "batch_size": 16, "pixels": 50, "delay_z_steps": 4},
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("particles")
    simulated = simulate_particles(HingeSettings(n=60, box=16, pixel_size=10.0, seed=1))
    return write_particles(simulated, folder)


def tiny_config(recipe: str = "spatial-vae", **sections: Any) -> Any:
    return parse_config(merge(merge(recipe_config(recipe), TINY), sections), recipe)


def fit_tiny(stack: Path, out: Path, **sections: Any) -> Run:
    return fit_run(open_source(stack), tiny_config(**sections), out, quiet=True)


# --- schedules --------------------------------------------------------------------------------


def test_beta_schedules() -> None:
    ramp = Schedule(kind="linear", start=0.2, end=1.0, steps=4)
    assert [ramp.at(e) for e in (0, 2, 4, 9)] == pytest.approx([0.2, 0.6, 1.0, 1.0])
    cycle = Schedule(kind="cyclic", start=0.0, end=2.0, steps=4)
    assert [cycle.at(e) for e in (0, 1, 2, 3, 4, 5)] == pytest.approx([0, 1, 2, 2, 0, 1])
    assert Schedule(end=4.0).at(7) == 4.0


def test_rate_schedules() -> None:
    cosine = TrainConfig(schedule="cosine")
    assert [rate_factor(cosine, 9, p, 0) for p in (0, 0.5, 1, 2)] == pytest.approx([1, 0.5, 0, 0])
    assert rate_factor(TrainConfig(schedule="plateau"), 0, 0.5, 2) == 0.25
    assert rate_factor(TrainConfig(), 0, 0.9, 3) == 1.0
    warm = TrainConfig(warmup_steps=3)
    assert [rate_factor(warm, k, 0, 0) for k in (0, 1, 3, 9)] == pytest.approx([0.25, 0.5, 1, 1])


# --- runs -------------------------------------------------------------------------------------


def test_a_run_folder_holds_what_the_contract_says(stack: Path, tmp_path: Path) -> None:
    run = fit_run(open_source(stack), tiny_config(), tmp_path / "run", clusters=2, quiet=True)
    table = run.latents()
    assert table["index"].tolist() == list(range(60))
    assert set(table["split"]) == {"train", "val"}
    assert (table["split"] == "val").sum() == 6
    assert table["angle_deg"].between(-180, 180).all()
    np.testing.assert_allclose(
        table["elbo"], table["recon"] - table["kl_pose"] - table["kl_content"], rtol=1e-5
    )
    for name in ("z_0", "z_0_std", "shift_x", "shift_y_std", "pose_entropy", "cluster"):
        assert np.isfinite(table[name]).all(), name
    metrics = run.metrics()
    assert metrics["epoch"].tolist() == [1, 2, 3, 4]
    for name in ("elbo", "val_elbo", "kl_pose", "seconds", "images_per_second", "lr", "beta"):
        assert np.isfinite(metrics[name]).all(), name
    environment = run.environment
    assert environment["n"] == 60 and environment["pixel_size"] == pytest.approx(10.0)
    assert environment["stopped"] == "epochs"
    assert run.config == tiny_config()
    assert not [path for path in run.path.rglob("*") if path.name.endswith((".pkl", ".part"))]


def test_the_same_seed_gives_the_same_numbers_and_another_does_not(
    stack: Path, tmp_path: Path
) -> None:
    first, second = (fit_tiny(stack, tmp_path / name).latents() for name in "ab")
    pd.testing.assert_frame_equal(first, second)
    assert not first["elbo"].equals(fit_tiny(stack, tmp_path / "c", seed=1).latents()["elbo"])


@pytest.mark.parametrize("recipe", ["spatial-vae", "table"])
def test_resuming_gives_the_numbers_of_an_uninterrupted_run(
    stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str
) -> None:
    options: dict[str, Any] = {"train": {"schedule": "plateau", "plateau_epochs": 1}}
    if recipe == "table":
        options |= {"model": {"encoder": {"kind": "table"}}, "data": {"val_fraction": 0.0}}
    whole = fit_tiny(stack, tmp_path / "whole", **options)

    def interrupt(folder: Path, epoch: int, *rest: Any, **named: Any) -> None:
        save_checkpoint(folder, epoch, *rest, **named)
        if epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("modpose.train.session.save_checkpoint", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit_tiny(stack, tmp_path / "part", **options)
    part = Run.open(tmp_path / "part")
    with pytest.raises(InputError, match="not finished"):
        part.latents()
    resumed = resume_run(tmp_path / "part", quiet=True)
    pd.testing.assert_frame_equal(whole.latents(), resumed.latents())
    timed = ["seconds", "images_per_second"]
    pd.testing.assert_frame_equal(
        whole.metrics().drop(columns=timed), resumed.metrics().drop(columns=timed)
    )


def test_a_killed_run_resumes(stack: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ["--set", "train.epochs=5000", "--set", "model.field.hidden=8"]
    options += ["--set", "model.encoder.hidden=8", "--seed", "3"]
    command = [sys.executable, "-m", "modpose", "fit", str(stack), "-o", str(out), *options]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300  # a busy machine imports slowly
    metrics = out / "metrics.jsonl"
    while not metrics.is_file() or len(metrics.read_text().splitlines()) < 3:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    saved = newest_checkpoint(out / "checkpoints")
    assert saved is not None
    done = saved[1]["state"]["epoch"]
    resumed = resume_run(out, epochs=done + 2, quiet=True)
    assert resumed.metrics()["epoch"].tolist() == list(range(1, done + 3))
    assert resumed.finished


def test_a_finished_run_goes_on_only_when_asked(stack: Path, tmp_path: Path) -> None:
    run = fit_tiny(stack, tmp_path / "run")
    with pytest.raises(InputError, match="finished"):
        resume_run(run.path)
    longer = resume_run(run.path, epochs=6, quiet=True)
    assert longer.metrics()["epoch"].tolist() == [1, 2, 3, 4, 5, 6]


def test_nothing_is_overwritten_unasked(stack: Path, tmp_path: Path) -> None:
    run = fit_tiny(stack, tmp_path / "run")
    before = run.latents()
    with pytest.raises(InputError, match="--overwrite"):
        fit_tiny(stack, tmp_path / "run")
    pd.testing.assert_frame_equal(run.latents(), before)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="no modpose run"):
        fit_run(open_source(stack), tiny_config(), precious, overwrite=True, quiet=True)
    assert [path.name for path in precious.iterdir()] == ["notes.txt"]
    (run.path / "export.star").write_text("mine too")
    fit_run(open_source(stack), tiny_config(seed=2), run.path, overwrite=True, quiet=True)
    assert (run.path / "export.star").read_text() == "mine too"


def test_a_bad_image_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.random.default_rng(0).standard_normal((40, 16, 16)).astype(np.float32)
    images[33, 2, 3] = np.nan
    np.save(tmp_path / "stack.npy", images)
    for cache in (2**30, 0):  # found at the start, and found on the way
        monkeypatch.setattr("modpose.data.dataset.CACHE_BYTES", cache)
        monkeypatch.setattr("modpose.train.training_set.LOOKED_AT", 2)
        with pytest.raises(InputError, match=r"34.*NaN"):
            fit_tiny(tmp_path / "stack.npy", tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_a_time_budget_ends_a_finished_run(stack: Path, tmp_path: Path) -> None:
    config = tiny_config(train={"epochs": 100_000, "schedule": "cosine"})
    run = fit_run(open_source(stack), config, tmp_path / "run", max_minutes=0.02, quiet=True)
    assert run.environment["stopped"] == "max-minutes"
    assert run.environment["training_seconds"] < 10
    assert run.metrics()["lr"].iloc[-1] < run.metrics()["lr"].iloc[0]
    assert len(run.latents()) == 60


def test_mixed_precision_trains_to_nearly_the_same_bound(stack: Path, tmp_path: Path) -> None:
    runs = [
        fit_tiny(stack, tmp_path / precision, train={"precision": precision})
        for precision in ("32-true", "bf16-mixed")
    ]
    full, mixed = (run.metrics()["val_elbo"].iloc[-1] for run in runs)
    assert mixed == pytest.approx(full, abs=2.0)


def test_early_stopping_looks_at_validation_only(
    stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([-5.0, -3.0, -4.0, -4.5, -9.0, -9.0])

    def validate(*_: Any) -> dict[str, float]:
        return {"val_elbo": next(values)}

    monkeypatch.setattr("modpose.train.loop.validate", validate)
    config = {"train": {"epochs": 50, "stop_epochs": 2, "delay_z_steps": 0}}
    run = fit_tiny(stack, tmp_path / "run", **config)
    assert run.environment["stopped"] == "validation"
    assert run.environment["best_epoch"] == 2
    assert len(run.metrics()) == 4


def test_validation_does_not_touch_the_weights(stack: Path, tmp_path: Path) -> None:
    options = {"train": {"epochs": 1}}
    run = fit_tiny(stack, tmp_path / "a", **options)
    model = PoseModel.load(run.path)
    before = {name: value.clone() for name, value in model.vae.state_dict().items()}
    model.encode(stack)
    assert all(torch.equal(before[k], v) for k, v in model.vae.state_dict().items())


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(
    stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modpose.model.objective import Elbo
    from modpose.model.vae import Vae

    original, calls = Vae.elbo, [0]

    def diverging(self: Vae, *rest: Any, **named: Any) -> Elbo:
        calls[0] += 1
        elbo = original(self, *rest, **named)
        return elbo._replace(recon=elbo.recon * math.nan) if calls[0] == 12 else elbo

    monkeypatch.setattr(Vae, "elbo", diverging)
    with pytest.raises(TrainingError, match=r"epoch 3.*last good checkpoint"):
        fit_tiny(stack, tmp_path / "run")
    saved = newest_checkpoint(tmp_path / "run" / "checkpoints")
    assert saved is not None
    assert saved[1]["state"]["epoch"] == 2
    assert all(torch.isfinite(value).all() for value in saved[0].values())


def test_restarts_keep_the_start_with_the_best_validation_elbo(stack: Path, tmp_path: Path) -> None:
    options = {"restarts": 3, "restart_epochs": 2}
    run = fit_tiny(stack, tmp_path / "run", train=options)
    assert run.metrics()["epoch"].tolist() == [1, 2, 3, 4]
    metrics = run.metrics()
    assert metrics["start"].iloc[:2].nunique() == 1
    assert metrics["start"].iloc[2:].isna().all()


def test_only_complete_checkpoints_count(tmp_path: Path) -> None:
    weights = {"w": torch.ones(2)}
    save_checkpoint(tmp_path, 1, weights, {"state": {"epoch": 1}}, best=True)
    save_checkpoint(tmp_path, 2, weights, {"state": {"epoch": 2}}, best=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best.safetensors",
        "epoch-00002.safetensors",
        "epoch-00002.state",
    ]
    (tmp_path / "epoch-00003.safetensors").write_bytes(b"killed while writing")
    saved = newest_checkpoint(tmp_path)
    assert saved is not None and saved[1]["state"]["epoch"] == 2


def test_weights_of_another_network_are_refused_in_one_sentence(
    stack: Path, tmp_path: Path
) -> None:
    run = fit_tiny(stack, tmp_path / "run")
    config = (run.path / "config.yaml").read_text()
    assert "z_dim: 1" in config
    (run.path / "config.yaml").write_text(config.replace("z_dim: 1", "z_dim: 3"))
    with pytest.raises(InputError, match=r"best\.safetensors: the weights are not those") as caught:
        PoseModel.load(run.path)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="the weights are not those"):
        resume_run(run.path, epochs=9, quiet=True)


def test_a_state_file_cannot_run_code(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "trapped"),))

    save_checkpoint(tmp_path, 1, {"w": torch.ones(1)}, {"state": {}}, best=False)
    (tmp_path / "epoch-00001.state").write_bytes(pickle.dumps(Trap(), protocol=2))
    with pytest.raises(InputError, match="checkpoint"):
        newest_checkpoint(tmp_path)
    assert not (tmp_path / "trapped").exists()


def test_what_is_not_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such run"):
        Run.open(tmp_path / "nowhere")
    with pytest.raises(InputError, match="not a modpose run"):
        Run.open(tmp_path)


def test_changed_images_are_not_resumed(stack: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).standard_normal((40, 16, 16)).astype(np.float32)
    np.save(tmp_path / "stack.npy", images)
    fit_tiny(tmp_path / "stack.npy", tmp_path / "run")
    np.save(tmp_path / "stack.npy", images[::-1].copy())
    with pytest.raises(InputError, match="replaced or re-ordered"):
        resume_run(tmp_path / "run", epochs=9)


# --- recipes ----------------------------------------------------------------------------------


def test_likelihood_follows_the_kind_of_data() -> None:
    rng = np.random.default_rng(0)
    cases: list[tuple[NDArray[Any], str]] = [
        (rng.integers(0, 256, (5, 8, 8), dtype=np.uint8), "bernoulli"),
        (rng.random((5, 8, 8), dtype=np.float32), "bernoulli"),
        (rng.standard_normal((5, 8, 8)).astype(np.float32), "gaussian"),
        (rng.integers(-900, 900, (5, 8, 8), dtype=np.int16), "gaussian"),
    ]
    for images, expected in cases:
        assert suggest(open_source(images))[1]["model"]["likelihood"]["kind"] == expected


def test_unknown_recipes_name_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'spatial-vae'"):
        recipe_config("spatialvae")


# --- PoseModel --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted() -> tuple[PoseModel, NDArray[np.float32]]:
    simulated = simulate_particles(HingeSettings(n=60, box=16, pixel_size=10.0, seed=1))
    model = PoseModel("spatial-vae", options=TINY, quiet=True)
    return model.fit(simulated.images, labels=np.arange(60) % 3, clusters=2), simulated.images


def test_pose_model_shapes(fitted: tuple[PoseModel, NDArray[np.float32]]) -> None:
    model, images = fitted
    found = model.encode(images)
    assert found.z.shape == (60, 1)
    assert found.rotation.shape == (60, 2, 2)
    assert found.shift.shape == (60, 2)
    assert found.elbo.shape == (60,)
    np.testing.assert_allclose(
        found.rotation @ found.rotation.transpose(0, 2, 1),
        np.tile(np.eye(2), (60, 1, 1)),
        atol=1e-5,
    )
    assert model.decode(np.zeros((5, 1))).shape == (5, 16, 16)
    assert model.reconstruct(images).shape == images.shape
    assert model.sample(4).shape == (4, 16, 16)
    table = model.latents()
    assert table["label"].tolist() == [0, 1, 2] * 20
    assert list(found.to_dataframe().columns) == [
        c for c in table.columns if c not in ("split", "cluster", "label")
    ]


def test_the_importance_weighted_bound_tightens_with_its_samples(
    fitted: tuple[PoseModel, NDArray[np.float32]],
) -> None:
    model, images = fitted
    one, many = (model.importance_bound(images, k).mean() for k in (1, 50))
    assert one == pytest.approx(model.encode(images).elbo.mean(), abs=3.0)
    assert many > one


def test_decoding_upright_is_reconstructing_without_a_pose(
    fitted: tuple[PoseModel, NDArray[np.float32]],
) -> None:
    model, _ = fitted
    upright = model.decode([[0.3]])[0].ravel()
    u = model.vae.coordinates / 8
    with torch.no_grad():
        expected = model.vae.field(u[None], torch.tensor([[0.3]]))[0, :, 0]
    np.testing.assert_allclose(upright, expected.numpy(), atol=1e-5)


def test_saved_models_come_back_the_same(
    fitted: tuple[PoseModel, NDArray[np.float32]], tmp_path: Path
) -> None:
    model, images = fitted
    model.save(tmp_path / "run")
    again = PoseModel.load(tmp_path / "run")
    np.testing.assert_array_equal(model.transform(images), again.transform(images))
    pd.testing.assert_frame_equal(model.latents(), again.latents())
    with pytest.raises(InputError, match="--overwrite"):
        model.save(tmp_path / "run")
    json.loads((tmp_path / "run" / "environment.json").read_text())


def test_scikit_learn_finds_what_it_expects(
    fitted: tuple[PoseModel, NDArray[np.float32]],
) -> None:
    model, images = fitted
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert copy.set_params(seed=3).seed == 3
    with pytest.raises(InputError, match="no parameter"):
        copy.set_params(sead=3)
    assert copy.fit_transform(images[:30]).shape == (30, 1)
    assert copy.inverse_transform([[0.0]]).shape == (1, 16, 16)


def test_misuse_is_one_sentence(fitted: tuple[PoseModel, NDArray[np.float32]]) -> None:
    model, images = fitted
    with pytest.raises(InputError, match="not fitted"):
        PoseModel().decode([[0.0, 0.0]])
    with pytest.raises(InputError, match="shape of z"):
        model.decode([[0.0, 0.0]])
    with pytest.raises(InputError, match="rows"):
        model.encode(images[:, :12, :12])
    with pytest.raises(InputError, match="one label per image"):
        PoseModel(options=TINY, quiet=True).fit(images, labels=[1, 2, 3])

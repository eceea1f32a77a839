"""The benchmarks: one bound in both programs, curves, and a smoke of each."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

from modpose.evaluate.metrics import hungarian_accuracy
from modpose.simulate.digits import glyphs, transform

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def repository_on_path() -> Iterator[None]:
    """The benchmarks are beside the package and not in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        yield


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the main function of a benchmark and return what it prints."""

    def run_main(name: str, *arguments: str) -> str:
        importlib.import_module(f"benchmarks.{name}").main(list(arguments))
        return capsys.readouterr().out

    return run_main


# --- one bound, two programs ------------------------------------------------------------------

SYSTEMS = ("spatial-vae", "target-vae")


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_bound_is_the_same_in_both(name: str) -> None:
    from benchmarks.parity import LARGEST_GAP, parity
    from benchmarks.systems import SYSTEMS, Size

    gaps = parity(SYSTEMS[name], Size(hidden=12, batch=6), train_steps=8)
    assert gaps["32-true"].largest < 1e-2
    assert gaps["bf16-mixed"].of_means < LARGEST_GAP
    assert gaps["bf16-mixed"].largest > gaps["32-true"].largest


@pytest.mark.parametrize("name", SYSTEMS)
def test_other_weights_have_another_bound(name: str) -> None:
    from benchmarks.parity import draw_sample, elbo_of_modpose, elbo_of_textbook, same_weights
    from benchmarks.systems import SYSTEMS, Size, make_learner, step_config

    system, size = SYSTEMS[name], Size(hidden=12, batch=4)
    learner = make_learner(system, step_config(system, system.exact, size))
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, *system.shape, generator=generator)
    sample = draw_sample(learner, images, generator)
    ours = elbo_of_modpose(learner, images, sample)

    other = elbo_of_textbook(system.make_textbook(12), images, sample)
    assert (ours - other).abs().max() > 0.1
    same = elbo_of_textbook(same_weights(system, size, learner.vae), images, sample)
    torch.testing.assert_close(ours, same, atol=1e-2, rtol=0)


@pytest.mark.parametrize("name", SYSTEMS)
def test_both_judges_agree_on_the_same_weights(name: str, tmp_path: Path) -> None:
    from benchmarks import digits
    from benchmarks.parity import same_weights
    from benchmarks.systems import SYSTEMS, Size, make_learner, step_config
    from benchmarks.time_to_elbo import Settings, Snapshot, judge_modpose, judge_textbook

    system, size = SYSTEMS[name], Size(hidden=8)
    np.save(tmp_path / "val.npy", digits.posed_digits(None, 1, 20, posing=system.posing)[1])
    settings = Settings(
        system=name,
        train="",
        val=str(tmp_path / "val.npy"),
        minutes=1,
        recipe_minutes=1,
        lr=1e-4,
        batch_size=1,
        hidden=8,
        seed=0,
    )
    learner = make_learner(system, step_config(system, system.exact, size))
    last = learner.vae.encoder.network[-1]
    with torch.no_grad():  # posteriors so narrow that it does not matter which sample is drawn
        if name == "target-vae":
            last.weight[6] *= 1e6  # the logits
            last.bias[[2, 3, 5]] = -6.0
        else:
            last.bias[[2, 3, 5, 8, 9]] = -6.0
    plain = same_weights(system, size, learner.vae)
    ours = judge_modpose(learner, Snapshot(0.0, 0, learner.vae.state_dict(), False), settings)
    theirs = judge_textbook(plain, Snapshot(0.0, 0, plain.state_dict(), False), settings)
    assert ours == pytest.approx(theirs, abs=0.1)  # equation 3 would be 0.23 away


# --- curves -----------------------------------------------------------------------------------


def test_the_ratio_is_that_of_the_times_at_the_same_bound() -> None:
    from benchmarks.curves import Point, sentences, summary

    textbook = [Point(1, 100, -300.0), Point(600, 9000, -200.0)]
    ours = [Point(1, 100, -250.0), Point(20, 800, -199.0), Point(600, 9000, -150.0)]
    found = summary({"textbook": textbook, "ours": ours})
    assert found.arrivals["ours"].sooner == found.arrivals["ours"].sooner_with_content == 30
    assert "ours was there after 20.0 s: 30x sooner (it ended" in sentences(found)
    ours[1] = ours[1]._replace(holds_content=True)
    held = summary({"textbook": textbook, "ours": ours, "never": ours[:1]})
    arrival = held.arrivals["ours"]
    assert (arrival.sooner, arrival.sooner_with_content) == (30, 1)
    assert "1x sooner, with content decoded" in sentences(held)
    assert held.arrivals["never"].sooner is None
    assert "never did not get there" in sentences(held)


# --- smoke ------------------------------------------------------------------------------------


def test_step_prints_every_contestant_and_the_ratio(run: Callable[..., str]) -> None:
    size = ["--hidden", "8", "--batch-size", "4", "--parity-steps", "2"]
    printed = run("step", *size, "--repetitions", "2", "--default-allocator")
    for name in ("textbook", "exact, float32", "exact, bf16-mixed", "recipe spatial-vae"):
        line = next(line for line in printed.splitlines() if line.startswith(name))
        assert line.endswith("x")
    assert "default allocator" in printed
    assert "Exact mode, every pixel, is" in printed
    assert printed.count("(within 0.5)") == 2


def test_step_of_target_vae_times_both_recipes(run: Callable[..., str]) -> None:
    size = ["--hidden", "4", "--batch-size", "2", "--parity-steps", "2"]
    printed = run("step", "--system", "target-vae", *size, "--repetitions", "1")
    for name in ("textbook", "exact, float32", "recipe target-vae", "recipe modpose"):
        line = next(line for line in printed.splitlines() if line.startswith(name))
        assert line.endswith("x")
    assert printed.count("(within 0.5)") == 2


@pytest.mark.parametrize(
    ("system", "recipes"),
    [("spatial-vae", ["spatial-vae"]), ("target-vae", ["target-vae", "modpose"])],
)
def test_time_to_elbo_writes_curves(
    system: str, recipes: list[str], tmp_path: Path, run: Callable[..., str]
) -> None:
    out = tmp_path / "curves"
    options = ["--minutes", "0.03", "--images", "100", "--validation", "5", "--hidden", "4"]
    options += ["--system", system, "--batch-size", "10", "--side-by-side", "-o", str(out)]
    printed = run("time_to_elbo", *options)
    assert "The textbook reached a validation ELBO of" in printed
    record = json.loads((out / "time_to_elbo.json").read_text())
    assert record["settings"]["data"] == "glyphs"
    assert list(record["curves"]) == ["textbook", *recipes]
    for curve in record["curves"].values():
        seconds = [point["seconds"] for point in curve]
        assert seconds == sorted(seconds)
        assert seconds[-1] >= 1.5
        assert all(-4000 < point["elbo"] < 0 for point in curve)
    assert (out / "time_to_elbo.png").stat().st_size > 10_000


def test_encode_counts_images_in_three_ways(run: Callable[..., str]) -> None:
    printed = run("encode", "--images", "200")
    for way in ("one thread", "two threads", "two processes"):
        line = next(line for line in printed.splitlines() if line.startswith(f"modpose, {way}"))
        wall, processor = (float(number) for number in line.split()[-2:])
        assert 0 < wall < 1.5 * processor


def test_memory_fits_a_sparse_stack(tmp_path: Path) -> None:
    """In a process of its own, as a user would: it asks for the peak of its children."""
    options = ["--gigabytes", "0.02", "--minutes", "0.02", "--folder", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", *options, "--threads", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout
    assert "stack: 76 images, 0.02 GB, 0.00 GB on disk" in printed
    assert "GB, below 2 GB" in printed
    assert not list(tmp_path.iterdir())


def test_the_sparse_stack_is_a_stack_of_different_images(tmp_path: Path) -> None:
    from benchmarks.memory import write_sparse_stack

    path = tmp_path / "sparse.mrcs"
    write_sparse_stack(path, 5)
    with mrcfile.open(path) as mrc:
        assert mrc.is_image_stack()
        assert mrc.data.shape == (5, 256, 256)
        assert (mrc.data.std(axis=(1, 2)) > 0).all()
        assert len(np.unique(mrc.data[:, 128, 0])) == 5
    assert path.stat().st_size == 1024 + 5 * 256 * 256 * 4


def test_the_sparse_volumes_are_read_as_volumes(tmp_path: Path) -> None:
    from benchmarks.memory import write_sparse_volumes
    from modpose.data.source import open_source

    write_sparse_volumes(tmp_path / "sparse.mrcs", 5, 8)
    stack = open_source(tmp_path / "sparse.mrcs").stack
    assert (stack.n, stack.shape) == (5, (8, 8, 8))
    volumes = stack.read(np.arange(5))[:, 0]
    assert len(np.unique(volumes[:, 4, 0, 0])) == 5 and (volumes[:, 0] == 0).all()


def test_volumes_benchmark_compares_bounds_first(run: Callable[..., str]) -> None:
    sizes = ["--box", "6", "--batch-size", "3", "--repetitions", "1", "--units", "7", "8"]
    told = run("volumes", *sizes)
    assert "ELBO with the same weights" in told and "3d-spvae, 400 voxels" in told


def test_subspaces_separate_letters_that_are_turned_and_shifted() -> None:
    subspaces = importlib.import_module("benchmarks.subspaces")
    upright = np.repeat(glyphs("ABCEFGKLRY", 28), 24, axis=0)
    images, _ = transform(upright, box=50, shift_std_px=3.0, seed=0)
    found = subspaces.cluster(subspaces.transforms(torch.from_numpy(images)), 10, seed=0)
    assert hungarian_accuracy(np.repeat(np.arange(10), 24), found.chosen.numpy())[0] > 0.75


def test_volumes_of_affinity_vae_are_timed(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.affinity_vae import main

    main(["--box", "8", "--batch-size", "6", "--repetitions", "1"])
    lines = capsys.readouterr().out.splitlines()
    rates = [int(line.split(": ")[1].split()[0]) for line in lines[-3:]]
    assert min(rates) > 0 and "rotate=any" in lines[-1]


def test_printed_trainings_are_timed(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.printed import TRAININGS, main

    configs = [printed.config() for printed in TRAININGS]
    assert all(config.train.pixels is None for config in configs)
    main(["--repetitions", "1", "--only", "64 x 64"])
    line = capsys.readouterr().out.splitlines()[-1]
    assert "8,000 images for 500 epochs would take" in line


def test_sharp_maps_are_compared_with_consensus_and_oracle(run: Callable[..., str]) -> None:
    small = ("--images", "120", "--box", "16", "--maps", "4", "--epochs", "1", "--snr", "1")
    told = run("sharp_maps", *small, "--functions", "3")
    for word in ("sharp maps", "consensus", "oracle", "gain over", "content, median", "GB"):
        assert word in told
    told = run("sharp_maps", *small, "--still")
    assert "sharp maps - consensus" in told and "forced functions" in told


def test_the_gpu_script_runs_on_the_cpu(run: Callable[..., str]) -> None:
    only = ("--only", "spatial-vae", "search")
    said = run("gpu", "--device", "cpu", "--seconds", "0.01", "--batch", "2", *only)
    assert "failed" not in said
    assert [line.split(" | ")[0] for line in said.splitlines()[-2:]] == ["spatial-vae", "search"]

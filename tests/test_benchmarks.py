"""The benchmarks: the textbook against the formulas, one ELBO both ways, and a smoke of each."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import mrcfile
import numpy as np
import pytest
import torch
from scipy.special import expit
from scipy.stats import norm

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def step() -> ModuleType:
    """Import the benchmarks, which are beside the package and not in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        import benchmarks.step

    return benchmarks.step


@pytest.fixture(scope="module")
def time_to_elbo(step: ModuleType) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        import benchmarks.time_to_elbo

    return benchmarks.time_to_elbo


def run(*command: str) -> str:
    """Run a benchmark as a user would and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- the textbook -----------------------------------------------------------------------------


def test_the_textbook_computes_what_the_paper_says(step: ModuleType) -> None:
    """Pixel by pixel in float64, with scipy's densities for the terms that have closed forms."""
    plain = step.make_textbook(hidden=6)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.mul_(2)
    image = torch.rand(1, 28, 28, generator=generator)
    noise = plain.noise(1, generator)
    terms = plain.terms(image, noise)

    def layers(name: str, x: np.ndarray) -> np.ndarray:
        weights = [p.detach().double().numpy() for p in getattr(plain, name).parameters()]
        for k in (0, 2):
            x = np.tanh(weights[k] @ x + weights[k + 1])
        return weights[4] @ x + weights[5]

    raw = layers("encoder", image.double().numpy().ravel())
    mean, std = raw[:5], np.exp(raw[5:])
    sample = mean + std * noise[0].double().numpy()
    angle, shift = sample[2], 1.4 / 14 * sample[3:]
    recon = 0.0
    for row in range(28):
        for column in range(28):
            x = np.array([column - 14, row - 14]) / 14 - shift
            turned = (
                math.cos(angle) * x[0] + math.sin(angle) * x[1],
                -math.sin(angle) * x[0] + math.cos(angle) * x[1],
            )
            p = expit(layers("decoder", np.array([*turned, *sample[:2]])))[0]
            y = float(image[0, row, column])
            recon += y * math.log(p) + (1 - y) * math.log1p(-p)
    assert terms.recon.item() == pytest.approx(recon, rel=1e-5)

    def kl(k: int) -> float:
        grid = np.linspace(-12, 12, 4001) * std[k] + mean[k]
        q = norm.logpdf(grid, mean[k], std[k])
        return float(np.trapezoid(np.exp(q) * (q - norm.logpdf(grid)), grid))

    assert terms.kl_content.item() == pytest.approx(kl(0) + kl(1), rel=1e-4)
    assert terms.kl_shift.item() == pytest.approx(kl(3) + kl(4), rel=1e-4)
    wide = math.log(math.pi / std[2]) + std[2] ** 2 / (2 * math.pi**2) - 0.5
    assert terms.kl_angle.item() == pytest.approx(wide, rel=1e-5)


def test_the_textbook_learns(step: ModuleType) -> None:
    from benchmarks import digits, textbook

    model = step.make_textbook(hidden=16)
    optimizer = textbook.adam(model, lr=1e-2)
    images = torch.from_numpy(digits.posed_digits(None, 20, 1)[0])
    generator = torch.Generator().manual_seed(0)
    elbos = [textbook.train_step(model, optimizer, images, generator) for _ in range(15)]
    assert elbos[-1] > elbos[0] + 100


# --- one ELBO, two programs -------------------------------------------------------------------


def test_the_elbo_is_the_same_in_both(step: ModuleType) -> None:
    gaps = step.parity(step.Size(hidden=24, batch=12), train_steps=10)
    assert gaps["32-true"].largest < 1e-2
    assert gaps["bf16-mixed"].of_means < step.LARGEST_GAP
    assert gaps["bf16-mixed"].largest > gaps["32-true"].largest


def test_other_weights_have_another_elbo(step: ModuleType) -> None:
    learner = step.make_learner(step.step_config(step.EXACT, step.Size(hidden=24, batch=4)))
    plain = step.make_textbook(hidden=24)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, 28, 28, generator=generator)
    noise = plain.noise(4, generator)

    def gap() -> float:
        expected = plain.terms(images, noise).elbo()
        return float((step.elbo_at(learner, images, noise) - expected).detach().abs().max())

    assert gap() > 1
    step.copy_weights(learner.vae, plain)
    assert gap() < 1e-2


def test_both_judges_agree_on_the_same_weights(
    step: ModuleType, time_to_elbo: ModuleType, tmp_path: Path
) -> None:
    from benchmarks import digits

    np.save(tmp_path / "val.npy", digits.posed_digits(None, 1, 30)[1])
    settings = time_to_elbo.Settings(
        train="", val=str(tmp_path / "val.npy"), minutes=1, lr=1e-4, hidden=8, seed=0
    )
    learner = step.make_learner(step.step_config(step.EXACT, step.Size(hidden=8)))
    with torch.no_grad():  # posteriors so narrow that it does not matter which sample is drawn
        learner.vae.encoder.network[4].bias[[2, 3, 5, 8, 9]] = -6.0
    plain = step.make_textbook(hidden=8)
    step.copy_weights(learner.vae, plain)
    shot = time_to_elbo.Snapshot(0.0, 0, learner.vae.state_dict(), holds_content=False)
    ours = time_to_elbo.judge_modpose(learner, shot, settings)
    theirs = time_to_elbo.judge_textbook(plain, plain.state_dict(), settings)
    assert ours == pytest.approx(theirs, abs=0.1)  # equation 3 would be 0.23 away


# --- smoke ------------------------------------------------------------------------------------


def test_step_prints_every_contestant_and_the_ratio() -> None:
    size = ["--hidden", "8", "--batch-size", "4", "--parity-steps", "2"]
    printed = run("benchmarks.step", *size, "--repetitions", "2", "--default-allocator")
    for name in ("textbook", "exact, float32", "exact, bf16-mixed", "fast (default)"):
        line = next(line for line in printed.splitlines() if line.startswith(name))
        assert line.endswith("x")
    assert "default allocator" in printed
    assert "Exact mode, every pixel, is" in printed
    assert printed.count("(within 0.5)") == 2


def test_time_to_elbo_writes_curves(tmp_path: Path) -> None:
    out = tmp_path / "curves"
    options = ["--minutes", "0.04", "--images", "200", "--validation", "10", "--hidden", "8"]
    printed = run("benchmarks.time_to_elbo", *options, "--side-by-side", "-o", str(out))
    assert "The textbook reached a validation ELBO of" in printed
    record = json.loads((out / "time_to_elbo.json").read_text())
    assert record["settings"]["data"] == "glyphs"
    for name in ("textbook", "modpose"):
        seconds = [point["seconds"] for point in record["curves"][name]]
        assert seconds == sorted(seconds)
        assert seconds[-1] >= 2.0
        assert all(-1000 < point["elbo"] < 0 for point in record["curves"][name])
    assert (out / "time_to_elbo.png").stat().st_size > 10_000


def test_the_ratio_is_that_of_the_times_at_the_same_elbo(time_to_elbo: ModuleType) -> None:
    point = time_to_elbo.Point
    textbook = [point(1, 100, -300.0), point(600, 9000, -200.0)]
    ours = [point(1, 100, -250.0), point(20, 800, -199.0), point(600, 9000, -150.0)]
    found = time_to_elbo.summary({"textbook": textbook, "modpose": ours})
    assert found["sooner"] == found["sooner_with_content"] == 30
    assert "20.0 s: 30x sooner (it ended" in time_to_elbo.sentence(found)
    ours[1] = ours[1]._replace(holds_content=True)
    held = time_to_elbo.summary({"textbook": textbook, "modpose": ours})
    assert (held["sooner"], held["sooner_with_content"]) == (30, 1)
    assert "1x sooner, with content decoded" in time_to_elbo.sentence(held)
    never = time_to_elbo.summary({"textbook": textbook, "modpose": ours[:1]})
    assert never["sooner"] is None
    assert "did not get there" in time_to_elbo.sentence(never)


def test_memory_fits_a_sparse_stack(tmp_path: Path) -> None:
    options = ["--gigabytes", "0.02", "--minutes", "0.02", "--folder", str(tmp_path)]
    printed = run("benchmarks.memory", *options, "--threads", "1")
    assert "stack: 76 images, 0.02 GB, 0.00 GB on disk" in printed
    assert "GB, below 2 GB" in printed
    assert not list(tmp_path.iterdir())


def test_the_sparse_stack_is_a_stack_of_different_images(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        from benchmarks.memory import write_sparse_stack
    path = tmp_path / "sparse.mrcs"
    write_sparse_stack(path, 5)
    with mrcfile.open(path) as mrc:
        assert mrc.is_image_stack()
        assert mrc.data.shape == (5, 256, 256)
        assert (mrc.data.std(axis=(1, 2)) > 0).all()
        assert len(np.unique(mrc.data[:, 128, 0])) == 5
    assert path.stat().st_size == 1024 + 5 * 256 * 256 * 4

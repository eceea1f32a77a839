"""Alarms: planted faults are found, clean sets raise none, runs and reports say them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from modpose import PoseModel, find_alarms, open_source
from modpose.alarms import data_alarms
from modpose.alarms.content import content_alarm, explained
from modpose.alarms.convergence import convergence_alarm
from modpose.alarms.images import warn_of_wedge
from modpose.alarms.sample import take_sample
from modpose.alarms.wedge import find_wedge
from modpose.cli.arguments import app
from modpose.config import DataConfig
from modpose.data.dataset import Dataset
from modpose.data.particles import Particles
from modpose.data.repeated_rows import repeated_rows, repeated_rows_sentence
from modpose.data.source import Source
from modpose.data.stack import ArrayStack
from modpose.run import Run
from modpose.simulate.particles import HingeSettings, simulate_particles, write_particles

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def repository_on_path() -> Iterator[None]:
    """The benchmark that makes the sets is beside the package and not in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        yield


def names(dataset: Dataset) -> list[str]:
    return [alarm.name for alarm in data_alarms(dataset)]


FAULTS = ("contrast", "ctf", "wedge", "neighbours", "constant", "repeated", "poses", "views")
KINDS = (
    "particles",
    "particles with a CTF",
    "projections",
    "subtomograms",
    "tetrominoes",
    "characters",
)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_and_no_other(fault: str) -> None:
    from benchmarks.alarms import PLANTED

    for seed in (200,) if fault == "poses" else (200, 203):
        assert names(PLANTED[fault](seed)) == [fault]


@pytest.mark.parametrize("kind", KINDS)
def test_clean_sets_raise_no_alarm(kind: str) -> None:
    from benchmarks.alarms import CLEAN

    for seed in (200,) if kind == "projections" else (200, 201):
        assert names(CLEAN[kind](seed)) == []


def test_sentences_are_short_and_say_what_to_do() -> None:
    from benchmarks.alarms import PLANTED

    for fault in ("contrast", "wedge", "repeated"):
        (alarm,) = find_alarms(PLANTED[fault](202))
        assert str(alarm) == alarm.sentence
        assert alarm.sentence.endswith(".")
        assert len(alarm.sentence) < 320


# --- single alarms ----------------------------------------------------------------------------


def test_pictures_of_any_contrast_are_no_particles() -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-14:14, -14:14]
    discs = [np.hypot(x, y) < rng.uniform(4, 9) for _ in range(40)]
    dark = (255 - 200 * np.stack(discs)).astype(np.uint8)
    noisy = np.clip(dark + rng.normal(0, 60, dark.shape), 0, 255).astype(np.uint8)
    for pictures in (dark, noisy, dark / np.float32(255)):
        source = open_source(pictures)
        dataset = Dataset(source, DataConfig(normalize="range"), seed=0)
        assert "contrast" not in names(dataset)


def test_the_wedge_is_measured() -> None:
    rng = np.random.default_rng(0)
    volumes = rng.standard_normal((30, 20, 20, 20)).astype(np.float32)
    assert not find_wedge(volumes).is_empty
    kz, _, kx = np.meshgrid(*[np.fft.fftfreq(20)] * 3, indexing="ij")
    tilt = np.rad2deg(np.arctan2(np.abs(kz), np.abs(kx)))
    kept = np.fft.ifftn(np.fft.fftn(volumes, axes=(1, 2, 3)) * (tilt <= 50), axes=(1, 2, 3)).real
    found = find_wedge(kept.astype(np.float32))
    assert found.is_empty
    assert np.abs(np.array(found.limits) - (-50, 50)).max() <= 5


def test_align_warns_of_an_untold_wedge(caplog: pytest.LogCaptureFixture) -> None:
    from benchmarks.alarms import volumes

    source = volumes(200, "off").source
    with caplog.at_level(logging.WARNING, logger="modpose"):
        warn_of_wedge(source)
    assert "have a missing wedge" in caplog.text


def test_a_symmetry_expanded_set_repeats_no_image() -> None:
    import pandas as pd

    rng = np.random.default_rng(0)
    images = np.repeat(rng.standard_normal((50, 16, 16)).astype(np.float32), 2, axis=0)
    stack = ArrayStack(images)
    once = [f"{i // 2 + 1:06d}@a.mrcs" for i in range(100)]
    angles = {"rlnAngleRot": 90.0 * (np.arange(100) % 2), "rlnAngleTilt": 0.0, "rlnAnglePsi": 0.0}
    table = Particles(pd.DataFrame({"rlnImageName": once} | angles), None, "star", "a.star")
    assert names(Dataset(Source(stack, table), DataConfig(), seed=0)) == []
    each = [f"{i + 1:06d}@a.mrcs" for i in range(100)]
    table = Particles(pd.DataFrame({"rlnImageName": each}), None, "star", "a.star")
    assert names(Dataset(Source(stack, table), DataConfig(), seed=0)) == ["repeated"]


def test_rows_of_one_image_at_one_pose_are_counted() -> None:
    """Images 1 to 4 are named again: 1 and 2 at the same pose, 3 turned by 360°, 4 by 180°."""
    import pandas as pd

    names = [f"{i + 1}@a.mrcs" for i in (*range(10), 0, 1, 2, 3)]
    psi = [*10.0 * np.arange(10), 0.0, 10.0, 380.0, 210.0]
    table = pd.DataFrame({"rlnImageName": names, "rlnAngleRot": 0.0, "rlnAnglePsi": psi})
    table = table.assign(rlnAngleTilt=30.0, rlnOriginX=0.0, rlnOriginY=0.0)
    assert repeated_rows(Particles(table, None, "star", "a.star")) == 3
    shifted = table.assign(rlnOriginX=np.arange(14.0))
    assert repeated_rows(Particles(shifted, None, "star", "a.star")) == 0
    unposed = Particles(table[["rlnImageName"]], None, "star", "a.star")
    assert repeated_rows(unposed) == 4
    assert repeated_rows(unposed.subset(np.arange(10))) == 0
    sentence = repeated_rows_sentence(unposed)
    assert sentence is not None and sentence.startswith("4 rows name the same image")


def with_strength(seed: int) -> tuple[Dataset, np.ndarray, np.ndarray, np.ndarray]:
    """Images of one object, stronger or weaker; the strength, the defocus and the object."""
    from benchmarks.alarms import opened, particles

    made = particles(seed, ctf=True)
    assert made.ctf is not None
    rng = np.random.default_rng(seed)
    strength = rng.uniform(0.3, 2.0, len(made.images))
    images = made.images - made.clean + made.clean * strength[:, None, None].astype(np.float32)
    return opened(made, images), strength, made.ctf[:, 1], made.clean[0]


def test_content_that_tells_only_contrast_or_defocus() -> None:
    dataset, strength, defocus, picture = with_strength(202)
    sample = take_sample(dataset)
    rng = np.random.default_rng(0)
    z = rng.standard_normal((dataset.n, 2))
    assert content_alarm(sample, z) is None

    def stronger(content: np.ndarray) -> np.ndarray:
        return (2 + content[:, :1, None]) * picture

    def other(content: np.ndarray) -> np.ndarray:
        return picture + content[:, :1, None] * picture.T

    assert content_alarm(sample, z, other) is None
    by_picture = content_alarm(sample, z, stronger)
    assert by_picture is not None
    assert "contrast" in by_picture.sentence
    scaled = (defocus - defocus.mean()) / defocus.std()
    by_defocus = content_alarm(sample, np.stack([scaled, 0.1 * z[:, 0]], 1))
    assert by_defocus is not None
    assert "defocus" in by_defocus.sentence
    unused = take_sample(Dataset(dataset.source, DataConfig(), seed=0))  # the CTF not modelled
    assert content_alarm(unused, np.stack([scaled, 0.1 * z[:, 0]], 1)) == by_defocus
    assert explained(strength[:, None], strength) > 0.95


def curve(values: np.ndarray) -> list[dict[str, float]]:
    return [{"epoch": k + 1.0, "elbo": v, "val_elbo": v} for k, v in enumerate(values.tolist())]


def test_convergence() -> None:
    epochs = np.arange(100)
    noise = np.random.default_rng(0).normal(0, 0.5, 100)
    settled = -1300 - 200 * np.exp(-epochs / 10) + noise
    assert convergence_alarm(curve(settled)) is None
    rising = convergence_alarm(curve(settled[:8]))
    assert rising is not None
    assert "still" not in rising.sentence
    assert "had not converged" in rising.sentence
    assert convergence_alarm(curve(settled[:2])) is not None
    assert convergence_alarm(curve(settled[98:])) is None
    assert convergence_alarm(curve(settled[:1])) is None
    limited = convergence_alarm(curve(settled[:1]), stopped="max-minutes")
    assert limited is not None
    assert limited.sentence.endswith("modpose resume RUN --epochs N.")  # as a finished run asks
    assert convergence_alarm(curve(-1300 + 0 * epochs + noise)) is None
    assert convergence_alarm([]) is None
    slower = np.array([-2276.4, -2272.9, -2269.5, -2266.1, -2264.4, -2264.1])  # rates fall to 0
    assert convergence_alarm(curve(slower)) is not None
    assert convergence_alarm(curve(-913 + 0.02 * epochs[:6])) is None


# --- runs -------------------------------------------------------------------------------------


def test_fit_and_report_say_alarms(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = simulate_particles(HingeSettings(n=60, box=16, pixel_size=10.0, snr=1.0, seed=200))
    made.images[:] = -made.images
    star = write_particles(made, tmp_path / "data")
    run = tmp_path / "run"
    few = ["--epochs", "1", "--recipe", "vae"]
    with caplog.at_level(logging.WARNING, logger="modpose"):
        result = CliRunner().invoke(app, ["fit", str(star), "-o", str(run), *few])
    assert result.exit_code == 0, result.output
    assert any("contrast looks inverted" in record.message for record in caplog.records)
    assert "alarm: The particles are darker" in result.stdout.splitlines()[-1]
    (alarm,) = Run.open(run).alarms
    assert alarm.name == "contrast"
    assert PoseModel.load(run).alarms == (alarm,)
    assert CliRunner().invoke(app, ["report", str(run)]).exit_code == 0
    page = (run / "report" / "index.html").read_text()
    assert page.index("contrast looks inverted") < page.index("<dl")


def test_models_in_memory_have_alarms() -> None:
    made = simulate_particles(HingeSettings(n=60, box=16, pixel_size=10.0, snr=1.0, seed=200))
    options = {"train": {"epochs": 1}}
    model = PoseModel("vae", options=options, quiet=True)
    assert model.fit(made.images).alarms == ()
    assert [alarm.name for alarm in model.fit(-made.images).alarms] == ["contrast"]


def test_a_short_fit_is_judged_before_its_learning_rate_falls() -> None:
    """A rate that falls to zero flattens any curve: what counts is the gain before."""
    rates = [0.6, 1.0, 1.0, 0.7, 0.25, 0.0]
    cut = [-2276.0, -2272.0, -2269.0, -2266.0, -2266.1, -2266.0]
    done = [-2276.0, -2266.5, -2266.2, -2266.1, -2266.0, -2266.0]
    rows = [[{"val_elbo": e, "lr": r} for e, r in zip(c, rates, strict=True)] for c in (cut, done)]
    found = convergence_alarm(rows[0])
    assert found is not None and "3.0 nats per epoch" in found.sentence
    assert convergence_alarm(rows[1]) is None

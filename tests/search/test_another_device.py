"""Search, averages and motions compute on another device, and find there what the CPU finds."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from modpose import AlignSettings, align_subtomograms, devices, open_source
from modpose.cli import main
from modpose.config import DataConfig, merge, parse_config
from modpose.data.dataset import Dataset, dataset_of
from modpose.data.tilt_series import open_tilt_series
from modpose.devices import computing_on
from modpose.fourier import insertion
from modpose.recipes import recipe_config
from modpose.search import alike, look_alikes, regroup, run
from modpose.search.abinitio.images import SearchImages, read_images
from modpose.search.abinitio.refine import Refined, refine
from modpose.search.abinitio.settings import AbInitioSettings, RefinePlan, StartPlan
from modpose.search.abinitio.start import best_start
from modpose.search.alignment import Alignment
from modpose.search.classes2d.rounds import FoundClasses, find_classes
from modpose.search.classes2d.settings import Classes2dSettings, Plan
from modpose.search.tilts.align import align_tilt_series
from modpose.simulate.particles import HingeSettings, simulate_particles, write_particles
from modpose.simulate.species import built_in_species
from modpose.simulate.subtomogram_files import write_subtomograms
from modpose.simulate.subtomogram_settings import SubtomogramSettings
from modpose.simulate.subtomograms import simulate_subtomograms
from modpose.simulate.tilt_settings import TiltSettings
from modpose.simulate.tilt_stack_files import write_tilts
from modpose.simulate.tilt_stacks import simulate_tilts
from modpose.train.session import build
from modpose.train.starts import alignment, prepare
from tests.another_device import DEVICE, AnotherDevice

QUICK = AlignSettings(classes=2, rounds=2, refine_rounds=2, rotations=60, motions=1)


@pytest.fixture(autouse=True)
def same_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let both devices add up in the same order: searches from a random start are chaotic."""
    monkeypatch.setattr(devices, "MORE", 1)
    monkeypatch.setattr(insertion, "_in_place", lambda _: None)
    monkeypatch.setattr(run, "write_page", lambda *_: None)
    monkeypatch.setattr(regroup, "ROUNDS", 1)
    for module in (alike, look_alikes):
        monkeypatch.setattr(module, "ROTATIONS", 100)


@pytest.fixture(scope="module")
def star(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("subtomograms")
    settings = SubtomogramSettings(n=16, box=16, pixel_size=12.0, snr=2.0, max_shift_px=1.0)
    return write_subtomograms(simulate_subtomograms(settings, built_in_species(2)), folder)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> SearchImages:
    settings = HingeSettings(n=200, box=24, pixel_size=6.5, seed=0)
    path = write_particles(simulate_particles(settings), tmp_path_factory.mktemp("images"))
    dataset = Dataset(open_source(path), DataConfig(val_fraction=0), seed=0, ctf=False)
    return read_images(dataset, 11.0, quiet=True)


def check(device: AnotherDevice) -> None:
    """Check that all but a few of the numbers were read on the device."""
    here, there = device.here.total(), device.there.total()
    assert there > 1e6 and here < 0.05 * there, (device.here, device.there)


def aligned(star: Path, out: Path, device: str | None) -> Alignment:
    source = open_source([star], kind="volumes")
    return align_subtomograms(source, out, QUICK, device=device, quiet=True)


def test_an_alignment_computes_on_its_device(star: Path, tmp_path: Path) -> None:
    here = aligned(star, tmp_path / "here", None)
    with AnotherDevice() as device:
        there = aligned(star, tmp_path / "there", DEVICE)
    check(device)
    assert torch.equal(here.assignment.class_index, there.assignment.class_index)
    assert torch.equal(here.assignment.rotation, there.assignment.rotation)
    assert torch.equal(here.maps.combined, there.maps.combined)
    assert torch.equal(here.motions[0].directions, there.motions[0].directions)


def test_particles_of_tilt_series_are_aligned_on_the_device(tmp_path: Path) -> None:
    settings = TiltSettings(n=16, tomograms=1, tilts=5, box=16, pixel_size=14.0, snr=1.0, seed=1)
    series = open_tilt_series(
        write_tilts(simulate_tilts(settings, built_in_species(1)), tmp_path / "tilts", poses=False)
    )
    quick = replace(QUICK, classes=1, rounds=1, refine_rounds=1, motions=0)
    here = align_tilt_series(series, tmp_path / "here", quick, quiet=True)
    with AnotherDevice() as device:
        there = align_tilt_series(series, tmp_path / "there", quick, device=DEVICE, quiet=True)
    check(device)
    assert torch.equal(here.assignment.rotation, there.assignment.rotation)
    assert torch.equal(here.maps.combined, there.maps.combined)


def test_the_start_of_modpose_3d_computes_on_the_device_of_the_training(
    star: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"start": {"classes": 2, "rounds": 2, "refine_rounds": 1, "rotations": 60}}
    config = parse_config(merge(recipe_config("modpose-3d"), {"train": asked}), "test")
    dataset = dataset_of(open_source([star], kind="volumes"), config)
    vae = build(dataset, config)
    monkeypatch.setattr(alignment, "STEPS", 10)
    monkeypatch.setattr(devices, "own_device", lambda *_: torch.device(DEVICE))
    with AnotherDevice() as device:
        prepare(vae, dataset, config, quiet=True)
    assert {tensor.device.type for tensor in vae.state_dict().values()} == {"cpu"}
    assert vae.field.pictures.std() > 0
    here, there = device.here, device.there
    for name in ("_embedding_bag_forward_only", "_fft_r2c", "_fft_c2r", "index_add_"):
        assert here[name] < 0.05 * there[name], (name, here, there)  # small networks train here


def found_maps(images: SearchImages) -> Refined:
    settings, turn = AbInitioSettings(starts=1, box=24), torch.eye(3)[None]
    plan = StartPlan(rounds=3, rotations=(200, 200), images=100)
    start = best_start(images, settings, turn, plan, quiet=True)[0]
    half = torch.arange(len(images)) % 2
    refined = RefinePlan(rounds=2, last_radius=9.0, first_radius=8.0, rotations=200, searches=(0,))
    return refine(images, start.maps, half, settings, turn, refined, quiet=True)


def found_classes(images: SearchImages) -> FoundClasses:
    settings = Classes2dSettings(classes=2, rounds=2, refine_rounds=1)
    return find_classes(images, settings, replace(Plan(), angles=12, last_angles=36), quiet=True)


@pytest.mark.parametrize("find", [found_maps, found_classes])
def test_images_are_searched_on_the_device(images: SearchImages, find: object) -> None:
    assert callable(find)
    with AnotherDevice() as device, computing_on("--device", DEVICE):
        find(images)
    device.here.pop("index_add_", None)  # of classes, which add up images on the CPU
    check(device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("command", ["align", "abinitio"])
def test_a_device_that_is_missing_is_named(
    command: str, star: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = star
    if command == "abinitio":
        settings = HingeSettings(n=200, box=24, pixel_size=6.5, seed=0)
        given = write_particles(simulate_particles(settings), tmp_path)
    with pytest.raises(SystemExit) as leaving:
        main([command, str(given), "-o", str(tmp_path / "out"), "--device", "cuda"])
    assert leaving.value.code == 2
    assert "--device: this machine has no device 'cuda'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("command", ["report", "export", "volumes", "backproject"])
def test_other_commands_name_it_too(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = Path(__file__).parents[1] / "stored_runs"
    given = shutil.copytree(stored / "modpose-posed", tmp_path / "run")
    out = ["-o", str(tmp_path / "out")]
    words = {
        "report": [str(given), "--input", str(stored / "posed" / "particles.star")],
        "export": [str(given), *out, "--format", "csv"],
        "volumes": [str(given), *out, "--along", "1"],
        "backproject": [str(stored / "posed" / "particles.star"), *out],
    }
    with pytest.raises(SystemExit) as leaving:
        main([command, *words[command], "--device", "cuda"])
    assert leaving.value.code == 2
    assert "--device: this machine has no device 'cuda'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

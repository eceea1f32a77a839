"""Symmetry found in a map, and tested by images that did not make it."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from modpose.config import DataConfig
from modpose.data.dataset import Dataset
from modpose.data.source import open_source
from modpose.errors import InputError
from modpose.fourier.fsc import fsc_of_classes
from modpose.geometry.groups import symmetry_group
from modpose.geometry.rotations import haar_rotations
from modpose.search.abinitio.axes import candidates, with_axes
from modpose.search.abinitio.checks import brightness, check_symmetry_of_map, warn_of_dark_particles
from modpose.search.abinitio.held_out import Verdict, accepted, judge_symmetry, smaller_groups
from modpose.search.abinitio.images import SearchImages, read_images
from modpose.search.abinitio.refine import Refined, refine
from modpose.search.abinitio.run import find_maps
from modpose.search.abinitio.settings import AbInitioSettings, RefinePlan, StartPlan
from modpose.search.abinitio.symmetry import in_frame, symmetrised
from modpose.simulate.conformations import Conformer
from modpose.simulate.molecules import Molecule
from modpose.simulate.projection_files import write_projections
from modpose.simulate.projections import Projections, simulate_projections
from modpose.simulate.settings import ProjectionSettings

BLOBS = 9


def molecule(group: str, broken: bool = False) -> Molecule:
    """Blobs with a symmetry, about axes of a random frame; broken, one blob has no partner."""
    rng = np.random.default_rng(5)
    turn = haar_rotations(1, torch.Generator().manual_seed(2))[0].double().numpy()
    one = rng.normal(0, 15.0, (BLOBS, 3)) + np.array([14.0, 6.0, 10.0])
    centers = np.concatenate([one @ each.T for each in symmetry_group(group).numpy()]) @ turn.T
    masses = np.ones(len(centers))
    if broken:
        masses[:3] = 3.0
    count, sigma = len(centers), 4.0
    still = np.zeros(count, bool)
    axis = np.array([0.0, 0.0, 1.0])
    return Molecule(centers, np.full(count, sigma), masses, still, np.zeros(3), axis)


def made(group: str, broken: bool = False) -> Projections:
    settings = ProjectionSettings(
        n=400, box=32, pixel_size=5.0, snr=0.5, ctf=True, shift_std_px=0.7, seed=1
    )
    return simulate_projections(settings, [Conformer("one", molecule(group, broken))])


def refined(simulated: Projections, folder: Path) -> tuple[SearchImages, Refined, torch.Tensor]:
    """Refine without symmetry from the true map."""
    write_projections(simulated, folder)
    source = open_source(folder / "particles.star")
    images = read_images(Dataset(source, DataConfig(val_fraction=0), seed=0, ctf=True), 14.0, True)
    plan = RefinePlan(first_radius=12.0, last_radius=12.0, rounds=2, searches=(0,), rotations=2304)
    half = torch.arange(len(images)) % 2
    volume = torch.from_numpy(simulated.volume())[None] * np.sqrt(32)
    settings = AbInitioSettings(box=28)
    return images, refine(images, volume, half, settings, torch.eye(3)[None], plan, True), half


@pytest.mark.parametrize("name", ["C1", "C5", "D3", "O", "I"])
def test_the_group_of_a_map_is_among_those_that_it_seems_to_have(name):
    one = Conformer("one", molecule(name))
    settings = ProjectionSettings(n=1, box=32, pixel_size=5.0)
    volume = torch.from_numpy(simulate_projections(settings, [one]).volume())
    found = {each.name: each for each in candidates(volume, 12.0)}
    good = [each for each in found.values() if each.correlation > 0.9]
    largest = max((len(symmetry_group(each.name)) for each in good), default=1)
    assert largest == len(symmetry_group(name))
    if name != "C1":
        assert found[name].correlation > 0.9
        axis = found[name].frame.rotation[:, 2]
        turn = haar_rotations(1, torch.Generator().manual_seed(2))[0]
        # the axis along z, or one that is equivalent
        group = symmetry_group(name).float()
        cosine = (group @ turn.T @ axis)[:, 2].abs().max()
        assert name in ("O", "I") or cosine > np.cos(np.deg2rad(2.0))


@pytest.mark.parametrize(
    ("group", "broken", "expected"), [("D3", False, "D3"), ("D3", True, "C1"), ("C1", False, "C1")]
)
def test_held_out_images_tell_a_symmetry_from_one_that_is_broken(group, broken, expected, tmp_path):
    images, found, half = refined(made(group, broken), tmp_path)
    assert accepted(judge_symmetry(images, found, half)) == expected


def test_groups_within_a_group_have_its_axes():
    for name in ("C6", "D4", "D7", "T", "O", "I"):
        whole = symmetry_group(name).flatten(1)
        for part, rotations in smaller_groups(name).items():
            inside = rotations.double().flatten(1)
            near = torch.cdist(inside, whole).amin(1)
            assert len(inside) < len(whole)
            assert near.max() < 1e-6, (name, part)


def test_a_verdict_says_what_images_prefer():
    one = Verdict(None, "C3", -0.5, 0.1)  # type: ignore[arg-type]
    assert not one.accepted
    assert accepted([one]) == "C1"


def test_dark_particles_are_detected(tmp_path, caplog):
    write_projections(made("C1"), tmp_path)
    source = open_source(tmp_path / "particles.star")
    for invert in (False, True):
        config = DataConfig(val_fraction=0, invert=invert)
        images = read_images(Dataset(source, config, seed=0, ctf=True), 10.0, True)
        assert (brightness(images) < -5) is invert
        caplog.clear()
        with caplog.at_level(logging.WARNING, "modpose"):
            warn_of_dark_particles(images, "particles.star")
        assert ("inverted contrast" in caplog.text) is invert


def test_a_map_without_the_symmetry_is_refused():
    group = symmetry_group("D3").float()
    one = molecule("D3")
    turn = haar_rotations(1, torch.Generator().manual_seed(2))[0].double().numpy()
    settings = ProjectionSettings(n=1, box=32, pixel_size=5.0)
    for centers, good in ((one.centers @ turn, True), (one.centers, False)):
        moved = Conformer("one", replace(one, centers=centers))
        volume = torch.from_numpy(simulate_projections(settings, [moved]).volume())[None]
        if good:
            check_symmetry_of_map(volume, group, "D3", "a.mrc")
        else:
            with pytest.raises(InputError, match="a map with this symmetry"):
                check_symmetry_of_map(volume, group, "D3", "a.mrc")


def test_a_symmetry_is_found_for_one_structure_only(tmp_path):
    images = np.random.default_rng(0).normal(size=(400, 32, 32)).astype(np.float32)
    with pytest.raises(InputError, match="expected 1 with --symmetry auto"):
        find_maps(open_source(images), tmp_path, AbInitioSettings(classes=2, symmetry="auto"))


def test_a_symmetry_that_is_found_is_imposed_in_its_frame(tmp_path, monkeypatch):
    simulated = made("D3")
    write_projections(simulated, tmp_path / "made")
    start = replace(StartPlan(), rounds=25, images=400, rotations=(1152, 2304))
    monkeypatch.setattr("modpose.search.abinitio.run.StartPlan", lambda: start)
    monkeypatch.setattr(
        "modpose.search.abinitio.run.RefinePlan",
        lambda last_radius: RefinePlan(
            last_radius=last_radius, first_radius=10.0, rounds=3, searches=(0, 1), rotations=1152
        ),
    )
    settings = AbInitioSettings(starts=1, box=28, symmetry="auto")
    source = open_source(tmp_path / "made" / "particles.star")
    found = find_maps(source, tmp_path / "maps", settings, quiet=True)
    assert found.symmetry == "D3"
    assert "symmetry D3: held-out images prefer it" in " ".join(found.lines())
    told = json.loads((tmp_path / "maps" / "settings.json").read_text())
    assert told["symmetry"] == "D3"
    group = symmetry_group("D3").float()
    alike = fsc_of_classes(found.refined.maps, symmetrised(found.refined.maps, group))
    assert alike[0, 1:9].min() > 0.98


@pytest.mark.parametrize("name", ["D3", "D1", "C13", "D14", "O", "I"])
def test_a_map_is_turned_to_the_axes_of_the_symmetry_that_is_asked_for(name):
    settings = ProjectionSettings(n=1, box=32, pixel_size=5.0)
    drawn = simulate_projections(settings, [Conformer("one", molecule(name))])
    volume = torch.from_numpy(drawn.volume())
    group = symmetry_group(name).float()
    one = with_axes(volume, name, 8.0)
    assert one is not None
    turned = in_frame(volume[None], one.frame)
    assert fsc_of_classes(turned, symmetrised(turned, group))[0, 1:9].min() > 0.95
    assert name != "D3" or with_axes(volume, "C5", 8.0) is None


@pytest.mark.parametrize("name", ["D7", "C13"])
def test_a_map_without_the_axes_has_no_frame(name):
    settings = ProjectionSettings(n=1, box=32, pixel_size=5.0)
    drawn = simulate_projections(settings, [Conformer("one", molecule("C1"))])
    assert with_axes(torch.from_numpy(drawn.volume()), name, 8.0) is None

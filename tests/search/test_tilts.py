"""Maps, poses and classes of particles in tilt series."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from modpose.data.mrc import open_mrc, write_mrcs
from modpose.data.star import read_star
from modpose.data.tilt_series import TiltSeries, open_tilt_series
from modpose.evaluate.pose_bound import pose_bound
from modpose.evaluate.pose_recovery import recover_poses
from modpose.fourier.coefficients import Coefficients, map_coefficients, phases
from modpose.fourier.gridded import gridded
from modpose.fourier.reference import make_references, turned
from modpose.geometry.groups import so3_grid
from modpose.geometry.rotations import geodesic, haar_rotations
from modpose.search.abinitio.found import FoundMaps
from modpose.search.abinitio.settings import AbInitioSettings
from modpose.search.settings import Schedule
from modpose.search.so3_climb import climb, predicted
from modpose.search.so3_search import search, shift_grid
from modpose.search.tilts import run
from modpose.search.tilts.background import shared_noise, without_background
from modpose.search.tilts.images import TiltImages, read_tilts
from modpose.search.tilts.run import find_tilt_maps
from modpose.simulate.molecules import density
from modpose.simulate.species import built_in_species
from modpose.simulate.tilt_stack_files import write_tilts
from modpose.simulate.tilt_stacks import SimulatedTilts, simulate_tilts
from tests.search.tilt_set import BOX, SETTINGS


@pytest.fixture(scope="module")
def images(series: TiltSeries) -> TiltImages:
    return read_tilts(series, 10.0, quiet=True)


def true_poses(made: SimulatedTilts) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(made.rotation).float(), torch.tensor(made.shift).float()


def truth_of(made: SimulatedTilts) -> torch.Tensor:
    """Return the upright molecule, (1, D, D, D)."""
    molecule, box = made.species[0].molecule, made.settings.box
    centers = molecule.conformations(np.zeros(1))
    eye, still, size = np.eye(3)[None], np.zeros((1, 3)), made.settings.pixel_size
    upright = density(centers, molecule.sigmas, molecule.masses, eye, still, box, size)
    return torch.from_numpy(np.asarray(upright, np.float32))


# --- coefficients -------------------------------------------------------------------------------


def test_rows_with_frequencies_of_their_own_are_read_as_one_by_one():
    generator = torch.Generator().manual_seed(0)
    k = 0.2 * torch.nn.functional.normalize(torch.randn(3, 7, 3, generator=generator), dim=2)
    rotation, shift = haar_rotations(3, generator), torch.randn(3, 3, generator=generator)
    value = torch.randn(3, 7, dtype=torch.complex64, generator=generator)
    every = Coefficients(k, value, torch.ones(3, 7), 16)
    for row in range(3):
        one = slice(row, row + 1)
        torch.testing.assert_close(turned(k, rotation)[one], turned(k[row], rotation[one]))
        torch.testing.assert_close(phases(k, shift)[one], phases(k[row], shift[one]))
        torch.testing.assert_close(every.rows(one).frequency, k[one])
    assert every.width == 7
    assert every.within(0.1).width == 0


def test_images_of_a_particle_are_planes_of_one_transform(made, images):
    # each image alone, at its composed pose, and all together, give the same predictions
    rotation, shift = true_poses(made)
    data = images.coefficients(8.0, BOX)
    volume = torch.randn(1, BOX, BOX, BOX, generator=torch.Generator().manual_seed(0))
    references = make_references(volume, float(data.radius[-1]), slopes=True)
    rows = torch.arange(3)
    zero = torch.zeros(3, dtype=torch.int64)
    together, _ = predicted(data.rows(rows), references, zero, rotation[:3], shift[:3])
    flat = images.images.coefficients(images.row[:3].clamp(min=0).flatten(), 8.0, BOX)
    tilt = images.tilt[:3].flatten(0, 1)
    owner = rows.repeat_interleave(images.row.shape[1])
    moved = torch.einsum("nij,nj->ni", tilt, shift[owner])
    alone, _ = predicted(flat, references, zero[owner], tilt @ rotation[owner], moved)
    seen = (images.row[:3] >= 0) / images.level[:3].sqrt()
    energy = (alone.square().sum(1).view(3, -1) * seen.square()).sum(1)
    torch.testing.assert_close(together.square().sum(1), energy, rtol=1e-3, atol=0)


def test_sums_on_a_lattice_give_the_score_of_the_planes(made, images):
    rotation, shift = true_poses(made)
    data = images.coefficients(6.0, BOX)
    templates = truth_of(made)
    owner, zero = torch.arange(len(data)), torch.zeros(len(data), dtype=torch.int64)
    scores = []
    for seen in (data, gridded(data, 2.0)):
        references = make_references(templates, float(seen.radius[-1]), slopes=True)
        scores.append(climb(seen, references, owner, zero, rotation, shift, steps=0).score)
    # trilinear interpolation on a lattice of half the spacing loses a few percent of the power
    torch.testing.assert_close(scores[1], scores[0], rtol=0.1, atol=3.0)


def test_images_times_their_ctf_tell_what_the_same_images_tell_without(series, images, tmp_path):
    multiplied = simulate_tilts(replace(SETTINGS, premultiplied=True), built_in_species(1))
    table = write_tilts(multiplied, tmp_path / "tilts", poses=False)
    again = read_tilts(open_tilt_series(table), 10.0, quiet=True).coefficients(10.0, BOX)
    plain = images.coefficients(10.0, BOX)
    # y h is what a pose is scored by, h^2 what that is divided by.  They differ by the noise that
    # is measured: where the CTF is below 0.05, in about a tenth of a shell, none of it is left
    for number in range(2, 10):
        shell = (plain.radius * BOX).round() == number
        energy = [float(each.transfer[:, shell].square().sum()) for each in (plain, again)]
        assert energy[1] == pytest.approx(energy[0], rel=0.15)
        first, second = ((each.value * each.transfer)[:, shell] for each in (plain, again))
        inner = float((first.conj() * second).real.sum())
        assert inner / float(first.abs().square().sum()) == pytest.approx(1, abs=0.15)


def test_noise_that_images_share_is_divided_out(images):
    # noise alone; then with a random density around each particle, which all its images show
    generator = torch.Generator().manual_seed(0)
    data = images.coefficients(9.0, BOX)
    noise = torch.randn(data.value.shape, dtype=torch.complex64, generator=generator)
    alone = replace(data, value=noise * (data.transfer != 0))
    assert shared_noise(alone)[1:8].max() < 1.3  # of 150 numbers or more in a shell
    density = 6 * torch.randn(len(data), BOX, BOX, BOX, generator=generator)
    references = make_references(density, float(data.radius[-1]), slopes=True)
    own, eye = torch.arange(len(data)), torch.eye(3).expand(len(data), 3, 3)
    seen, _ = predicted(data, references, own, eye, torch.zeros(len(data), 3))
    real, imaginary = (seen / 2**0.5).chunk(2, 1)
    both = replace(alone, value=alone.value + torch.complex(real, imaginary))
    found = shared_noise(both)
    assert found[1:8].min() > 2
    clean = without_background(both)
    scale = clean.transfer / both.transfer.where(both.transfer != 0, torch.ones(()))
    first = (data.radius * BOX).round() == 1
    torch.testing.assert_close(scale[0, first].max(), found[1].rsqrt())
    assert shared_noise(clean)[1:8].max() < 1.3


def test_the_bound_of_tilt_series_is_reached_from_the_true_pose(made, images):
    rotation, shift = true_poses(made)
    data = images.coefficients(8.0, BOX)
    owner, zero = torch.arange(len(data)), torch.zeros(len(data), dtype=torch.int64)
    known = make_references(truth_of(made), float(data.radius[-1]), slopes=True)
    amplitude = climb(data, known, owner, zero, rotation, shift, steps=0).amplitude.mean()
    template = 3 * amplitude * truth_of(made)
    references = make_references(template, float(data.radius[-1]), slopes=True)
    model, _ = predicted(data, references, zero, rotation, shift)
    real, imaginary = (model / 2**0.5).chunk(2, 1)
    generator = torch.Generator().manual_seed(0)
    turns, moves = [], []
    for _ in range(10):
        noise = torch.randn(2, *real.shape, generator=generator) / 2**0.5
        noisy = replace(data, value=torch.complex(real + noise[0], imaginary + noise[1]))
        top = climb(noisy, references, owner, zero, rotation, shift, steps=4, normalised=False)
        turns.append(geodesic(top.rotation, rotation))
        moves.append((top.shift - shift).norm(dim=1))
    bound = pose_bound(data, template[0], rotation, shift)
    # root mean squares of 480 draws of six numbers; two percent, and curvature
    found = torch.rad2deg(torch.stack(turns).square().mean(0).sqrt())
    assert float((found / bound.angle_rms_deg).median()) == pytest.approx(1, abs=0.08)
    found = torch.stack(moves).square().mean(0).sqrt()
    assert float((found / bound.shift_rms_px).median()) == pytest.approx(1, abs=0.08)


# --- the whole way ------------------------------------------------------------------------------


def correlation(volume: torch.Tensor, other: torch.Tensor) -> float:
    """Best correlation of a map with another at any rotation, up to a quarter of the sampling."""
    seen = map_coefficients(volume[None], 0.2)
    references = make_references(other[None], 0.2, slopes=True)
    grid, zero = so3_grid(1000).float(), torch.zeros(8, dtype=torch.int64)
    plain = make_references(other[None], 0.2)
    found = search(seen, plain, grid, shift_grid(1.0, 1.0), top=8)
    start = found.rotation[0, 0], found.shift[0, 0]
    top = climb(seen, references, zero, zero, *start, steps=8).score.max()
    return float((2 * top).sqrt() / (2 * seen.value.abs().square().sum()).sqrt())


@pytest.fixture(scope="module")
def found(series: TiltSeries, tmp_path_factory: pytest.TempPathFactory) -> tuple[FoundMaps, Path]:
    folder = tmp_path_factory.mktemp("found") / "maps"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "Schedule", lambda: Schedule(rounds=16, rotations=500, refine_rounds=4))
        made = find_tilt_maps(series, folder, AbInitioSettings(starts=1, box=BOX), quiet=True)
    return made, folder


def test_maps_of_tilt_series_have_the_right_hand_and_poses(made, found):
    maps, folder = found
    refined = maps.refined
    recovery = recover_poses(refined.rotation, refined.shift, refined.class_index, made.truth)
    assert recovery.classes[0].lost == 0
    assert recovery.classes[0].angle_median_deg < 4
    assert recovery.classes[0].shift_median_px < 0.3
    volume = torch.from_numpy(open_mrc(folder / "class001.mrc").read(np.array([0]))[0, 0])
    true = truth_of(made)[0]
    own, mirrored = correlation(volume, true), correlation(volume, true.flip(0).contiguous())
    assert own > 0.99
    assert own > mirrored + 0.01
    assert not any("hand" in line for line in maps.lines())


def test_a_search_starts_from_a_map_of_the_right_hand(made, series, tmp_path):
    path = tmp_path / "start.mrc"
    write_mrcs(path, truth_of(made).numpy(), SETTINGS.pixel_size)
    with pytest.MonkeyPatch.context() as patch:
        few = replace(run.FROM_MAP, rounds=2, rotations=1000, refine_rounds=2)
        patch.setattr(run, "FROM_MAP", few)
        # averages of a third of the particles would lose what the map tells
        patch.setattr("modpose.search.refine._elsewhere", lambda *_: pytest.fail("searched again"))
        maps = find_tilt_maps(series, None, AbInitioSettings(box=BOX), start_map=path, quiet=True)
    # in the frame of the map: no global rotation
    angle = torch.rad2deg(geodesic(maps.refined.rotation, true_poses(made)[0]))
    assert float(angle.median()) < 5
    assert maps.start_scores == []


@pytest.mark.parametrize(("pixel_size", "kept"), [(12.0, 7), (5.0, 3)])
def test_a_map_to_start_from_is_low_passed(tmp_path, pixel_size, kept):
    """At 12 Å, 0.3 cycles per pixel come first: 7.2 cycles a box; at 5 Å, 40 Å: 3 cycles."""
    place = torch.arange(BOX).float() / BOX
    waves = [torch.cos(2 * torch.pi * cycles * place) for cycles in (kept, kept + 1)]
    volume = (waves[0] + waves[1]).expand(BOX, BOX, BOX)
    write_mrcs(tmp_path / "map.mrc", volume[None].numpy(), pixel_size)
    low = run._given(tmp_path / "map.mrc", BOX, BOX, pixel_size)
    assert torch.allclose(low[0], waves[0].expand(BOX, BOX, BOX), atol=1e-4)


def test_poses_that_were_found_are_read_again(found, series, table):
    maps, folder = found
    tomograms = table.with_name("tomograms.star")
    again = open_tilt_series(folder / "particles.star", tomograms, table.parent)
    assert again.rotation is not None
    np.testing.assert_allclose(again.rotation, maps.refined.rotation, atol=1e-5)
    np.testing.assert_allclose(again.shift, maps.refined.shift, atol=1e-4)
    blocks = read_star(folder / "particles.star")
    assert str(blocks["general"]["rlnTomoSubTomosAre2DStacks"]) == "1"
    before = series.particles.table
    written = blocks["particles"]
    assert list(written["rlnTomoParticleName"]) == list(before["rlnTomoParticleName"])
    halves = before["rlnRandomSubset"].to_numpy(np.int64)
    np.testing.assert_array_equal(written["rlnRandomSubset"].to_numpy(np.int64), halves)

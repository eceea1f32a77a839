"""Maps, poses and classes of particles in tilt series."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from modpose.cli import app
from modpose.data.mrc import open_mrc, write_mrcs
from modpose.data.particles import Particles
from modpose.data.posing import with_pose
from modpose.data.source import open_source
from modpose.data.star import read_star, write_blocks, write_star
from modpose.data.tilt_posing import tilts_of_images, with_tilt_poses
from modpose.data.tilt_series import TiltSeries, open_tilt_series
from modpose.errors import InputError
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
from modpose.simulate.tilt_settings import TiltSettings
from modpose.simulate.tilt_stack_files import write_tilts
from modpose.simulate.tilt_stacks import SimulatedTilts, simulate_tilts

BOX = 24
CTF_TAGS = (
    *("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnVoltage", "rlnSphericalAberration"),
    *("rlnAmplitudeContrast", "rlnPhaseShift", "rlnCtfBfactor", "rlnCtfScalefactor"),
)
"""In the order of the columns of CTF parameters."""
SETTINGS = TiltSettings(n=48, tomograms=2, tilts=11, box=BOX, pixel_size=10.0, snr=0.5, seed=1)


@pytest.fixture(scope="module")
def made() -> SimulatedTilts:
    return simulate_tilts(SETTINGS, built_in_species(1))


@pytest.fixture(scope="module")
def table(made: SimulatedTilts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the optimisation set of 48 particles of one molecule, without poses."""
    return write_tilts(made, tmp_path_factory.mktemp("tilts"), poses=False)


@pytest.fixture(scope="module")
def series(table: Path) -> TiltSeries:
    return open_tilt_series(table)


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


def test_poses_behind_the_angles_of_a_subtomogram_mean_the_same(made, table):
    # R = R_subtomogram R_particle: the particle's angles are what is left
    blocks = read_star(table.with_name("particles.star"))
    angles = {"rlnTomoSubtomogramRot": 30.0, "rlnTomoSubtomogramTilt": 40.0}
    blocks["particles"] = blocks["particles"].assign(**angles, rlnTomoSubtomogramPsi=-50.0)
    path = table.with_name("turned.star")
    write_blocks(path, blocks)
    tomograms = table.with_name("tomograms.star")
    opened = open_tilt_series(path, tomograms)
    zero = np.zeros(opened.n, np.int64)
    posed = with_tilt_poses(opened, made.rotation, made.shift, zero, zero)
    write_star(table.with_name("posed.star"), posed.table, posed.optics, form=posed.form)
    again = open_tilt_series(table.with_name("posed.star"), tomograms)
    np.testing.assert_allclose(again.rotation, made.rotation, atol=1e-5)
    np.testing.assert_allclose(again.shift, made.shift, atol=1e-5)


def grouped(made: SimulatedTilts, table: Path, name: str) -> Path:
    """Write the images as a table of M: one row per image, with its own pose."""
    posed = write_tilts(made, table.parent / name, poses=True)
    every = open_tilt_series(posed).images
    star = {
        "rlnImageName": every.particles.column("rlnImageName"),
        "rlnGroupName": every.particles.column("rlnGroupName"),
        "rlnDetectorPixelSize": np.full(every.n, 10.0),
    }
    for tag, column in zip(CTF_TAGS, every.particles.ctf(10.0).T[1:10], strict=True):
        star[tag] = column
    rotation, shift = every.particles.poses(10.0)
    plain = Particles(pd.DataFrame(star), None, "star", "table")
    posed_table = with_pose(plain, rotation=rotation, shift=shift[:, :2], pixel_size=None)
    path = posed.with_name("m.star")
    write_star(path, posed_table.table)
    return path


def test_a_table_of_m_gives_the_same_coefficients_in_the_frame_of_the_first_image(made, table):
    path = grouped(made, table, "m")
    series = open_tilt_series(path)
    whole = open_tilt_series(table)
    ours, theirs = (read_tilts(one, 8.0, quiet=True) for one in (series, whole))
    still = torch.eye(3).expand(series.n, 3, 3)
    torch.testing.assert_close(ours.tilt[:, 0], still, atol=1e-5, rtol=0)
    seen = theirs.row >= 0
    first = theirs.tilt[torch.arange(series.n), seen.int().argmax(1)][:, None]
    expected = (theirs.tilt @ first.transpose(2, 3))[seen]
    torch.testing.assert_close(ours.tilt[ours.row >= 0], expected, atol=1e-4, rtol=0)
    # poses in that frame, written back, are those of the images
    turn = first[:, 0].double().numpy()
    zero = np.zeros(series.n, np.int64)
    posed = with_tilt_poses(series, turn @ made.rotation, np.zeros((series.n, 3)), zero, zero)
    before, after = series.images.particles.poses(10.0), posed.poses(10.0)
    np.testing.assert_allclose(after[0], before[0], atol=1e-4)
    np.testing.assert_allclose(after[1], before[1], atol=1e-4)
    # as volumes: one row per particle, written with one row per image
    chosen = open_source(path, tilt_series=True, index=np.array([7, 2]))
    assert (chosen.n, chosen.stack.shape) == (2, (BOX, BOX, BOX))
    names = chosen.written().column("rlnGroupName").tolist()
    counts = np.bincount(series.particle)[[7, 2]]
    expected = chosen.particles.column("rlnGroupName")
    assert names == np.repeat(expected, counts).tolist()
    entries = chosen.written_tilts().posed(np.tile(np.eye(3), (2, 1, 1)), np.zeros((2, 3)), 10.0)
    rows = np.concatenate([np.flatnonzero(series.particle == one) for one in (7, 2)])
    np.testing.assert_allclose(entries.poses(10.0)[0], tilts_of_images(series)[rows], atol=1e-5)


# --- refusals and the command line --------------------------------------------------------------


def test_what_cannot_be_searched_is_refused_in_a_sentence(made, series, table, tmp_path):
    few = AbInitioSettings(classes=7, box=BOX)
    with pytest.raises(InputError, match="48, expected at least 56, 8 for each of 7"):
        find_tilt_maps(series, tmp_path, few)
    with pytest.raises(InputError, match="symmetry is C2, expected C1"):
        find_tilt_maps(series, tmp_path, AbInitioSettings(symmetry="C2"))
    with pytest.raises(InputError, match="--similar is given, expected structures that differ"):
        find_tilt_maps(series, tmp_path, AbInitioSettings(classes=2, similar=True))
    path = grouped(made, table, "refused")
    whole = next(iter(read_star(path).values()))
    without = whole.drop(columns=["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"])
    write_star(path, without, overwrite=True)
    with pytest.raises(InputError, match="no angles, expected those of each image"):
        read_tilts(open_tilt_series(path), 8.0)
    twice = whole.assign(rlnAngleTilt=np.where(np.arange(len(whole)) % 2, 170.0, 0.0))
    write_star(path, twice, overwrite=True)
    with pytest.raises(InputError, match="degrees apart, expected the tilts of one particle"):
        read_tilts(open_tilt_series(path), 8.0)


def test_memory_that_will_not_suffice_is_said_before_images_are_read(series, monkeypatch):
    monkeypatch.setattr("modpose.search.tilts.images.memory_needed", lambda *_: 2**50)
    monkeypatch.setattr("modpose.search.tilts.images.read_images", None)
    with pytest.raises(InputError, match="does not fit: it needs 3,145,728 GiB of memory"):
        find_tilt_maps(series, None, AbInitioSettings())


def test_options_that_tilt_series_do_not_take_are_refused(table, tmp_path):
    arguments = ["abinitio", str(table), "-o", str(tmp_path / "o"), "--index", "1.txt"]
    made = CliRunner().invoke(app, arguments)
    assert "none of them for tilt series" in str(made.exception)


def test_align_takes_tilt_series_from_the_command_line(made, table, tmp_path):
    out = tmp_path / "aligned"
    arguments = f"align {table} -o {out} --rounds 12 --rotations 400 --refine-rounds 2"
    done = CliRunner().invoke(app, arguments.split())
    assert done.exit_code == 0, done.output
    assert "class 1: 48 volumes" in done.output
    lost = float(done.output.split("% lost")[0].split()[-1])
    assert lost < 30
    written = read_star(out / "particles.star")
    assert str(written["general"]["rlnTomoSubTomosAre2DStacks"]) == "1"
    assert {"rlnAngleRot", "rlnOriginZAngst", "modposeScore"} <= set(written["particles"])
    halves = open_tilt_series(table).particles.table["rlnRandomSubset"].to_numpy(np.int64)
    mine = written["particles"]["rlnRandomSubset"].to_numpy(np.int64)
    np.testing.assert_array_equal(mine, halves)
    assert (out / "index.html").exists()
    chosen = CliRunner().invoke(
        app, ["select", str(out), "--class", "1", "-o", str(out / "a.star")]
    )
    assert chosen.exit_code == 0, chosen.output
    assert open_source(out / "a.star", datadir=table.parent).n == 48

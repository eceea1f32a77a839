"""Tilt series of particles: both layouts, with poses, CTF, dose and hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from modpose.backprojection import reconstruct_halves
from modpose.backprojection.halves import half_of, open_posed
from modpose.cli import app
from modpose.data.mrc import open_mrc, write_mrcs
from modpose.data.particles import Particles
from modpose.data.star import read_star, write_blocks
from modpose.data.tilt_series import is_tilt_series, open_tilt_series
from modpose.data.tomograms import read_tomograms
from modpose.errors import InputError
from modpose.fourier.fsc import fsc
from modpose.geometry.rotations import relion_of_rotation
from modpose.geometry.windows import soft_window
from modpose.observe.ctf import ctf_2d, signal_left
from modpose.simulate.molecules import density
from modpose.simulate.tilt_settings import TiltSettings
from modpose.simulate.tilt_stack_files import write_tilts
from modpose.simulate.tilt_stacks import SimulatedTilts, simulate_tilts

SETTINGS = {"n": 12, "tomograms": 2, "tilts": 15, "box": 24, "snr": 0.5, "hidden": 0.15}


@pytest.fixture(scope="module")
def plain() -> SimulatedTilts:
    return simulate_tilts(TiltSettings(**SETTINGS))


@pytest.fixture(scope="module")
def multiplied() -> SimulatedTilts:
    return simulate_tilts(TiltSettings(**SETTINGS, premultiplied=True, order="dose", hand=1))


def truth_of(made: SimulatedTilts) -> np.ndarray:
    molecule, box = made.species[0].molecule, made.settings.box
    centers = molecule.conformations(np.zeros(1))
    eye = np.eye(3)[None]
    size = made.settings.pixel_size
    return density(centers, molecule.sigmas, molecule.masses, eye, np.zeros((1, 3)), box, size)[0]


def test_columns_are_read_once_however_many_particles_there_are(tmp_path, plain, monkeypatch):
    reads = []
    numbers, column = Particles.numbers, Particles.column
    monkeypatch.setattr(Particles, "numbers", lambda s, n: (reads.append(n), numbers(s, n))[1])
    monkeypatch.setattr(Particles, "column", lambda s, n: (reads.append(n), column(s, n))[1])
    path = write_tilts(plain, tmp_path, "relion5")
    open_tilt_series(path)
    few = len(reads)
    blocks = read_star(tmp_path / "particles.star")
    blocks["particles"] = pd.concat([blocks["particles"]] * 3, ignore_index=True)
    write_blocks(tmp_path / "particles.star", blocks, overwrite=True)
    reads.clear()
    assert open_tilt_series(path).n == 3 * plain.settings.n
    assert len(reads) == few


@pytest.mark.parametrize("layout", ["relion5", "warptools"])
@pytest.mark.parametrize("name", ["plain", "multiplied"])
def test_what_is_simulated_is_read_and_back_projected(tmp_path, request, layout, name):
    made: SimulatedTilts = request.getfixturevalue(name)
    path = write_tilts(made, tmp_path, layout)
    series = open_tilt_series(path)
    np.testing.assert_allclose(series.rotation, made.rotation, atol=1e-5)
    np.testing.assert_allclose(series.shift, made.shift, atol=1e-5)
    visible = made.visible
    np.testing.assert_array_equal(
        np.stack([series.particle, series.frame]), np.stack(np.nonzero(visible))
    )
    turns = np.stack([made.geometry[k].rotation for k in made.tomogram])[visible]
    poses = series.images.particles.poses()
    np.testing.assert_allclose(poses[0], turns @ made.rotation[series.particle], atol=1e-5)
    ctf = series.images.particles.ctf()
    expected = made.ctf[visible]
    expected[:, 10] = 2 * made.settings.premultiplied
    # files have six decimals; float32 has 7 digits of 40,000 Å
    np.testing.assert_allclose(ctf, expected, rtol=1e-6, atol=5e-3)
    read = series.images.stack.read(np.arange(series.images.n))[:, 0]
    np.testing.assert_array_equal(read, made.images[visible])
    halves = reconstruct_halves(open_posed(series.images), quiet=True)
    volume, truth = halves.first + halves.second, truth_of(made)
    mask = soft_window(truth.shape, 0.7, 0.85)
    agrees = fsc(volume, truth, mask, None).correlation[2:5]
    mirrored = fsc(volume[::-1], truth, mask, None).correlation[2:5]
    assert agrees.min() > 0.8
    assert mirrored.max() < 0.6


def test_all_images_of_a_particle_are_in_one_half(tmp_path, plain):
    series = open_tilt_series(write_tilts(plain, tmp_path))
    half = half_of(open_posed(series.images), np.arange(series.images.n))
    for particle in range(series.n):
        assert len(set(half[series.particle == particle])) == 1


def test_the_defocus_follows_the_depth_with_the_sign_of_the_hand(plain, multiplied):
    for made in (plain, multiplied):
        i = 3
        one = made.geometry[made.tomogram[i]]
        depth = (one.rotation @ made.position[i])[:, 2]
        change = made.ctf[i, :, 1] - one.defocus[:, 0]
        np.testing.assert_allclose(change, made.settings.hand * depth, atol=1e-8)
        assert np.abs(depth).max() > 100


def test_angles_of_both_kinds_are_composed(tmp_path, plain):
    path = write_tilts(plain, tmp_path)
    blocks = read_star(tmp_path / "particles.star")
    table = blocks["particles"]
    before = np.linalg.qr(np.random.default_rng(0).normal(size=(12, 3, 3)))[0]
    before *= np.linalg.det(before)[:, None, None]
    after = before.transpose(0, 2, 1) @ plain.rotation  # so that before @ after is the pose
    shift = np.einsum("nji,nj->ni", before, plain.shift)
    for matrices, tags in ((before, "rlnTomoSubtomogram"), (after, "rlnAngle")):
        angles = relion_of_rotation(torch.from_numpy(matrices)).numpy()
        table = table.assign(
            **{f"{tags}{k}": angles[:, j] for j, k in enumerate(("Rot", "Tilt", "Psi"))}
        )
    for k, axis in enumerate("XYZ"):
        table[f"rlnOrigin{axis}Angst"] = -shift[:, k] * plain.settings.pixel_size
    blocks["particles"] = table
    write_blocks(tmp_path / "particles.star", blocks, 50001, overwrite=True)
    series = open_tilt_series(path)
    np.testing.assert_allclose(series.rotation, plain.rotation, atol=1e-5)
    np.testing.assert_allclose(series.shift, plain.shift, atol=1e-4)


def test_matrices_and_angles_of_one_tilt_series_are_the_same(tmp_path, plain):
    for layout in ("relion5", "warptools"):
        write_tilts(plain, tmp_path / layout, layout)
    native, warp = (
        read_tomograms(tmp_path / layout / "tomograms.star") for layout in ("relion5", "warptools")
    )
    for name, one in native.items():
        np.testing.assert_allclose(one.rotation, warp[name].rotation, atol=1e-6)
        # one angle after another, as the formula says
        x, y, z = np.deg2rad(plain.geometry[int(name[3:]) - 1].angles[0])
        rx = [[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]]
        ry = [[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]]
        rz = [[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]]
        product = np.array(rz) @ np.array(ry) @ np.array(rx)
        np.testing.assert_allclose(one.rotation[0], product, atol=1e-6)


def test_the_signal_fades_with_the_dose_as_published():
    # Grant & Grigorieff 2015: half of the power is left at Nc ln 2
    for frequency in (0.05, 0.1, 0.2):
        critical = 0.245 * frequency**-1.665 + 2.81
        left = signal_left(torch.tensor(critical * np.log(2)), torch.tensor(frequency))
        assert float(left) ** 2 == pytest.approx(0.5, rel=1e-6)
    row = [4.0, 20000.0, 20000.0, 0.0, 300.0, 2.7, 0.1, 0.0, 0.0, 1.0, 0.0]
    fresh, late = (
        ctf_2d(torch.tensor([[*row, dose]], dtype=torch.float64), (16, 16)) for dose in (0.0, 60.0)
    )
    plain = ctf_2d(torch.tensor([row], dtype=torch.float64), (16, 16))
    torch.testing.assert_close(fresh, plain)
    assert (late.abs() <= fresh.abs() + 1e-12).all()


def test_rows_of_m_are_grouped_by_particle(tmp_path):
    images = np.random.default_rng(0).normal(size=(12, 16, 16)).astype(np.float32)
    write_mrcs(tmp_path / "a.mrcs", images, 4.0)
    table = pd.DataFrame(
        {
            "rlnImageName": [f"{i + 1}@a.mrcs" for i in range(12)],
            "rlnGroupName": [f"p{i % 3}" for i in range(12)],
            "rlnAngleRot": np.arange(12.0),
        }
    )
    write_blocks(tmp_path / "a.star", {"": table})
    series = open_tilt_series(tmp_path / "a.star")
    assert series.n == 3
    np.testing.assert_array_equal(series.particle, np.arange(12) % 3)
    np.testing.assert_array_equal(series.frame, np.arange(12) // 3)
    halves = series.images.particles.column("rlnRandomSubset")
    assert all(len(set(halves[series.particle == i])) == 1 for i in range(3))


# --- what is refused --------------------------------------------------------------------------


def change(folder: Path, **columns: object) -> None:
    blocks = read_star(folder / "particles.star")
    blocks["particles"] = blocks["particles"].assign(**columns)
    write_blocks(folder / "particles.star", blocks, 50001, overwrite=True)


def test_stacks_of_another_length_are_refused(tmp_path, plain):
    path = write_tilts(plain, tmp_path)
    stack = next((tmp_path / "stacks").rglob("*.mrcs"))
    images = open_mrc(stack, "images").read(np.arange(5))[:, 0]
    write_mrcs(stack, images, 8.0, overwrite=True)
    expected = r"is 5, expected 15, all tilts of TS_0., or 1?\d, the visible ones"
    with pytest.raises(InputError, match=expected):
        open_tilt_series(path)


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"rlnTomoName": "TS_09"}, "TS_09 is not in the list"),
        ({"rlnTomoVisibleFrames": "[1,1,0]"}, "3 numbers, expected 15"),
        ({"rlnTomoVisibleFrames": "[" + ",".join("0" * 15) + "]"}, "at least one visible"),
        ({"rlnImageName": "nowhere.mrcs"}, "1 of 1 stacks cannot be found"),
    ],
)
def test_tables_that_contradict_the_tilt_series_are_refused(tmp_path, plain, columns, sentence):
    path = write_tilts(plain, tmp_path)
    change(tmp_path, **columns)
    with pytest.raises(InputError, match=sentence):
        open_tilt_series(path)


def test_a_table_without_its_tomograms_asks_for_them(tmp_path, plain):
    write_tilts(plain, tmp_path)
    (tmp_path / "tomograms.star").rename(tmp_path / "other.star")
    with pytest.raises(InputError, match="--tomograms FILE"):
        open_tilt_series(tmp_path / "particles.star")
    assert open_tilt_series(tmp_path / "particles.star", tmp_path / "other.star").n == 12


def test_coordinates_outside_the_tomogram_are_refused(tmp_path, plain):
    path = write_tilts(plain, tmp_path, "warptools")
    change(tmp_path, rlnCoordinateX=1e6)
    with pytest.raises(InputError, match="outside its tomogram"):
        open_tilt_series(path)


# --- the command line, and real data ----------------------------------------------------------


def test_simulate_and_backproject_from_the_command_line(tmp_path):
    command = f"simulate tilt-series -o {tmp_path}/t --particles 12 --tilts 11 --box 24 --snr 0.5"
    made = CliRunner().invoke(app, command.split())
    assert made.exit_code == 0, made.output
    path = tmp_path / "t" / "optimisation_set.star"
    assert is_tilt_series(path)
    done = CliRunner().invoke(app, ["backproject", str(path), "-o", str(tmp_path / "m")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "m" / "map.mrc").exists()
    again = CliRunner().invoke(app, command.split())
    assert isinstance(again.exception, InputError)


@pytest.mark.shared
def test_real_ribosomes_are_back_projected_with_their_own_poses(shared_data: Path):
    folder = shared_data / "tomo"
    series = open_tilt_series(
        folder / "warptools_test_4-tomos_10-ptcls_box-32_angpix-12_optimisation_set.star"
    )
    assert (series.n, series.images.n) == (40, 1430)
    made = reconstruct_halves(open_posed(series.images), quiet=True)
    reference = open_mrc(folder / "warptools_test_box-32_angpix-12_reconstruct.mrc")
    other = reference.read(np.array([0]))[0, 0]
    volume, mask = made.first + made.second, soft_window((32, 32, 32), 0.7, 0.85)
    # That map is the mirror image of what RELION's formula makes of these poses.  A map of the 70S
    # ribosome whose hand is that of a crystal structure of 30S fits ours better than its mirror.
    assert fsc(volume[::-1], other, mask, None).correlation[:5].min() > 0.75
    assert fsc(volume, other, mask, None).correlation[2:5].max() < 0.5


@pytest.mark.shared
def test_simulated_tilts_of_another_program_agree_with_its_map(shared_data: Path):
    folder = shared_data / "spa_sim" / "10076_DE"
    series = open_tilt_series(folder / "10076_both_32_sim.star")
    assert (series.n, series.images.n) == (144, 1296)
    made = reconstruct_halves(open_posed(series.images, invert=True), quiet=True)
    reference = open_mrc(folder / "10076_classE_32.mrc").read(np.array([0]))[0, 0]
    curve = fsc(made.first + made.second, reference, soft_window((32, 32, 32), 0.7, 0.85), None)
    assert curve.correlation[:5].min() > 0.9


@pytest.mark.shared
def test_a_native_tilt_series_of_relion_5_is_read(shared_data: Path, tmp_path):
    table = next(iter(read_star(shared_data / "star" / "pytom_relion5_tilt.star").values()))
    write_blocks(tmp_path / "tilts.star", {"tomo": table})
    overview = pd.DataFrame(
        {
            "rlnTomoName": ["tomo"],
            "rlnTomoTiltSeriesStarFile": ["tilts.star"],
            "rlnTomoTiltSeriesPixelSize": [1.35],
        }
    )
    write_blocks(tmp_path / "tomograms.star", {"global": overview})
    one = read_tomograms(tmp_path / "tomograms.star")["tomo"]
    beam = one.rotation[:, 2]
    tilt = table["rlnTomoYTilt"].to_numpy(float)
    np.testing.assert_allclose(np.rad2deg(np.arctan2(-beam[:, 0], beam[:, 2])), tilt, atol=0.2)
    np.testing.assert_allclose(np.argsort(one.dose)[0], np.argmin(np.abs(tilt)))

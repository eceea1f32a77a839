"""Projections against brute force, slices of the true map, and the files that are written."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from modpose.cli import app
from modpose.data.mrc import open_mrc
from modpose.data.source import open_source
from modpose.errors import InputError
from modpose.simulate.atoms import AtomTable, read_atom_table
from modpose.simulate.conformations import (
    Conformer,
    Morph,
    built_in_conformers,
    conformers_of_files,
    selected,
    superpose,
)
from modpose.simulate.projections import ProjectionSettings, simulate_projections


def small(**changes) -> ProjectionSettings:
    return ProjectionSettings(**{"n": 40, "box": 24, "pixel_size": 7.0, **changes})


def made(conformers=None, poses=None, **changes):
    return simulate_projections(small(**changes), conformers, poses)


# --- the signal -------------------------------------------------------------------------------


def test_a_projection_is_the_integral_of_the_turned_density():
    """Sum the Gaussians on a fine grid of points along the beam, one pixel after the other."""
    simulated = made(snr=1e8, n=3, shift_std_px=2.0)
    truth, molecule = simulated.truth, simulated.conformers[0].molecule
    size = 7.0
    z = np.arange(-110.0, 110.0, 2.0)
    for row in range(3):
        r = truth.loc[row, [f"r{i}{j}" for i in range(3) for j in range(3)]]
        r = r.to_numpy(float).reshape(3, 3)
        t = np.array([*truth.loc[row, ["shift_x", "shift_y"]], 0.0]) * size
        places = molecule.conformations(truth.loc[[row], "hinge_deg"].to_numpy())[0]
        for y, x in [(12, 12), (9, 15), (14, 8), (16, 13)]:
            points = np.stack(
                [np.full_like(z, (x - 12) * size), np.full_like(z, (y - 12) * size), z], 1
            )
            own = (points - t) @ r  # u = R^T (x - t)
            squared = ((own[:, None] - places) ** 2).sum(-1) / molecule.sigmas**2
            height = molecule.masses / (2 * np.pi * molecule.sigmas**2) ** 1.5
            expected = simulated.scale * 2.0 * (np.exp(-squared / 2) @ height).sum()
            noise = 5.0
            assert abs(simulated.images[row, y, x] - expected) < 1e-4 * expected + noise


def test_images_are_central_slices_of_the_true_map():
    """The Fourier transform of a projection is a slice of that of the map, R turning it."""
    simulated = made(
        [Conformer("still", built_in_conformers(1)[0].molecule)],
        n=4,
        snr=1e6,
        shift_std_px=0,
        box=48,
        pixel_size=3.5,
    )
    volume = simulated.volume().astype(float)
    c = np.arange(48) - 24
    z, y, x = np.meshgrid(c, c, c, indexing="ij")
    for rotation, image in zip(simulated.rotation, simulated.images, strict=True):
        for kx, ky in [(1, 0), (0, 2), (3, -2), (-4, 1), (2, 5)]:
            k3 = np.array([kx, ky, 0]) / 48 @ rotation  # R^T k
            wave = np.exp(-2j * np.pi * (k3[0] * x + k3[1] * y + k3[2] * z))
            slice_value = (volume * wave).sum()
            plane = np.exp(-2j * np.pi * (kx * c[None, :] + ky * c[:, None]) / 48)
            found = (image.astype(float) * plane).sum()
            assert abs(found - slice_value) < 1e-4 * abs(volume.sum()) + 200


def test_the_signal_to_noise_ratio_is_that_inside_the_box():
    with_noise, without = made(n=300, snr=0.5, ctf=True), made(n=300, snr=0.5e8, ctf=True)
    signal = without.images / 1e4
    noise = with_noise.images - signal
    assert noise.var() == pytest.approx(1.0, rel=0.02)
    assert signal.var() / noise.var() == pytest.approx(0.5, rel=0.03)


def test_the_map_summed_along_the_beam_is_the_upright_image():
    upright = np.eye(3)[None], np.zeros((1, 2))
    whole = [Conformer("still", built_in_conformers(1)[0].molecule)]
    simulated = made(whole, upright, n=1, snr=1e8, box=48, pixel_size=3.5)
    error = simulated.volume().sum(0) - simulated.images[0]
    assert np.abs(error).max() < 1e-3 * simulated.images.max()


# --- chance -----------------------------------------------------------------------------------


def test_poses_are_haar_and_errors_as_large_as_asked_for():
    simulated = made(n=2000, box=8, pixel_size=21.0, rotation_error_deg=6.0, shift_error_px=0.5)
    names = [f"r{i}{j}" for i in range(3) for j in range(3)]
    true = simulated.truth[names].to_numpy().reshape(-1, 3, 3)
    apart = Rotation.from_matrix(true[1:] @ true[:-1].transpose(0, 2, 1)).magnitude()
    assert np.rad2deg(apart.mean()) == pytest.approx(126.5, abs=2.5)
    error = Rotation.from_matrix(simulated.rotation @ true.transpose(0, 2, 1)).magnitude()
    assert np.rad2deg(np.sqrt((error**2).mean())) == pytest.approx(6.0, rel=0.05)
    off = simulated.shift - simulated.truth[["shift_x", "shift_y"]].to_numpy()
    assert off.std() == pytest.approx(0.5, rel=0.05)


def test_classes_come_in_the_shares_asked_for_and_the_same_seed_gives_the_same():
    states = built_in_conformers(3)
    a = made(states, n=600, abundances=(3, 2, 1), seed=5)
    b = made(states, n=600, abundances=(3, 2, 1), seed=5)
    np.testing.assert_array_equal(a.images, b.images)
    np.testing.assert_allclose(
        np.bincount(a.truth["class"]) / 600, [1 / 2, 1 / 3, 1 / 6], atol=0.06
    )
    assert "hinge_deg" not in a.truth
    both = made(states, hinge_range_deg=(-10, 20))
    assert both.truth["hinge_deg"].between(-10, 20).all()
    assert set(a.truth["template"]) == {"whole", "without-toe", "one-more-lobe"}
    masses = [one.molecule.masses.sum() for one in built_in_conformers(4)]
    assert len(set(masses)) == 4


def test_given_poses_are_used():
    poses = Rotation.random(40, rng=1).as_matrix(), np.ones((40, 2))
    simulated = made(poses=poses)
    np.testing.assert_array_equal(simulated.rotation, poses[0])
    np.testing.assert_array_equal(simulated.shift, poses[1])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"pixel_size": 2.0}, "does not fit into a box of 24 pixels"),
        ({"snr": 0.0}, "snr is 0.0, expected more than 0"),
        ({"abundances": (1.0, 2.0)}, "abundances is 2 numbers, expected 1"),
        ({"hinge_range_deg": (5.0, -5.0)}, "expected two finite numbers, the smaller first"),
        ({"rotation_error_deg": -1.0}, "expected 0 to 180"),
        ({"n": 10**12}, "the number of images is 1000000000000"),
        ({"n": 10**8, "box": 4096}, "the size of all images is"),
        ({"snr": 1e300}, "the SNR is"),
        ({"pixel_size": 1e9}, "the pixel size is"),
        ({"seed": 2**64}, "the seed is"),
    ],
)
def test_what_cannot_be_simulated_is_refused(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        made(**changes)


# --- molecules from files ---------------------------------------------------------------------

HELIX = 24


def chain_of_atoms(turn_deg: float = 0.0, chain: str = "A") -> AtomTable:
    """Two crooked rods of residues; the second is rotated about where they meet."""
    rng = np.random.default_rng(3)
    rod = np.arange(HELIX)[:, None] * np.array([2.5, 0.6, 0.3]) + rng.normal(0, 1.5, (HELIX, 3))
    turned = rod @ Rotation.from_euler("z", turn_deg, degrees=True).as_matrix().T
    positions = np.concatenate([-rod[::-1] - 1, turned])
    residue = np.arange(1, 2 * HELIX + 1)
    return AtomTable(positions, np.full(2 * HELIX, 6.0), np.full(2 * HELIX, chain), residue)


def write_pdb(path, table: AtomTable) -> None:
    lines = [
        f"ATOM  {i + 1:5d}  CA  ALA {c}{r:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00           C"
        for i, (c, r, (x, y, z)) in enumerate(
            zip(table.chain, table.residue, table.positions, strict=True)
        )
    ]
    path.write_text("\n".join([*lines, "END", ""]))


def test_superposition_agrees_with_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(9, 3)), rng.normal(size=(9, 3))
    rotation, move = superpose(a, b)
    best, _ = Rotation.align_vectors(b - b.mean(0), a - a.mean(0))
    np.testing.assert_allclose(rotation, best.as_matrix(), atol=1e-7)
    np.testing.assert_allclose(rotation @ a.mean(0) + move, b.mean(0), atol=1e-12)


def test_a_morph_turns_the_domain_that_moves_and_ends_at_both_structures():
    start, end = chain_of_atoms(), chain_of_atoms(40.0)
    motion = Morph.between(start, end, 2.0)
    assert motion.angle_deg == pytest.approx(40.0, abs=3.0)
    path = motion.conformations(np.array([0.0, motion.angle_deg / 2, motion.angle_deg]))
    np.testing.assert_allclose(path[0], start.positions, atol=1e-9)
    np.testing.assert_allclose(pdist(path[2]), pdist(end.positions), atol=1e-9)
    arm = motion.body == 1
    assert HELIX - 6 <= arm.sum() <= HELIX
    np.testing.assert_allclose(pdist(path[1][arm]), pdist(start.positions[arm]), atol=0.05)


def test_an_arm_turns_about_its_hinge(tmp_path):
    write_pdb(tmp_path / "rod.pdb", chain_of_atoms())
    one = conformers_of_files([tmp_path / "rod.pdb"], 8.0, "A:25-48", "A:24")[0]
    assert one.hinge_range_deg == (-20.0, 20.0)
    places = one.molecule.conformations(np.array([0.0, 30.0]))
    still = ~one.molecule.arm
    np.testing.assert_array_equal(places[1][still], places[0][still])
    turned = Rotation.from_matrix(superpose(places[0][~still], places[1][~still])[0])
    assert np.rad2deg(turned.magnitude()) == pytest.approx(30.0, abs=1e-6)
    np.testing.assert_allclose(one.molecule.sigmas, 0.225 * 8.0)


def test_files_with_the_same_atoms_are_laid_on_each_other(tmp_path):
    table = chain_of_atoms()
    write_pdb(tmp_path / "a.pdb", table)
    turn = Rotation.random(rng=4).as_matrix()
    write_pdb(tmp_path / "b.pdb", table.moved(table.positions @ turn.T + 9))
    a, b = conformers_of_files([tmp_path / "a.pdb", tmp_path / "b.pdb"])
    np.testing.assert_allclose(a.molecule.centers, b.molecule.centers, atol=2e-3)


def test_selections(tmp_path):
    write_pdb(tmp_path / "a.pdb", chain_of_atoms())
    table = read_atom_table(tmp_path / "a.pdb")
    assert selected(table, "A:3-5,A:40", "--arm").nonzero()[0].tolist() == [2, 3, 4, 39]
    for text, sentence in (("B:1", "empty"), ("A:x", "expected as A, B:1-235"), ("A:99", "empty")):
        with pytest.raises(InputError, match=sentence):
            selected(table, text, "--arm")
    for arguments in ((10.0, "A:1-9", None), (10.0, None, None, True), (0.0,), (10.0, "A", "A:1")):
        with pytest.raises(InputError):
            conformers_of_files([tmp_path / "a.pdb"], *arguments)
    with pytest.raises(InputError, match="nothing moves"):
        conformers_of_files([tmp_path / "a.pdb"] * 2, morph=True)


# --- files ------------------------------------------------------------------------------------


def test_what_is_written_says_poses_truth_and_maps(tmp_path):
    out = tmp_path / "made"
    command = ["simulate", "projections", "-o", str(out), "--images", "30", "--box", "24"]
    command += [
        "--pixel-size",
        "7",
        "--states",
        "2",
        "--hinge",
        "-20",
        "20",
        "--ctf",
        "--maps",
        "3",
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    source = open_source(out / "particles.star")
    truth, (rotation, shift) = source.particles.truth(), source.particles.poses()
    names = [f"r{i}{j}" for i in range(3) for j in range(3)]
    np.testing.assert_allclose(rotation.reshape(-1, 9), truth[names], atol=1e-5)
    np.testing.assert_allclose(shift, truth[["shift_x", "shift_y"]], atol=1e-5)
    assert source.pixel_size == 7.0
    assert source.particles.ctf().shape == (30, 9)
    maps = pd.read_csv(out / "maps" / "maps.csv")
    np.testing.assert_allclose(maps["hinge_deg"], [-40 / 3, 0, 40 / 3] * 2, atol=1e-9)
    stack = open_mrc(out / "maps" / maps["file"][4])
    assert (stack.n, stack.shape, stack.pixel_size) == (1, (24, 24, 24), 7.0)
    again = CliRunner().invoke(app, command)
    assert isinstance(again.exception, InputError)
    (out / "maps" / "mine.mrc").write_bytes(b"")
    fewer = CliRunner().invoke(app, [*command[:-1], "1", "--overwrite"])
    assert fewer.exit_code == 0, fewer.output
    listed = pd.read_csv(out / "maps" / "maps.csv")["file"]
    left = {path.name for path in (out / "maps").iterdir()}
    assert left == {*listed, "maps.csv", "mine.mrc"} and len(listed) == 2
    none = CliRunner().invoke(app, [*command[:-2], "--overwrite"])
    assert none.exit_code == 0, none.output
    assert [path.name for path in (out / "maps").iterdir()] == ["mine.mrc"]
    (out / "maps" / "maps.csv").write_bytes(b"")  # not a list of maps
    assert CliRunner().invoke(app, [*command[:-2], "--overwrite"]).exit_code == 0
    assert (out / "maps" / "maps.csv").is_file()
    for extra in (["--states", "9"], ["--morph"], ["--abundance", "a"], ["--arm", "A"]):
        bad = CliRunner().invoke(app, [*command[:3], str(tmp_path / "bad"), *command[4:10], *extra])
        assert isinstance(bad.exception, InputError), extra
        assert not (tmp_path / "bad").exists()


@pytest.mark.shared
def test_adenylate_kinase_closes_and_an_antibody_bends(shared_data):
    pdb = shared_data / "pdb"
    kinase = conformers_of_files([pdb / "adk_open.pdb", pdb / "adk_closed.pdb"], morph=True)[0]
    motion = kinase.molecule
    assert 40 < motion.angle_deg < 65
    ca = read_atom_table(pdb / "adk_open.pdb").residue
    moving = {int(ca[motion.body == k].mean()) for k in range(1, motion.body.max() + 1)}
    assert any(35 < m < 60 for m in moving)  # the NMP-binding domain, residues 30-59
    assert any(125 < m < 155 for m in moving)  # the lid, residues 122-159
    antibody = conformers_of_files([pdb / "1igt.pdb"], 10.0, "A,B:1-235", "B:236")[0].molecule
    assert 0.2 < antibody.arm.mean() < 0.45

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from modpose.errors import InputError
from modpose.simulate.atoms import Atoms, read_molecule
from modpose.simulate.density import project_atoms
from modpose.simulate.molecules import project
from studies.target_vae.molecule_views import ViewSettings, barrel, simulate_views

ATOM = (
    "ATOM  {n:5d}  {e:<3} ALA {chain}{n:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00 10.00          {e:>2}"
)


def pdb(atoms: list[tuple[str, float, float, float]], head: list[str] | None = None) -> str:
    lines = [
        ATOM.format(n=i + 1, chain="A", x=x, y=y, z=z, e=e) for i, (e, x, y, z) in enumerate(atoms)
    ]
    return "\n".join([*(head or []), *lines, "END", ""])


# --- projection -------------------------------------------------------------------------------


@pytest.mark.parametrize(("box", "pixel_size"), [(64, 4.5), (65, 4.5), (30, 8.0), (64, 3.5)])
def test_projections_are_those_of_exact_gaussians(box: int, pixel_size: float) -> None:
    atoms, rng = barrel(), np.random.default_rng(0)
    rotations, shifts = Rotation.random(4, rng).as_matrix(), 3 * rng.standard_normal((4, 2))
    shifts[0] = box / 2  # half beyond the edge
    found = project_atoms(atoms, rotations, shifts, box, pixel_size)
    centers = np.broadcast_to(atoms.positions, (4, *atoms.positions.shape))
    widths = np.full(len(atoms.masses), atoms.sigma)
    exact = project(centers, widths, atoms.masses, rotations, shifts, box, pixel_size)
    assert np.abs(found - exact).max() < 0.03 * exact.max()


def test_all_the_mass_arrives() -> None:
    atoms = barrel()
    image = project_atoms(atoms, np.eye(3)[None], np.zeros((1, 2)), 64, 4.5)
    assert image.sum() * 4.5**2 == pytest.approx(atoms.masses.sum(), rel=1e-3)


def test_the_truth_is_the_pose_of_each_view() -> None:
    atoms = Atoms(
        np.array([[30.0, 0, 0], [-10, 20, 0], [-20, -20, 25]]), np.array([3.0, 2, 1]), 6.0
    )
    made = simulate_views(atoms, ViewSettings(n=6, box=40, pixel_size=4.0, snr=2.0, seed=5))
    angles = made.truth[["angle_deg", "tilt_deg", "rot_deg"]].to_numpy()
    rotations = Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix()
    shifts = made.truth[["shift_x", "shift_y"]].to_numpy()
    expected = project_atoms(atoms, rotations, shifts, 40, 4.0)
    for found, picture in zip(made.clean, expected, strict=True):
        assert np.corrcoef(found.ravel(), picture.ravel())[0, 1] > 1 - 1e-6
    assert (angles[:, 1] >= 0).all() and (angles[:, 1] <= 180).all()


def test_noise_and_ctf() -> None:
    settings = ViewSettings(n=40, box=48, pixel_size=6.0, snr=0.5, seed=2)
    made = simulate_views(barrel(), settings)
    noise = made.images - made.clean
    assert noise.var() == pytest.approx(1, rel=0.02)
    assert made.clean.var() / noise.var() == pytest.approx(0.5, rel=0.02)
    assert made.ctf is None
    filtered = simulate_views(barrel(), ViewSettings(n=4, box=48, pixel_size=6.0, ctf=True, seed=2))
    assert filtered.ctf is not None and filtered.ctf.shape == (4, 9)
    assert filtered.clean.min() < -0.1 * filtered.clean.max()  # the CTF has no mean
    again = simulate_views(barrel(), settings)
    np.testing.assert_array_equal(made.images, again.images)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n": 0}, "n is 0"),
        ({"box": 4}, "box is 4"),
        ({"pixel_size": 0.0}, "pixel_size is 0.0"),
        ({"snr": -1.0}, "snr is -1.0"),
        ({"shift_std_px": -1.0}, "shift_std_px is -1.0"),
        ({"defocus_range": (2.0, 1.0)}, "defocus_range is"),
        ({"seed": -1}, "seed is -1"),
        ({"box": 16}, "72 Å, expected at least"),
    ],
)
def test_refuses(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        simulate_views(barrel(), ViewSettings(**options))


def test_the_barrel_has_the_symmetry_of_groel() -> None:
    atoms = barrel()
    turns = [
        Rotation.from_euler("z", 360 / 7, degrees=True),
        Rotation.from_euler("x", 180, degrees=True),
    ]
    for turn in turns:
        turned = turn.apply(atoms.positions)
        gap = np.linalg.norm(turned[:, None] - atoms.positions[None], axis=-1)
        nearest = gap.argmin(1)
        assert gap.min(1).max() < 1e-9
        np.testing.assert_allclose(atoms.masses[nearest], atoms.masses)
    np.testing.assert_allclose(atoms.masses @ atoms.positions, 0, atol=1e-9)


# --- coordinates ------------------------------------------------------------------------------


def test_atoms_are_read_with_their_electrons(tmp_path: Path) -> None:
    file = tmp_path / "a.pdb"
    atoms = [("C", 0.0, 0.0, 0.0), ("O", 10.0, 0.0, 0.0), ("H", 50.0, 0.0, 0.0)]
    file.write_text(pdb(atoms))
    found = read_molecule(file, resolution=10)
    np.testing.assert_allclose(found.masses, [6, 8])
    np.testing.assert_allclose(found.positions[:, 0], [-80 / 14, 60 / 14])
    assert found.sigma == pytest.approx(2.25)
    packed = tmp_path / "a.pdb.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    np.testing.assert_allclose(read_molecule(packed).positions, found.positions)


def test_the_assembly_is_built(tmp_path: Path) -> None:
    operators = [
        "REMARK 350 BIOMOLECULE: 1",
        "REMARK 350 APPLY THE FOLLOWING TO CHAINS: A",
        "REMARK 350   BIOMT1   1  1.000000  0.000000  0.000000        0.00000",
        "REMARK 350   BIOMT2   1  0.000000  1.000000  0.000000        0.00000",
        "REMARK 350   BIOMT3   1  0.000000  0.000000  1.000000        0.00000",
        "REMARK 350   BIOMT1   2 -1.000000  0.000000  0.000000        0.00000",
        "REMARK 350   BIOMT2   2  0.000000 -1.000000  0.000000        0.00000",
        "REMARK 350   BIOMT3   2  0.000000  0.000000  1.000000        0.00000",
    ]
    file = tmp_path / "a.pdb"
    file.write_text(pdb([("C", 20.0, 0.0, 0.0), ("C", 20.0, 5.0, 0.0)], operators))
    assert len(read_molecule(file).masses) == 4
    assert len(read_molecule(file, assembly=False).masses) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [("no atoms here\n", "no atoms"), ("HEADER    X\nEND\n", "no atoms"), ("", "no atoms")],
)
def test_what_is_no_molecule_is_said(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "bad.pdb"
    file.write_text(text)
    with pytest.raises(InputError, match=said):
        read_molecule(file)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        read_molecule(tmp_path / "none.pdb")
    with pytest.raises(InputError, match="resolution is 0"):
        read_molecule(tmp_path / "none.pdb", resolution=0)


def test_groel_has_fourteen_subunits(some_data: Path) -> None:
    whole = read_molecule(some_data / "pdb" / "1oel.pdb")
    half = read_molecule(some_data / "pdb" / "1oel.pdb", assembly=False)
    assert len(whole.masses) == 2 * len(half.masses)
    assert 90 < whole.radius() < 110
    image = project_atoms(whole, np.eye(3)[None], np.zeros((1, 2)), 64, 4.5)[0]
    angles = np.deg2rad(np.arange(0, 360, 2))
    ring = image[
        np.rint(32 + 11 * np.sin(angles)).astype(int), np.rint(32 + 11 * np.cos(angles)).astype(int)
    ]
    assert ring.mean() > 2 * image[30:35, 30:35].mean()  # a hole in the middle


@pytest.mark.shared
def test_malformed_coordinates_give_a_molecule_or_one_sentence(shared_data: Path) -> None:
    refused = {}
    for file in sorted((shared_data / "pdb_malformed").iterdir()):
        try:
            assert np.isfinite(read_molecule(file).positions).all()
        except InputError as error:
            refused[file] = str(error)
    assert {file.stem for file in refused} == {"1ozy", "3kh0", "1fne", "5x0t"}
    assert any("a number with a decimal point" in said for said in refused.values())
    good = [*(shared_data / "pdb").glob("*.pdb"), shared_data / "pdb" / "4v4r_30S.pdb.gz"]
    assert all(read_molecule(file, 15.0).radius() > 5 for file in good)
    assert all(str(file) in said and "\n" not in said for file, said in refused.items())


LINE = "ATOM      1  CA  ALA A   1    {:>8}{:>8}{:>8}  1.00  0.00          {:>2}\n"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (LINE.format("1,000", "2.000", "3.000", "C"), "the x coordinate in line 1 is '1,000'"),
        (LINE.format("1.000", "2.000", "nan", "C"), "line 1 is 'nan'"),
        (
            LINE.format("1.0", "2.0", "3.0", "X").replace("CA ", "XX "),
            "is unknown, expected one of",
        ),
    ],
)
def test_bad_atoms_are_named(tmp_path: Path, lines: str, said: str) -> None:
    (tmp_path / "bad.pdb").write_text(lines + "END\n")
    with pytest.raises(InputError, match=said):
        read_molecule(tmp_path / "bad.pdb", 10.0)

"""Tetrominoes against a brute-force sampling of their cubes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import starfile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from modpose.cli import app
from modpose.data.source import open_source
from modpose.errors import InputError
from modpose.simulate.atoms import Atoms
from modpose.simulate.species import Species, built_in_species
from modpose.simulate.subtomogram_settings import SubtomogramSettings
from modpose.simulate.subtomograms import simulate_subtomograms
from modpose.simulate.tetrominoes import CLASSES, UNSEEN, tetromino, tetromino_species

CLEAN = SubtomogramSettings(
    n=12,
    box=32,
    pixel_size=1.0,
    noise="none",
    tilt_range_deg=(-90.0, 90.0),
    max_shift_px=0.0,
    seed=2,
)
EVERY = (*CLASSES, UNSEEN)


@pytest.mark.parametrize("name", EVERY)
def test_shapes_have_the_volume_of_four_cubes_about_their_centre(name: str) -> None:
    blocks = tetromino(name, 3.0)
    volumes = (blocks.high - blocks.low).prod(1)
    assert volumes.sum() == pytest.approx(4 * 27.0)
    np.testing.assert_allclose(volumes @ (blocks.low + blocks.high), 0.0, atol=1e-9)
    overlap = np.minimum(blocks.high[:, None], blocks.high) - np.maximum(
        blocks.low[:, None], blocks.low
    )
    shared = overlap.clip(0).prod(-1)
    np.testing.assert_allclose(shared, np.diag(volumes), atol=1e-9)  # none but with itself
    touching = (overlap >= -1e-9).all(-1)
    reached = np.linalg.matrix_power(touching.astype(int), len(volumes))
    assert (reached > 0).all()


def test_the_fusion_is_nearest_to_what_it_is_made_of() -> None:
    volume = {n: tetromino(n, 6.0).place(np.eye(3), np.zeros(3), 32, 1.0) for n in EVERY}
    # in the frame of the row of three cubes, which is where the shapes are compared
    row = {n: np.roll(v, _offset(n), (1, 2)) for n, v in volume.items()}
    away = {n: float(np.abs(row[n] - row[UNSEEN]).sum()) for n in CLASSES}
    assert away["E"] < away["I"] and away["L"] < away["I"]
    assert max(away["E"], away["L"]) < float(np.abs(row["E"] - row["L"]).sum())


def _offset(name: str) -> tuple[int, int]:
    low = tetromino(name, 6.0).low[0]
    return round(-9 - low[1]), round(-9 - low[0])


@settings(max_examples=5, deadline=None)
@given(st.sampled_from(EVERY), st.integers(0, 10_000), st.floats(1.0, 1.3))
def test_voxels_hold_the_part_of_them_inside(name: str, seed: int, longer: float) -> None:
    rng = np.random.default_rng(seed)
    rotation = Rotation.random(rng=rng).as_matrix()
    shift = rng.uniform(-1, 1, 3)
    blocks = tetromino(name, 7.0).stretched(longer)
    found = blocks.place(rotation, shift, 20, 2.0)
    fine = (np.arange(80) - 40 + 1.5) / 4 - 0.75  # four points per voxel, voxel 10 in the middle
    z, y, x = np.meshgrid(fine, fine, fine, indexing="ij")
    own = 2.0 * (np.stack([x, y, z], -1) - shift + 0.0) @ rotation
    inside = np.zeros(z.shape, bool)
    for low, high in zip(blocks.low, blocks.high, strict=True):
        inside |= ((own >= low) & (own <= high)).all(-1)
    brute = inside.reshape(20, 4, 20, 4, 20, 4).mean((1, 3, 5))
    assert np.abs(found - brute).mean() < 0.02 * brute.max()
    assert np.corrcoef(found.ravel(), brute.ravel())[0, 1] > 0.98
    assert found.sum() * 8 == pytest.approx(4 * 343 * longer, rel=0.03)


def test_clean_sets_hold_the_posed_shapes_and_say_what_they_are() -> None:
    stretched = replace(CLEAN, elongation_range=(1.0, 1.1))
    made = simulate_subtomograms(stretched, tetromino_species(EVERY[-3:]))
    volumes, truth = made.volumes(), made.truth
    assert volumes.max() == 1.0
    assert volumes.min() == 0.0
    assert truth["elongation"].between(1.0, 1.1).all()
    assert truth["elongation"].nunique() == 12
    for row in (0, 5):
        one = truth.iloc[row]
        rotation = one[[f"r{i}{j}" for i in range(3) for j in range(3)]].to_numpy(float)
        blocks = tetromino(one["template"], 6.0).stretched(one["elongation"])
        expected = blocks.place(rotation.reshape(3, 3), np.zeros(3), 32, 1.0)
        np.testing.assert_allclose(volumes[row], expected, atol=1e-6)


def test_clean_densities_of_atoms_are_never_negative() -> None:
    rng = np.random.default_rng(0)
    atoms = Atoms(4.0 * rng.standard_normal((50, 3)), np.full(50, 7.0), 2.25)
    made = simulate_subtomograms(replace(CLEAN, n=2, box=16, pixel_size=3.0), [Species("m", atoms)])
    volumes = made.volumes()
    assert volumes.min() == 0.0
    assert volumes.max() == pytest.approx(1.0)


def test_turns_of_the_grid_are_by_tens_of_degrees() -> None:
    made = simulate_subtomograms(
        replace(CLEAN, n=40, box=16, orientations="grid"), tetromino_species(cube=2.0)
    )
    entries = made.truth[[f"r{i}{j}" for i in range(3) for j in range(3)]].to_numpy()
    angles = Rotation.from_matrix(entries.reshape(-1, 3, 3)).as_euler("xyz", degrees=True)
    np.testing.assert_allclose(angles / 10, np.rint(angles / 10), atol=1e-6)
    assert len(np.unique(np.rint(angles), axis=0)) > 35


def test_noise_shifts_and_wedge_are_those_of_subtomograms() -> None:
    noisy = replace(CLEAN, noise="white", snr=0.1, max_shift_px=2.0, tilt_range_deg=(-60.0, 60.0))
    made = simulate_subtomograms(noisy, tetromino_species())
    clean = made.clean()
    assert clean.var() == pytest.approx(0.1, rel=1e-3)
    assert (made.volumes() - clean).var() == pytest.approx(1.0, rel=0.03)
    assert np.abs(made.truth[["shift_x", "shift_y", "shift_z"]]).to_numpy().max() > 1.0


def test_the_command_writes_a_set_and_its_truth(tmp_path: Path) -> None:
    out = tmp_path / "set"
    few = ["--volumes", "6", "--box", "16", "--cube", "3"]
    result = CliRunner().invoke(app, ["simulate", "tetrominoes", "-o", str(out), *few])
    assert result.exit_code == 0, result.output
    source = open_source(out / "particles.star")
    assert source.n == 6
    assert source.stack.shape == (16, 16, 16)
    assert set(source.particles.column("modposeTruthTemplate")) == set(CLASSES)
    assert source.stack.read(np.arange(6)).max() == 1.0
    table = starfile.read(out / "particles.star")["particles"]
    assert (table["modposeTruthElongation"] == 1.0).all()


@pytest.mark.parametrize(
    ("classes", "more", "said"),
    [
        ("I,X", [], "a class is 'X', expected one of I, O, S, T, L, E, EL"),
        ("I,I", [], "a class given twice is I"),
        ("I", ["--cube", "0"], "cube is 0.0, expected more than 0"),
        ("I", ["--cube", "9"], "does not fit into a box"),
        ("I", ["--elongation", "2", "1"], "elongation_range is (2.0, 1.0), expected two factors"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    tmp_path: Path, classes: str, more: list[str], said: str
) -> None:
    command = ["simulate", "tetrominoes", "-o", str(tmp_path / "x"), "--classes", classes, *more]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, InputError)
    assert said in str(result.exception)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("settings", [{"elongation_range": (1.0, 2.0)}])
def test_molecules_without_blocks_have_no_elongation(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected a molecule of blocks"):
        simulate_subtomograms(SubtomogramSettings(n=1, **settings), built_in_species(1))

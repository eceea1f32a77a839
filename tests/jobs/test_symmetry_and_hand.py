"""Jobs on tables: symmetry expansion and its undoing, and the hand."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
from typer.testing import CliRunner

from modpose.backprojection.halves import half_of
from modpose.cli import app
from modpose.config import DataConfig
from modpose.data.dataset import Dataset
from modpose.data.mrc import write_mrcs
from modpose.data.particles import Particles
from modpose.data.source import open_source
from modpose.data.star import write_star
from modpose.errors import InputError
from modpose.geometry.groups import point_group
from modpose.jobs.hand import flip_hand, mirrored
from modpose.jobs.positions import open_table
from modpose.jobs.symmetry import expanded, joined, mirrored_poses
from tests.jobs.table_files import (
    IMAGE_PIXEL,
    N,
    cs,
    star,
    write_particles,
)


def points(symmetry: str) -> np.ndarray:
    """Points (M, 3) of an object with a symmetry."""
    few = np.random.default_rng(2).normal(size=(2, 3))
    return np.concatenate([few @ element.T for element in point_group(symmetry)])


@pytest.mark.parametrize("symmetry", ["C4", "D3", "O", "I2"])
def test_copies_see_the_symmetric_object_alike(tmp_path: Path, symmetry: str) -> None:
    particles = open_table(star(tmp_path, 5))
    order = len(point_group(symmetry))
    many = expanded(particles, symmetry)
    assert many.n == 5 * order
    poses = many.poses()
    assert poses is not None
    turned = poses[0].reshape(5, order, 3, 3)
    assert len({tuple(r.round(4).ravel()) for r in turned[0]}) == order
    seen = np.einsum("nkij,mj->nkmi", turned, points(symmetry))[..., :2]
    seen = np.take_along_axis(seen, _sorted(seen), 2)
    np.testing.assert_allclose(seen, np.broadcast_to(seen[:, :1], seen.shape), atol=1e-4)
    assert many.table["rlnImageName"].tolist() == [
        name for name in particles.table["rlnImageName"] for _ in range(order)
    ]


def _sorted(seen: np.ndarray) -> np.ndarray:
    key = seen.round(2) @ np.array([1000.0, 1.0])
    return np.broadcast_to(np.argsort(key, axis=2)[..., None], seen.shape)


def test_axes_are_those_of_other_programs() -> None:
    def has_axis(name: str, axis: tuple[float, float, float], fold: int) -> bool:
        unit = np.array(axis) / np.linalg.norm(axis)
        about = [r for r in point_group(name) if np.allclose(r @ unit, unit, atol=1e-5)]
        return len(about) == fold

    golden = (1 + 5**0.5) / 2
    assert has_axis("D4", (0, 0, 1), 4)
    assert has_axis("D4", (1, 0, 0), 2)
    assert has_axis("O", (0, 0, 1), 4)
    assert has_axis("O", (1, 1, 1), 3)
    assert has_axis("I1", (golden, 0, -1), 5)  # the generators of RELION's I1 and I2
    assert has_axis("I2", (-golden, -1, 0), 5)
    for name in ("I1", "I2"):
        assert all(has_axis(name, axis, 2) for axis in ((1, 0, 0), (0, 1, 0), (0, 0, 1)))
    for name in ("I", "T"):
        with pytest.raises(InputError, match="whose axes differ between programs"):
            point_group(name)


@pytest.mark.parametrize("kind", ["star", "cs"])
def test_expanding_and_joining_gives_the_table_back(tmp_path: Path, kind: str) -> None:
    path = star(tmp_path) if kind == "star" else cs(tmp_path)
    particles = open_table(path)
    many = expanded(particles, "D2")
    if kind == "cs":
        assert many.table["uid"].is_unique
        np.testing.assert_array_equal(
            many.table["sym_expand/src_uid"], np.repeat(particles.table["uid"], 4)
        )
    write_particles(many, tmp_path / f"many.{kind}")
    words = ["join", str(tmp_path / f"many.{kind}"), "-o", str(tmp_path / f"back.{kind}")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    back = open_table(tmp_path / f"back.{kind}")
    assert list(back.table) == list(particles.table)
    poses = [name for name in particles.table if "Angle" in str(name) or "pose" in str(name)]
    pd.testing.assert_frame_equal(
        back.table.drop(columns=poses), particles.table.drop(columns=poses), check_dtype=False
    )
    found, known = back.poses(), particles.poses()
    assert found is not None
    assert known is not None
    np.testing.assert_allclose(found[0], known[0], atol=1e-5)
    with pytest.raises(InputError, match="rows 1 and 2 are one image"):
        expanded(many, "C2")
    with pytest.raises(InputError, match="no image has several rows"):
        joined(particles)
    best = many.table.assign(good=np.tile([0, 3, 1, 2], N))
    kept = joined(Particles(best, many.optics, many.format), by="good")
    assert (kept.table["good"] == 3).all()


def test_halves_are_those_of_particles_not_of_copies(tmp_path: Path) -> None:
    path = star(tmp_path, 8)
    write_mrcs(tmp_path / "Extract.mrcs", np.random.default_rng(0).random((8, 16, 16)), IMAGE_PIXEL)
    blocks = starfile.read(path)
    names = [f"{k + 1}@Extract.mrcs" for k in range(8)]
    blocks["particles"]["rlnImageName"] = names
    starfile.write(blocks, path, overwrite=True)
    many = expanded(open_table(path), "C4")
    write_star(tmp_path / "many.star", many.table, many.optics)
    for table, copies in ((path, 1), (tmp_path / "many.star", 4)):
        dataset = Dataset(open_source(table), DataConfig(), seed=0)
        half = half_of(dataset, np.arange(dataset.n))
        np.testing.assert_array_equal(half, np.repeat(np.arange(8) % 2, copies))


def test_no_image_is_in_both_halves(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two tables that were joined may give the rows of an image to different halves."""
    names = [f"{k % 10 + 1}@Extract.mrcs" for k in range(12)]
    path = star(tmp_path, 12, rlnImageName=names, rlnRandomSubset=[1, 2] * 5 + [2, 2])
    write_mrcs(
        tmp_path / "Extract.mrcs", np.random.default_rng(0).random((10, 16, 16)), IMAGE_PIXEL
    )
    dataset = Dataset(open_source(path), DataConfig(), seed=0)
    half = half_of(dataset, np.arange(12))
    assert half.tolist() == [0, 1] * 5 + [0, 1]
    assert "1 rows name an image that the other half set has too" in caplog.text
    assert half_of(dataset, np.array([10, 3, 0, 1])).tolist() == [0, 1, 0, 1]


def test_mirrored_maps_and_poses_give_the_same_images(tmp_path: Path) -> None:
    path = star(tmp_path)
    x, y, z = np.meshgrid(*[np.arange(16) - 8] * 3, indexing="ij")[::-1]
    volume = np.exp(-((x - 2) ** 2 + (y + 1) ** 2 + (z - 3) ** 2) / 4).astype(np.float32)
    write_mrcs(tmp_path / "map.mrc", volume[None], 2.0)
    words = ["hand", str(tmp_path / "map.mrc"), str(path), "-o", str(tmp_path / "flipped")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    expected = np.exp(-((x - 2) ** 2 + (y + 1) ** 2 + (z + 3) ** 2) / 4)
    with mrcfile.open(tmp_path / "flipped/map.mrc") as mrc:
        np.testing.assert_allclose(mrc.data[1:], expected[1:], atol=1e-6)  # plane -8 has no twin
    before, after = open_table(path).poses(), open_table(tmp_path / "flipped/p.star").poses()
    assert before is not None
    assert after is not None
    place = np.random.default_rng(0).normal(size=3)
    seen = before[0] @ place
    again = after[0] @ (place * [1, 1, -1])
    np.testing.assert_allclose(again[:, :2], seen[:, :2], atol=1e-5)
    np.testing.assert_allclose(again[:, 2], -seen[:, 2], atol=1e-5)
    twice = mirrored_poses(mirrored_poses(open_table(path))).poses()
    assert twice is not None
    np.testing.assert_allclose(twice[0], before[0], atol=1e-5)
    np.testing.assert_array_equal(mirrored(mirrored(volume)), volume)
    tomogram = star(tmp_path / "tomo", rlnTomoName="TS_01")
    with pytest.raises(InputError, match="those of tomograms, whose hand"):
        mirrored_poses(open_table(tomogram))
    assert expanded(open_table(tomogram), "C2").n == 2 * N
    write_mrcs(tmp_path / "stack.mrcs", volume[:7], 2.0)
    with pytest.raises(InputError, match="is a stack of images, expected one map"):
        flip_hand([tmp_path / "stack.mrcs"], tmp_path / "again")
    with pytest.raises(InputError, match="two files have this name"):
        flip_hand([path, path], tmp_path / "again")
    with pytest.raises(InputError, match="already exists"):
        flip_hand([path], tmp_path / "flipped")


def test_tables_of_another_kind_and_without_poses_are_refused(tmp_path: Path) -> None:
    path = star(tmp_path)
    done = CliRunner().invoke(app, ["join", str(path), "-o", str(tmp_path / "out.cs")])
    assert isinstance(done.exception, InputError)
    assert "expected .star" in str(done.exception)
    particles = open_table(path)
    angles = [name for name in particles.table if "Angle" in str(name)]
    bare = Particles(particles.table.drop(columns=angles), particles.optics, "star", "p.star")
    with pytest.raises(InputError, match="no poses in space"):
        expanded(bare, "C2")
    with pytest.raises(InputError, match="point group is 'X3'"):
        expanded(particles, "X3")

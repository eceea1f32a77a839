"""Jobs on tables: duplicates, other extractions, symmetry and hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
import torch
from typer.testing import CliRunner

from modpose.backprojection.halves import half_of
from modpose.cli import app
from modpose.config import DataConfig
from modpose.data.dataset import Dataset
from modpose.data.joining import join_rows
from modpose.data.mrc import write_mrcs
from modpose.data.particles import Particles
from modpose.data.posing import with_pose
from modpose.data.source import open_source
from modpose.data.star import write_star
from modpose.data.table_files import write_table
from modpose.errors import InputError
from modpose.files.writing import all_or_nothing
from modpose.geometry.groups import point_group
from modpose.geometry.rotations import haar_rotations
from modpose.jobs.duplicates import without_duplicates
from modpose.jobs.hand import flip_hand, mirrored
from modpose.jobs.positions import centres, open_table, recentred
from modpose.jobs.symmetry import expanded, joined, mirrored_poses
from modpose.jobs.unbin import unbinned
from tests.small_data import cryosparc_table

N, IMAGE_PIXEL, MICROGRAPH_PIXEL = 60, 4.0, 1.0


def rotations(n: int = N) -> np.ndarray:
    return haar_rotations(n, torch.Generator().manual_seed(0)).double().numpy()


def star(folder: Path, n: int = N, **columns: object) -> Path:
    """Particles at bin 4 of three micrographs."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "rlnImageName": [f"{k + 1:06d}@Extract/bin4.mrcs" for k in range(n)],
            "rlnMicrographName": [f"mics/m{k % 3}.mrc" for k in range(n)],
            "rlnCoordinateX": rng.integers(0, 400, n).astype(float),
            "rlnCoordinateY": rng.integers(0, 400, n).astype(float),
            "rlnOriginXAngst": rng.normal(0, 6, n).round(6),
            "rlnOriginYAngst": rng.normal(0, 6, n).round(6),
            "rlnMaxValueProbDistribution": rng.random(n).round(6),
            "rlnOpticsGroup": 1,
        }
    ).assign(**columns)
    optics = {"rlnOpticsGroup": 1, "rlnImagePixelSize": IMAGE_PIXEL, "rlnImageSize": 16}
    optics |= {"rlnMicrographPixelSize": MICROGRAPH_PIXEL, "rlnImageDimensionality": 2}
    particles = Particles(table, pd.DataFrame([optics]), "star")
    posed = with_pose(particles, rotation=rotations(n))
    folder.mkdir(parents=True, exist_ok=True)
    write_star(folder / "p.star", posed.table, posed.optics)
    return folder / "p.star"


def cs(folder: Path, n: int = N) -> Path:
    rng = np.random.default_rng(1)
    plain = cryosparc_table(n, "J1/stack.mrcs", 16)
    extra = [("location/micrograph_path", "S20"), ("location/micrograph_uid", "u8")]
    extra += [("location/micrograph_shape", "u4", (2,)), ("location/micrograph_psize_A", "f4")]
    extra += [("location/center_x_frac", "f4"), ("location/center_y_frac", "f4")]
    records = np.zeros(n, plain.dtype.descr + extra)
    for name in plain.dtype.names:
        records[name] = plain[name]
    records["location/micrograph_uid"] = np.arange(n) % 3
    records["location/micrograph_shape"] = 500, 400
    records["location/micrograph_psize_A"] = MICROGRAPH_PIXEL
    records["location/center_x_frac"], records["location/center_y_frac"] = rng.random((2, n))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "p.cs").open("wb") as file:
        np.save(file, records)
    return folder / "p.cs"


def write_particles(particles: Particles, out: Path) -> None:
    with all_or_nothing() as place:
        write_table(particles, out, place)


# --- duplicates -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["star", "cs"])
def test_of_close_particles_the_better_one_is_kept(tmp_path: Path, kind: str) -> None:
    particles = open_table(star(tmp_path) if kind == "star" else cs(tmp_path))
    by = "rlnMaxValueProbDistribution" if kind == "star" else "-ctf/df1_A"
    keep = without_duplicates(particles, 60.0, by=by)
    sign = -1 if by.startswith("-") else 1
    good = sign * particles.numbers(by.removeprefix("-"))
    group = np.arange(N) % 3
    place = centres(particles)
    near = (np.linalg.norm(place[:, None] - place, axis=2) < 60) & (group[:, None] == group)
    expected = np.ones(N, bool)
    for k in np.argsort(-good, kind="stable"):
        if expected[k]:
            expected[near[k] & (np.arange(N) != k)] = False
    assert 0 < (~keep).sum() < N
    np.testing.assert_array_equal(keep, expected)


def test_places_by_hand_with_shifts_in_pixels(tmp_path: Path) -> None:
    columns = {"rlnMicrographName": "m.mrc", "rlnCoordinateX": [100.0, 300.0]}
    columns |= {"rlnCoordinateY": 50.0, "rlnOriginX": [5.1, -2.0], "rlnOriginY": [0.0, 1.0]}
    old = pd.DataFrame({"rlnImageName": ["1@s.mrcs", "2@s.mrcs"]}).assign(**columns)
    plain = Particles(old.assign(rlnMicrographPixelSize=2.0), None, "star", "old.star")
    with pytest.raises(InputError, match=r"old\.star: rlnOriginX is there but no pixel size"):
        centres(plain)
    sized = replace(plain, table=plain.table.assign(rlnImagePixelSize=4.0))
    np.testing.assert_allclose(centres(sized), [[179.6, 100.0], [608.0, 96.0]])
    again = recentred(sized).table
    assert again["rlnCoordinateX"].tolist() == [90.0, 304.0]
    # what is left, -0.4 Å, is in pixels of the table, which are those of RELION's next extraction
    np.testing.assert_allclose(again["rlnOriginX"], [0.1, 0.0], atol=1e-9)
    np.testing.assert_allclose(again["rlnOriginY"], [0.0, 0.0], atol=1e-9)
    np.testing.assert_allclose(centres(replace(sized, table=again)), centres(sized), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "dims", "size"),
    [("TS_01", 3, 2.0), ("TS_01", 2, 10.0), ("TS_01.tomostar", 3, 10.0)],
)
def test_coordinates_of_warptools_are_in_pixels_of_the_images(
    name: str, dims: int, size: float
) -> None:
    places = {f"rlnCoordinate{axis}": [float(k)] for k, axis in enumerate("XYZ", 3)}
    table = pd.DataFrame({"rlnTomoName": [name], "rlnImageName": ["s.mrcs"], **places})
    sizes = {"rlnTomoTiltSeriesPixelSize": 2.0, "rlnImagePixelSize": 10.0}
    table = table.assign(rlnImageDimensionality=dims, **sizes)
    found = centres(Particles(table, None, "star", "t.star"))
    np.testing.assert_allclose(found, [[3 * size, 4 * size, 5 * size]])


def test_places_of_a_cs_by_hand(tmp_path: Path) -> None:
    particles = open_table(cs(tmp_path))
    table = particles.table
    place = np.stack([table["location/center_x_frac"] * 400, table["location/center_y_frac"] * 500])
    shift = np.stack([table["alignments3D/shift_0"], table["alignments3D/shift_1"]])
    np.testing.assert_allclose(centres(particles), (place - 1.31 * shift).T, rtol=1e-6)
    kept = [name for name in table if not str(name).startswith("alignments3D/")]
    np.testing.assert_allclose(centres(replace(particles, table=table[kept])), place.T, rtol=1e-6)


def test_shifts_count_and_copies_stay_together(tmp_path: Path) -> None:
    places = {"rlnCoordinateX": [100.0, 100.0, 300.0], "rlnCoordinateY": 100.0}
    origins = {"rlnOriginXAngst": [30.0, -30.0, 0.0], "rlnOriginYAngst": 0.0}
    path = star(tmp_path, 3, rlnMicrographName="m.mrc", **places, **origins)
    particles = open_table(path)
    np.testing.assert_allclose(centres(particles)[:, 0], [70, 130, 300])
    assert without_duplicates(particles, 50).all()
    assert without_duplicates(particles, 61).sum() == 2
    many = expanded(particles, "C3")
    assert without_duplicates(many, 50).all()
    keep = without_duplicates(many, 61).reshape(3, 3)
    np.testing.assert_array_equal(keep.any(1), keep.all(1))
    assert keep.all(1).sum() == 2


def test_tomograms_are_compared_in_space(tmp_path: Path) -> None:
    centred = {f"rlnCenteredCoordinate{a}Angst": [0.0, 0.0, 0.0] for a in "XY"}
    z = {"rlnCenteredCoordinateZAngst": [0.0, 40.0, 100.0], "rlnOriginZAngst": [0.0, 5.0, 0.0]}
    path = star(tmp_path, 3, rlnTomoName="TS_01", **centred, **z)
    particles = open_table(path)
    particles.table[["rlnOriginXAngst", "rlnOriginYAngst"]] = 0.0
    assert without_duplicates(particles, 34).all()
    assert without_duplicates(particles, 36).sum() == 2
    moved = recentred(particles).table
    np.testing.assert_allclose(moved["rlnCenteredCoordinateZAngst"], [0, 35, 100])
    assert (moved["rlnOriginZAngst"] == 0).all()
    pixels = {f"rlnCoordinate{axis}": 50.0 for axis in "XYZ"}
    twice = replace(particles, table=particles.table.assign(**pixels))
    again = recentred(twice).table  # old coordinates in pixels would contradict
    assert again["rlnCenteredCoordinateZAngst"].tolist() == [0, 35, 100]
    assert not any(name in again for name in pixels)


def test_what_cannot_be_placed_is_refused(tmp_path: Path) -> None:
    particles = open_table(star(tmp_path))

    def without(*names: str) -> Particles:
        optics = particles.optics
        assert optics is not None
        return Particles(
            particles.table.drop(columns=[n for n in names if n in particles.table]),
            optics.drop(columns=[n for n in names if n in optics]),
            "star",
            "p.star",
        )

    with pytest.raises(InputError, match="no coordinates, expected rlnCoordinateX"):
        centres(without("rlnCoordinateX"))
    with pytest.raises(InputError, match="expected --micrograph-pixel-size"):
        centres(without("rlnMicrographPixelSize"))
    given = centres(without("rlnMicrographPixelSize"), MICROGRAPH_PIXEL)
    np.testing.assert_array_equal(given, centres(particles))
    with pytest.raises(InputError, match="no rlnMicrographName, rlnTomoName"):
        without_duplicates(without("rlnMicrographName"), 10)
    with pytest.raises(InputError, match="--distance is -1, expected a positive number"):
        without_duplicates(particles, -1)
    with pytest.raises(InputError, match="no column 'nothing'"):
        without_duplicates(particles, 10, by="nothing")


# --- other extractions ------------------------------------------------------------------------


def test_recentring_finds_what_is_in_the_micrograph(tmp_path: Path) -> None:
    true_x, true_y = 123.3, 87.9  # pixels of the micrograph
    picked_x, picked_y = 118.0, 91.0
    # the particle lies at +offset from the middle of its box, which RELION writes as -offset
    origin = {"rlnOriginXAngst": picked_x - true_x, "rlnOriginYAngst": picked_y - true_y}
    place = {"rlnCoordinateX": picked_x, "rlnCoordinateY": picked_y}
    moved = recentred(open_table(star(tmp_path, 1, **origin, **place))).table.iloc[0]
    assert (moved["rlnCoordinateX"], moved["rlnCoordinateY"]) == (123.0, 88.0)
    assert moved["rlnOriginXAngst"] == pytest.approx(-0.3)
    assert moved["rlnOriginYAngst"] == pytest.approx(0.1)


def test_priors_of_filaments_follow_the_coordinates_and_the_hand(tmp_path: Path) -> None:
    path = star(tmp_path)
    table = open_table(path).table
    priors = {
        f"{name}Prior": table[name] for name in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
    }
    priors["rlnOriginXPriorAngst"] = table["rlnOriginXAngst"]
    priors["rlnOriginYPriorAngst"] = table["rlnOriginYAngst"] + 1.5
    particles = replace(open_table(path), table=table.assign(**priors))
    moved = recentred(particles).table
    for axis, apart in (("X", 0.0), ("Y", 1.5)):
        prior, origin = moved[f"rlnOrigin{axis}PriorAngst"], moved[f"rlnOrigin{axis}Angst"]
        np.testing.assert_allclose(prior, origin + apart, atol=1e-6)
    other = mirrored_poses(particles)
    names = {f"{name}Prior": name for name in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")}
    of_priors = other.table.drop(columns=list(names.values())).rename(columns=names)
    found, expected = replace(other, table=of_priors).poses(), other.poses()
    assert found is not None and expected is not None
    np.testing.assert_allclose(found[0], expected[0], atol=1e-6)


@pytest.mark.parametrize("kind", ["star", "cs"])
def test_recentring_moves_no_particle(tmp_path: Path, kind: str) -> None:
    path = star(tmp_path) if kind == "star" else cs(tmp_path)
    out = tmp_path / f"out.{kind}"
    done = CliRunner().invoke(app, ["recentre", str(path), "-o", str(out)])
    assert done.exit_code == 0, done.output
    before = open_table(path)
    if kind == "cs":
        found = np.load(out)
        assert not any(name.startswith("blob/") for name in found.dtype.names)
        np.testing.assert_array_equal(found["uid"], np.load(path)["uid"])
        pixels = found["location/center_x_frac"].astype(float) * 400
        assert np.abs(pixels - pixels.round()).max() < 1e-3
        after = pixels - found["alignments3D/shift"][:, 0] * 1.31
        np.testing.assert_allclose(after, centres(before)[:, 0], atol=1e-3)
        return
    table = starfile.read(out)["particles"]
    assert "rlnImageName" not in table
    assert (table["rlnCoordinateX"] % 1 == 0).all()
    assert table["rlnOriginXAngst"].abs().max() <= 0.5 * MICROGRAPH_PIXEL
    for k, axis in enumerate("XY"):
        place = table[f"rlnCoordinate{axis}"] * MICROGRAPH_PIXEL - table[f"rlnOrigin{axis}Angst"]
        np.testing.assert_allclose(place, centres(before)[:, k], atol=1e-5)


def test_poses_of_binned_images_go_to_the_images_as_recorded(tmp_path: Path) -> None:
    binned = open_table(star(tmp_path, rlnRandomSubset=1 + np.arange(N) % 2))
    order = np.random.default_rng(4).permutation(N)[:50]
    names = [f"{k + 1:06d}@Extract/bin4.mrcs" for k in order]
    table = pd.DataFrame({"rlnImageName": names, "rlnOpticsGroup": 1})
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnImagePixelSize": [1.0]})
    write_star(tmp_path / "bin1.star", table, optics)
    words = ["unbin", str(tmp_path / "p.star"), str(tmp_path / "bin1.star")]
    done = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "out.star")])
    assert done.exit_code == 0, done.output
    found, known = open_table(tmp_path / "out.star"), binned.poses()
    poses = found.poses()
    assert poses is not None
    assert known is not None
    np.testing.assert_allclose(poses[0], known[0][order], atol=1e-6)
    np.testing.assert_allclose(poses[1], known[1][order] * 4, atol=1e-5)
    assert found.table["rlnRandomSubset"].tolist() == (1 + order % 2).tolist()
    few = binned.subset(order[:10])
    with pytest.raises(InputError, match="10 of the 50 images"):
        unbinned(few, open_table(tmp_path / "bin1.star"))
    assert unbinned(few, open_table(tmp_path / "bin1.star"), partial=True).n == 10


def test_poses_of_preprocessed_images_go_to_the_images_that_they_were_made_of(
    tmp_path: Path,
) -> None:
    rng, onto = np.random.default_rng(6), star(tmp_path)
    blocks = starfile.read(onto)
    for number, order in enumerate((rng.permutation(N), rng.permutation(N)[:40])):
        names = blocks["particles"]["rlnImageName"].to_numpy()
        made = (
            blocks["particles"]
            .iloc[order]
            .assign(
                rlnImageName=[f"{k + 1:06d}@particles_00000.mrcs" for k in range(len(order))],
                rlnImageOriginalName=names[order],
            )
        )
        (tmp_path / f"{number}").mkdir()
        starfile.write({**blocks, "particles": made}, tmp_path / f"{number}" / "p.star")
    found = open_table(tmp_path / "0" / "p.star")
    for table in (onto, tmp_path / "1" / "p.star"):  # the second names its images as the first
        target = open_table(table)
        target = replace(target, table=target.table.assign(rlnAngleRot=0.0, rlnOriginXAngst=0.0))
        poses, known = unbinned(found, target).poses(), open_table(table).poses()
        assert poses is not None
        assert known is not None
        np.testing.assert_allclose(poses[0], known[0], atol=1e-6)
        np.testing.assert_allclose(poses[1], known[1], atol=1e-5)
    back = unbinned(open_table(onto), open_table(tmp_path / "1" / "p.star"))
    assert back.n == 40
    other = replace(
        found,
        table=found.table.assign(
            rlnImageOriginalName=[f"{k + 1}@other.mrcs" for k in range(N)],
            rlnCoordinateX=found.table["rlnCoordinateX"] + 1,
        ),
    )
    with pytest.raises(InputError, match="0 of the 40 images"):
        unbinned(other, open_table(tmp_path / "1" / "p.star"))


def test_poses_go_to_another_extraction_of_the_same_picks(tmp_path: Path) -> None:
    """RELION numbers the images of each job anew, and names other files."""
    onto = star(tmp_path)
    blocks = starfile.read(onto)
    order = np.random.default_rng(7).permutation(N)[:40]
    here = [f"{k + 1:06d}@Extract/job010/mics/m{k % 3}.mrcs" for k in range(N)]
    there = [f"{i + 1:06d}@Extract/job020/mics/m{k % 3}.mrcs" for i, k in enumerate(order)]
    blocks["particles"]["rlnImageName"] = here
    starfile.write(blocks, tmp_path / "bin4.star")
    again = blocks["particles"].iloc[order].assign(rlnImageName=there, rlnAngleRot=0.0)
    optics = blocks["optics"].assign(rlnImagePixelSize=1.0, rlnImageSize=64)
    starfile.write({"optics": optics, "particles": again}, tmp_path / "bin1.star")
    found, target = open_table(tmp_path / "bin4.star"), open_table(tmp_path / "bin1.star")
    poses, known = unbinned(found, target).poses(), found.poses()
    assert poses is not None
    assert known is not None
    np.testing.assert_allclose(poses[0], known[0][order], atol=1e-6)
    np.testing.assert_allclose(poses[1], known[1][order] * 4, atol=1e-5)
    moved = replace(
        target, table=target.table.assign(rlnCoordinateX=lambda t: t.rlnCoordinateX + 1)
    )
    with pytest.raises(InputError, match="0 of the 40 images"):
        unbinned(found, moved)
    rounded = target.table["rlnCoordinateX"] + np.random.default_rng(3).uniform(-4e-3, 4e-3, 40)
    near = replace(target, table=target.table.assign(rlnCoordinateX=rounded))
    assert join_rows(near, found).rows.tolist() == order.tolist()
    chance = target.table["rlnCoordinateX"].where(np.arange(40) < 19, -1.0)
    few = replace(target, table=target.table.assign(rlnCoordinateX=chance))
    with pytest.raises(InputError, match="0 of the 40 images"):
        unbinned(found, few, partial=True)
    nowhere = replace(target, table=target.table.drop(columns="rlnMicrographName"))
    with pytest.raises(InputError, match="0 of the 40 images"):
        unbinned(found, nowhere)


def test_half_sets_and_classes_go_along_to_a_cs_and_a_star(tmp_path: Path) -> None:
    records = np.load(cs(tmp_path))
    more = [("alignments3D/split", "u4"), ("alignments3D/class", "u4")]
    found = np.zeros(N, records.dtype.descr + more)
    for name in records.dtype.names:
        found[name] = records[name]
    split, kind = np.random.default_rng(5).integers(0, 2, (2, N))
    found["alignments3D/split"], found["alignments3D/class"] = split, kind
    np.save(tmp_path / "found.npy", found[::-1])
    (tmp_path / "found.npy").rename(tmp_path / "found.cs")
    stale = found.copy()
    stale["alignments3D/split"] = 1 - split
    with (tmp_path / "onto.cs").open("wb") as file:
        np.save(file, stale)
    refined = open_table(tmp_path / "found.cs")
    onto_cs = unbinned(refined, open_table(tmp_path / "onto.cs")).table
    assert onto_cs["alignments3D/split"].tolist() == split.tolist()
    assert onto_cs["alignments3D/class"].tolist() == kind.tolist()
    names = [f"{k + 1:06d}@J1/stack.mrcs" for k in range(N)]
    table = pd.DataFrame({"rlnImageName": names, "rlnOpticsGroup": 1})
    write_star(tmp_path / "onto.star", table, pd.DataFrame([{"rlnOpticsGroup": 1}]))
    onto_star = unbinned(refined, open_table(tmp_path / "onto.star")).table
    assert onto_star["rlnRandomSubset"].tolist() == (split + 1).tolist()
    assert onto_star["rlnClassNumber"].tolist() == (kind + 1).tolist()


def test_a_table_goes_to_no_folder_with_another_stack_of_the_same_name(tmp_path: Path) -> None:
    table = star(tmp_path / "job", rlnImageName=[f"{k + 1}@bin4.mrcs" for k in range(N)])
    for folder, side in (("job", 8), ("other", 6)):
        (tmp_path / folder).mkdir(exist_ok=True)
        write_mrcs(tmp_path / folder / "bin4.mrcs", np.ones((N, side, side)), 4.0)
    words = ["expand", str(table), "--symmetry", "C2", "-o"]
    refused = CliRunner().invoke(app, [*words, str(tmp_path / "other" / "out.star")])
    assert "other/bin4.mrcs is another file of this name" in str(refused.exception)
    assert not (tmp_path / "other" / "out.star").exists()
    done = CliRunner().invoke(app, [*words, str(tmp_path / "out.star")])
    assert done.exit_code == 0, done.output
    assert f"give --datadir {tmp_path / 'job'}\n" in done.stderr
    with pytest.raises(InputError, match="another file of this name"):
        flip_hand([table], tmp_path / "other")
    (tmp_path / "job" / "bin4.mrcs").rename(tmp_path / "gone.mrcs")
    done = CliRunner().invoke(app, [*words, str(tmp_path / "more.star")])
    assert done.exit_code == 0, done.output
    assert "give the folder where they start as --datadir" in done.stderr


# --- symmetry and hand ------------------------------------------------------------------------


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

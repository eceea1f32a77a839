"""Tables for other extractions of the same picks: recentred, unbinned, joined."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import starfile
from typer.testing import CliRunner

from modpose.cli import app
from modpose.data.joining import join_rows
from modpose.data.mrc import write_mrcs
from modpose.data.star import write_star
from modpose.errors import InputError
from modpose.jobs.hand import flip_hand
from modpose.jobs.positions import centres, open_table, recentred
from modpose.jobs.symmetry import mirrored_poses
from modpose.jobs.unbin import unbinned
from tests.jobs.table_files import (
    MICROGRAPH_PIXEL,
    N,
    cs,
    star,
)


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

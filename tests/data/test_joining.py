"""Poses, CTF, labels and selections are joined to the images by what identifies a row."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from modpose import PoseModel
from modpose.data.dataset import Dataset, dataset_of
from modpose.data.joining import join_rows
from modpose.data.labels import read_labels
from modpose.data.mrc import write_mrcs
from modpose.data.source import Source, open_source
from modpose.data.star import write_star
from modpose.data.tables import read_particles
from modpose.data.wedges import follow_order, open_wedges
from modpose.errors import InputError

N, SIDE, SIZE = 6, 8, 2.0
RNG = np.random.default_rng(0)
PSI = RNG.uniform(-180, 180, N)
SHIFT = RNG.uniform(-3, 3, (N, 2))
DEFOCUS = 10_000.0 + 100 * np.arange(N)
UID = RNG.integers(1, 2**64 - 1, N, dtype=np.uint64)
ORDER = np.array([3, 5, 0, 4, 1, 2])


@pytest.fixture(autouse=True)
def _notes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="modpose")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A stack of images, each of which is its number."""
    pixels = np.arange(N, dtype=np.float32)[:, None, None] + RNG.normal(0, 0.01, (N, SIDE, SIDE))
    write_mrcs(tmp_path / "s.mrcs", pixels.astype(np.float32), SIZE)
    return tmp_path


def star(
    path: Path,
    order: Any = ORDER,
    *,
    stack: str = "s.mrcs",
    size: float | None = SIZE,
    names: list[str] | None = None,
    **columns: Any,
) -> Path:
    """A refinement's STAR: angles, shifts in Å, defocus and class of the images at ``order``."""
    order = np.asarray(order)
    table = pd.DataFrame(
        {
            "rlnImageName": names or [f"{i + 1:06d}@{stack}" for i in order],
            "rlnAnglePsi": PSI[order],
            "rlnOriginXAngst": -SIZE * SHIFT[order, 0],
            "rlnOriginYAngst": -SIZE * SHIFT[order, 1],
            "rlnDefocusU": DEFOCUS[order],
            "rlnVoltage": 300.0,
            "rlnSphericalAberration": 2.7,
            "rlnAmplitudeContrast": 0.1,
            "rlnClassNumber": order + 1,
            "rlnOpticsGroup": 1,
        }
        | columns
    )
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnOpticsGroupName": ["a"]})
    if size is not None:
        optics["rlnImagePixelSize"] = size
    path.parent.mkdir(exist_ok=True, parents=True)
    write_star(path, table, optics, overwrite=True)
    return path


def cs(path: Path, order: Any = None, uid: Any = UID, **fields: Any) -> Path:
    """A table of cryoSPARC; fields by name with ``__`` for the slash."""
    order = np.arange(N) if order is None else np.asarray(order)
    columns = {"uid": None if uid is None else np.asarray(uid)[order]}
    columns |= {name.replace("__", "/"): np.asarray(v) for name, v in fields.items()}
    columns = {name: v for name, v in columns.items() if v is not None}
    types = [(name, v.dtype, v.shape[1:]) for name, v in columns.items()]
    records = np.zeros(len(order), types)
    for name, values in columns.items():
        records[name] = values
    with path.open("wb") as file:
        np.save(file, records)
    return path


def main_cs(path: Path, size: float | None = SIZE, **fields: Any) -> Path:
    blob: dict[str, Any] = {"blob__path": np.array([b"J5/extract/s.mrcs"] * N)}
    blob |= {"blob__idx": np.arange(N, dtype=np.uint32)}
    if size is not None:
        blob["blob__psize_A"] = np.full(N, size, np.float32)
    return cs(path, **blob, **fields)


def passthrough(path: Path, order: Any = ORDER, size: float | None = SIZE, **fields: Any) -> Path:
    """Poses and CTF without images, in another order."""
    psi = np.deg2rad(PSI[order])
    zero = np.zeros(len(order), np.float32)
    pose = np.stack([zero, zero, -psi], 1).astype(np.float32)
    ctf = {"accel_kv": 300, "cs_mm": 2.7, "amp_contrast": 0.1, "df_angle_rad": 0}
    found: dict[str, Any] = {f"ctf__{k}": np.full(len(order), v, "f4") for k, v in ctf.items()}
    found |= {"ctf__df1_A": DEFOCUS[order], "ctf__df2_A": DEFOCUS[order]}
    found |= {"alignments3D__pose": pose, "alignments3D__shift": -SHIFT[order].astype("f4")}
    if size is not None:
        found["alignments3D__psize_A"] = np.full(len(order), size, np.float32)
    return cs(path, order, **found, **fields)


def check(source: Source, rows: Any = None, scale: float = 1.0) -> None:
    """Every image has its own shift (pixels), and where there is a CTF its own defocus."""
    rows = np.arange(N) if rows is None else np.asarray(rows)
    pixels = source.stack.read(np.arange(source.n))[:, 0].mean(axis=(1, 2))
    np.testing.assert_array_equal(np.rint(pixels), rows)
    found = source.particles.poses(source.stack.pixel_size)
    assert found is not None
    np.testing.assert_allclose(found[1], scale * SHIFT[rows], atol=1e-5)
    angle = np.arctan2(found[0][:, 1, 0], found[0][:, 0, 0])
    np.testing.assert_allclose(
        np.abs(np.sin(angle)), np.abs(np.sin(np.deg2rad(PSI[rows]))), atol=1e-6
    )
    ctf = source.particles.ctf(source.stack.pixel_size)
    if ctf is not None:
        np.testing.assert_allclose(ctf[:, 1], DEFOCUS[rows])


# --- poses and CTF ----------------------------------------------------------------------------


@pytest.mark.parametrize("stack", ["s.mrcs", "Extract/job012/s.mrcs", "/old/project/s.mrcs"])
def test_a_stack_and_a_refinement_in_another_order(
    place: Path, stack: str, caplog: pytest.LogCaptureFixture
) -> None:
    table = star(place / "run_data.star", stack=stack)
    check(open_source(place / "s.mrcs", poses=table, ctf=table))
    assert "6 of the 6 images" in caplog.text and "by image number and stack" in caplog.text


def test_a_table_and_a_refinement_in_another_order(place: Path) -> None:
    table = star(place / "run_data.star", stack="/scratch/me/s.mrcs")
    check(open_source(star(place / "p.star", np.arange(N)), poses=table, ctf=table))


def test_cryosparc_and_its_passthrough_in_another_order(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = passthrough(place / "pass.cs")
    source = open_source(main_cs(place / "main.cs"), poses=table, ctf=table)
    check(source)
    assert "by the uid of cryoSPARC" in caplog.text
    check(open_source(place / "main.cs", poses=star(place / "r.star", stack="extract/s.mrcs")))


def test_two_sides_that_name_images_in_two_ways_are_refused(place: Path) -> None:
    with pytest.raises(InputError, match=r"rows have the uid of cryoSPARC, those of"):
        open_source(place / "s.mrcs", poses=passthrough(place / "pass.cs"))


def test_images_without_a_row_need_leave(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = star(place / "r.star", [4, 1, 2])
    with pytest.raises(InputError, match=r"3 of the 6 images .* row 1 is not.*--partial"):
        open_source(place / "s.mrcs", poses=table)
    source = open_source(place / "s.mrcs", poses=table, partial=True)
    check(source, [1, 2, 4])
    assert source.selection is not None and source.selection.tolist() == [1, 2, 4]
    assert "only these are used" in caplog.text
    check(open_source(place / "s.mrcs", poses=table, index=np.array([4, 2])), [4, 2])
    check(open_source(place / "s.mrcs", poses=table, index=np.array([5, 4]), partial=True), [4])
    with pytest.raises(InputError, match="0 of the 2 images"):
        open_source(place / "s.mrcs", poses=table, index=np.array([0, 3]), partial=True)


def test_a_table_of_more_images_is_no_part(place: Path) -> None:
    source = open_source(star(place / "p.star", [5, 0]), poses=star(place / "r.star"))
    check(source, [5, 0])


def test_repeated_rows_are_refused_and_expanded_sets_joined_by_occurrence(place: Path) -> None:
    twice = np.concatenate([ORDER, ORDER[::-1]])
    turned = np.concatenate([np.zeros(N), np.ones(N)])
    table = star(place / "r.star", twice, rlnAngleTilt=turned)
    with pytest.raises(InputError, match="is in 2 rows, but in 1 of"):
        open_source(place / "s.mrcs", poses=table)
    source = open_source(star(place / "p.star", np.tile(np.arange(N), 2)), poses=table)
    check(source, np.tile(np.arange(N), 2))
    found = source.particles.poses()
    assert found is not None
    np.testing.assert_allclose(found[0][:N, 2, 2], 1.0)
    np.testing.assert_allclose(found[0][N:, 2, 2], np.cos(np.deg2rad(1.0)))
    once = star(place / "once.star")
    ctf = open_source(place / "p.star", ctf=once).particles.ctf()  # of the image, not of its copy
    assert ctf is not None
    np.testing.assert_allclose(ctf[:, 1], np.tile(DEFOCUS, 2))


def test_another_stack_is_refused_unless_the_order_is_sure(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InputError, match=r"it is of the stack other.mrcs, not of"):
        open_source(place / "s.mrcs", poses=star(place / "r.star", stack="other.mrcs"))
    in_order = star(place / "o.star", np.arange(N), stack="other.mrcs")
    check(open_source(place / "s.mrcs", poses=in_order))
    assert "in the order of the images" in caplog.text
    write_mrcs(place / "other.mrcs", np.zeros((N, SIDE, SIDE), np.float32), SIZE)
    (place / "job").mkdir()
    write_mrcs(place / "job/s.mrcs", np.zeros((N, SIDE, SIDE), np.float32), SIZE)
    with pytest.raises(InputError, match=r"it is of the stack job/s.mrcs, not of"):
        open_source(place / "s.mrcs", poses=star(place / "r.star", stack="job/s.mrcs"))
    for job in ("job012", "job034"):
        (place / job).mkdir()
        (place / job / "s.mrcs").write_bytes((place / "s.mrcs").read_bytes())
    of_other_job = star(place / "r.star", stack="job034/s.mrcs")
    check(open_source(place / "job012/s.mrcs", poses=of_other_job))  # a copy
    (place / "job034/s.mrcs").unlink()
    with pytest.raises(InputError, match="not of"):
        open_source(place / "job012/s.mrcs", poses=of_other_job)
    more = star(place / "r.star", names=[f"{i + 2}@s.mrcs" for i in ORDER])
    with pytest.raises(InputError, match=r"it names image 7 of s\.mrcs, but .* has 6 images"):
        open_source(place / "s.mrcs", poses=more)


def test_arrays_are_paired_in_order_and_it_is_said(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pixels = open_source(place / "s.mrcs").stack.read(np.arange(N))[:, 0]
    check(open_source(pixels, poses=star(place / "r.star", np.arange(N))))
    assert "does not name the images" in caplog.text
    with pytest.raises(InputError, match="number of rows is 5, expected 6"):
        open_source(pixels, poses=star(place / "r.star", np.arange(5)))


# --- units ------------------------------------------------------------------------------------


def test_the_file_that_holds_a_shift_says_its_pixels(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Aligned at 4 Å per pixel, the images have 2: shifts are twice as many pixels."""
    table = passthrough(place / "pass.cs", size=2 * SIZE)
    check(open_source(main_cs(place / "main.cs"), poses=table), scale=2.0)
    assert "its pixels have 4 Å and those of the images 2 Å" in caplog.text
    no_size = passthrough(place / "pass.cs", size=None)
    check(open_source(place / "main.cs", poses=no_size))
    assert "taken to be in pixels of the images, 2 Å each" in caplog.text
    binned = passthrough(place / "pass.cs", size=None, blob__psize_A=np.full(N, SIZE / 2, "f4"))
    check(open_source(place / "main.cs", poses=binned), scale=0.5)
    check(open_source(place / "s.mrcs", poses=star(place / "r.star", size=2 * SIZE)))


def test_shifts_of_relion_in_pixels_are_those_of_their_own_file(place: Path) -> None:
    origins = {"rlnOriginX": -SHIFT[ORDER, 0], "rlnOriginY": -SHIFT[ORDER, 1]}
    path = star(place / "r.star", size=3 * SIZE, **origins)
    text = path.read_text()
    path.write_text(
        text.replace("rlnOriginXAngst", "rlnOldX").replace("rlnOriginYAngst", "rlnOldY")
    )
    check(open_source(place / "s.mrcs", poses=path), scale=3.0)


def test_the_ctf_is_that_of_the_images_pixels(place: Path) -> None:
    table = star(place / "r.star", size=2 * SIZE)
    ctf = open_source(place / "s.mrcs", ctf=table).particles.ctf()
    assert ctf is not None
    np.testing.assert_allclose(ctf[:, 0], SIZE)


def test_one_angstrom_of_a_header_is_no_pixel_size_against_a_table(place: Path) -> None:
    write_mrcs(place / "s.mrcs", np.zeros((N, SIDE, SIDE), np.float32), 1.0, overwrite=True)
    with pytest.raises(InputError, match="header says 1 Å per pixel"):
        open_source(place / "s.mrcs", poses=star(place / "r.star"))


# --- selections -------------------------------------------------------------------------------


def picked(source: Source) -> list[int]:
    return np.rint(source.stack.read(np.arange(source.n))[:, 0].mean(axis=(1, 2))).tolist()


def test_a_table_selects_its_own_images(place: Path) -> None:
    shuffled = star(place / "p.star", ORDER)
    part = star(place / "sub.star", [4, 0, 5], stack="/elsewhere/s.mrcs")
    assert picked(open_source(shuffled, index=part)) == [4, 0, 5]
    assert picked(open_source(place / "s.mrcs", index=part)) == [4, 0, 5]
    (place / "sub.csv").write_text("image,score\n3@s.mrcs,0.1\n1@s.mrcs,0.2\n")
    assert picked(open_source(shuffled, index=place / "sub.csv")) == [2, 0]
    far = star(place / "far.star", [4, 0], names=["5@s.mrcs", "99@s.mrcs"])
    with pytest.raises(InputError, match="1 of the 2 rows"):
        open_source(shuffled, index=far)
    assert picked(open_source(shuffled, index=far, partial=True)) == [4]


def test_uids_select(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    (place / "J5/extract").mkdir(parents=True)
    (place / "s.mrcs").rename(place / "J5/extract/s.mrcs")
    source = main_cs(place / "main.cs")
    assert picked(open_source(source, index=UID[[4, 1]])) == [4, 1]
    (place / "uid.txt").write_text("\n".join(map(str, UID[[5, 0]].tolist())))
    assert picked(open_source(source, index=place / "uid.txt")) == [5, 0]
    assert "its numbers are uids" in caplog.text
    assert picked(open_source(source, index=cs(place / "sub.cs", [2, 1]))) == [2, 1]
    with pytest.raises(InputError, match="a row number is"):
        open_source(source, index=np.array([UID[0], 1], np.uint64))


def test_numbers_and_masks(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    mask = np.arange(N) % 2 == 1
    assert picked(open_source(place / "s.mrcs", index=mask)) == [1, 3, 5]
    with pytest.raises(InputError, match="length of the mask is 7, expected 6"):
        open_source(place / "s.mrcs", index=np.append(mask, True))
    assert picked(open_source(place / "s.mrcs", index=np.array([2, 2, 0]))) == [2, 2, 0]
    assert "1 of its 3 rows are repeats" in caplog.text
    (place / "i.txt").write_text("99999999999999999999999\n")
    for index in (place / "i.txt", np.array([-1]), np.array([6]), np.array([0.0])):
        with pytest.raises(InputError):
            open_source(place / "s.mrcs", index=index)


# --- labels -----------------------------------------------------------------------------------


def test_labels_of_a_table_are_joined(place: Path) -> None:
    table = star(place / "r.star")
    source = open_source(star(place / "p.star", np.arange(N)[::-1]))
    expected = np.arange(N)[::-1] + 1
    np.testing.assert_array_equal(read_labels(f"{table}:rlnClassNumber", source), expected)
    kept = open_source(place / "p.star", index=np.array([4, 0]))
    np.testing.assert_array_equal(read_labels(f"{table}:rlnClassNumber", kept), expected[[4, 0]])
    with pytest.raises(InputError, match="no column of labels is given"):
        read_labels(table, source)
    rows = "\n".join(f"{i + 1}@s.mrcs,c{i}" for i in ORDER)
    (place / "c.csv").write_text(f"image,kind\n{rows}\n")
    for name in ("c.csv", "c.csv:kind"):
        found = read_labels(str(place / name), open_source(place / "s.mrcs"))
        assert found.tolist() == [f"c{i}" for i in range(N)]


def test_labels_of_some_images(place: Path) -> None:
    table = f"{star(place / 'r.star', [4, 1])}:rlnClassNumber"
    source = open_source(place / "s.mrcs")
    with pytest.raises(InputError, match="with --partial the others have no label"):
        read_labels(table, source)
    assert read_labels(table, source, partial=True).tolist() == [-1, 2, -1, -1, 5, -1]


def test_labels_in_order_are_of_the_input_or_of_its_selection(place: Path) -> None:
    kept = open_source(place / "s.mrcs", index=np.array([4, 2]))
    (place / "all.txt").write_text("a b c d e f")
    assert read_labels(place / "all.txt", kept).tolist() == ["e", "c"]
    assert read_labels(["x", "y"], kept).tolist() == ["x", "y"]
    with pytest.raises(InputError, match=r"\(2,\) or \(6,\)"):
        read_labels(["x", "y", "z"], kept)


# --- the same arguments from Python -----------------------------------------------------------


def test_the_model_takes_what_the_command_line_takes(place: Path) -> None:
    """A wedge, and poses of some of the images, reach the data that a model is fitted to."""
    options = {"model": {"encoder": {"hidden": 4}}, "train": {"epochs": 1}}
    model = PoseModel("vae", z_dim=1, options=options, quiet=True)
    table = star(place / "r.star", [4, 1, 2])
    model.fit(place / "s.mrcs", poses=table, labels=f"{table}:rlnClassNumber", partial=True)
    assert model.environment["n"] == 3
    assert model.environment["labels"] == [2, 3, 5]
    with pytest.raises(InputError, match="expected them in open_source"):
        model.fit(open_source(place / "s.mrcs"), poses=table)
    with pytest.raises(InputError, match="volumes, because a wedge is given"):
        open_source(place / "s.mrcs", wedge=(-60, 60))
    volumes = open_source(np.zeros((2, 8, 8, 8), np.float32), wedge=(-60, 60))
    with pytest.raises(InputError, match=r"model\.wedge is off"):
        dataset_of(volumes, model.config)


@pytest.mark.parametrize("form", ["tuple", "text", "masks", "file"])
def test_a_wedge_that_is_given_with_the_volumes(tmp_path: Path, form: str) -> None:
    volumes = RNG.normal(size=(4, 8, 8, 8)).astype(np.float32)
    masks = np.zeros((4, 8, 8, 8), np.float32)
    masks[:, 4, 4, 4] = 1
    masks[np.arange(4), 4, 4, 5 - np.arange(4)] = 1  # each its own
    np.save(tmp_path / "m.npy", masks)
    given: dict[str, Any] = {
        "tuple": (-50, 50),
        "text": "-50,50",
        "masks": masks,
        "file": tmp_path / "m.npy",
    }
    source = open_source(volumes, wedge=given[form], index=np.array([2, 0]))
    config = PoseModel("vae")._resolve(source, 0)
    expected = {"tuple": "-50,50", "text": "-50,50", "masks": "auto", "file": str(given["file"])}
    assert config.model.wedge == expected[form]
    wedges = Dataset(source, config.data, seed=0, wedge=config.model.wedge).wedges
    assert wedges is not None
    if form in ("tuple", "text"):
        np.testing.assert_array_equal(wedges.tilt_range, [[-50, 50]] * 2)
        return
    both = open_wedges(open_source(volumes), masks)
    assert both is not None
    np.testing.assert_array_equal(wedges.read(np.arange(2)), both.read(np.array([2, 0])))


# --- what identifies nothing ------------------------------------------------------------------


def test_uids_that_tell_nothing_apart_are_no_leave_to_pair_in_order(place: Path) -> None:
    main = main_cs(place / "main.cs")
    for uid in (UID.astype(np.float64), np.zeros(N, np.uint64), UID.astype("S20")):
        table = passthrough(place / "pass.cs", uid=uid)
        with pytest.raises(InputError, match="its uids are all the same, or no whole numbers"):
            open_source(main, poses=table)
    small = np.arange(N, dtype=np.float64) + 1  # exact as float64, whatever the order
    main = main_cs(place / "small.cs", uid=small.astype(np.int64))
    check(open_source(main, poses=passthrough(place / "pass.cs", uid=small)))


def test_a_table_without_names_is_taken_in_order(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = passthrough(place / "pass.cs", np.arange(N), uid=None)
    check(open_source(main_cs(place / "main.cs"), poses=table))
    assert "does not name the images" in caplog.text


def test_an_array_and_a_table_of_its_stack_in_another_order_are_refused(place: Path) -> None:
    pixels = open_source(place / "s.mrcs").stack.read(np.arange(N))[:, 0]
    with pytest.raises(InputError, match=r"it is of the stack s\.mrcs, not of array"):
        open_source(pixels, poses=star(place / "r.star"))


def picked_at(x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    return {"rlnMicrographName": "m.mrc", "rlnCoordinateX": x, "rlnCoordinateY": y}


@pytest.mark.parametrize("bare", [False, True])
def test_images_of_one_name_and_other_picks_are_refused(place: Path, bare: bool) -> None:
    """Two jobs number their images alike: names agree, coordinates tell that the picks do not."""
    names = ["s.mrcs"] * N if bare else None
    x, y = RNG.uniform(0, 4000, (2, N))
    one = star(place / "one.star", range(N), names=names, **picked_at(x, y))
    images, poses = (read_particles(one), read_particles(one))
    assert join_rows(images, poses).rows.tolist() == list(range(N))
    centred = star(place / "b.star", range(N), names=names, **picked_at(x + 20, y - 20))
    assert join_rows(images, read_particles(centred)).rows.tolist() == list(range(N))
    moved = star(place / "c.star", range(N), names=names, **picked_at(x[ORDER], y[ORDER]))
    joined = join_rows(images, read_particles(moved))
    assert joined.by == "place in the micrograph"
    assert joined.rows.tolist() == np.argsort(ORDER).tolist()
    others = star(
        place / "d.star", range(N), names=names, **picked_at(*RNG.uniform(0, 4000, (2, N)))
    )
    with pytest.raises(InputError, match=r"d\.star: compared by .* it is of other picks"):
        join_rows(images, read_particles(others))


def test_two_sessions_with_the_same_file_names(place: Path) -> None:
    table = star(place / "p.star", np.arange(N), stack=f"{place}/s.mrcs")
    for stack in ("/data2/session2/s.mrcs", "/data2/session2/Movies/s.mrcs"):
        with pytest.raises(InputError, match="0 of the 6 images"):
            open_source(table, poses=star(place / "r.star", stack=stack))


def test_a_stack_is_found_among_several_of_its_name(place: Path) -> None:
    """Six rows for six images, but of two stacks: half of the images have no row."""
    for grid, base in (("gridA", 0), ("gridB", 100)):
        (place / grid).mkdir()
        pixels = np.full((N, SIDE, SIDE), base, np.float32)
        pixels += np.arange(N, dtype=np.float32)[:, None, None]
        write_mrcs(place / grid / "m.mrcs", pixels, SIZE)
    names = [f"{i + 1}@{grid}/m.mrcs" for grid in ("gridB", "gridA") for i in (2, 0, 1)]
    table = star(place / "r.star", [5, 5, 5, 2, 0, 1], names=names)
    with pytest.raises(InputError, match="3 of the 6 images"):
        open_source(place / "gridA/m.mrcs", poses=table)
    check(open_source(place / "gridA/m.mrcs", poses=table, partial=True), [0, 1, 2])
    other = star(place / "b.star", [0, 3], stack="gridB/m.mrcs")
    with pytest.raises(InputError, match=r"of the stack gridB/m\.mrcs, not of"):
        open_source(place / "gridA/m.mrcs", index=other)
    several = star(place / "q.star", names=[f"{i + 1}@{i}.mrcs" for i in ORDER])
    with pytest.raises(InputError, match="and 5 more, not of"):
        open_source(place / "s.mrcs", poses=several)
    (place / "gridB/m.mrcs").write_bytes((place / "gridA/m.mrcs").read_bytes())
    with pytest.raises(InputError, match="by their bytes"):
        open_source(place / "gridA/m.mrcs", poses=table, partial=True)


def test_masks_in_a_file_follow_the_order_of_the_input(tmp_path: Path) -> None:
    """A run that has them refuses a table whose rows were put in another order."""
    np.save(tmp_path / "all.npy", np.ones((3, 8, 8, 8), np.float32))
    np.save(tmp_path / "one.npy", np.ones((1, 8, 8, 8), np.float32))
    assert follow_order(str(tmp_path / "all.npy"))
    for asked in ("off", "auto", "-60,60", str(tmp_path / "one.npy"), str(tmp_path / "gone.npy")):
        assert not follow_order(asked)

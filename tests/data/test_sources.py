"""Sources: path resolution, selections, refusals; and what inspect says of each file."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from modpose.data.inspect import describe
from modpose.data.mrc import write_mrcs
from modpose.data.source import open_source
from modpose.data.stack import ArrayStack
from modpose.data.star import write_star
from modpose.errors import InputError


def pictures(n: int = 5, side: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, side, side)).astype(np.float32)


def everything(source) -> np.ndarray:
    return source.stack.read(np.arange(source.n))


def table(path, names, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_star(path, pd.DataFrame({"rlnImageName": names, **columns}), overwrite=True)
    return path


# --- tables and the images that they name -----------------------------------------------------


def test_rows_from_several_stacks_keep_the_order_of_the_table(tmp_path):
    a, b = pictures(seed=1), pictures(seed=2)
    write_mrcs(tmp_path / "a.mrcs", a, 2.0)
    write_mrcs(tmp_path / "b.mrcs", b, 2.0)
    names = ["000003@b.mrcs", "1@a.mrcs", "000005@b.mrcs", "3@b.mrcs"]
    source = open_source(table(tmp_path / "p.star", names))
    np.testing.assert_array_equal(everything(source)[:, 0], np.stack([b[2], a[0], b[4], b[2]]))
    assert source.particles.column("rlnImageName").tolist() == names
    assert source.pixel_size == pytest.approx(2.0)
    assert source.stack.where(2) == f"{tmp_path}/b.mrcs, image 5"


@pytest.mark.parametrize(
    ("where", "given"),
    [
        ("project/Refine/job1/Extract/s.mrcs", None),  # beside the table
        ("project/Extract/s.mrcs", None),  # relative to the project
        ("elsewhere/Extract/s.mrcs", "elsewhere"),  # --datadir
        ("elsewhere/s.mrcs", "elsewhere"),  # --datadir, bare name
    ],
)
def test_where_images_are_looked_for(tmp_path, caplog, where, given):
    (tmp_path / where).parent.mkdir(parents=True)
    write_mrcs(tmp_path / where, pictures(), 1.0)
    path = table(tmp_path / "project/Refine/job1/p.star", ["1@Extract/s.mrcs"])
    source = open_source(path, datadir=None if given is None else tmp_path / given)
    np.testing.assert_array_equal(everything(source)[:, 0], pictures()[:1])
    assert bool(caplog.records) == (where == "elsewhere/s.mrcs")  # a guess is said


def test_the_bare_name_beside_the_table_is_the_last_resort_and_it_is_said(tmp_path, caplog):
    write_mrcs(tmp_path / "s.mrcs", pictures(), 1.0)
    with caplog.at_level(logging.WARNING, logger="modpose"):
        open_source(table(tmp_path / "p.star", ["1@/gone/Extract/s.mrcs"]))
    assert "/gone/Extract/s.mrcs is read from" in caplog.text


def test_datadir_comes_before_the_table(tmp_path):
    write_mrcs(tmp_path / "s.mrcs", pictures(seed=1), 1.0)
    (tmp_path / "d").mkdir()
    write_mrcs(tmp_path / "d/s.mrcs", pictures(seed=2), 1.0)
    source = open_source(table(tmp_path / "p.star", ["1@s.mrcs"]), datadir=tmp_path / "d")
    np.testing.assert_array_equal(everything(source)[0, 0], pictures(seed=2)[0])


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (
            ["1@gone.mrcs", "1@lost.mrcs"],
            "2 of 2 image files cannot be found .*: gone.mrcs, lost",
        ),
        (["1@a.mrcs", "6@a.mrcs"], r"row 2 asks for image 6 of .*a.mrcs, which holds 5"),
        (["0@a.mrcs"], r"rlnImageName in row 1 is '0@a.mrcs', expected image numbers from 1"),
        (["1@a.mrcs", "1@b.mrcs"], r"the box is 8x8 in .*a.mrcs and 9x9 in .*b.mrcs"),
        (["a.mrcs"], r"a.mrcs is named without an image number but holds 5 images"),
    ],
)
def test_tables_whose_images_cannot_be_used(tmp_path, names, sentence):
    write_mrcs(tmp_path / "a.mrcs", pictures(), 1.0)
    write_mrcs(tmp_path / "b.mrcs", pictures(side=9), 1.0)
    with pytest.raises(InputError, match=sentence):
        open_source(table(tmp_path / "p.star", names))


def test_a_pixel_size_of_zero_in_the_table_is_refused(tmp_path):
    write_mrcs(tmp_path / "a.mrcs", pictures(), 1.0)
    with pytest.raises(InputError, match="rlnImagePixelSize in row 1 is 0, expected a positive"):
        open_source(table(tmp_path / "p.star", ["1@a.mrcs"], rlnImagePixelSize=[0.0]))


def test_subtomograms_are_whole_files(tmp_path):
    volumes = np.stack([pictures(8, seed=1), pictures(8, seed=2)])
    for i, volume in enumerate(volumes):
        write_mrcs(tmp_path / f"{i}.mrc", volume[None], 4.0)
    source = open_source(table(tmp_path / "p.star", ["1.mrc", "0.mrc"], rlnAnglePsi=[0.0, 0.0]))
    assert source.stack.shape == (8, 8, 8)
    np.testing.assert_array_equal(everything(source)[:, 0], volumes[::-1])


def test_a_cryosparc_table(tmp_path):
    (tmp_path / "J1").mkdir()
    write_mrcs(tmp_path / "J1/a.mrc", pictures(), 1.0)
    records = np.zeros(2, dtype=[("blob/path", "S20"), ("blob/idx", "u4"), ("blob/psize_A", "f4")])
    records["blob/path"], records["blob/idx"], records["blob/psize_A"] = b">J1/a.mrc", [4, 1], 1.5
    with (tmp_path / "p.cs").open("wb") as file:
        np.save(file, records)
    source = open_source(tmp_path / "p.cs")
    np.testing.assert_array_equal(everything(source)[:, 0], pictures()[[4, 1]])
    assert source.pixel_size == 1.5
    assert source.particles.format == "cs"


def test_a_csv_that_names_pictures(tmp_path):
    for value in (1, 2):
        Image.fromarray(np.full((4, 4), value, np.uint8)).save(tmp_path / f"{value}.png")
    (tmp_path / "t.csv").write_text("image,label\n2.png,cat\n1.png,dog\n")
    source = open_source(tmp_path / "t.csv")
    assert everything(source)[:, 0, 0, 0].tolist() == [2, 1]
    assert source.particles.column("label").tolist() == ["cat", "dog"]
    (tmp_path / "t.csv").write_text("photo,label\n2.png,cat\n")
    with pytest.raises(InputError, match="there is no column 'image'"):
        open_source(tmp_path / "t.csv")


# --- arrays, selections -----------------------------------------------------------------------


def test_arrays_tensors_and_stacks():
    array = pictures()
    for given in (array, torch.from_numpy(array).requires_grad_(), ArrayStack(array)):
        source = open_source(given)
        np.testing.assert_array_equal(everything(source)[:, 0], array)
        assert (source.particles.n, source.particles.format, source.path) == (5, "none", None)
    with pytest.raises(InputError, match="its type is list"):
        open_source([1, 2])


def test_files_of_other_kinds_are_refused(tmp_path):
    (tmp_path / "a.xyz").touch()
    with pytest.raises(InputError, match=r"extension is '\.xyz', expected one of ali ccp4 cs csg"):
        open_source(tmp_path / "a.xyz")


@pytest.mark.parametrize("suffix", [".npy", ".txt", ".csv"])
def test_selections_are_remembered_and_compose(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    if suffix == ".npy":
        np.save(path, np.array([4, 0, 3]))
    else:
        path.write_text("row\n4\n0\n3\n" if suffix == ".csv" else "4 0\n3\n")
    source = open_source(pictures(), index=path)
    np.testing.assert_array_equal(everything(source)[:, 0], pictures()[[4, 0, 3]])
    assert source.selection.tolist() == [4, 0, 3]
    again = source.subset(np.array([2, 0]))
    np.testing.assert_array_equal(everything(again)[:, 0], pictures()[[3, 4]])
    assert again.selection.tolist() == [3, 4]


def test_a_mask_selects():
    source = open_source(pictures(), index=np.array([True, False, False, True, False]))
    assert source.selection.tolist() == [0, 3]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (np.array([0, 5]), "index: a row number is 5, expected 0 to 4"),
        (np.array([-1]), "index: a row number is -1, expected 0 to 4"),
        (np.array([0.5]), "the index is float64 of shape"),
        (np.array([], dtype=int), "the number of rows is 0"),
        (np.zeros((2, 2), dtype=int), "int64 of shape"),
    ],
)
def test_selections_that_cannot_be_used(rows, sentence):
    with pytest.raises(InputError, match=sentence):
        open_source(pictures(), index=rows)


def test_index_files_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match="no such index file"):
        open_source(pictures(), index=tmp_path / "none.txt")
    (tmp_path / "a.txt").write_text("0 1 two")
    with pytest.raises(InputError, match=r"a\.txt: an entry is 'two', expected a row number"):
        open_source(pictures(), index=tmp_path / "a.txt")
    (tmp_path / "a.txt").write_text("0 7")
    with pytest.raises(InputError, match=r"a\.txt: a row number is 7, expected 0 to 4"):
        open_source(pictures(), index=tmp_path / "a.txt")
    (tmp_path / "a.npy").write_bytes(b"")
    with pytest.raises(InputError, match="not readable as NPY"):
        open_source(pictures(), index=tmp_path / "a.npy")


# --- describe ---------------------------------------------------------------------------------


def test_describe_names_what_is_there_and_what_is_missing(tmp_path):
    path = table(
        tmp_path / "p.star",
        ["1@gone.mrcs", "2@gone.mrcs"],
        rlnAnglePsi=[1.0, 2.0],
        rlnDefocusU=[1e4, 1e4],
        rlnImagePixelSize=[1.5, 1.5],
        modposeTruthHinge=[1.0, 2.0],
    )
    found = describe(path)
    assert found.facts["particles"] == "2"
    assert found.facts["pixel size"] == "1.5 A"
    assert found.facts["poses"] == "in-plane angles, no shifts"
    assert found.facts["CTF"] == "incomplete"
    assert found.facts["image files"] == "1, 1 of them not found"
    assert found.facts["simulated truth"] == "hinge_deg"
    assert any("1 of 1 image files cannot be found" in p for p in found.problems)
    assert any("rlnVoltage" in p for p in found.problems)
    assert "RELION table of particles" in str(found)


def test_describe_folders_archives_and_stacks(tmp_path):
    (tmp_path / "f").mkdir()
    (tmp_path / "maps").mkdir()
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "f/a.png")
    assert describe(tmp_path / "f").facts["box"] == "4 x 6 px"
    write_mrcs(tmp_path / "maps/1.mrc", np.ones((1, 4, 4, 4), np.float32), 2.0)
    write_mrcs(tmp_path / "maps/2.mrc", np.ones((1, 4, 4, 4), np.float32), 3.0)
    each = ["1 volume of 4 x 4 x 4 px, pixel size 2 A", "1 volume of 4 x 4 x 4 px, pixel size 3 A"]
    found = describe(tmp_path / "maps")
    assert [found.facts[name] for name in ("volumes", "1.mrc", "2.mrc")] == ["2", *each]
    write_mrcs(tmp_path / "maps/10.mrc", np.ones((1, 6, 6, 6), np.float32), 3.0)
    found = describe(tmp_path / "maps")  # no input of a fit, but each of its maps is described
    assert list(found.facts)[:2] == ["1.mrc", "2.mrc"] and len(found.facts) == 3
    assert found.facts["10.mrc"].startswith("1 volume of 6 x 6 x 6 px")
    assert "expected one box size throughout" in found.problems[0]
    np.savez(tmp_path / "a.npz", images=pictures(), labels=np.arange(5))
    assert describe(tmp_path / "a.npz").facts["images"] == "float32 5 x 8 x 8"
    assert describe(f"{tmp_path}/a.npz:images").kind == "a stack of images"
    write_mrcs(tmp_path / "a.mrcs", pictures(1), None)
    one = describe(tmp_path / "a.mrcs")
    assert (one.kind, one.facts["pixel size"]) == ("an image", "unknown")


# --- other programs' files, and small ones of their kinds --------------------------------------

MALFORMED = (
    "mrc/malformed_header_only.mrc",
    "mrc/malformed_mode_mismatch.mrc",
    "star/malformed_duplicate_tag.star",
    "star/malformed_extra_field.star",
)


def test_malformed_files_are_refused_in_one_sentence(some_data):
    for name in MALFORMED:
        for reader in (describe, open_source):
            with pytest.raises(InputError) as caught:
                reader(some_data / name)
            assert name in str(caught.value)
            assert "\n" not in str(caught.value)


def refused(path) -> str:
    """Say why open_source refuses a file; empty where it does not."""
    try:
        open_source(path)
    except InputError as error:
        return str(error)
    return ""


def test_every_other_table_and_map_is_described(some_data):
    paths = [
        p
        for f in ("star", "cs", "mrc", "spa", "spa_sim", "tomo")
        for p in sorted((some_data / f).glob("*"))
        if p.is_file() and p.suffix != ".pkl" and not p.name.startswith("malformed")
    ]
    assert len(paths) >= 20
    for path in paths:
        found = describe(path)
        assert found.kind
        assert found.facts, path
        refusal = refused(path)
        fatal = [p for p in found.problems if "data.crop" not in p]  # cropping mends oblong maps
        assert bool(refusal) == bool(fatal), (path, refusal, fatal)
        assert "\n" not in refusal
        assert not refusal or str(path) in refusal


KINDS = {
    "star/relion30_particles.star": "a RELION table of particles (as of version 3.0 or earl",
    "star/relion31_particles.star": "a RELION table of particles (as of version 3.1 or later",
    "star/relion5_particles.star": "a RELION table of particles",
    "star/cylindra_relion5_Refine3D_data.star": "a RELION table of subtomograms",
    "cs/cryosparc_P12_J24_001_particles.cs": "a cryoSPARC table",
    "star/relion_model.star": "a RELION model",
    "star/relion_job.star": "the options of a RELION job",
    "star/relion_mtf_k2_300kV.star": "the MTF curve",
    "star/cryocat_relion5_run_tomograms.star": "a RELION list of tomograms",
    "star/cryocat_relion5_TS_01_tilt.star": "a RELION tilt series",
    "star/cylindra_relion5_optimisation_set.star": "a RELION optimisation set",
    "star/edge_run_it025_sampling_3D.star": "a RELION angular sampling",
    "star/edge_postprocess.star": "a RELION post-processing result",
    "star/portal_stopgap.star": "a STOPGAP motive list",
    "tomo/warptools_test_4-tomos_10-ptcls_box-32_angpix-12.star": (
        "subtomograms as 2-D tilt-series stacks"
    ),
}


def test_what_files_of_other_programs_are(some_data):
    found = {name: describe(some_data / name) for name in KINDS}
    for name, kind in KINDS.items():
        assert found[name].kind.startswith(kind), name
    facts = {name: one.facts for name, one in found.items()}
    assert facts["star/relion30_particles.star"]["pixel size"] == "1.338 A"
    assert facts["star/relion31_particles.star"]["optics groups"] == "2"
    assert facts["star/relion31_particles.star"]["pixel size"] == "1.4 A"
    assert facts["star/relion5_particles.star"]["pixel size"] == "0.89 A"
    assert facts["star/cylindra_relion5_Refine3D_data.star"]["pixel size"] == "12.42 A"
    tilts = facts["tomo/warptools_test_4-tomos_10-ptcls_box-32_angpix-12.star"]
    assert (tilts["particles"], tilts["pixel size"]) == ("40", "12 A")


def test_particles_are_opened(some_data):
    source = open_source(some_data / "spa/apoferritin_empiar10146_64.star")
    assert (source.n, source.stack.shape, source.pixel_size) == (1367, (64, 64), 3.0)


@pytest.mark.shared
def test_real_tilt_series_are_opened_as_volumes(shared_data):
    name = "tomo/warptools_test_4-tomos_10-ptcls_box-32_angpix-12.star"
    source = open_source(shared_data / name)
    assert (source.n, source.stack.shape, source.pixel_size) == (40, (32, 32, 32), 12.0)
    assert np.isfinite(source.stack.read(np.array([3]))).all()


@pytest.mark.shared
def test_particles_of_two_stacks(shared_data):
    both = open_source(shared_data / "spa_sim/10076_DE/10076_both_32_sim.star")
    assert both.stack.where(576).endswith("10076_classE_32_sim.mrcs, image 1")

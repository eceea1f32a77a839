"""Several inputs as one; files that only other rows name; cryoSPARC groups; lists of files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import starfile
from numpy.typing import NDArray

from modpose.config import DataConfig
from modpose.data.cryosparc import write_cs_records
from modpose.data.dataset import Dataset
from modpose.data.fresh_table import fresh_particles, has_image_names, image_names
from modpose.data.mrc import write_mrcs
from modpose.data.optics import image_sign
from modpose.data.source import open_source
from modpose.data.star import write_star
from modpose.errors import InputError
from modpose.search.files import table_of_images

BOX = 8


def stack(path: Path, n: int, start: int = 0) -> NDArray[np.float32]:
    """Write images whose pixels all are ``start``, ``start + 1``, ..."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = np.full((n, BOX, BOX), 0, np.float32) + np.arange(start, start + n)[:, None, None]
    write_mrcs(path, images, 2.0)
    return images


def star(path: Path, names: list[str], voltage: float | None = 300.0, **columns: Any) -> Path:
    optics = None
    table = pd.DataFrame({"rlnImageName": names, **columns})
    if voltage is not None:
        optics = pd.DataFrame(
            {"rlnOpticsGroup": [1], "rlnVoltage": [voltage], "rlnImagePixelSize": [2.0]}
        )
        table["rlnOpticsGroup"] = 1
    path.parent.mkdir(parents=True, exist_ok=True)
    write_star(path, table, optics)
    return path


def seen(source: Any) -> list[float]:
    images: NDArray[np.float32] = source.stack.read(np.arange(source.n))
    return [float(image.flat[0]) for image in images]


# --- rows are chosen before files are looked for -------------------------------------------------


def test_files_of_rows_that_are_left_out_may_be_missing(tmp_path: Path) -> None:
    stack(tmp_path / "a.mrcs", 3)
    table = star(tmp_path / "p.star", ["1@gone.mrcs", "2@a.mrcs", "3@a.mrcs"])
    with pytest.raises(InputError, match="1 of 2 image files cannot be found"):
        open_source(table)
    source = open_source(table, index=np.array([2, 1]))
    assert seen(source) == [2.0, 1.0]
    assert source.all_particles.n == 3
    assert source.selection is not None and source.selection.tolist() == [2, 1]


def test_optics_groups_of_rows_that_are_left_out_do_not_matter(tmp_path: Path) -> None:
    stack(tmp_path / "a.mrcs", 2)
    write_mrcs(tmp_path / "b.mrcs", np.zeros((1, 16, 16), np.float32), 1.0)
    table = pd.DataFrame(
        {"rlnImageName": ["1@a.mrcs", "1@b.mrcs", "2@a.mrcs"], "rlnOpticsGroup": [1, 2, 1]}
    )
    optics = pd.DataFrame({"rlnOpticsGroup": [1, 2], "rlnImagePixelSize": [2.0, 1.0]})
    write_star(tmp_path / "p.star", table, optics)
    source = open_source(tmp_path / "p.star", index=np.array([0, 2]))
    assert source.pixel_size == 2.0 and seen(source) == [0.0, 1.0]


def test_a_folder_that_has_the_missing_files_is_named(tmp_path: Path) -> None:
    stack(tmp_path / "data" / "old" / "a.mrcs", 2)
    names = ["1@x/gone1.mrcs", "1@x/a.mrcs", "2@x/a.mrcs"]
    (tmp_path / "job").mkdir()
    with pytest.raises(InputError) as refused:
        open_source(star(tmp_path / "job/p.star", names[1:]))
    assert f"--datadir {tmp_path / 'data/old'} would find them" in str(refused.value)
    assert seen(open_source(tmp_path / "job/p.star", datadir=tmp_path / "data/old")) == [0.0, 1.0]
    with pytest.raises(InputError) as refused:
        open_source(star(tmp_path / "job/q.star", names))
    assert "2 of 2 image files" in str(refused.value) and "would find" not in str(refused.value)


# --- several inputs ------------------------------------------------------------------------------


def test_several_star_files_are_one(tmp_path: Path) -> None:
    stack(tmp_path / "job1" / "a.mrcs", 2)
    stack(tmp_path / "job2" / "a.mrcs", 2, start=10)
    first = star(tmp_path / "job1/p.star", ["1@a.mrcs", "2@a.mrcs"], rlnAnglePsi=[1.0, 2.0])
    second = star(tmp_path / "job2/q.star", ["2@a.mrcs"], 200.0, rlnAnglePsi=[3.0], rlnClass=[1])
    source = open_source([first, second])
    assert seen(source) == [0.0, 1.0, 11.0]
    assert source.particles.column("rlnVoltage").tolist() == [300.0, 300.0, 200.0]
    assert source.particles.column("rlnOpticsGroup").tolist() == [1, 1, 2]
    assert source.particles.column("rlnAnglePsi").tolist() == [1.0, 2.0, 3.0]
    assert not source.particles.has("rlnClass")
    assert source.particles.column("rlnImageName").tolist()[2] == "2@../job2/a.mrcs"
    same = open_source([first, star(tmp_path / "job1/r.star", ["1@a.mrcs"], rlnAnglePsi=[4.0])])
    assert same.particles.optics is not None and len(same.particles.optics) == 1


def test_what_one_table_says_of_its_images_is_kept(tmp_path: Path) -> None:
    stack(tmp_path / "a.mrcs", 4)
    one = {"rlnPhaseShift": [90.0], "rlnOriginXAngst": [4.0], "rlnOriginYAngst": [-2.0]}
    first = star(tmp_path / "p.star", ["1@a.mrcs"], rlnBeamTiltX=[0.5], **one)
    two = {"rlnOriginX": [3.0], "rlnOriginY": [1.0], "rlnCtfScalefactor": [0.5]}
    second = star(tmp_path / "q.star", ["2@a.mrcs"], **two)
    third = star(tmp_path / "r.star", ["3@a.mrcs"])
    blocks = starfile.read(third, always_dict=True)
    blocks["optics"] = blocks["optics"].assign(rlnCtfDataArePhaseFlipped=1, rlnBeamTiltX=0.25)
    starfile.write(blocks, third, overwrite=True)
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        found = open_source([[first, second, third][k] for k in order]).particles
        expected = {
            "rlnPhaseShift": [90.0, 0.0, 0.0],
            "rlnOriginXAngst": [4.0, 6.0, 0.0],
            "rlnOriginYAngst": [-2.0, 2.0, 0.0],
            "rlnCtfScalefactor": [1.0, 0.5, 1.0],
            "rlnBeamTiltX": [0.5, 0.0, 0.25],
            "rlnCtfDataArePhaseFlipped": [0.0, 0.0, 1.0],
        }
        for name, values in expected.items():
            np.testing.assert_allclose(found.numbers(name), np.array(values)[order])
        assert "rlnOriginX" not in found.table
    bare = star(tmp_path / "s.star", ["4@a.mrcs"], voltage=None, rlnOriginX=[1.0])
    sized = star(tmp_path / "t.star", ["1@a.mrcs"], voltage=None, rlnOriginXAngst=[1.0])
    with pytest.raises(InputError, match="is rlnOriginX, expected rlnOriginXAngst, as another"):
        open_source([sized, bare])


def test_half_sets_that_are_counted_otherwise_in_one_table_stay_apart(tmp_path: Path) -> None:
    for name, halves in (("a", [0, 1, 0]), ("b", [1, 2, 2])):
        stack(tmp_path / f"{name}.mrcs", 3)
        names = [f"{row + 1}@{name}.mrcs" for row in range(3)]
        star(tmp_path / f"{name}.star", names, rlnRandomSubset=halves)
    both = open_source([tmp_path / "a.star", tmp_path / "b.star"]).particles
    assert both.column("rlnRandomSubset").tolist() == [1, 2, 1, 1, 2, 2]
    half = both.half_sets()
    assert half is not None
    assert half.tolist() == [0, 1, 0, 0, 1, 1]


def test_dark_images_stay_so_beside_others(tmp_path: Path) -> None:
    stack(tmp_path / "a.mrcs", 2)
    about: dict[str, Any] = {"blob__path": np.array([b"a.mrcs"]), "blob__psize_A": np.full(1, 2.0)}
    about |= {"alignments3D__shift": np.ones((1, 2)), "alignments3D__pose": np.zeros((1, 3))}
    dark = {"blob__sign": -np.ones(1), "alignments3D__psize_A": np.full(1, 4.0)}
    first = cs(tmp_path / "p.cs", [1], blob__idx=np.zeros(1, np.uint32), **about, **dark)
    second = cs(tmp_path / "q.cs", [2], blob__idx=np.ones(1, np.uint32), **about)
    for order in ([0, 1], [1, 0]):
        source = open_source([[first, second][k] for k in order])
        sign = image_sign(source.particles)
        assert sign is not None
        np.testing.assert_array_equal(sign, np.array([-1.0, 1.0])[order])
        poses = source.particles.poses()
        assert poses is not None
        np.testing.assert_allclose(poses[1][:, 0], np.array([-2.0, -1.0])[order])


def test_tables_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    stack(tmp_path / "a.mrcs", 2)
    new = star(tmp_path / "p.star", ["1@a.mrcs"])
    old = star(tmp_path / "q.star", ["2@a.mrcs"], voltage=None)
    with pytest.raises(InputError, match="without optics groups, expected with optics groups"):
        open_source([new, old])
    with pytest.raises(InputError, match=r"a.mrcs: it is given together with the table p.star"):
        open_source([new, tmp_path / "a.mrcs"])
    with pytest.raises(InputError, match="the number of files is 0"):
        open_source([])


def test_stacks_and_a_list_of_stacks_are_one(tmp_path: Path) -> None:
    stack(tmp_path / "a.mrcs", 2)
    stack(tmp_path / "sub/b.mrcs", 1, start=5)
    assert seen(open_source([tmp_path / "a.mrcs", tmp_path / "sub/b.mrcs"])) == [0.0, 1.0, 5.0]
    (tmp_path / "particles.txt").write_text("a.mrcs\n\nsub/b.mrcs\n")
    source = open_source(tmp_path / "particles.txt")
    assert seen(source) == [0.0, 1.0, 5.0] and source.inputs == (tmp_path / "particles.txt",)
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(InputError, match="the number of files is 0"):
        open_source(tmp_path / "empty.txt")
    (tmp_path / "gone.txt").write_text("a.mrcs\nc.mrcs\n")
    with pytest.raises(InputError, match=r"1 of 2 image files cannot be found .*: c.mrcs"):
        open_source(tmp_path / "gone.txt")
    (tmp_path / "long.txt").write_text("x" * 5000)
    with pytest.raises(InputError, match="1 of 1 image files cannot be found"):
        open_source(tmp_path / "long.txt")


@pytest.mark.parametrize("given", ["several", "list", "folder", "one"])
def test_a_new_table_names_the_images_of_every_stack(tmp_path: Path, given: str) -> None:
    stack(tmp_path / "in/a.mrcs", 3)
    stack(tmp_path / "in/sub.mrcs", 2, start=5)
    (tmp_path / "in.txt").write_text("in/a.mrcs\nin/sub.mrcs\n")
    inputs: dict[str, Any] = {
        "several": [tmp_path / "in/a.mrcs", tmp_path / "in/sub.mrcs"],
        "list": tmp_path / "in.txt",
        "folder": tmp_path / "in",
        "one": tmp_path / "in/a.mrcs",
    }
    index = np.array([2, 1] if given == "one" else [4, 0, 3])
    expected = [2.0, 1.0] if given == "one" else [6.0, 0.0, 5.0]
    ctf = np.tile([2.0, 1e4, 1e4, 0.0, 300.0, 2.7, 0.1, 0.0, 0.0], (len(index), 1))
    opened = open_source(inputs[given], index=index)
    source = replace(opened, particles=replace(opened.particles, given_ctf=ctf))
    assert seen(source) == expected
    assert has_image_names(source)
    (tmp_path / "out").mkdir()
    for made in (
        fresh_particles(source, tmp_path / "out/p.star"),
        table_of_images(source, tmp_path / "out"),
    ):
        write_star(tmp_path / "out/p.star", made.table, made.optics, overwrite=True)
        again = open_source(tmp_path / "out/p.star")
        assert seen(again) == expected
        assert again.pixel_size == 2.0
        np.testing.assert_allclose(again.particles.ctf(), ctf)
    named = image_names(source, tmp_path / "out")
    assert named == made.table["rlnImageName"].tolist()


def test_volumes_of_a_folder_have_no_number(tmp_path: Path) -> None:
    for k, name in enumerate("ab"):
        (tmp_path / "in").mkdir(exist_ok=True)
        write_mrcs(tmp_path / f"in/{name}.mrc", np.full((1, 8, 8, 8), k, np.float32), 2.0)
    source = open_source(tmp_path / "in")
    assert image_names(source, tmp_path / "out") == ["../in/a.mrc", "../in/b.mrc"]


# --- cryoSPARC -----------------------------------------------------------------------------------


def cs(path: Path, uid: list[int], **fields: Any) -> Path:
    values = {"uid": np.array(uid, np.uint64), **fields}
    kinds = [(n.replace("__", "/"), v.dtype, v.shape[1:]) for n, v in values.items()]
    records = np.empty(len(uid), kinds)
    for name, value in values.items():
        records[name.replace("__", "/")] = value
    write_cs_records(path, records)
    return path


def blobs(n: int, file: bytes = b"a.mrcs") -> dict[str, Any]:
    return {
        "blob__path": np.full(n, file),
        "blob__idx": np.arange(n, dtype=np.uint32),
        "blob__psize_A": np.full(n, 2.0, np.float32),
    }


GROUP = """created: 2022-03-01 10:00:00.000000
group:
  description: d
  name: particles
  title: t
  type: {kind}
results:
  blob: {{metafile: '>one.cs', num_items: 3, type: particle.blob}}
  alignments3D: {{metafile: '>two.cs', num_items: 3, type: particle.alignments3D}}
version: v3.3.1
"""


def test_a_group_joins_its_tables_by_uid(tmp_path: Path) -> None:
    stack(tmp_path / "a.mrcs", 3)
    cs(tmp_path / "one.cs", [7, 8, 9], **blobs(3))
    shift = np.array([[9, 9], [8, 8], [7, 7]], np.float32)
    cs(tmp_path / "two.cs", [9, 8, 7], alignments3D__shift=shift, ctf__cs_mm=np.ones(3))
    (tmp_path / "p.csg").write_text(GROUP.format(kind="particle"))
    source = open_source(tmp_path / "p.csg")
    assert source.n == 3 and source.particles.format == "cs"
    assert source.particles.column("alignments3D/shift_0").tolist() == [7.0, 8.0, 9.0]
    assert not source.particles.has("ctf/cs_mm")
    cs(tmp_path / "two.cs", [9, 8, 6], alignments3D__shift=shift)
    with pytest.raises(InputError, match=r"p.csg: two.cs lacks 1 of the 3 particles of one.cs"):
        open_source(tmp_path / "p.csg")
    (tmp_path / "p.csg").write_text(GROUP.format(kind="volume"))
    with pytest.raises(InputError, match="the type of the group is 'volume', expected particle"):
        open_source(tmp_path / "p.csg")
    (tmp_path / "p.csg").write_text("x: 1\n")
    with pytest.raises(InputError, match="not readable as a cryoSPARC group"):
        open_source(tmp_path / "p.csg")


def test_several_cs_files_are_one(tmp_path: Path) -> None:
    stack(tmp_path / "a.mrcs", 2)
    stack(tmp_path / "long_name.mrcs", 1, start=5)
    extra = np.ones((2, 3), np.float32)
    first = cs(tmp_path / "one.cs", [1, 2], **blobs(2), alignments3D__pose=extra)
    second = cs(tmp_path / "two.cs", [3], **blobs(1, b"long_name.mrcs"))
    source = open_source([first, second])
    assert seen(source) == [0.0, 1.0, 5.0]
    assert source.particles.form.dtype is not None
    assert "alignments3D/pose" not in (source.particles.form.dtype.names or ())


def test_a_table_of_many_classes_is_read(tmp_path: Path) -> None:
    stack(tmp_path / "a.mrcs", 2)
    classes: dict[str, Any] = {}
    for k in range(150):
        classes[f"alignments_class_{k}__pose"] = np.zeros((2, 3), np.float32)
        classes[f"alignments_class_{k}__class_posterior"] = np.zeros(2, np.float32)
        classes[f"alignments_class_{k}__alpha"] = np.ones(2, np.float32)
    source = open_source(cs(tmp_path / "wide.cs", [1, 2], **blobs(2), **classes))
    assert source.n == 2 and source.particles.has("alignments_class_149/alpha")


# --- what does not go together --------------------------------------------------------------------


def two_groups(folder: Path, boxes: tuple[int, int], sizes: tuple[float, float]) -> Path:
    for name, box, size in zip("ab", boxes, sizes, strict=True):
        images = np.random.default_rng(0).normal(size=(4, box, box)).astype(np.float32)
        write_mrcs(folder / f"{name}.mrcs", images, size)
    names = [f"{i + 1}@{name}.mrcs" for name in "ab" for i in range(4)]
    table = pd.DataFrame({"rlnImageName": names, "rlnOpticsGroup": [1] * 4 + [2] * 4})
    optics = pd.DataFrame({"rlnOpticsGroup": [1, 2], "rlnImagePixelSize": sizes})
    write_star(folder / "p.star", table, optics)
    return folder / "p.star"


@pytest.mark.parametrize(
    ("boxes", "sizes", "says"),
    [
        ((32, 48), (2.0, 1.0), "--box 24, --crop 24 and 48"),
        ((32, 64), (2.0, 1.0), "--box 32, --crop 32 and 64"),
        ((32, 32), (2.0, 1.0), "--box 16, --crop 16 and 32"),
        ((32, 40), (1.0, 1.0), "--box 32, --crop 32 and 32"),
    ],
)
def test_images_of_two_scales_are_refused_with_the_command_that_helps(
    tmp_path: Path, boxes: tuple[int, int], sizes: tuple[float, float], says: str
) -> None:
    with pytest.raises(InputError) as refused:
        open_source(two_groups(tmp_path, boxes, sizes))
    assert says in str(refused.value) and "modpose preprocess" in str(refused.value)
    assert len(str(refused.value)) - len(str(tmp_path)) < 240


def test_two_voltages_are_refused_where_a_ctf_is_wanted(tmp_path: Path) -> None:
    stack(tmp_path / "a.mrcs", 4)
    table = pd.DataFrame(
        {
            "rlnImageName": [f"{i + 1}@a.mrcs" for i in range(4)],
            "rlnOpticsGroup": [1, 1, 2, 2],
            "rlnDefocusU": 1e4,
        }
    )
    optics = pd.DataFrame(
        {
            "rlnOpticsGroup": [1, 2],
            "rlnImagePixelSize": 2.0,
            "rlnVoltage": [300.0, 200.0],
            "rlnSphericalAberration": 2.7,
            "rlnAmplitudeContrast": 0.1,
        }
    )
    write_star(tmp_path / "p.star", table, optics)
    source = open_source(tmp_path / "p.star")
    with pytest.raises(InputError, match="the voltage is 200 kV for some images and 300 kV for"):
        Dataset(source, DataConfig(), seed=0, ctf=True)
    assert Dataset(source, DataConfig(), seed=0).ctf is None
    one = open_source(tmp_path / "p.star", index=np.array([0, 1]))
    found = Dataset(one, DataConfig(), seed=0, ctf=True).ctf
    assert found is not None and found[:, 4].tolist() == [300.0, 300.0]


def test_a_pixel_size_that_the_images_deny_is_refused_unless_the_box_vouches(
    tmp_path: Path,
) -> None:
    stack(tmp_path / "a.mrcs", 1)

    def opened(name: str, size: float, **columns: Any) -> Any:
        table = pd.DataFrame({"rlnImageName": ["1@a.mrcs"], "rlnOpticsGroup": 1})
        optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnImagePixelSize": size, **columns})
        write_star(tmp_path / name, table, optics)
        return open_source(tmp_path / name)

    with pytest.raises(InputError, match="4 A in the table and 2 A in the headers"):
        opened("p.star", 4.0)
    assert opened("q.star", 4.0, rlnImageSize=BOX).pixel_size == 4.0
    assert opened("r.star", 2.1).pixel_size == 2.1

"""Stacks of every format against independent readers and against what was written."""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import logging
import struct
import subprocess
import sys
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from modpose.data import formats
from modpose.data.image_files import open_stack
from modpose.data.mrc import open_mrc, write_mrcs
from modpose.data.source import open_source
from modpose.data.stack import ArrayStack, RowsStack, layout_of, runs, subset
from modpose.errors import InputError
from modpose.files.writing import natural_key, replace_atomically

SHARED_TMP = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def pictures(n: int = 7, h: int = 6, w: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, h, w)).astype(np.float32)


def everything(stack) -> np.ndarray:
    return stack.read(np.arange(stack.n))


# --- MRC --------------------------------------------------------------------------------------


@SHARED_TMP
@given(
    images=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=9),
        elements=st.floats(-1e6, 1e6, width=32),
    ),
    pixel_size=st.floats(0.1, 50),
)
def test_what_is_written_is_read_by_us_and_by_mrcfile(tmp_path, images, pixel_size):
    path = tmp_path / "round.mrcs"
    write_mrcs(path, images, pixel_size, overwrite=True)
    stack = open_mrc(path)
    np.testing.assert_array_equal(everything(stack)[:, 0], images)
    assert stack.pixel_size == pytest.approx(pixel_size, rel=1e-5)
    with mrcfile.open(path) as other:
        assert other.is_image_stack() or len(images) == 1
        np.testing.assert_array_equal(other.data.reshape(images.shape), images)
        assert float(other.voxel_size.x) == pytest.approx(pixel_size, rel=1e-5)


def test_what_is_written_is_valid_mrc2014(tmp_path):
    path = tmp_path / "valid.mrcs"
    write_mrcs(path, pictures(), 1.5)
    complaints = io.StringIO()
    assert mrcfile.validate(path, print_file=complaints), complaints.getvalue()


@pytest.mark.parametrize("count", [1, 3])
def test_volumes_are_written_as_maps_and_stacks_of_maps(tmp_path, count):
    volumes = pictures(count * 4, 4, 4).reshape(count, 4, 4, 4)
    write_mrcs(tmp_path / "v.mrc", volumes, 2.5)
    stack = open_mrc(tmp_path / "v.mrc")
    assert (stack.n, stack.shape) == (count, (4, 4, 4))
    np.testing.assert_array_equal(everything(stack)[:, 0], volumes)
    with mrcfile.open(tmp_path / "v.mrc") as other:
        assert other.is_volume() if count == 1 else other.is_volume_stack()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("type_", ["i1", "i2", "f4", "u2", "f2"])
def test_every_mode_and_byte_order_as_mrcfile_writes_it(tmp_path, type_, order):
    values = np.arange(60, dtype=np.float64).reshape(3, 4, 5) + (0 if type_ == "u2" else -20)
    values = values.astype(type_)
    with mrcfile.new(tmp_path / "m.mrcs") as other:
        other.set_data(values.astype(np.dtype(type_).newbyteorder("<")))
        other.set_image_stack()
    raw = bytearray((tmp_path / "m.mrcs").read_bytes())
    if order == ">":
        swapped = np.frombuffer(raw[:1024], "<i4").astype(">i4").tobytes()
        text = raw[208:212] + b"\x11\x11\x00\x00"
        body = values.astype(np.dtype(type_).newbyteorder(">")).tobytes()
        raw = bytearray(swapped) + body
        raw[208:216] = text
        (tmp_path / "m.mrcs").write_bytes(raw)
    stack = open_mrc(tmp_path / "m.mrcs")
    assert stack.dtype.itemsize == values.itemsize
    np.testing.assert_array_equal(everything(stack)[:, 0], values.astype(np.float32))


@pytest.mark.parametrize(("volume", "side"), [(True, 6), (False, 6), (True, 5)])
def test_a_stack_by_its_name_that_is_a_volume_by_its_header_is_said(tmp_path, caplog, volume, side):
    """The header of a stack says space group 0; one that is no cube is no volume of ours."""
    with mrcfile.new(tmp_path / "a.mrcs") as file:
        file.set_data(pictures(6, 6, side))
        if not volume:
            file.set_image_stack()
    assert open_mrc(tmp_path / "a.mrcs").n == 6
    assert ("its header says one volume" in caplog.text) == (volume and side == 6)
    caplog.clear()
    assert open_mrc(tmp_path / "a.mrcs", "images").n == 6
    assert open_mrc(tmp_path / "a.mrcs", "volumes").n == 1
    assert not caplog.text


def test_an_extended_header_is_skipped(tmp_path):
    images = pictures()
    with mrcfile.new(tmp_path / "e.mrcs") as other:
        other.set_data(images)
        other.set_image_stack()
        other.set_extended_header(np.zeros(320, dtype="V1"))
    np.testing.assert_array_equal(everything(open_mrc(tmp_path / "e.mrcs"))[:, 0], images)


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_compressed_files_are_unpacked_and_it_is_said(tmp_path, caplog, suffix, pack):
    write_mrcs(tmp_path / "a.mrcs", pictures(), 1.5)
    packed = tmp_path / f"a.mrcs{suffix}"
    packed.write_bytes(pack((tmp_path / "a.mrcs").read_bytes()))
    with caplog.at_level(logging.INFO, logger="modpose"):
        stack = open_mrc(packed)
    assert "unpacked into memory once" in caplog.text
    np.testing.assert_array_equal(everything(stack)[:, 0], pictures())
    packed.write_bytes(packed.read_bytes()[:-40])
    with pytest.raises(InputError, match=f"not readable as {suffix[1:]}"):
        open_mrc(packed)


def test_a_2d_file_is_a_stack_of_one(tmp_path):
    with mrcfile.new(tmp_path / "one.mrc") as other:
        other.set_data(pictures()[0])
    stack = open_mrc(tmp_path / "one.mrc")
    assert (stack.n, stack.shape) == (1, (6, 5))


@pytest.mark.parametrize("axes", [(1, 2, 3), (3, 1, 2), (2, 3, 1), (2, 1, 3)])
def test_permuted_axes_of_a_volume_are_turned_to_zyx(tmp_path, axes):
    zyx = pictures(3, 4, 5)
    # Columns run along axes[0], rows along axes[1], sections along axes[2] (x, y, z = 1, 2, 3).
    stored = zyx.transpose([3 - axes[2], 3 - axes[1], 3 - axes[0]])
    with mrcfile.new(tmp_path / "p.map") as other:
        other.set_data(np.ascontiguousarray(stored))
        other.set_volume()
        other.header.mapc, other.header.mapr, other.header.maps = axes
    stack = open_mrc(tmp_path / "p.map", "volumes")
    np.testing.assert_array_equal(everything(stack)[0, 0], zyx)


def test_pixel_size_zero_is_unknown(tmp_path):
    write_mrcs(tmp_path / "z.mrcs", pictures(), None)
    assert open_mrc(tmp_path / "z.mrcs").pixel_size is None


def corrupt(path: Path, at: int, value: bytes) -> None:
    raw = bytearray(path.read_bytes())
    raw[at : at + len(value)] = value
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("at", "value", "sentence"),
    [
        (12, struct.pack("<i", 7), "the mode is 7, expected one of 0, 1, 2, 6, 12"),
        (12, struct.pack("<i", 0), "longer than its header says: 1864 bytes, expected 1234"),
        (8, struct.pack("<i", 9), "truncated: 1864 bytes, expected 2104 for 9 x 6 x 5 float32"),
        (8, struct.pack("<i", -1), "-1 x 6 x 5, expected positive numbers"),
        (92, struct.pack("<i", -4), "extended header is -4, expected at least 0"),
        (92, struct.pack("<i", 80), "truncated: 1864 bytes, expected 1944"),
    ],
)
def test_a_header_that_disagrees_is_refused_in_one_sentence(tmp_path, at, value, sentence):
    path = tmp_path / "bad.mrcs"
    write_mrcs(path, pictures(), 1.0)
    corrupt(path, at, value)
    with pytest.raises(InputError) as caught:
        open_mrc(path)
    assert str(path) in str(caught.value)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_and_a_file_of_text_are_refused(tmp_path):
    path = tmp_path / "t.mrcs"
    write_mrcs(path, pictures(), 1.0)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match="truncated: 1861 bytes, expected 1864"):
        open_mrc(path)
    path.write_bytes(b"x" * 500)
    with pytest.raises(InputError, match="500 bytes long, expected an MRC header"):
        open_mrc(path)
    path.write_bytes(b"x" * 5000)
    with pytest.raises(InputError, match=r"byte 208 is 'xxxx', expected 'MAP '"):
        open_mrc(path)


def test_a_file_that_shrinks_after_opening_is_refused_when_read(tmp_path):
    path = tmp_path / "s.mrcs"
    write_mrcs(path, pictures(), 1.0)
    stack = open_mrc(path)
    path.write_bytes(path.read_bytes()[:-60])
    assert stack.read(np.array([0])).shape == (1, 1, 6, 5)
    with pytest.raises(InputError, match="ended 60 bytes early"):
        stack.read(np.array([6]))


def test_files_without_the_map_word_are_read_when_their_size_fits(tmp_path):
    path = tmp_path / "old.mrcs"
    write_mrcs(path, pictures(), 1.0)
    corrupt(path, 208, b"\0\0\0\0")
    np.testing.assert_array_equal(everything(open_mrc(path))[:, 0], pictures())


def test_writing_never_overwrites_unasked_and_leaves_nothing_half_written(tmp_path):
    path = tmp_path / "w.mrcs"
    write_mrcs(path, pictures(), 1.0)
    with pytest.raises(InputError, match="already exists"):
        write_mrcs(path, pictures(seed=1), 1.0)
    with pytest.raises(InputError, match="not writable"):
        write_mrcs(tmp_path / "nowhere" / "w.mrcs", pictures(), 1.0)
    with pytest.raises(ZeroDivisionError):
        replace_atomically(path, lambda file: file.write(b"half") and 1 / 0, overwrite=True)
    np.testing.assert_array_equal(everything(open_mrc(path))[:, 0], pictures())
    assert [p.name for p in tmp_path.iterdir()] == ["w.mrcs"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_20_gb_stack_is_read_in_little_memory(tmp_path):
    side, n = 256, 80_000
    path = tmp_path / "huge.mrcs"
    write_mrcs(path, np.zeros((1, side, side), np.float32), 1.0)
    raw = bytearray(path.read_bytes()[:1024])
    raw[8:12] = struct.pack("<i", n)
    with path.open("wb") as file:
        file.write(raw)
        file.truncate(1024 + n * side * side * 4)
    program = f"""
import numpy as np
from modpose.data.source import open_source
source = open_source({str(path)!r})
assert source.n == {n}, source.n
rng = np.random.default_rng(0)
for _ in range(20):
    assert source.stack.read(rng.integers(0, {n}, 100)).shape == (100, 1, {side}, {side})
status = open("/proc/self/status").read()
print(status.split("VmHWM:")[1].split()[0])  # peak resident memory, mapped pages included
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 700 * 1024  # KiB; 26 MB of pixels per batch and the libraries


# --- order, runs, layout ----------------------------------------------------------------------


@SHARED_TMP
@given(index=st.lists(st.integers(0, 6), max_size=20))
def test_rows_come_in_the_order_asked(tmp_path, index):
    path = tmp_path / "order.mrcs"
    if not path.exists():
        write_mrcs(path, pictures(), 1.0)
    rows = np.array(index, dtype=np.int64)
    np.testing.assert_array_equal(open_mrc(path).read(rows)[:, 0], pictures()[rows])


@given(
    rows=st.sets(st.integers(0, 60)).map(lambda s: np.array(sorted(s), dtype=np.int64)),
    longest=st.integers(1, 9),
)
def test_runs_cover_the_rows_once_and_are_as_few_as_can_be(rows, longest):
    parts = list(runs(rows, longest)) if len(rows) else []
    covered = [row for _, start, stop in parts for row in range(start, stop)]
    assert covered == rows.tolist()
    assert all(rows[position] == start for position, start, _ in parts)
    assert all(stop - start <= longest for _, start, stop in parts)
    for (_, _, stop), (_, start, _) in itertools.pairwise(parts):
        assert start > stop or (start == stop and longest < len(rows))


@pytest.mark.parametrize("bad", [-1, 7])
def test_an_index_out_of_range_is_named(bad):
    with pytest.raises(InputError, match=f"an image index is {bad}, expected 0 to 6"):
        ArrayStack(pictures()).read(np.array([0, bad]))


@pytest.mark.parametrize(
    ("shape", "kind", "n", "spatial", "channels"),
    [
        ((9, 8, 7), "auto", 9, (8, 7), 1),
        ((8, 8), "auto", 1, (8, 8), 1),
        ((9, 8, 7, 3), "auto", 9, (8, 7), 3),
        ((9, 8, 7, 4), "auto", 9, (8, 7), 3),
        ((9, 8, 7, 1), "auto", 9, (8, 7), 1),
        ((9, 8, 8, 8), "auto", 9, (8, 8, 8), 1),
        ((8, 8, 8), "auto", 8, (8, 8), 1),
        ((8, 8, 8), "volumes", 1, (8, 8, 8), 1),
        ((8, 7, 3), "rgb", 1, (8, 7), 3),
        ((8, 7, 3), "auto", 8, (7, 3), 1),
        ((9, 3, 3, 3), "auto", 9, (3, 3, 3), 1),
        ((9, 3, 3, 3), "rgb", 9, (3, 3), 3),
    ],
)
def test_what_the_axes_of_an_array_mean(shape, kind, n, spatial, channels):
    layout = layout_of(shape, kind, "x")
    assert (layout.n, layout.shape, layout.channels) == (n, spatial, channels)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ((5,), "auto"),
        ((9, 8, 7, 6), "auto"),
        ((9, 8, 7), "rgb"),
        ((2, 3, 4, 5), "volumes"),
        ((0, 8, 8), "auto"),
        ((9, 0, 8), "auto"),
        ((1, 2, 3, 4, 5), "auto"),
        ((9, 8, 8, 8), "images"),
    ],
)
def test_other_shapes_are_refused(shape, kind):
    with pytest.raises(InputError, match=r"x: the (shape|number)"):
        layout_of(shape, kind, "x")


def test_colour_comes_channels_first_and_alpha_goes():
    array = np.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4)
    stack = ArrayStack(array)
    np.testing.assert_array_equal(everything(stack), np.moveaxis(array[..., :3], -1, 1))


def test_rows_of_several_stacks_and_subsets_of_them():
    a, b = pictures(4, seed=1), pictures(5, seed=2)
    part, row = np.array([1, 0, 1, 1]), np.array([4, 2, 0, 4])
    both = RowsStack([ArrayStack(a, name="a"), ArrayStack(b, name="b")], part, row, "both")
    expected = np.stack([b[4], a[2], b[0], b[4]])
    np.testing.assert_array_equal(everything(both)[:, 0], expected)
    np.testing.assert_array_equal(both.read(np.array([2, 0]))[:, 0], expected[[2, 0]])
    less = subset(both, np.array([3, 1]))
    np.testing.assert_array_equal(everything(less)[:, 0], expected[[3, 1]])
    assert less.where(1) == "a, image 3"
    with pytest.raises(InputError, match="row 2 asks for image 10 of b, which holds 5"):
        RowsStack([ArrayStack(b, name="b")], np.zeros(2, int), np.array([0, 9]), "both")
    with pytest.raises(InputError, match="the box is 6x5 in a and 4x4 in c, expected one box"):
        RowsStack(
            [ArrayStack(a, name="a"), ArrayStack(pictures(2, 4, 4), name="c")],
            np.zeros(1, int),
            np.zeros(1, int),
            "both",
        )


# --- arrays and pictures ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u1", "<i2", ">f4", "f8", "?", "f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy(tmp_path, dtype, order):
    array = np.asarray(pictures() * 10 > 0 if dtype == "?" else pictures() * 10).astype(dtype)
    np.save(tmp_path / "a.npy", np.asarray(array, order=order))
    stack = open_stack(tmp_path / "a.npy")
    np.testing.assert_array_equal(everything(stack)[:, 0], array.astype(np.float32))


def test_npy_that_cannot_be_used(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.array([{}, {}], dtype=object))
    with pytest.raises(InputError, match="pickled"):
        open_stack(path)
    np.save(path, pictures())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="truncated"):
        open_stack(path)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="not readable as NPY"):
        open_stack(path)
    np.save(path, pictures().astype(np.complex64))
    with pytest.raises(InputError, match="complex64, expected integers or reals"):
        open_stack(path)


def test_npz(tmp_path):
    np.savez(tmp_path / "two.npz", images=pictures(), labels=np.arange(7))
    np.savez_compressed(tmp_path / "one.npz", x=pictures())
    np.testing.assert_array_equal(
        everything(open_source(f"{tmp_path}/two.npz:images").stack)[:, 0], pictures()
    )
    assert open_source(tmp_path / "one.npz").n == 7
    with pytest.raises(InputError, match="holds the arrays images, labels; name one"):
        open_source(tmp_path / "two.npz")
    with pytest.raises(InputError, match="no array 'image', only images, labels"):
        open_source(f"{tmp_path}/two.npz:image")
    np.savez(tmp_path / "pickled.npz", x=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="not readable as NPZ"):
        open_source(tmp_path / "pickled.npz")
    (tmp_path / "one.npz").write_bytes((tmp_path / "one.npz").read_bytes()[:100])
    with pytest.raises(InputError, match="not readable as NPZ"):
        open_source(tmp_path / "one.npz")


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("shape", [(7, 16, 20), (16, 20), (7, 16, 20, 3)])
def test_tiff(tmp_path, shape, byteorder, compression):
    array = np.random.default_rng(0).integers(0, 60000, shape).astype("u2")
    tifffile.imwrite(
        tmp_path / "a.tif",
        array,
        compression=compression,
        byteorder=byteorder,
        photometric="rgb" if len(shape) == 4 else "minisblack",
    )
    stack = open_stack(tmp_path / "a.tif")
    expected = (
        array.reshape(-1, *array.shape[-2:])[:, None]
        if len(shape) < 4
        else (np.moveaxis(array, -1, 1))
    )
    np.testing.assert_array_equal(everything(stack), expected)
    np.testing.assert_array_equal(stack.read(np.array([stack.n - 1])), expected[-1:])


def test_tiff_that_cannot_be_used(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(np.zeros((8, 8), "u1"))
        tiff.write(np.zeros((9, 9), "u1"))
    with pytest.raises(InputError, match="expected one box size throughout"):
        open_stack(path)
    path.write_bytes(b"II*\0" + b"\xff" * 30)
    with pytest.raises(InputError, match="not readable as TIFF"):
        open_stack(path)


def test_a_folder_of_grey_pictures_in_natural_order(tmp_path):
    values = {"img10.png": 10, "img2.png": 2, "img1.png": 1}
    for name, value in values.items():
        Image.fromarray(np.full((4, 6), value, np.uint8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a picture")
    source = open_source(tmp_path)
    assert everything(source.stack)[:, 0, 0, 0].tolist() == [1, 2, 10]
    assert (source.stack.shape, source.stack.channels) == ((4, 6), 1)
    assert source.particles.column("file").tolist() == ["img1.png", "img2.png", "img10.png"]
    assert source.stack.where(2).endswith("img10.png")


def test_folders_of_colour_pictures_drop_alpha_and_know_their_sub_folders(tmp_path):
    rgba = np.random.default_rng(0).integers(0, 255, (2, 5, 6, 4)).astype(np.uint8)
    for folder, picture in zip(("spiral", "smooth"), rgba, strict=True):
        (tmp_path / folder).mkdir()
        Image.fromarray(picture).save(tmp_path / folder / "1.png")
    source = open_source(tmp_path)
    assert source.particles.column("folder").tolist() == ["smooth", "spiral"]
    np.testing.assert_array_equal(everything(source.stack), np.moveaxis(rgba[::-1, ..., :3], -1, 1))


@pytest.mark.parametrize(
    ("mode", "dtype"), [("1", bool), ("I;16", "u2"), ("LA", "u1"), ("F", "f4")]
)
def test_other_grey_pictures(tmp_path, mode, dtype):
    picture = Image.fromarray(np.arange(30, dtype=np.uint8).reshape(5, 6) * 8)
    suffix = "tif" if mode == "F" else "png"
    (picture.convert("I").convert(mode) if mode == "I;16" else picture.convert(mode)).save(
        tmp_path / f"a.{suffix}"
    )
    stack = open_source(tmp_path).stack
    assert (stack.channels, stack.dtype) == (1, np.dtype(dtype))
    assert everything(stack).shape == (1, 1, 5, 6)


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match="without images, expected PNG, TIFF, JPEG, MRC"):
        open_source(tmp_path)
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(tmp_path / "b.png")
    with pytest.raises(InputError, match=r"b\.png: the picture is 5x6 grey, expected 4x6 grey as"):
        open_source(tmp_path)
    (tmp_path / "b.png").write_bytes(b"PNG?")
    with pytest.raises(InputError, match=r"b\.png: not readable as a picture"):
        open_source(tmp_path)
    Image.fromarray(np.arange(24000, dtype=np.uint8).reshape(40, 600)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:120])
    with pytest.raises(InputError, match=r"b\.png: not readable as a picture"):
        everything(open_source(tmp_path).stack)


def test_a_folder_of_maps_is_a_stack_of_volumes(tmp_path):
    volumes = pictures(8, 4, 4).reshape(2, 1, 4, 4, 4)
    for i, volume in enumerate(volumes):
        write_mrcs(tmp_path / f"{i}.mrc", volume, 3.0)
    source = open_source(tmp_path)
    np.testing.assert_array_equal(everything(source.stack), volumes)
    assert source.pixel_size == pytest.approx(3.0)
    assert source.particles.column("file").tolist() == ["0.mrc", "1.mrc"]


@given(numbers=st.lists(st.integers(0, 10**6), max_size=6))
def test_numbered_names_sort_by_number(numbers):
    names = sorted((f"img{n}.png" for n in numbers), key=natural_key)
    assert names == [f"img{n}.png" for n in sorted(numbers)]


@given(names=st.lists(st.text(max_size=8), max_size=6))
def test_any_names_can_be_sorted(names):
    assert sorted(sorted(names, key=natural_key)) == sorted(names)


@pytest.mark.parametrize(
    ("name", "module", "extra"), [("a.zarr", "zarr", "zarr"), ("a.h5", "h5py", "hdf5")]
)
def test_a_missing_extra_is_named(tmp_path, monkeypatch, name, module, extra):
    (tmp_path / name).touch()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        InputError, match=rf"needs the package {module}; pip install 'modpose\[{extra}\]'"
    ):
        open_source(tmp_path / name)


class Dataset(np.ndarray):
    """What h5py says of an array, as far as it is used."""

    is_virtual, external, chunks, name = False, None, None, "images"


class Store(dict):
    """What h5py says of a file, as far as it is used."""

    def get(self, name, getlink=False):
        return super().get(name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.mark.parametrize("array", [None, "images"])
def test_chunked_stores_are_read_by_slices(tmp_path, monkeypatch, array):
    (tmp_path / "a.h5").touch()
    module = type(sys)("h5py")
    module.File = lambda path, mode: Store(images=pictures().view(Dataset))
    module.ExternalLink = module.SoftLink = tuple
    monkeypatch.setitem(sys.modules, "h5py", module)
    stack = formats.open_hdf5(tmp_path / "a.h5", array)
    np.testing.assert_array_equal(stack.read(np.array([5, 1]))[:, 0], pictures()[[5, 1]])
    with pytest.raises(InputError, match="no array 'x', only images"):
        formats.open_hdf5(tmp_path / "a.h5", "x")


# --- the real files ---------------------------------------------------------------------------


@pytest.mark.shared
@pytest.mark.filterwarnings("ignore::RuntimeWarning:mrcfile")
def test_every_real_mrc_file_agrees_with_mrcfile(shared_data):
    paths = [
        p
        for folder in ("mrc", "spa", "spa_sim", "spa_sim/10076_DE", "spa_sim/cryodrgn_toy")
        for p in sorted((shared_data / folder).iterdir())
        if ".mrc" in p.name or ".map" in p.name or p.suffix == ".st"
    ]
    assert len(paths) > 25
    for path in paths:
        if path.name.startswith("malformed"):
            with pytest.raises(InputError) as caught:
                open_mrc(path)
            assert str(path) in str(caught.value)
            continue
        stack = open_mrc(path)
        pixels = everything(stack)[:, 0]
        with mrcfile.open(path, permissive=True) as other:
            data = other.data.astype(np.float32)
            if path.name.startswith("EMD-3001"):  # columns along z, rows along x, sections y
                data = data.transpose(2, 0, 1)
            np.testing.assert_array_equal(pixels.reshape(data.shape), data, err_msg=path.name)
            size = float(other.voxel_size.x)
        assert stack.pixel_size == (pytest.approx(size, rel=1e-5) if size > 0 else None)


def test_archives_of_galaxies_and_digits(some_data):
    galaxies = open_source(f"{some_data}/galaxy/galaxy_zoo_train_64.npz:images")
    assert (galaxies.stack.channels, galaxies.stack.shape) == (3, (64, 64))
    with np.load(some_data / "galaxy/galaxy_zoo_train_64.npz") as archive:
        assert galaxies.n == len(archive["images"])
        np.testing.assert_array_equal(
            galaxies.stack.read(np.array([7]))[0], np.moveaxis(archive["images"][7], -1, 0)
        )
    digits = open_source(f"{some_data}/mnist.npz:x_train")
    with np.load(some_data / "mnist.npz") as archive:
        images = archive["x_train"]
    assert (digits.n, digits.stack.shape) == (len(images), (28, 28))
    rows = np.arange(0, len(images), 37)
    np.testing.assert_array_equal(digits.stack.read(rows)[:, 0], images[rows])

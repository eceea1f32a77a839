"""EM, SPIDER, FITS, EMAN2, OME, tensors, 4-bit MRC and cisTEM, against independent readers."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from modpose.data.inspect import describe
from modpose.data.mrc import write_mrcs
from modpose.data.source import open_source
from modpose.data.tables import read_particles
from modpose.errors import InputError
from modpose.geometry.rotations import relion_of_rotation

RANDOM = np.random.default_rng(3)
PICTURES = RANDOM.normal(size=(5, 6, 7)).astype(np.float32)
CUBES = RANDOM.normal(size=(3, 4, 4, 4)).astype(np.float32)


def pixels(path: Path | str, kind: str = "auto") -> np.ndarray:
    source = open_source(path, kind=kind)
    assert str(describe(path)) if kind == "auto" else True
    return source.stack.read(np.arange(source.n))[:, 0]


# --- EM ---------------------------------------------------------------------------------------


def em(array: np.ndarray, order: str = "<") -> bytes:
    codes = {"i1": 1, "i2": 2, "i4": 4, "f4": 5, "f8": 9}
    head = bytes([6 if order == "<" else 5, 0, 0, codes[array.dtype.str[1:]]])
    head += struct.pack(f"{order}3i", *array.shape[::-1])
    return head.ljust(512, b"\0") + array.astype(order + array.dtype.str[1:]).tobytes()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "f4", "f8"])
def test_em_files_are_read_in_both_byte_orders(tmp_path, order, dtype):
    array = (10 * PICTURES).astype(dtype)
    (tmp_path / "a.em").write_bytes(em(array, order))
    np.testing.assert_array_equal(pixels(tmp_path / "a.em"), array.astype(np.float32))


def test_a_cube_in_an_em_file_is_a_volume_and_emfile_writes_it(tmp_path):
    emfile = pytest.importorskip("emfile")
    emfile.write(tmp_path / "v.em", CUBES[0], overwrite=True)
    np.testing.assert_array_equal(pixels(tmp_path / "v.em"), CUBES[:1])
    np.testing.assert_array_equal(pixels(tmp_path / "v.em", "images"), CUBES[0])


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda raw: raw[:100], "100 bytes long"),
        (lambda raw: raw + b"x", "by its header"),
        (lambda raw: b"\x09" + raw[1:], "machine"),
        (lambda raw: raw[:3] + b"\x08" + raw[4:], "type"),
        (lambda raw: raw[:4] + struct.pack("<i", -1) + raw[8:], "positive"),
    ],
)
def test_a_damaged_em_file_is_refused(tmp_path, damage, sentence):
    (tmp_path / "a.em").write_bytes(damage(em(PICTURES)))
    with pytest.raises(InputError, match=sentence):
        open_source(tmp_path / "a.em")


# --- SPIDER -----------------------------------------------------------------------------------


def spider_header(
    shape: tuple[int, int, int], stack: int, largest: int, order: str, number: int = 0
) -> bytes:
    sections, rows, columns = shape
    records = -(-1024 // (columns * 4))
    words = np.zeros(records * columns, f"{order}f4")
    kind = 3 if sections > 1 else 1
    placed = {1: sections, 2: rows, 5: kind, 12: columns, 13: records, 22: records * columns * 4}
    placed |= {23: columns * 4, 24: stack, 26: largest, 27: number, 38: 1.5}
    for word, value in placed.items():
        words[word - 1] = value
    return words.tobytes()


def spider_stack(items: np.ndarray, order: str = ">") -> bytes:
    shape = items.shape[1:] if items.ndim == 4 else (1, *items.shape[1:])
    raw = spider_header(shape, 2, len(items), order)
    for number, item in enumerate(items, 1):
        raw += spider_header(shape, 0, 0, order, number) + item.astype(f"{order}f4").tobytes()
    return raw


@pytest.mark.parametrize("order", ["<", ">"])
def test_spider_stacks_of_images_and_volumes_are_read(tmp_path, order):
    for name, items in (("p.spi", PICTURES), ("v.stk", CUBES)):
        (tmp_path / name).write_bytes(spider_stack(items, order))
        np.testing.assert_array_equal(pixels(tmp_path / name), items)
    assert open_source(tmp_path / "p.spi").pixel_size == pytest.approx(1.5)


def test_a_spider_image_that_pillow_writes_is_read(tmp_path):
    Image.fromarray(PICTURES[0]).save(tmp_path / "one.spi", format="SPIDER")
    np.testing.assert_array_equal(pixels(tmp_path / "one.spi"), PICTURES[:1])


def test_pillow_reads_the_spider_stacks_of_these_tests(tmp_path):
    (tmp_path / "p.spi").write_bytes(spider_stack(PICTURES, ">"))
    with Image.open(tmp_path / "p.spi", formats=("SPIDER",)) as picture:
        picture.seek(2)
        np.testing.assert_array_equal(np.asarray(picture), PICTURES[2])


def test_a_damaged_spider_file_is_refused(tmp_path):
    (tmp_path / "p.spi").write_bytes(spider_stack(PICTURES)[:-4])
    with pytest.raises(InputError, match="by its header"):
        open_source(tmp_path / "p.spi")
    (tmp_path / "q.spi").write_bytes(b"\x01" * 4000)
    with pytest.raises(InputError, match="not readable as SPIDER"):
        open_source(tmp_path / "q.spi")


# --- MRC of four bits -------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [6, 7])
def test_mrc_of_four_bits_gives_the_lower_half_of_a_byte_first(tmp_path, columns):
    values = RANDOM.integers(0, 16, (3, 5, columns)).astype(np.uint8)
    padded = np.pad(values, ((0, 0), (0, 0), (0, columns % 2)))
    packed = padded[..., 0::2] | padded[..., 1::2] << 4
    write_mrcs(tmp_path / "a.mrcs", values.astype(np.float32), 1.0)
    raw = bytearray((tmp_path / "a.mrcs").read_bytes()[:1024])
    raw[12:16] = struct.pack("<i", 101)
    (tmp_path / "a.mrcs").write_bytes(bytes(raw) + packed.tobytes())
    np.testing.assert_array_equal(pixels(tmp_path / "a.mrcs"), values)
    (tmp_path / "a.mrcs").write_bytes(bytes(raw) + packed.tobytes()[:-1])
    with pytest.raises(InputError, match="truncated"):
        open_source(tmp_path / "a.mrcs")


# --- tensors ----------------------------------------------------------------------------------


def test_tensors_are_read_and_chosen_by_name(tmp_path):
    torch.save(torch.from_numpy(PICTURES), tmp_path / "t.pt")
    np.testing.assert_array_equal(pixels(tmp_path / "t.pt"), PICTURES)
    torch.save({"a": torch.from_numpy(PICTURES), "b": torch.zeros(2, 3, 3)}, tmp_path / "d.pt")
    np.testing.assert_array_equal(pixels(f"{tmp_path}/d.pt:a"), PICTURES)
    with pytest.raises(InputError, match="holds the arrays a, b"):
        open_source(tmp_path / "d.pt")


class _Runs:
    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


def test_a_file_of_tensors_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": _Runs()}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match="not readable as a file of tensors"):
        open_source(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


def test_a_tensor_larger_than_its_file_is_refused(tmp_path):
    torch.save(torch.zeros(1).expand(1000, 64, 64), tmp_path / "wide.pt")
    with pytest.raises(InputError, match="no more numbers than the file holds"):
        open_source(tmp_path / "wide.pt")


# --- axes -------------------------------------------------------------------------------------


def test_axes_that_are_told_are_obeyed(tmp_path):
    colour = RANDOM.normal(size=(4, 3, 5, 6)).astype(np.float32)
    np.save(tmp_path / "c.npy", colour)
    stack = open_source(tmp_path / "c.npy", kind="NCYX").stack
    assert (stack.n, stack.channels, stack.shape) == (4, 3, (5, 6))
    np.testing.assert_array_equal(stack.read(np.arange(4)), colour)
    last = open_source(np.moveaxis(colour, 1, -1), kind="NYXC").stack
    np.testing.assert_array_equal(last.read(np.array([2, 1])), colour[[2, 1]])
    np.testing.assert_array_equal(open_source(colour[0], kind="CYX").stack.read([0]), colour[:1])
    np.testing.assert_array_equal(open_source(CUBES, kind="NZYX").stack.read([1])[0, 0], CUBES[1])


@pytest.mark.parametrize(
    ("axes", "shape", "sentence"),
    [
        ("NCYX", (4, 5, 6), "4 axes, NCYX"),
        ("NCYX", (4, 2, 5, 6), "1, 3 or 4"),
        ("YXN", (4, 5, 6), "letters"),
        ("NCYX", (4, 3, 0, 6), "no side of 0"),
    ],
)
def test_axes_that_cannot_be_are_refused(axes, shape, sentence):
    with pytest.raises(InputError, match=sentence):
        open_source(np.zeros(shape, np.float32), kind=axes)


# --- OME --------------------------------------------------------------------------------------


def test_ome_tiff_is_read_by_its_axes_and_its_pixel_size(tmp_path):
    path = tmp_path / "a.ome.tif"
    metadata = {"axes": "TYX", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "nm"}
    tifffile.imwrite(path, PICTURES, ome=True, metadata=metadata)
    np.testing.assert_array_equal(pixels(path), PICTURES)
    assert open_source(path).pixel_size == pytest.approx(5.0)


def test_ome_tiff_with_channels_asks_what_they_are(tmp_path):
    path = tmp_path / "c.ome.tif"
    several = RANDOM.normal(size=(4, 3, 6, 7)).astype(np.float32)
    tifffile.imwrite(path, several, ome=True, metadata={"axes": "TCYX"})
    with pytest.raises(InputError, match="its axes TCYX"):
        open_source(path)
    stack = open_source(path, kind="NCYX").stack
    np.testing.assert_array_equal(stack.read(np.arange(4)), several)


def test_ome_zarr_gives_its_largest_image(tmp_path):
    zarr = pytest.importorskip("zarr")
    path = tmp_path / "a.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.create_array("0", data=PICTURES[:, None, None], chunks=(2, 1, 1, 6, 7))
    group.create_array("1", data=PICTURES[:, None, None, ::2, ::2], chunks=(2, 1, 1, 3, 4))
    axes = [{"name": name, "unit": "nanometer"} for name in "tczyx"]
    scale = [{"type": "scale", "scale": [1, 1, 1, 0.2, 0.2]}]
    datasets = [{"path": p, "coordinateTransformations": scale} for p in ("0", "1")]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": datasets}]
    np.testing.assert_array_equal(pixels(path), PICTURES)
    assert open_source(path).pixel_size == pytest.approx(2.0)


# --- EMAN2, FITS ------------------------------------------------------------------------------


def test_eman_stacks_are_read_in_numeric_order(tmp_path):
    h5py = pytest.importorskip("h5py")
    many = RANDOM.normal(size=(12, 4, 5)).astype(np.float32)
    with h5py.File(tmp_path / "a.hdf", "w") as file:
        for i, image in enumerate(many):
            file[f"MDF/images/{i}/image"] = image
            file[f"MDF/images/{i}"].attrs["EMAN.apix_x"] = 2.5
    np.testing.assert_array_equal(pixels(tmp_path / "a.hdf"), many)
    assert open_source(tmp_path / "a.hdf").pixel_size == pytest.approx(2.5)


def test_fits_cubes_extensions_and_folders_are_read(tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    fits.PrimaryHDU(PICTURES).writeto(tmp_path / "cube.fits")
    np.testing.assert_array_equal(pixels(tmp_path / "cube.fits"), PICTURES)
    hdus = [fits.PrimaryHDU(), *(fits.ImageHDU(p, name=f"IM{i}") for i, p in enumerate(PICTURES))]
    fits.HDUList(hdus).writeto(tmp_path / "several.fits")
    np.testing.assert_array_equal(pixels(tmp_path / "several.fits"), PICTURES)
    np.testing.assert_array_equal(pixels(f"{tmp_path}/several.fits:im2"), PICTURES[2:3])
    folder = tmp_path / "field"
    folder.mkdir()
    for i, picture in enumerate(PICTURES):
        fits.PrimaryHDU((100 * picture).astype(np.int16)).writeto(folder / f"g{i}.fits")
    np.testing.assert_array_equal(pixels(folder), (100 * PICTURES).astype(np.int16))


def test_a_damaged_fits_file_is_refused(tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    fits.PrimaryHDU(np.zeros((40, 40, 40), np.float32)).writeto(tmp_path / "a.fits")
    raw = (tmp_path / "a.fits").read_bytes()
    (tmp_path / "a.fits").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(InputError, match="not readable as FITS"):
        open_source(tmp_path / "a.fits").stack.read(np.arange(40))


@pytest.mark.parametrize(
    ("name", "extra"), [("a.fits", "fits"), ("a.hdf", "hdf5"), ("a.zarr", "zarr")]
)
def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch, name, extra):
    import importlib

    def missing(module: str) -> None:
        raise ImportError(module)

    (tmp_path / name).write_bytes(b"x" * 3000)
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(InputError, match=rf"modpose\[{extra}\]"):
        open_source(tmp_path / name)


# --- folders ----------------------------------------------------------------------------------


def test_hidden_files_of_a_folder_are_skipped(tmp_path):
    for i in range(3):
        (tmp_path / f"v{i}.em").write_bytes(em(CUBES[i]))
    (tmp_path / "._v0.em").write_bytes(b"a resource fork")
    (tmp_path / ".hidden.mrc").write_bytes(b"")
    np.testing.assert_array_equal(pixels(tmp_path), CUBES)
    pictures = tmp_path / "pictures"
    for place in ("a", ".thumbnails"):
        (pictures / place).mkdir(parents=True)
        Image.new("L", (4, 4)).save(pictures / place / "p.png")
    assert open_source(pictures).n == 1


def test_a_folder_of_two_formats_is_refused(tmp_path):
    (tmp_path / "v.em").write_bytes(em(CUBES[0]))
    write_mrcs(tmp_path / "v.mrc", CUBES[:1], 1.0)
    with pytest.raises(InputError, match="EM files and MRC files"):
        open_source(tmp_path)
    (tmp_path / "v.em").unlink()
    Image.new("L", (4, 4)).save(tmp_path / "preview.png")
    with pytest.raises(InputError, match=r"pictures \(preview.png\) and other images \(v.mrc\)"):
        open_source(tmp_path)


def test_pictures_that_are_not_read_are_named(tmp_path, caplog):
    """Of a folder with pictures and sub-folders, only its own pictures are read."""
    (tmp_path / "spirals").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "spirals" / "a.png")
    assert open_source(tmp_path).n == 1 and not caplog.text
    Image.new("L", (4, 4)).save(tmp_path / "b.png")
    assert open_source(tmp_path).n == 1
    assert "its 1 pictures are read, not its sub-folders; they hold pictures too" in caplog.text


def test_a_packed_file_is_to_be_unpacked_first(tmp_path):
    (tmp_path / "galaxies.ZIP").write_bytes(b"PK")
    (tmp_path / "set.tar.gz").write_bytes(b"")
    for name, suffix in (("galaxies.ZIP", "zip"), ("set.tar.gz", "gz")):
        with pytest.raises(InputError, match=rf"packed \(.{suffix}\), expected what it holds"):
            open_source(tmp_path / name)


# --- cisTEM -----------------------------------------------------------------------------------

CISTEM = [
    *("PositionInStack", "AnglePsi", "AngleTheta", "AnglePhi", "XShift", "YShift", "Defocus1"),
    *("Defocus2", "DefocusAngle", "PhaseShift", "PixelSize", "MicroscopeVoltagekV"),
    *("MicroscopeCsMM", "AmplitudeContrast", "BeamTiltX"),
]


def cistem(path: Path, rows: list[list[float]]) -> Path:
    head = "".join(f"_cisTEM{name} #{i}\n" for i, name in enumerate(CISTEM, 1))
    body = "\n".join(" ".join(f"{value:g}" for value in row) for row in rows)
    path.write_text(f"# Written by cisTEM\n \ndata_\n \nloop_\n{head}# comment\n{body}\n")
    return path


ROWS = [
    [2, 10, 20, 30, 3.0, -1.5, 12000, 11000, 40, 0.5, 1.5, 300, 2.7, 0.07, 0],
    [1, 15, 25, 35, 0.0, 4.5, 13000, 12500, 41, 0.0, 1.5, 300, 2.7, 0.07, 0],
]


def test_a_cistem_table_gives_poses_and_ctf_as_its_export_to_relion_does(tmp_path):
    write_mrcs(tmp_path / "p.mrc", PICTURES, 1.5)
    path = cistem(tmp_path / "p.star", ROWS)
    np.testing.assert_array_equal(pixels(path), PICTURES[[1, 0]])
    particles = read_particles(path)
    poses, ctf = particles.poses(), particles.ctf()
    assert poses is not None and ctf is not None
    angles = relion_of_rotation(torch.from_numpy(poses[0]))
    np.testing.assert_allclose(np.asarray(angles)[0], [30, 20, 10], atol=1e-5)
    np.testing.assert_allclose(poses[1], [[2.0, -1.0], [0.0, 3.0]])  # t = -origin = shift
    np.testing.assert_allclose(
        ctf[0], [1.5, 12000, 11000, 40, 300, 2.7, 0.07, np.rad2deg(0.5), 0], rtol=1e-6
    )
    assert "cisTEM table" in str(describe(path))


def test_a_cistem_table_without_its_stack_or_with_beam_tilt_is_refused(tmp_path):
    path = cistem(tmp_path / "p.star", ROWS)
    with pytest.raises(InputError, match=r"p\.mrc is not beside it"):
        open_source(path)
    write_mrcs(tmp_path / "p.mrc", PICTURES, 1.5)
    cistem(path, [[*row[:-1], 0.3] for row in ROWS])
    with pytest.raises(InputError, match="beam tilt of cisTEM"):
        open_source(path)

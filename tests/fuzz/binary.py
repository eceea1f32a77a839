"""Formats of pixels: NPY, NPZ, TIFF, pictures, MRC."""

from __future__ import annotations

import bz2
import gzip
import io
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modpose.data.inspect import describe
from modpose.data.mrc import write_mrcs
from modpose.data.source import open_source
from tests.fuzz.judge import Format, Seed

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 255, (3, 6, 5)).astype(np.uint8)
REAL = RANDOM.standard_normal((3, 5, 6)).astype(np.float32)
RGB = RANDOM.integers(0, 255, (2, 5, 6, 3)).astype(np.uint8)
CUBES = RANDOM.standard_normal((2, 4, 4, 4)).astype(np.float32)
NPY_TOKENS = (
    *(b"'descr'", b"'shape'", b"'fortran_order'", b"True", b"False", b"'<f4'", b"'|u1'", b"'>f8'"),
    *(b"'|O'", b"'<U4'", b"'|S0'", b"'<M8[ns]'", b"'<c8'", b"'<f2'", b"'|b1'", b"'|V8'", b"'<g'"),
    *(b"[('a','<f4')]", b"('<f4',(2,))", b"(-1, 3)", b"(2**62, 4)", b"()", b"None", b"(3, 6, 5)"),
    *(b"(0, 6, 5)", b"(3, 30)", b"(4611686018427387904, 4, 4)", b"'<f3'", b"'f4,f4'", b"'i4'"),
)


def read_all(path: Path, name: str | None = None) -> NDArray[np.float32]:
    """Read a file as a user does: ``inspect``, then every pixel."""
    described = str(describe(path if name is None else Path(f"{path}:{name}")))
    assert described.isprintable() or "\n" in described
    source = open_source(path if name is None else f"{path}:{name}")
    return source.stack.read(np.arange(source.n))


def arranged(array: NDArray[Any]) -> NDArray[np.float32]:
    """Turn an array into (N, channels, *shape) float32, as a stack does."""
    with np.errstate(all="ignore"):
        array = np.asarray(array).astype(np.float32)
    if array.ndim == 4 and len(set(array.shape[1:])) > 1:
        return np.moveaxis(array, -1, 1)[:, :3]
    return array.reshape(-1, 1, *array.shape[1:]) if array.ndim > 2 else array[None, None]


def npy(array: NDArray[Any], version: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version)
    return file.getvalue()


def zipped(inner: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("x.npy", inner)
    return file.getvalue()


def _npz(**arrays: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def _load_npy(path: Path) -> NDArray[np.float32]:
    return arranged(np.load(path, allow_pickle=False, max_header_size=2**24))


def _load_npz(path: Path) -> NDArray[np.float32]:
    with np.load(path, allow_pickle=False, max_header_size=2**24) as archive:
        return arranged(archive["x"])


def _tiff(array: NDArray[Any], **options: Any) -> Seed:
    import tifffile

    file = io.BytesIO()
    with tifffile.TiffWriter(file, **options.pop("file", {})) as writer:
        writer.write(array, **{"photometric": "minisblack", **options})
    return Seed(file.getvalue())


def _load_tiff(path: Path) -> NDArray[np.float32]:
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        series = tiff.series[0]
        array, axes = series.asarray(), series.axes
    keep = [n > 1 or axis in "YXI" for n, axis in zip(array.shape, axes, strict=True)]
    return arranged(array.reshape([n for n, k in zip(array.shape, keep, strict=True) if k]))


def _picture(array: NDArray[Any], format: str, mode: str | None = None, **options: Any) -> Seed:
    from PIL import Image

    file = io.BytesIO()
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(file, format, **options)
    return Seed(file.getvalue())


def _load_tiff_picture(path: Path) -> NDArray[np.float32]:
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages[0]
            if page.compression == 1 and page.photometric in (1, 2) and page.bitspersample >= 8:
                array = page.asarray().astype(np.float32)
                colour = np.moveaxis(array, -1 if page.planarconfig == 1 else 0, 0)[:3]
                return array[None, None] if array.ndim == 2 else colour[None]
    except Exception:
        pass  # a list of tags that Pillow reads and tifffile does not
    return _load_picture(path)


def _load_picture(path: Path) -> NDArray[np.float32]:
    from PIL import Image

    with Image.open(path) as image:
        if image.format == "PNG":
            image.verify()  # the checksums of the chunks, which reading pixels passes over
    with Image.open(path) as image:
        grey = {"LA": "L", "1": "1", "L": "L", "F": "F", "I": "I", "I;16": "I;16"}
        mode = image.mode if image.mode == "I;16B" else grey.get(image.mode, "RGB")
        array = np.asarray(image if mode == image.mode else image.convert(mode)).astype(np.float32)
    return array[None, None] if array.ndim == 2 else np.moveaxis(array, -1, 0)[None]


def _mrc(array: NDArray[np.float32], wrap: Callable[[bytes], bytes] = bytes) -> Seed:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.mrc"
        write_mrcs(path, array, 2.0)
        return Seed(path.read_bytes(), wrap)


def _load_mrc(path: Path) -> NDArray[np.float32]:
    import mrcfile

    with mrcfile.open(path, permissive=True) as mrc:
        array, header = mrc.data, mrc.header
        turn = (int(header.maps), int(header.mapr), int(header.mapc))
        depth = int(header.mz)
    if array.ndim == 3 and int(header.ispg) > 400 and depth > 0 and len(array) % depth == 0:
        array = array.reshape(-1, depth, *array.shape[1:])
    axes = [turn.index(axis) for axis in (3, 2, 1)] if sorted(turn) == [1, 2, 3] else [0, 1, 2]
    volume = array.ndim == 4 or int(header.ispg) > 400
    volume |= len(set(array.shape)) == 1 and len(array) > 1
    if volume:
        array = array if array.ndim == 4 else array[None]
        array = array.transpose(0, *(axis + 1 for axis in axes))
    with np.errstate(all="ignore"):
        return (array if array.ndim > 2 else array[None])[:, None].astype(np.float32)


def formats() -> list[Format]:
    """Return the formats of pixels."""
    arrays = [npy(GREY), npy(REAL), npy(np.asfortranarray(REAL)), npy(RGB), npy(CUBES)]
    arrays += [npy(REAL.astype(">f8")), npy(GREY > 99), npy(REAL, (2, 0)), npy(REAL, (3, 0))]
    whole = [_npz(x=REAL), _npz(x=GREY, y=GREY[0]), zipped(arrays[0], zipfile.ZIP_STORED)]
    tiffs = [_tiff(GREY), _tiff(REAL), _tiff(RGB, photometric="rgb")]
    tiffs += [_tiff(GREY, compression="zlib"), _tiff(REAL[0], rowsperstrip=2)]
    tiffs += [_tiff(GREY, file={"bigtiff": True}), _tiff(REAL, file={"byteorder": ">"})]
    tiffs += [_tiff(GREY, file={"imagej": True}), _tiff(GREY, metadata=None)]
    wide = np.repeat(RANDOM.integers(0, 255, (9, 11)).astype(np.uint8), 3, axis=1)
    colour = RGB[0].repeat(4, axis=0)
    pngs = [_picture(wide, "PNG"), _picture(colour, "PNG"), _picture(colour, "PNG", "P")]
    pngs += [_picture(wide.astype(np.uint16) * 9, "PNG"), _picture(wide, "PNG", "1")]
    pngs += [_picture(wide, "PNG", "LA"), _picture(colour, "PNG", "RGBA")]
    return [
        Format("npy", "x.npy", [Seed(a) for a in arrays], read_all, _load_npy, NPY_TOKENS),
        Format(
            *("npz", "x.npz", [*map(Seed, whole), *(Seed(a, zipped) for a in arrays)]),
            *(lambda path: read_all(path, "x"), _load_npz, NPY_TOKENS),
        ),
        Format("tiff", "x.tif", tiffs, read_all, _load_tiff),
        Format(
            "png", "p/x.png", pngs, _folder, _load_picture, (b"IHDR", b"IDAT", b"PLTE", b"tRNS")
        ),
        Format(
            *("jpeg", "p/x.jpg", [_picture(wide, "JPEG"), _picture(colour, "JPEG")]),
            *(_folder, _load_picture),
        ),
        Format(
            *("tiff-picture", "p/x.tif"),
            [
                _picture(wide, "TIFF"),
                _picture(colour, "TIFF", compression="tiff_lzw"),
                _picture(colour, "TIFF"),
            ],
            *(_folder, _load_tiff_picture),
        ),
        Format("mrc", "x.mrc", [_mrc(REAL), _mrc(CUBES), _mrc(CUBES[:1])], read_all, _load_mrc),
        Format("mrcs", "x.mrcs", [_mrc(REAL)], read_all, _load_stack),
        Format(
            *("mrc-gz", "x.mrc.gz"),
            [_mrc(REAL, gzip.compress), Seed(gzip.compress(_mrc(REAL).data))],
            *(read_all, _load_mrc),
        ),
        Format(
            *("mrc-bz2", "x.mrc.bz2"),
            [_mrc(REAL, bz2.compress), Seed(bz2.compress(_mrc(REAL).data))],
            *(read_all, _load_mrc),
        ),
    ]


def _folder(path: Path) -> NDArray[np.float32]:
    return read_all(path.parent)


def _load_stack(path: Path) -> NDArray[np.float32]:
    import mrcfile

    array = _load_mrc(path)
    with mrcfile.open(path, permissive=True) as mrc:
        stack = int(mrc.header.ispg) <= 400
        return mrc.data.reshape(-1, 1, *mrc.data.shape[-2:]).astype(np.float32) if stack else array

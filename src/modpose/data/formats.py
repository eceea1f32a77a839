"""Arrays and pictures: NPY, NPZ, TIFF, folders of PNG/TIFF/JPEG, Zarr, HDF5."""

from __future__ import annotations

import importlib
import logging
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from modpose.data.files import natural_key
from modpose.data.stack import (
    ArrayStack,
    Kind,
    SlicedStack,
    Stack,
    file_reader,
    layout_of,
)
from modpose.errors import InputError

logger = logging.getLogger("modpose")

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
TIFFS = (".tif", ".tiff")
CONTAINERS = (".npz", ".h5", ".hdf5", ".zarr")


def open_npy(path: Path, kind: Kind = "auto") -> Stack:
    """Open a NumPy array file; the header is read now, pixels when asked for."""
    try:
        with path.open("rb") as file:
            shape, fortran, dtype = _npy_header(file)
            offset = file.tell()
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: not readable as NPY ({_first_line(error)})") from None
    _no_objects(path, dtype)
    expected = offset + dtype.itemsize * int(np.prod(shape, dtype=object))
    size = path.stat().st_size
    if size < expected:
        raise InputError(f"{path}: the file is truncated: {size} bytes, expected {expected}")
    if fortran:
        array = np.fromfile(path, dtype, offset=offset, count=int(np.prod(shape)))
        return ArrayStack(array.reshape(shape, order="F"), kind, str(path))
    layout = layout_of(shape, kind, str(path))
    return SlicedStack(file_reader(path, offset, dtype, layout.item), layout, dtype, str(path))


def open_npz(path: Path, array: str | None, kind: Kind = "auto") -> Stack:
    """Open one array of an NPZ archive; it is unpacked into memory once, and that is logged."""
    name = f"{path}:{array}"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            array = _choose(path, array, list(archive.files))
            name = f"{path}:{array}"
            pixels = archive[array]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name}: not readable as NPZ ({_first_line(error)})") from None
    logger.info("%s: unpacked into memory once", name)
    return ArrayStack(pixels, kind, name)


def npz_arrays(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """List the arrays of an NPZ archive with shape and type, from their headers."""
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                with archive.open(member) as file:
                    shape, _, dtype = _npy_header(file)
                arrays[member.removesuffix(".npy")] = (shape, dtype)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: not readable as NPZ ({_first_line(error)})") from None
    return arrays


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read shape, whether the order is Fortran's, and type."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


def open_tiff(path: Path, kind: Kind = "auto") -> Stack:
    """Open a TIFF stack: read in place where it is not compressed, else page by page."""
    import tifffile

    name = str(path)
    try:
        with tifffile.TiffFile(path) as tiff:
            if not tiff.series:
                raise InputError(f"{path}: not readable as TIFF (it has no pages)")
            if len(tiff.series) > 1:
                found = " and ".join(str(s.shape) for s in tiff.series[:2])
                raise InputError.of(path, "the pages' sizes", found, "one box size throughout")
            series = tiff.series[0]
            dtype = np.dtype(tiff.byteorder + series.dtype.str[1:])
            layout = layout_of(_squeezed(series.shape, series.axes), kind, name)
            offset, pages = series.dataoffset, len(series.pages)
    except (tifffile.TiffFileError, OSError, ValueError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not readable as TIFF ({_first_line(error)})") from None
    if offset is not None:
        return SlicedStack(file_reader(path, offset, dtype, layout.item), layout, dtype, name)

    def decode(first: int, last: int) -> NDArray[Any]:
        try:
            with tifffile.TiffFile(path) as tiff:
                return np.asarray(tiff.asarray(key=range(first, last), series=0))
        except (tifffile.TiffFileError, OSError, ValueError, zlib.error) as error:
            raise InputError(f"{path}: not readable as TIFF ({_first_line(error)})") from None

    if pages != layout.n:  # one page holds several sections: unpack the whole
        return ArrayStack(decode(0, pages).reshape(layout.n, *layout.item), kind, name)
    return SlicedStack(decode, layout, dtype, name)


def _squeezed(shape: tuple[int, ...], axes: str) -> tuple[int, ...]:
    """Drop axes of length one, except those of the picture."""
    return tuple(side for side, axis in zip(shape, axes, strict=True) if side > 1 or axis in "YXI")


class PictureStack(Stack):
    """A list of picture files, one image each, all of one size.

    Parameters
    ----------
    paths
        PNG, TIFF or JPEG files, grey or colour; an alpha channel is dropped.
    name
        What messages call the whole.
    """

    def __init__(self, paths: list[Path], name: str) -> None:
        self._paths = paths
        first: tuple[tuple[int, int], int] | None = None
        self.dtype = np.dtype(np.uint8)
        for path in paths:
            size, channels, dtype = _picture_header(path)
            if first is None:
                first, self.dtype = (size, channels), dtype
            if (size, channels) != first:
                raise InputError(
                    f"{path}: the picture is {_picture(size, channels)}, expected "
                    f"{_picture(*first)} as in {paths[0].name}"
                )
        if first is None:
            raise InputError.of(name, "the number of pictures", 0, "at least one")
        self.n, self.shape, self.channels = len(paths), first[0], first[1]
        self.pixel_size, self.name = None, name

    def _read_into(self, rows: NDArray[np.int64], out: NDArray[np.float32]) -> None:
        for i, row in enumerate(rows):
            pixels = _read_picture(self._paths[row])
            out[i] = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)

    def where(self, row: int) -> str:
        """Name the file."""
        return str(self._paths[row])

    def files(self) -> Iterator[Path]:
        """Yield the pictures' files."""
        yield from self._paths


def picture_files(folder: Path, nested: bool = True) -> list[Path]:
    """List a folder's pictures in natural order; if it has none, those of its sub-folders."""
    files = [p for p in folder.iterdir() if _is_picture(p)]
    if not files and nested:
        files = [p for p in folder.rglob("*") if _is_picture(p)]
    return sorted(files, key=lambda p: natural_key(str(p.relative_to(folder))))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURES and not path.name.startswith(".")


def _picture(size: tuple[int, int], channels: int) -> str:
    return f"{size[0]}x{size[1]} {'grey' if channels == 1 else 'colour'}"


GREY_MODES = {"1": "?", "L": "u1", "LA": "u1", "I;16": "u2", "I;16B": "u2", "I": "i4", "F": "f4"}


def _picture_header(path: Path) -> tuple[tuple[int, int], int, np.dtype[Any]]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            frames, mode = getattr(picture, "n_frames", 1), picture.mode
            size = (picture.height, picture.width)
    except UnidentifiedImageError:
        raise InputError(f"{path}: not readable as a picture") from None
    except OSError as error:
        raise InputError(f"{path}: not readable as a picture ({_first_line(error)})") from None
    if frames > 1:
        raise InputError.of(path, "the number of pages", frames, "1 in a folder of pictures")
    if mode in GREY_MODES:
        return size, 1, np.dtype(GREY_MODES[mode])
    return size, 3, np.dtype(np.uint8)


def _read_picture(path: Path) -> NDArray[Any]:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            if picture.mode == "LA":
                return np.asarray(picture.convert("L"))
            return np.asarray(picture if picture.mode in GREY_MODES else picture.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise InputError(f"{path}: not readable as a picture ({_first_line(error)})") from None


def open_zarr(path: Path, array: str | None, kind: Kind = "auto") -> Stack:
    """Open an array of a Zarr store (needs the extra ``zarr``)."""
    zarr = _extra("zarr", path)
    try:
        node = zarr.open(str(path), mode="r")
    except Exception as error:  # every version of zarr has its own errors
        raise InputError(f"{path}: not readable as Zarr ({_first_line(error)})") from None
    return _chunked(path, node, array, kind)


def open_hdf5(path: Path, array: str | None, kind: Kind = "auto") -> Stack:
    """Open a dataset of an HDF5 file (needs the extra ``hdf5``)."""
    h5py = _extra("h5py", path)
    try:
        node = h5py.File(path, mode="r")
    except OSError as error:
        raise InputError(f"{path}: not readable as HDF5 ({_first_line(error)})") from None
    return _chunked(path, node, array, kind)


def _chunked(path: Path, node: Any, array: str | None, kind: Kind) -> Stack:
    if not hasattr(node, "dtype"):
        members = [key for key in node if hasattr(node[key], "dtype")]
        if array is not None and array not in members and array in node:
            members.append(array)
        node = node[_choose(path, array, members)]
    layout = layout_of(tuple(node.shape), kind, str(path))

    def stored(start: int, stop: int) -> NDArray[Any]:
        whole = layout.n == 1 and len(node.shape) == len(layout.item)
        return np.asarray(node[...] if whole else node[start:stop])

    return SlicedStack(stored, layout, np.dtype(node.dtype), str(path))


def _extra(module: str, path: Path) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        extra = {"h5py": "hdf5"}.get(module, module)
        raise InputError(
            f"{path}: reading it needs the package {module}; pip install 'modpose[{extra}]'"
        ) from None


def _choose(path: Path, array: str | None, names: list[str]) -> str:
    if array is None and len(names) == 1:
        return names[0]
    if array in names and array is not None:
        return array
    listed = ", ".join(names) or "none"
    if array is None:
        raise InputError(f"{path}: holds the arrays {listed}; name one, as in {path.name}:NAME")
    raise InputError(f"{path}: there is no array '{array}', only {listed}")


def _no_objects(path: Path, dtype: np.dtype[Any]) -> None:
    if dtype.hasobject:
        raise InputError.of(path, "the type of the numbers", "object (pickled)", "plain numbers")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

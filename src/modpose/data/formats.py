"""NPY and NPZ arrays; and the table of all formats of pixels."""

from __future__ import annotations

import logging
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modpose.data import fits, tensors
from modpose.data.chunked import choose, open_hdf5, open_zarr
from modpose.data.em import SUFFIXES as EM
from modpose.data.em import open_em
from modpose.data.npy import NpyHeader, check_npy_size, read_npy, read_npy_header, read_numbers
from modpose.data.pictures import PICTURES, TIFFS, PictureStack, picture_files
from modpose.data.spider import SUFFIXES as SPIDER
from modpose.data.spider import open_spider
from modpose.data.stack import ArrayStack, Kind, SlicedStack, Stack, file_reader, layout_of
from modpose.data.tiff import open_tiff
from modpose.errors import InputError
from modpose.files.reading import open_regular

__all__ = [
    "CONTAINERS",
    "PICTURES",
    "TIFFS",
    "PictureStack",
    "npz_arrays",
    "open_hdf5",
    "open_npy",
    "open_npz",
    "open_tiff",
    "open_zarr",
    "picture_files",
    "read_npz",
]

logger = logging.getLogger("modpose")

CONTAINERS = (".npz", ".h5", ".hdf5", ".hdf", ".zarr", *tensors.SUFFIXES, *fits.SUFFIXES)
"""Suffixes of files with several arrays, selected by name as in ``stack.npz:name``."""


def open_npy(path: Path, array: str | None = None, kind: Kind = "auto") -> Stack:
    """Open a NumPy array file; the header is read now, pixels later."""
    with open_regular(path) as file:
        header = read_npy_header(file, str(path))
    check_npy_size(header, path.stat().st_size, str(path))
    if header.fortran:
        return ArrayStack(read_npy(path), kind, str(path))
    layout = layout_of(header.shape, kind, str(path))
    reader = file_reader(path, header.offset, header.dtype, layout.item)
    return SlicedStack(reader, layout, header.dtype, str(path))


# --- archives -----------------------------------------------------------------------------------


def open_npz(path: Path, array: str | None, kind: Kind = "auto") -> Stack:
    """Open one array of an NPZ archive; it is unpacked into memory once, with a log message."""
    name, pixels = read_npz(path, array)
    logger.info("%s: unpacked into memory once", name)
    return ArrayStack(pixels, kind, name)


def read_npz(path: Path, array: str | None) -> tuple[str, NDArray[Any]]:
    """Read one array of an NPZ archive; return its name for messages, and the array.

    Only the bytes that the array's header gives are unpacked, and the checksum is compared.
    """
    with _archive(path) as (archive, members):
        array = choose(path, array, list(members))
        name = f"{path}:{array}"
        with archive.open(members[array]) as file:
            header = read_npy_header(file, name, "NPZ")
            check_npy_size(header, members[array].file_size, name)
            pixels = read_numbers(file, header, name)
            if file.read(1):  # reading to the end compares the checksum
                raise InputError(f"{name}: is longer than its header says")
    return name, pixels


def npz_arrays(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """List the arrays of an NPZ archive with shape and type, from their headers."""
    arrays = {}
    with _archive(path) as (archive, members):
        for array, member in members.items():
            with archive.open(member) as file:
                header: NpyHeader = read_npy_header(file, f"{path}:{array}", "NPZ")
            arrays[array] = (header.shape, header.dtype)
    return arrays


@contextmanager
def _archive(path: Path) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """Open an archive; yield it with its members by the name of the array."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            members = {m.filename.removesuffix(".npy"): m for m in archive.infolist()}
            if len(members) < len(archive.infolist()):
                raise InputError(f"{path}: holds two arrays of one name")
            if min((m.header_offset for m in members.values()), default=0) != 0:
                raise InputError(f"{path}: not readable as NPZ (the archive does not begin it)")
            yield archive, members
    except InputError:
        raise
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, struct.error):
        raise InputError(f"{path}: not readable as NPZ (the archive is damaged)") from None
    except (ValueError, KeyError, OverflowError):  # of the directory at the archive's end
        raise InputError(f"{path}: not readable as NPZ (its directory is damaged)") from None
    except RuntimeError:  # a password, or a method of compression that Python lacks
        raise InputError(
            f"{path}: not readable as NPZ (encrypted, or packed in a way that NumPy does not use)"
        ) from None


# --- by name ------------------------------------------------------------------------------------


def _picture(path: Path, array: str | None, kind: Kind) -> Stack:
    return PictureStack([path], str(path))


Opener = Callable[[Path, str | None, Kind], Stack]
OPENERS: dict[str, Opener] = {
    ".npy": open_npy,
    ".npz": open_npz,
    ".zarr": open_zarr,
    **dict.fromkeys((".h5", ".hdf5", ".hdf"), open_hdf5),
    **dict.fromkeys(PICTURES, _picture),
    **dict.fromkeys(TIFFS, open_tiff),
    **dict.fromkeys(EM, open_em),
    **dict.fromkeys(SPIDER, open_spider),
    **dict.fromkeys(fits.SUFFIXES, fits.open_fits),
    **dict.fromkeys(tensors.SUFFIXES, tensors.open_tensor),
}
"""Suffix of a file of pixels (except MRC) to the function that opens it."""
IN_FOLDERS: dict[str, str] = {
    **dict.fromkeys(EM, "EM"),
    **dict.fromkeys(SPIDER, "SPIDER"),
    **dict.fromkeys(fits.SUFFIXES, "FITS"),
}
"""Suffix of files in a folder of stacks (except MRC) to the name of the format."""

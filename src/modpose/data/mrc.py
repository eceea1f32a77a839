"""MRC, MRCS, ST, MAP: the header checked against the file, pixels read lazily.

The format is MRC2014 (Cheng et al. 2015, J. Struct. Biol. 192, 146-150).
"""

from __future__ import annotations

import bz2
import gzip
import logging
import math
import os
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from modpose.data.stack import Kind, Layout, SlicedStack, Stack, file_reader
from modpose.data.statistics import Statistics
from modpose.errors import InputError, shown
from modpose.files.reading import check_memory, open_regular, read_at_most
from modpose.files.writing import replace_atomically

logger = logging.getLogger("modpose")

HEADER_BYTES = 1024
IMOD_STAMP, IMOD_SIGNED = 1146047817, 1
"""IMOD's stamp, and the bit of its flags for signed bytes."""
MODES: dict[int, str] = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2", 101: "u1"}
PACKED = 101
"""Mode with two pixels per byte, the first in the lower half; each row starts with a new byte."""
SUFFIXES = (".mrc", ".mrcs", ".st", ".map", ".ccp4", ".ali", ".rec")


@dataclass(frozen=True)
class MrcHeader:
    """The header of an MRC file.

    Attributes
    ----------
    sections, rows, columns
        Extent of the array as stored: nz, ny, nx.
    dtype
        Type of the numbers, with the byte order.
    offset
        Where the numbers begin, bytes.
    pixel_size
        (x, y, z) angstrom; 0 if the header does not give it.
    space_group
        0 for image stacks, 1 for volumes, from 401 for stacks of volumes.
    depth
        Sections per volume (the word mz).
    axes
        Axis (x, y, z = 1, 2, 3) of the columns, rows and sections.
    stamped
        Whether the word 'MAP ' is present; some programs leave it out.
    packed
        Whether a byte has two pixels (mode 101).
    """

    sections: int
    rows: int
    columns: int
    dtype: np.dtype[Any]
    offset: int
    pixel_size: tuple[float, float, float]
    space_group: int
    depth: int
    axes: tuple[int, int, int]
    stamped: bool
    packed: bool = False

    @property
    def payload(self) -> int:
        """Bytes of the numbers."""
        return self.sections * self.rows * self.stored_columns * self.dtype.itemsize

    @property
    def stored_columns(self) -> int:
        """Numbers stored per row; half the pixels if these are packed."""
        return (self.columns + 1) // 2 if self.packed else self.columns


def is_mrc(path: Path) -> bool:
    """Return whether the name is that of an MRC file, with or without .gz or .bz2."""
    stem = path.with_suffix("") if path.suffix.lower() in (".gz", ".bz2") else path
    return stem.suffix.lower() in SUFFIXES


def open_mrc(path: Path, kind: Kind = "auto") -> Stack:
    """Open an MRC file as a stack.

    Parameters
    ----------
    path
        May end in .gz or .bz2; such a file is unpacked into memory once, with a log message.
    kind
        ``images``: each section is an image; ``volumes``: one volume, or several according to
        the header; ``auto``: depends on the header, the name and whether the array is a cube.

    Raises
    ------
    InputError
        If the header is not that of an MRC file or disagrees with the size of the file.
    """
    header, stored = _open(path)
    if header.packed:
        stored = _unpacked(header, stored)
    if kind not in ("auto", "images", "volumes"):
        raise InputError.of(path, "the kind", f"'{kind}'", "'images' or 'volumes' for an MRC file")
    if kind == "volumes" or (kind == "auto" and _is_volume(path, header)):
        return _volumes(path, header, stored)
    if header.axes != (1, 2, 3):
        raise InputError.of(path, "the axis order (MAPC, MAPR, MAPS)", header.axes, "(1, 2, 3)")
    item = (header.rows, header.columns)
    layout = Layout(header.sections, item, 1, item)
    reader = stored(item)
    return SlicedStack(reader, layout, header.dtype, str(path), pixel_size_of(path, header))


def read_header(path: Path) -> MrcHeader:
    """Read the header and check it against the size of the file."""
    return _open(path)[0]


def pixel_size_of(path: Path, header: MrcHeader, axes: int = 2) -> float | None:
    """Return the pixel size along x; None if the header has none (0).

    A size along another of the first ``axes`` that differs is logged.
    """
    x, *others = header.pixel_size[:axes]
    if not (math.isfinite(x) and x > 0):
        return None
    if any(math.isfinite(size) and abs(size - x) > 0.01 * x for size in others):
        sizes = " by ".join(f"{size:.4g}" for size in (x, *others))
        logger.warning("%s: pixels are %s A; x is used", path, sizes)
    return x


Stored = Callable[[tuple[int, ...]], Callable[[int, int], NDArray[Any]]]


def _open(path: Path) -> tuple[MrcHeader, Stored]:
    """Return the checked header and a function that makes readers for items of a given shape."""
    if path.suffix.lower() in (".gz", ".bz2"):
        header, data = _unpack(path)

        def in_memory(item: tuple[int, ...]) -> Callable[[int, int], NDArray[Any]]:
            array = np.frombuffer(
                data, header.dtype, header.payload // header.dtype.itemsize, header.offset
            )
            items = array.reshape(-1, *item)
            return lambda start, stop: items[start:stop]

        return header, in_memory
    with open_regular(path) as file:
        start = file.read(HEADER_BYTES)
        size = os.fstat(file.fileno()).st_size
    header = _parse(path, start)
    _check_size(path, header, size)
    return header, lambda item: file_reader(path, header.offset, header.dtype, item)


def _unpacked(header: MrcHeader, stored: Stored) -> Stored:
    """Make readers that return two pixels per byte."""

    def opened(item: tuple[int, ...]) -> Callable[[int, int], NDArray[Any]]:
        reader = stored((*item[:-1], header.stored_columns))

        def read(start: int, stop: int) -> NDArray[Any]:
            pairs = reader(start, stop)
            pixels = np.stack([pairs & 15, pairs >> 4], axis=-1)
            return pixels.reshape(*pairs.shape[:-1], -1)[..., : header.columns]

        return read

    return opened


def _unpack(path: Path) -> tuple[MrcHeader, bytes]:
    """Read the header, then unpack only as much as it gives."""
    suffix = path.suffix.lower()
    try:
        with open_regular(path) as packed, _OPENERS[suffix](packed) as file:
            start = read_at_most(file, HEADER_BYTES)
            header = _parse(path, start)
            expected = header.offset + header.payload
            check_memory(path, 2 * expected)
            logger.info("%s: compressed, unpacked into memory once", path)
            data = start + read_at_most(file, expected - HEADER_BYTES + 1)
    except (OSError, EOFError, zlib.error):
        raise InputError(
            f"{path}: not readable as {suffix[1:]} (it is damaged or truncated)"
        ) from None
    if len(data) > expected:
        raise InputError(
            f"{path}: the file is longer than its header says: more than {expected} bytes unpacked"
        )
    _check_size(path, header, len(data))
    return header, data


_OPENERS: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {
    ".gz": lambda file: cast(IO[bytes], gzip.GzipFile(fileobj=file)),
    ".bz2": lambda file: cast(IO[bytes], bz2.BZ2File(file)),
}


def _parse(path: Path, raw: bytes) -> MrcHeader:
    if len(raw) < HEADER_BYTES:
        raise InputError.of(path, "the file", f"{len(raw)} bytes long", "an MRC header of 1024")
    order = _byte_order(raw)
    words = np.frombuffer(raw, dtype=f"{order}i4", count=256)
    reals = np.frombuffer(raw, dtype=f"{order}f4", count=256)
    columns, rows, sections, mode = (int(w) for w in words[:4])
    if mode not in MODES:
        if raw[208:211] != b"MAP":
            found = shown(raw[208:212].decode("latin1"))
            raise InputError.of(path, "the word at byte 208", found, "'MAP ' as in MRC files")
        raise InputError.of(path, "the mode", mode, "one of 0, 1, 2, 6, 12, 101")
    if min(columns, rows, sections) < 1:
        found = f"{sections} x {rows} x {columns}"
        raise InputError.of(path, "the size (sections x rows x columns)", found, "positive numbers")
    extended = int(words[23])
    if extended < 0:
        raise InputError.of(path, "the length of the extended header", extended, "at least 0")
    cell = [float(c) / m if m > 0 else 0.0 for c, m in zip(reals[10:13], words[7:10], strict=True)]
    axes = tuple(int(w) for w in words[16:19])
    return MrcHeader(
        sections=sections,
        rows=rows,
        columns=columns,
        dtype=np.dtype(f"{order}{_type_of(mode, int(words[38]), int(words[39]))}"),
        offset=HEADER_BYTES + extended,
        pixel_size=(cell[0], cell[1], cell[2]),
        space_group=int(words[22]),
        depth=int(words[9]),
        axes=(axes[0], axes[1], axes[2]) if sorted(axes) == [1, 2, 3] else (1, 2, 3),
        stamped=raw[208:211] == b"MAP",
        packed=mode == PACKED,
    )


def _type_of(mode: int, stamp: int, flags: int) -> str:
    """Bytes are signed (MRC2014), unless IMOD wrote the file without that flag."""
    if mode == 0 and stamp == IMOD_STAMP and not flags & IMOD_SIGNED:
        return "u1"
    return MODES[mode]


def _byte_order(raw: bytes) -> str:
    """Use the machine stamp, or, without one, the byte order that gives a known mode."""
    if raw[212:213] in (b"\x44", b"\x11"):
        return "<" if raw[212:213] == b"\x44" else ">"
    return "<" if int.from_bytes(raw[12:16], "little") in MODES else ">"


def _check_size(path: Path, header: MrcHeader, size: int) -> None:
    expected = header.offset + header.payload
    if size == expected:
        if not header.stamped:
            logger.info("%s: there is no word 'MAP '; read as MRC because its size fits", path)
        return
    what = "truncated" if size < expected else "longer than its header says"
    shape = f"{header.sections} x {header.rows} x {header.columns} {header.dtype.name}"
    raise InputError(
        f"{path}: the file is {what}: {size} bytes, expected {expected} for {shape} "
        f"after {header.offset} bytes of header{'' if header.stamped else ' (no word MAP)'}"
    )


def _is_volume(path: Path, header: MrcHeader) -> bool:
    stem = path.with_suffix("") if path.suffix.lower() in (".gz", ".bz2") else path
    if header.space_group > 400:
        return True
    cube = header.sections == header.rows == header.columns
    if stem.suffix.lower() in (".mrcs", ".st") or header.sections == 1:
        if cube and header.space_group == 1 and header.depth == header.sections > 1:
            logger.warning(
                "%s: its header says one volume (space group 1), its name a stack, so it is read "
                "as %d images; if it is a volume, rename it to .mrc",
                *(path, header.sections),
            )
        return False
    return cube or stem.suffix.lower() in (".map", ".ccp4")


def _volumes(path: Path, header: MrcHeader, stored: Stored) -> Stack:
    depth = header.depth if header.space_group > 400 else header.sections
    if depth < 1 or header.sections % depth:
        expected = f"a divisor of the {header.sections} sections"
        raise InputError.of(path, "the number of sections of a volume (mz)", depth, expected)
    item = (depth, header.rows, header.columns)
    # MAPC/R/S give the axis of the columns, rows and sections; wanted order: z, y, x.
    stored_axes = header.axes[::-1]
    order = tuple(stored_axes.index(axis) for axis in (3, 2, 1))
    shape = tuple(item[i] for i in order)
    reader = stored(item)

    def turned(start: int, stop: int) -> NDArray[Any]:
        return reader(start, stop).transpose(0, *(i + 1 for i in order))

    layout = Layout(header.sections // depth, shape, 1, shape)
    return SlicedStack(turned, layout, header.dtype, str(path), pixel_size_of(path, header, 3))


def write_mrcs(
    path: Path,
    images: NDArray[np.floating[Any]],
    pixel_size: float | None,
    overwrite: bool = False,
) -> None:
    """Write images as a mode-2 MRC stack, or volumes as a map or a stack of maps.

    Parameters
    ----------
    path
        The file.
    images
        (N, H, W) images, or (N, D, D, D) volumes (one volume is written as a plain map).
    pixel_size
        Angstrom per pixel; None is written as 0, which means unknown.
    overwrite
        Replace an existing file.

    Raises
    ------
    InputError
        If the file already exists or cannot be written.
    """
    if images.ndim not in (3, 4) or images.size == 0:
        raise InputError.of(path, "the array to write", images.shape, "(N, H, W) or (N, D, H, W)")
    step = max(1, WRITE_BYTES // (4 * images[0].size))
    parts = (images[first : first + step] for first in range(0, len(images), step))
    write_mrcs_parts(path, parts, images.shape, pixel_size, overwrite)


WRITE_BYTES = 2**20
"""Bytes written per step."""


def write_mrcs_parts(
    path: Path,
    parts: Iterable[NDArray[np.floating[Any]]],
    shape: tuple[int, ...],
    pixel_size: float | None,
    overwrite: bool = False,
) -> None:
    """Write the same file as :func:`write_mrcs`, from parts.

    Parameters
    ----------
    path
        The file.
    parts
        Images or volumes, in order, some at a time.
    shape
        Shape of all parts together: (N, H, W) or (N, D, H, W).
    pixel_size, overwrite
        As in :func:`write_mrcs`.
    """

    def write(file: BinaryIO) -> None:
        file.write(bytes(HEADER_BYTES))
        seen = Statistics()
        for part in parts:
            stored = np.ascontiguousarray(part, dtype="<f4")
            seen.add(stored)
            file.write(stored.data)
        file.seek(0)
        file.write(_header(shape, pixel_size, seen))

    replace_atomically(path, write, overwrite)


def _header(shape: tuple[int, ...], pixel_size: float | None, seen: Statistics) -> bytes:
    *_, rows, columns = shape
    volumes = len(shape) == 4
    depth = shape[1] if volumes else 1
    words = np.zeros(256, dtype="<i4")
    reals = words.view("<f4")
    words[:4] = columns, rows, shape[0] * depth, 2
    words[7:10] = columns, rows, depth
    reals[10:13] = np.array([columns, rows, depth]) * (pixel_size or 0.0)
    reals[13:16] = 90.0
    words[16:19] = 1, 2, 3
    with np.errstate(invalid="ignore", over="ignore"):
        reals[19:22] = seen.min, seen.max, seen.mean
        reals[54] = seen.std
    words[22] = (1 if shape[0] == 1 else 401) if volumes else 0
    words[27] = 20140
    raw = bytearray(words.tobytes())
    raw[208:216] = b"MAP \x44\x44\x00\x00"
    return bytes(raw)

"""TIFF stacks."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modpose.data.ome import angstrom, ome_kind
from modpose.data.stack import Kind, SlicedStack, Stack, file_reader, layout_of
from modpose.errors import InputError
from modpose.files.reading import check_memory, regular_file

SHORTEST_HEADER = 8
"""Bytes."""
DENSEST = 10_000
"""Largest number of bytes of pixels per byte of the file in any compression."""


@dataclass(frozen=True)
class _Series:
    """The pages of a file, with one size and type."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int | None
    pages: int
    compression: str | None
    axes: str
    pixel_size: float | None


def open_tiff(path: Path, array: str | None = None, kind: Kind = "auto") -> Stack:
    """Open a TIFF stack: read in place if it is not compressed, else page by page."""
    name = str(path)
    size = regular_file(path).stat().st_size
    with _tiff(path) as tiff:
        series = _series(path, tiff)
    if kind == "auto":
        kind = _kind_of(path, series)
    layout = layout_of(series.shape, kind, name)
    total = series.dtype.itemsize * layout.n * int(np.prod(layout.item, dtype=object))
    if series.offset is not None:
        if series.offset < SHORTEST_HEADER:
            raise InputError(f"{path}: not readable as TIFF (it does not say where its pixels are)")
        if series.offset + total > size:
            raise InputError(
                f"{path}: the file is truncated: {size} bytes, expected {series.offset + total}"
            )
        reader = file_reader(path, series.offset, series.dtype, layout.item)
        return SlicedStack(reader, layout, series.dtype, name, series.pixel_size)
    if series.compression:
        raise InputError.of(
            path, "the compression", series.compression, "none, Deflate or PackBits"
        )
    if total > DENSEST * size:
        shape = " x ".join(map(str, series.shape))
        raise InputError.of(path, "the size", shape, f"what a file of {size} bytes can hold")

    def decode(first: int, last: int) -> NDArray[Any]:
        check_memory(name, (total // series.pages) * (last - first))
        with _tiff(path) as tiff:
            pages = tiff.series[0].pages[first:last]
            if any(count == 0 for page in pages for count in page.databytecounts):
                raise InputError(f"{path}: a part of the pixels is missing in the file")
            return np.asarray(tiff.asarray(key=range(first, last), series=0))

    if series.pages != layout.n:  # one page holds several sections: unpack the whole
        pixels = decode(0, series.pages)
        if pixels.size != layout.n * int(np.prod(layout.item)):
            raise InputError(f"{path}: not readable as TIFF (parts of its pages are missing)")
        return SlicedStack(
            lambda start, stop: pixels.reshape(layout.n, *layout.item)[start:stop],
            layout,
            series.dtype,
            name,
            series.pixel_size,
        )
    return SlicedStack(decode, layout, series.dtype, name, series.pixel_size)


def _series(path: Path, tiff: Any) -> _Series:
    if not tiff.series:
        raise InputError(f"{path}: not readable as TIFF (it has no pages)")
    if len(tiff.series) > 1:
        found = " and ".join(str(s.shape) for s in tiff.series[:2])
        raise InputError.of(path, "the pages' sizes", found, "one box size throughout")
    series = tiff.series[0]
    if series.dtype is None or series.dtype.kind not in "biuf":
        raise InputError.of(path, "the type of the numbers", "none", "integers or reals")
    dtype = np.dtype(tiff.byteorder + series.dtype.str[1:])
    kept = [i for i, axis in enumerate(series.axes) if series.shape[i] > 1 or axis in "YXI"]
    shape = tuple(series.shape[i] for i in kept)
    axes = "".join(series.axes[i] for i in kept)
    return _Series(
        shape,
        dtype,
        series.dataoffset,
        len(series.pages),
        _unreadable(series),
        axes if tiff.is_ome else "",
        _pixel_size(tiff),
    )


def _kind_of(path: Path, series: _Series) -> Kind:
    """Return the meaning of an OME-TIFF's axes."""
    return ome_kind(path, series.axes, series.shape) if series.axes else "auto"


def _pixel_size(tiff: Any) -> float | None:
    """Read the pixel size of an OME-TIFF, angstrom; None without one."""
    if not tiff.is_ome:
        return None
    found = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", tiff.ome_metadata)
    words = dict(re.findall(r'(\w+)="([^"]*)"', found.group(0))) if found else {}
    return angstrom(words.get("PhysicalSizeX"), words.get("PhysicalSizeXUnit", "µm"))


def _unreadable(series: Any) -> str | None:
    """Name the compression if it needs a missing package."""
    page = series.keyframe
    if page.compression == 1:
        return None
    try:
        page.decode  # noqa: B018  a property that finds the decoder, or raises
    except ValueError:
        return str(getattr(page.compression, "name", page.compression))
    return None


@contextmanager
def _tiff(path: Path) -> Iterator[Any]:
    """Open a file with tifffile; turn any of its errors into one sentence.

    tifffile only logs some errors, such as lost pages, and continues.  These are refused too.
    """
    import tifffile

    try:
        with _errors_raised(), path.open("rb") as file, tifffile.TiffFile(file) as tiff:
            yield tiff
    except InputError:
        raise
    except _DamageFound:
        reason = "its list of pages or tags is damaged"
        raise InputError(f"{path}: not readable as TIFF ({reason})") from None
    except Exception:  # a damaged file can cause any error in tifffile
        raise InputError(f"{path}: not readable as TIFF (the file is damaged)") from None


@contextmanager
def _errors_raised() -> Iterator[None]:
    """Make tifffile raise what it would log as an error."""
    damage, log = _Damage(), logging.getLogger("tifffile")
    before = log.propagate, log.level, log.disabled, logging.root.manager.disable
    log.propagate, log.disabled = False, False
    log.setLevel(logging.ERROR)
    logging.disable(logging.NOTSET)
    log.addHandler(damage)
    try:
        yield
    finally:
        log.removeHandler(damage)
        log.propagate, log.disabled = before[0], before[2]
        log.setLevel(before[1])
        logging.disable(before[3])


class _DamageFound(BaseException):
    """Not an Exception; otherwise tifffile would continue for minutes."""


class _Damage(logging.Handler):
    """Stops reading when tifffile reports an error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Raise for an error; warnings do not concern pixels."""
        if record.levelno >= logging.ERROR:
            raise _DamageFound

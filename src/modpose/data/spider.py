"""SPIDER files, as from SPIDER, Xmipp and RELION: images, volumes and stacks of either.

The header consists of real numbers; see spider.wadsworth.org (image file format).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from modpose.data.em import section_layout
from modpose.data.stack import Kind, Layout, SlicedStack, Stack, file_reader
from modpose.errors import InputError
from modpose.files.reading import open_regular

SUFFIXES = (".spi", ".spider", ".xmp", ".stk", ".vol")
LEAST_HEADER = 40 * 4
"""Bytes of the header that are read."""


class _Header(NamedTuple):
    """A header: extent, bytes of a header, number in the stack (0: no stack), byte order."""

    shape: tuple[int, int, int]
    header_bytes: int
    in_stack: int
    pixel_size: float
    order: str


def open_spider(path: Path, array: str | None = None, kind: Kind = "auto") -> Stack:
    """Open a SPIDER file: an image, a volume, or a stack of images or volumes.

    Parameters
    ----------
    path
        The file.
    array
        Not used; SPIDER files hold one array.
    kind
        ``images`` reads the sections of one volume as images.

    Raises
    ------
    InputError
        If the header is not that of a SPIDER file or disagrees with the size of the file.
    """
    with open_regular(path) as file:
        raw = file.read(LEAST_HEADER)
        size = file.seek(0, 2)
    header = next(filter(None, (_parse(raw, order) for order in "><")), None)
    if header is None:
        raise InputError(f"{path}: not readable as SPIDER (its header is not a SPIDER header)")
    count, pixels = max(header.in_stack, 1), math.prod(header.shape)
    words = header.header_bytes // 4 * (count > 1 or header.in_stack > 0)
    expected = header.header_bytes + 4 * count * (words + pixels)
    if size != expected:
        raise InputError.of(path, "the file", f"{size} bytes long", f"{expected} by its header")
    dtype = np.dtype(f"{header.order}f4")
    pixel_size = header.pixel_size if header.pixel_size > 0 else None
    if header.in_stack == 0:
        layout = section_layout(header.shape, kind, path)
        reader = file_reader(path, header.header_bytes, dtype, layout.item)
        return SlicedStack(reader, layout, dtype, str(path), pixel_size)
    item = header.shape if header.shape[0] > 1 else header.shape[1:]
    stored = file_reader(path, header.header_bytes, dtype, (words + pixels,))

    def read(start: int, stop: int) -> NDArray[np.float32]:
        return stored(start, stop)[:, words:].reshape(-1, *item)

    return SlicedStack(read, Layout(count, item, 1, item), dtype, str(path), pixel_size)


def _parse(raw: bytes, order: str) -> _Header | None:
    """Read a header in one byte order; None if it is not a header."""
    if len(raw) < LEAST_HEADER:
        return None
    words = np.frombuffer(raw, f"{order}f4")
    read = [float(words[i - 1]) for i in (1, 2, 12, 13, 23, 22, 5, 24, 26)]
    if not all(math.isfinite(word) and word == int(word) and abs(word) < 2**31 for word in read):
        return None
    sections, rows, columns, records, length, header_bytes, kind, stack, largest = map(int, read)
    whole = kind in (1, 3) and min(sections, rows, columns) >= 1 and (kind == 3 or sections == 1)
    if (
        not whole
        or header_bytes != records * length
        or header_bytes % 4
        or header_bytes < LEAST_HEADER
    ):
        return None
    if stack != 0 and largest < 1:
        return None
    if stack < 0:  # a stack with an index, which current programs do not write
        return None
    size = float(words[37])
    return _Header(
        shape=(sections, rows, columns),
        header_bytes=header_bytes,
        in_stack=largest if stack else 0,
        pixel_size=size if math.isfinite(size) else 0.0,
        order=order,
    )

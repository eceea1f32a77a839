"""EM files (``.em``) of TOM, PyTom and Dynamo: a header of 512 bytes, then the numbers.

The format is that of the TOM toolbox (Nickell et al. 2005, J. Struct. Biol. 149, 227-234).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from modpose.data.stack import Kind, Layout, SlicedStack, Stack, file_reader
from modpose.errors import InputError
from modpose.files.reading import open_regular

SUFFIXES = (".em",)
HEADER_BYTES = 512
ORDERS = {3: ">", 5: ">", 6: "<"}
"""First byte (machine) to the byte order."""
TYPES = {1: "i1", 2: "i2", 4: "i4", 5: "f4", 9: "f8"}
"""Fourth byte to the type of the numbers."""


def open_em(path: Path, array: str | None = None, kind: Kind = "auto") -> Stack:
    """Open an EM file: a cube is one volume, anything else is a stack of images.

    Parameters
    ----------
    path
        The file.
    array
        Not used; EM files hold one array.
    kind
        ``images`` or ``volumes`` overrides this rule.

    Raises
    ------
    InputError
        If the header is not that of an EM file or disagrees with the size of the file.
    """
    with open_regular(path) as file:
        raw = file.read(HEADER_BYTES)
        size = file.seek(0, 2)
    if len(raw) < HEADER_BYTES:
        raise InputError.of(path, "the file", f"{len(raw)} bytes long", "an EM header of 512")
    order, dtype = ORDERS.get(raw[0]), TYPES.get(raw[3])
    if order is None:
        raise InputError.of(path, "the first byte (machine)", raw[0], "3, 5 or 6 as in EM files")
    if dtype is None:
        raise InputError.of(path, "the fourth byte (type)", raw[3], "1, 2, 4, 5 or 9")
    numbers = np.dtype(order + dtype)
    columns, rows, sections = (int(n) for n in np.frombuffer(raw, f"{order}i4", 3, 4))
    if min(columns, rows, sections) < 1:
        found = f"{sections} x {rows} x {columns}"
        raise InputError.of(path, "the size (sections x rows x columns)", found, "positive numbers")
    expected = HEADER_BYTES + columns * rows * sections * numbers.itemsize
    if size != expected:
        raise InputError.of(path, "the file", f"{size} bytes long", f"{expected} by its header")
    layout = section_layout((sections, rows, columns), kind, path)
    reader = file_reader(path, HEADER_BYTES, numbers, layout.item)
    return SlicedStack(reader, layout, numbers, str(path))


def section_layout(shape: tuple[int, int, int], kind: Kind, path: Path) -> Layout:
    """Decide whether (sections, rows, columns) is one volume or a stack of images.

    A cube is a volume unless ``kind`` says otherwise.
    """
    if kind not in ("auto", "images", "volumes"):
        raise InputError.of(path, "the kind", f"'{kind}'", "'images' or 'volumes' for such a file")
    if kind == "volumes" or (kind == "auto" and len(set(shape)) == 1 and shape[0] > 1):
        return Layout(1, shape, 1, shape)
    return Layout(shape[0], shape[1:], 1, shape[1:])

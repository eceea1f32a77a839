"""NumPy's array files (NPY), as they are and inside archives and cryoSPARC tables.

The header is a Python expression.  A small parser reads it in a time proportional to its length,
and checks everything against the length of the file before an array is made.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from modpose.errors import InputError, shown
from modpose.files.reading import check_memory, open_regular

MAGIC = b"\x93NUMPY"
LONGEST_HEADER = 16 * 2**20
"""Bytes; that of a cryoSPARC table after a classification into 100 classes has 30 kB."""
DEEPEST = 8
"""Largest depth of nested brackets."""
LARGEST_ITEM = 2**31 - 1
"""Largest size of one entry in NumPy, bytes."""
PLAIN = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|c8|c16|\?)|[<>|=]?[SUV]\d{1,9}")

_TOKEN = re.compile(
    r"[ \t]*(?:'(?P<single>[^'\\\n]*)'|\"(?P<double>[^\"\\\n]*)\"|"
    r"(?P<number>-?(?:0|[1-9]\d{0,29}))L?|(?P<word>True|False|None)\b|(?P<mark>[{}\[\](),:]))"
)


@dataclass(frozen=True)
class NpyHeader:
    """The header of an NPY file.

    Attributes
    ----------
    shape
        Shape of the array.
    fortran
        Whether the first axis runs fastest.
    dtype
        Type of an entry.
    offset
        Where the numbers begin, bytes from the header's first.
    """

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    offset: int

    @property
    def payload(self) -> int:
        """Bytes of the numbers."""
        return self.dtype.itemsize * math.prod(self.shape)

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.offset + self.payload


class _BadHeaderError(Exception):
    """A damaged header; the text says how."""


def read_npy_header(file: IO[bytes], name: str, what: str = "NPY") -> NpyHeader:
    """Read the header of an array; error messages use ``name`` and the format ``what``."""
    try:
        return _header(file)
    except _BadHeaderError as reason:
        raise InputError(f"{name}: not readable as {what} ({reason})") from None


def check_npy_size(header: NpyHeader, size: int, name: str) -> None:
    """Raise InputError if a file of ``size`` bytes is too short for its array."""
    if size < header.size:
        expected = f"{header.size}" if header.size < 2**63 else "more than any file has"
        raise InputError(f"{name}: the file is truncated: {size} bytes, expected {expected}")


def read_npy(path: Path) -> NDArray[Any]:
    """Read a whole array of plain numbers, text or named fields, without pickled objects.

    Raises
    ------
    InputError
        If the file is not readable as NPY, is truncated, or does not fit into memory.
    """
    with open_regular(path) as file:
        header = read_npy_header(file, str(path))
        check_npy_size(header, path.stat().st_size, str(path))
        return read_numbers(file, header, str(path))


def read_numbers(file: IO[bytes], header: NpyHeader, name: str) -> NDArray[Any]:
    """Read the numbers that follow a header; the file is known to be long enough."""
    check_memory(name, header.payload)
    raw = np.empty(header.payload, dtype=np.uint8)
    view, done = raw.data, 0
    while done < len(raw):
        piece = file.read(min(2**26, len(raw) - done))
        if not piece:
            raise InputError(f"{name}: the file ended {len(raw) - done} bytes early")
        view[done : done + len(piece)] = piece
        done += len(piece)
    flat = np.ndarray(math.prod(header.shape), header.dtype, raw.data)
    return flat.reshape(header.shape, order="F" if header.fortran else "C")


def _header(file: IO[bytes]) -> NpyHeader:
    start = file.read(8)
    if len(start) < 8 or start[:6] != MAGIC:
        raise _BadHeaderError("it does not begin as NPY files do")
    if (start[6], start[7]) not in ((1, 0), (2, 0), (3, 0)):
        raise _BadHeaderError(f"its version is {start[6]}.{start[7]}, expected 1.0, 2.0 or 3.0")
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(file.read(width), "little")
    if length > LONGEST_HEADER:
        raise _BadHeaderError(
            f"its header is {length} bytes long, expected {LONGEST_HEADER} at most"
        )
    raw = file.read(length)
    if len(raw) < length:
        raise _BadHeaderError("it ends within its header")
    try:
        text = raw.decode("latin1" if start[6] < 3 else "utf-8")
    except UnicodeDecodeError:
        raise _BadHeaderError("its header is not text") from None
    found = _parse(text)
    if not isinstance(found, dict) or found.keys() != {"descr", "fortran_order", "shape"}:
        raise _BadHeaderError("its header does not name descr, fortran_order and shape")
    shape, fortran = found["shape"], found["fortran_order"]
    if not isinstance(shape, tuple) or not all(type(side) is int and side >= 0 for side in shape):
        raise _BadHeaderError("its shape is not a tuple of numbers from 0")
    if len(shape) > 32 or math.prod(max(side, 1) for side in shape) >= 2**63:
        raise _BadHeaderError("its shape is larger than any array")
    if not isinstance(fortran, bool):
        raise _BadHeaderError("its order is neither True nor False")
    return NpyHeader(shape, fortran, _dtype(found["descr"]), 8 + width + length)


# --- the type -----------------------------------------------------------------------------------


def _dtype(descr: Any) -> np.dtype[Any]:
    """Make the type that a header describes: plain, or a list of named fields."""
    if isinstance(descr, list):
        _check_fields(descr)
    else:
        _leaf_size(descr, "")
    try:
        dtype = np.lib.format.descr_to_dtype(descr)
    except (ValueError, TypeError):
        raise _BadHeaderError("its type of numbers is not one of NumPy's") from None
    if dtype.itemsize == 0:
        raise _BadHeaderError("its entries take no bytes")
    return dtype


def _check_fields(fields: list[Any]) -> None:
    names: set[str] = set()
    total = 0
    for field in fields:
        if not isinstance(field, tuple) or len(field) not in (2, 3) or type(field[0]) is not str:
            raise _BadHeaderError("a field is not a name, a type and, if need be, a shape")
        name = field[0]
        padding = name == "" and str(field[1]).startswith("|V")
        if name in names or not (name or padding) or not name.isprintable():
            raise _BadHeaderError(f"the name of a field is {shown(name)}: empty or there twice")
        names |= {name} if name else set()
        shape = field[2] if len(field) == 3 else ()
        if not isinstance(shape, tuple) or not all(type(n) is int and n > 0 for n in shape):
            raise _BadHeaderError(f"the shape of the field {shown(name)} is not a list of numbers")
        total += _leaf_size(field[1], name) * math.prod(shape)
        if len(shape) > 8 or total > LARGEST_ITEM:
            raise _BadHeaderError("its fields are larger than any table's")


def _leaf_size(descr: Any, field: str) -> int:
    """Return the bytes of a plain type; refuse any other type."""
    of = f" of the field {shown(field)}" if field else ""
    if isinstance(descr, str) and descr.lstrip("<>|=") == "O":
        raise _BadHeaderError(f"the type{of} is object (pickled), expected plain numbers or text")
    if not isinstance(descr, str) or (field and "V" in descr) or not PLAIN.fullmatch(descr):
        found = shown(descr) if isinstance(descr, str) else "nested"
        raise _BadHeaderError(f"the type{of} is {found}, expected plain numbers or text")
    digits = int(re.sub(r"\D", "", descr) or 1)
    size = 4 * digits if "U" in descr else digits
    if size > LARGEST_ITEM:
        raise _BadHeaderError(f"the type{of} is {shown(descr)}, which is too large")
    return size


# --- the expression -----------------------------------------------------------------------------


def _parse(text: str) -> Any:
    """Read a dictionary, list, tuple, text, whole number, True, False or None."""
    tokens = _tokens(text)
    value, after = _value(next(tokens, ("end", "")), tokens, 0), next(tokens, None)
    if after is not None:
        raise _BadHeaderError("its header continues after its end")
    return value


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    position, end = 0, len(text.rstrip(" \t\r\n"))
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            raise _BadHeaderError("its header is not what NumPy writes")
        kind = str(match.lastgroup)
        yield kind, match[kind]
        position = match.end()


def _value(token: tuple[str, str], tokens: Iterator[tuple[str, str]], depth: int) -> Any:
    kind, text = token
    if kind in ("single", "double"):
        return text
    if kind == "number":
        return int(text)
    if kind == "word":
        return {"True": True, "False": False, "None": None}[text]
    if kind != "mark" or text not in "{[(" or depth > DEEPEST:
        raise _BadHeaderError("its header is not what NumPy writes")
    items, commas = _items(text, tokens, depth)
    if text == "{":
        found = dict(items)
        if len(found) != len(items):
            raise _BadHeaderError("its header names something twice")
        return found
    if text == "[":
        return items
    return items[0] if len(items) == 1 and not commas else tuple(items)


def _items(mark: str, tokens: Iterator[tuple[str, str]], depth: int) -> tuple[list[Any], int]:
    """Read the items between two brackets; return them with the number of commas."""
    close, commas = {"{": "}", "[": "]", "(": ")"}[mark], 0
    items: list[Any] = []
    while True:
        token = next(tokens, ("end", ""))
        if token == ("mark", close):
            return items, commas
        if len(items) > commas:
            if token != ("mark", ","):
                raise _BadHeaderError("its header lacks a comma")
            commas += 1
            continue
        item = _value(token, tokens, depth + 1)
        if mark == "{":
            if type(item) is not str or next(tokens, None) != ("mark", ":"):
                raise _BadHeaderError("its header is not what NumPy writes")
            item = (item, _value(next(tokens, ("end", "")), tokens, depth + 1))
        items.append(item)

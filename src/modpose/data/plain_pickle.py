"""Arrays from pickle files, without executing anything in them.

A pickle is a program: it names functions and calls them.  This reader looks up no names.  The few
names that an array needs are replaced by recorders, which store their arguments; the array is then
made from the recorded bytes, and only from plain numbers.  Anything else is refused.
"""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from modpose.errors import InputError, shown
from modpose.files.reading import open_regular

LARGEST = 2**33
"""Largest file that is read, bytes."""
MOST_STEPS = 10**6
"""Largest number of steps of a pickle; an array takes about twenty."""
HASHING = frozenset(b"}du" + b"s" + b"\x8f\x90\x91")
"""Codes of the steps that make or fill dictionaries and sets."""
PLAIN = re.compile(r"[<>|=]?(f[248]|i[1248]|u[1248]|b1)")
"""Types of plain numbers, as NumPy writes them."""


def read_plain_pickle(path: Path) -> list[NDArray[Any]]:
    """Read an array, or a tuple or list of arrays, from a pickle file.

    Returns
    -------
    list
        The arrays, in order; one for a single array.

    Raises
    ------
    InputError
        If the file is not a pickle, or contains anything but plain arrays.
    """
    try:
        with open_regular(path) as file:
            if path.stat().st_size > LARGEST:
                raise InputError(f"{path}: the file is larger than {LARGEST >> 30} GiB")
            found = _Reader(file).load()
    except InputError:
        raise
    except _RefusedError as refused:
        raise InputError(
            f"{path}: the pickle asks for {refused}, expected plain arrays of numbers only; it was "
            "not opened, because it could execute code"
        ) from None
    except Exception:  # a pickle can cause any error in its reader
        raise InputError(f"{path}: not readable as a pickle of plain arrays") from None
    parts = list(found) if isinstance(found, tuple | list) else [found]
    return [_array(part, path) for part in parts]


class _RefusedError(Exception):
    """A name that no array needs."""


class _Record:
    """The pickle's description of an array."""

    __slots__ = ("dtype", "raw", "shape")

    def __init__(self) -> None:
        self.dtype: Any = None
        self.shape: Any = None
        self.raw: Any = None

    def __setstate__(self, state: Any) -> None:
        version, shape, dtype, fortran, raw = state
        if version != 1 or fortran not in (0, 1):
            raise _RefusedError("an array that is not described in full")
        self._keep(raw, dtype, shape, "F" if fortran else "C")

    def _keep(self, raw: Any, dtype: Any, shape: Any, order: Any) -> None:
        self.raw, self.dtype, self.shape = raw, dtype, (shape, order)


class _Type:
    """The pickle's description of a type of numbers."""

    __slots__ = ("name",)

    def __init__(self, name: Any) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        whole = isinstance(state, tuple) and len(state) in (8, 9) and state[2:5] == (None,) * 3
        if not whole or state[0] not in (3, 4) or state[5:8] != (-1, -1, 0):
            raise _RefusedError("a type of numbers that is not plain")
        order = state[1]
        if order in ("<", ">") and isinstance(self.name, str) and self.name[:1] not in "<>|=":
            self.name = order + self.name


# Each replaces one function or class that NumPy's pickles call; none accepts attributes.


class _Reconstruct:
    __slots__ = ()

    def __call__(self, kind: Any, shape: Any, letter: Any) -> _Record:
        if not (isinstance(shape, tuple) and all(type(side) is int for side in shape)):
            raise _RefusedError("an array that is not described in full")
        return _Record()


class _FromBuffer:
    __slots__ = ()

    def __call__(self, raw: Any, dtype: Any, shape: Any, order: Any) -> _Record:
        record = _Record()
        record._keep(raw, dtype, shape, order)
        return record


class _MakeType:
    __slots__ = ()

    def __call__(self, name: Any, align: Any, copy: Any) -> _Type:
        return _Type(name)


class _Encode:
    __slots__ = ()

    def __call__(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise _RefusedError("text in another encoding than latin1")
        return text.encode("latin1")


class _NoBytes:
    __slots__ = ()

    def __call__(self) -> bytes:
        return b""


class _Nothing:
    __slots__ = ()


class _Steps(dict[int, Any]):
    """The allowed steps of a pickle, a limited number of times.

    Dictionaries and sets are not allowed: no array needs them, and looking up a key of nested
    tuples may take extremely long.
    """

    left = MOST_STEPS

    def __getitem__(self, step: int) -> Any:
        self.left -= 1
        if self.left < 0:
            raise _RefusedError(f"more than {MOST_STEPS} steps")
        if step in HASHING:
            raise _RefusedError("a dict or a set")
        return super().__getitem__(step)


class _Memo(dict[int, Any]):
    """The pickle's memory, by number."""

    def __setitem__(self, number: int, value: Any) -> None:
        if not 0 <= number < MOST_STEPS:
            raise _RefusedError("a number beyond its length")
        super().__setitem__(number, value)


class _Whole:
    """A file that refuses to read beyond its end."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.readline = file, file.readline
        self._size = os.fstat(file.fileno()).st_size

    def read(self, size: int) -> bytes:
        if size > self._size - self._file.tell():
            raise _RefusedError("more bytes than the file has")
        return self._file.read(size)


class _Reader(pickle._Unpickler):  # in Python, which keeps a memo of no more than what is there
    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(_Whole(file))
        self.memo = _Memo()
        self.dispatch = _Steps(pickle._Unpickler.dispatch)  # type: ignore[misc]

    def find_class(self, module: str, name: str) -> Any:
        core = re.sub(r"^numpy\._?core", "core", module)
        stand_ins: dict[tuple[str, str], type] = {
            ("core.multiarray", "_reconstruct"): _Reconstruct,
            ("core.numeric", "_frombuffer"): _FromBuffer,
            ("numpy", "ndarray"): _Nothing,
            ("numpy", "dtype"): _MakeType,
            ("_codecs", "encode"): _Encode,
            ("__builtin__", "bytes"): _NoBytes,
        }
        stand_in = stand_ins.get((core, name))
        if stand_in is None:
            plain = re.fullmatch(r"[\w.]{1,80}", f"{module}.{name}", re.ASCII)
            raise _RefusedError(plain[0] if plain else "something that has no name")
        return stand_in()

    def persistent_load(self, pid: Any) -> Any:
        raise _RefusedError("an object outside the file")


def _array(found: Any, path: Path) -> NDArray[Any]:
    """Make the array that a record describes."""
    expected = "plain arrays of numbers"
    if not isinstance(found, _Record):
        kind = "an array that is not complete" if found is None else f"a {type(found).__name__}"
        raise InputError.of(path, "an entry of the pickle", kind, expected)
    name = found.dtype.name if isinstance(found.dtype, _Type) else None
    if not isinstance(name, str) or not PLAIN.fullmatch(name):
        found_type = name if isinstance(name, str) else None
        raise InputError.of(path, "the type of an array of the pickle", shown(found_type), expected)
    dtype, raw = np.dtype(name), found.raw
    shape, order = found.shape
    whole = isinstance(shape, tuple) and all(type(side) is int and side >= 0 for side in shape)
    if not whole or order not in ("C", "F") or not isinstance(raw, bytes | bytearray):
        raise InputError.of(path, "an array of the pickle", "not described in full", expected)
    if len(raw) != dtype.itemsize * int(np.prod(shape, dtype=object)):
        raise InputError.of(path, "an array of the pickle", "not as long as it says", expected)
    return np.frombuffer(bytes(raw), dtype).reshape(shape, order=order).copy()


def write_plain_pickle(path: Path, arrays: NDArray[Any] | tuple[NDArray[Any], ...]) -> None:
    """Pickle one array of numbers, or a tuple of them."""
    path.write_bytes(pickle.dumps(arrays, protocol=4))

"""Checks before reading: is the path a file, and does its content fit into memory."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from modpose.errors import InputError

PIECE = 16 * 2**20
"""Bytes unpacked per step."""
KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def regular_file(path: Path) -> Path:
    """Return ``path`` if it is a file that can be opened.

    Every reader calls this first: opening a named pipe would block, and a device such as
    /dev/zero never ends.

    Raises
    ------
    InputError
        If it is missing, not readable, a folder, a pipe, a socket or a device.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {_reason(error)}") from None
    if stat.S_ISREG(mode):
        return path
    kind = next((word for test, word in KINDS if test(mode)), "no file")
    raise InputError(f"{path}: this is {kind}, expected a file")


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "no such file or folder"
    if isinstance(error, OSError) and error.strerror:
        return f"not readable ({error.strerror.lower()})"
    return "not readable"


@contextmanager
def open_regular(path: Path) -> Iterator[IO[bytes]]:
    """Open a regular file; disk errors while reading become an InputError too."""
    regular_file(path)
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise InputError(f"{path}: {_reason(error)}") from None


def free_memory() -> int:
    """Return the bytes of memory that a new array may use."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        known = dict(line.split(":", 1) for line in lines)
        return int(known["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_memory(name: str | Path, size: int) -> None:
    """Raise InputError if ``size`` bytes do not fit into the free memory."""
    if size < 2**28:
        return
    free = free_memory()
    if size > free:
        needed = f"{size / 2**30:,.0f} GiB" if size < 2**70 else "more than any"
        raise InputError(
            f"{name}: does not fit: it needs {needed} of memory, {free / 2**30:.1f} GiB are free"
        )


def read_at_most(file: IO[bytes], size: int) -> bytes:
    """Read up to ``size`` bytes of a compressed file, in steps.

    A file of a few kilobytes can unpack to any length, so only the requested bytes are unpacked.
    """
    pieces, left = [], size
    while left > 0:
        piece = file.read(min(PIECE, left))
        if not piece:
            break
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)

"""Text files: of bounded size, UTF-8, with or without a byte order mark."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from modpose.errors import InputError

LARGEST = 1 << 33
"""Largest text file that is read, bytes."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?")
WHOLE = re.compile(r"[+-]?\d+")
INT64 = 2**63


def read_text(path: Path, kind: str, largest: int = LARGEST) -> str:
    """Read a text file; all line ends become line feeds.

    Parameters
    ----------
    path
        The file.
    kind
        Name of the format for the error message: ``STAR``, ``CSV``.
    largest
        Largest size, bytes.

    Raises
    ------
    InputError
        If it is not a file, cannot be opened, is too large, or is not UTF-8 text.
    """
    return read_utf8(path, kind, largest).decode()


def read_utf8(path: Path, kind: str, largest: int = LARGEST) -> bytes:
    """Read a text file as UTF-8 bytes; see :func:`read_text`."""
    content = read_file(path, kind, largest).removeprefix(b"\xef\xbb\xbf")
    if not content.isascii():
        try:
            content.decode()
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            found = f"line {line} is not text in UTF-8"
            raise InputError(f"{path}: not readable as {kind} ({found})") from None
    if b"\0" in content:
        raise InputError(f"{path}: not readable as {kind} (it is not text)")
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return content


def read_file(path: Path, kind: str, largest: int = LARGEST) -> bytes:
    """Read the bytes of a whole file; see :func:`read_text`."""
    try:
        if not path.is_file():  # nor a FIFO, which would block
            found = "it is a folder or a device" if path.exists() else "there is no such file"
            raise InputError(f"{path}: not readable as {kind} ({found})")
        size = path.stat().st_size
        if size > largest:
            expected = f"at most {largest:,}"
            raise InputError.of(path, f"the size of the {kind} file", f"{size:,} bytes", expected)
        return path.read_bytes()
    except OSError as error:
        reason = (error.strerror or "it cannot be opened").lower()
        raise InputError(f"{path}: not readable as {kind} ({reason})") from None
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not readable as {kind} (no file has such a name)") from None


def in_shell(path: Path) -> str:
    """Write a path as a shell takes it: in quotes if it has blanks, and never like an option."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def whole_number(text: str) -> int | None:
    """Read a 64-bit whole number; None if the text is not one."""
    if WHOLE.fullmatch(text) is None or len(text) > 20 or not text.isascii():
        return None
    value = int(text)
    return value if -INT64 <= value < INT64 else None


def number(text: str) -> float | None:
    """Read a finite decimal number; None if the text is not one."""
    if not text.isascii() or NUMBER.fullmatch(text) is None:
        return None
    value = float(text)
    return value if abs(value) < float("inf") else None

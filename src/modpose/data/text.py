"""Files of text, read whole: of bounded size, UTF-8, with or without a byte order mark."""

from __future__ import annotations

import re
from pathlib import Path

from modpose.errors import InputError, shown

LARGEST = 1 << 33
"""Bytes of the largest text file that is read."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?")
WHOLE = re.compile(r"[+-]?\d+")
INT64 = 2**63


def read_text(path: Path, kind: str, largest: int = LARGEST) -> str:
    """Read a text file; lines end with a line feed, whatever they ended with.

    Parameters
    ----------
    path
        The file.
    kind
        What it is read as, for the sentence where it is no such thing: ``STAR``, ``CSV``.
    largest
        Bytes that it may have.

    Raises
    ------
    InputError
        Where it is no file, cannot be opened, is too large, or is not UTF-8 text.
    """
    return _lines_joined(_decoded(read_bytes(path, kind, largest), path, kind))


def read_bytes(path: Path, kind: str, largest: int = LARGEST) -> bytes:
    """Read a whole file; see :func:`read_text`."""
    try:
        if not path.is_file():  # nor a FIFO, which would be waited for
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
    except ValueError:  # a name that no file can have
        raise InputError(f"{path}: not readable as {kind} (there is no such file)") from None


def _decoded(content: bytes, path: Path, kind: str) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        found = f"line {line} is not UTF-8 text; save the file as UTF-8"
        raise InputError(f"{path}: not readable as {kind} ({found})") from None
    if "\0" in text:
        raise InputError(f"{path}: not readable as {kind} (it is not text)")
    return text


def _lines_joined(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def whole_number(text: str) -> int | None:
    """Read a whole number that 64 bits hold; None where the text is none."""
    if WHOLE.fullmatch(text) is None or len(text) > 20 or not text.isascii():
        return None
    value = int(text)
    return value if -INT64 <= value < INT64 else None


def number(text: str) -> float | None:
    """Read a finite decimal number; None where the text is none."""
    if not text.isascii() or NUMBER.fullmatch(text) is None:
        return None
    value = float(text)
    return value if abs(value) < float("inf") else None


def quoted_entry(path: Path, line: int, entry: str, expected: str) -> InputError:
    """Build the sentence about one entry of a file of text."""
    return InputError.of(path, f"line {line}", shown(entry), expected)

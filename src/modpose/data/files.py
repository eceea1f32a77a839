"""Small things about files: natural order, whole-or-nothing writing."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from modpose.errors import InputError


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sort key by which ``img2`` comes before ``img10``."""
    parts = re.split(r"(\d+)", text)
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p.lower()) for p in parts if p]


def replace_atomically(
    path: Path, write: Callable[[BinaryIO], object], overwrite: bool = False
) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then put it in its place.

    Raises
    ------
    InputError
        Where ``path`` is there already and ``overwrite`` is false, or cannot be written; nothing
        half-written stays behind.
    """
    if path.exists() and not overwrite:
        raise InputError(f"{path}: is there already; ask to overwrite it")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            with temporary.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(f"{path}: not writable ({error.strerror})") from None

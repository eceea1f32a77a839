"""Lists of files in a text, one a line, as cryoDRGN's ``particles.txt``."""

from __future__ import annotations

from pathlib import Path

from modpose.data.locate import find_files, not_found
from modpose.errors import InputError
from modpose.files.text import read_text


def read_list(path: Path, datadir: Path | None = None) -> list[Path]:
    """Read the names of files, one a line; relative ones start at the list or at ``datadir``.

    Raises
    ------
    InputError
        If the list is empty or a file cannot be found.
    """
    lines = (line.strip() for line in read_text(path, "a list of files").split("\n"))
    names = [line for line in lines if line]
    if not names:
        raise InputError.of(path, "the number of files", 0, "at least one, one a line")
    found, missing = find_files(names, path, datadir)
    if missing:
        raise InputError(f"{path}: {not_found(missing, len(found), path)}")
    return [found[name] for name in names]

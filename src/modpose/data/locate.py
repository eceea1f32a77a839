"""Find the files that a table names, also after they or the table have moved."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from modpose.data.paths import normalised
from modpose.errors import InputError, shorter

logger = logging.getLogger("modpose")

SHOWN = 3
"""Number of names that are listed."""
ABOVE, DEEP, MOST_FOLDERS = 3, 2, 500
"""Missing files are searched in so many folders above, so deep, in at most so many folders."""


def find_files(
    names: list[str], table: Path, datadir: Path | None
) -> tuple[dict[str, Path], list[str]]:
    """Find the files that a table names.

    They are searched in the data folder, in the folder of the table (of a link, also in that of the
    file), and in the folders above it (RELION's paths start at the project).  In the data folder,
    and then in the folder of the table, also by the longest end of their path.  A file found by the
    end of its path, or by its bare name in a folder above, is a guess, and is logged.

    Parameters
    ----------
    names
        Names as written; repeats are allowed.
    table
        The table that names them.
    datadir
        First folder to search, or None.

    Returns
    -------
    found, missing
        The files by name, and the names of missing files.

    Raises
    ------
    InputError
        If a guess fits two names, or ``datadir`` is not a folder.
    """
    if datadir is not None and not datadir.is_dir():
        raise InputError(f"--datadir: {datadir} is not a folder")
    found: dict[str, Path] = {}
    guessed: dict[str, int] = {}
    missing: list[str] = []
    for name in dict.fromkeys(names):
        hit = next((c for c in _candidates(name, table, datadir) if is_there(c[0])), None)
        if hit is None:
            missing.append(name)
            continue
        found[name], length = hit
        if length:
            guessed[name] = length
    if guessed:
        _check_guesses(list(dict.fromkeys(names)), found, guessed, table)
        _say_guesses(found, guessed, table)
    return found, missing


def is_there(path: Path) -> bool:
    """Tell whether a file exists; none has a name that is too long."""
    try:
        return path.is_file()
    except OSError:
        return False


def _candidates(name: str, table: Path, datadir: Path | None) -> Iterator[tuple[Path, int]]:
    """Yield possible places of a file, and the number of path parts used (0: as written)."""
    written = Path(name.strip()).expanduser() if name.startswith("~") else Path(name)
    parts = [part for part in normalised(name).split("/") if part not in ("", "..", "~")]
    folder = table.absolute().parent
    if datadir is not None:
        yield datadir / written, 0
        yield from _ends(datadir, parts)
    yield folder / written, 0
    real = table.resolve().parent  # another folder if the table is a link
    if real != folder:
        yield real / written, 0
    if not written.is_absolute():
        bare = len(parts) == 1  # RELION's paths name the folder of a job
        for parent in dict.fromkeys((*folder.parents, *real.parents)):
            yield parent / written, int(bare)
    yield from _ends(folder, parts)


def not_found(missing: list[str], found: int, table: Path) -> str:
    """Say which files of a table cannot be found, and which folder they would be found in."""
    shown = ", ".join(shorter(name, 50) for name in missing[:SHOWN])
    more = ", ..." if len(missing) > SHOWN else ""
    folder = _folder_with(missing, table)
    hint = "" if folder is None else f"; --datadir {folder} would find them"
    return (
        f"{len(missing)} of {len(missing) + found} image files cannot be found beside the table, "
        f"in a folder above it or in --datadir: {shown}{more}{hint}"
    )


def _folder_with(missing: list[str], table: Path) -> Path | None:
    """Find a folder within those above a table in which files are found by their ends."""
    parts = [normalised(name).split("/") for name in missing]
    looked_at = 0
    for above in list(table.absolute().parents)[:ABOVE]:
        for folder in _folders_in(above, DEEP):
            looked_at += 1
            if looked_at > MOST_FOLDERS:
                return None
            if all(any(is_there(end) for end, _ in _ends(folder, names)) for names in parts):
                return folder
    return None


def _folders_in(folder: Path, deep: int) -> Iterator[Path]:
    yield folder
    if deep:
        try:
            inside = sorted(path for path in folder.iterdir() if path.is_dir())
        except OSError:
            return
        for path in inside:
            yield from _folders_in(path, deep - 1)


def as_written(name: str, table: Path) -> Path | None:
    """Find a file at the place that a table gives; None if it is missing."""
    places = (path for path, length in _candidates(name, table, None) if length == 0)
    return next((path for path in places if is_there(path)), None)


def _ends(folder: Path, parts: list[str]) -> Iterator[tuple[Path, int]]:
    """Yield the ends of a path in a folder, the longest first."""
    for length in range(len(parts), 0, -1):
        yield folder.joinpath(*parts[-length:]), length


def _check_guesses(
    names: list[str], found: dict[str, Path], guessed: dict[str, int], table: Path
) -> None:
    """Refuse a guess that fits two names."""
    ends = {name: tuple(normalised(name).split("/")) for name in names}
    lengths = sorted(set(guessed.values()))
    times = Counter(
        end for parts in set(ends.values()) for end in {parts[-length:] for length in lengths}
    )
    for name, length in guessed.items():
        end = ends[name][-length:]
        if times[end] > 1:
            other = next(n for n in names if ends[n] != ends[name] and ends[n][-length:] == end)
            _refuse(table, name, other, found[name])
    owners: dict[str, str] = {}
    for name in sorted(found, key=lambda n: n in guessed):
        real = os.path.realpath(found[name])
        other = owners.setdefault(real, name)
        if name in guessed and ends[other] != ends[name]:
            _refuse(table, name, other, found[name])


def _refuse(table: Path, name: str, other: str, file: Path) -> None:
    raise InputError(
        f"{table}: {_short(name)} and {_short(other)} would both be read from {file}, expected a "
        "file for each; give the folder that contains their folders as --datadir"
    )


def _say_guesses(found: dict[str, Path], guessed: dict[str, int], table: Path) -> None:
    """Log which files were found by the end of their path, the shortest ends first."""
    order = sorted(guessed, key=lambda name: guessed[name])
    shown = "; ".join(f"{_short(name)} is read from {found[name]}" for name in order[:SHOWN])
    more = f" (and {len(order) - SHOWN} more)" if len(order) > SHOWN else ""
    logger.warning("%s: some files are not where the table says: %s%s", table, shown, more)


def _short(name: str) -> str:
    return name if len(name) <= 80 else f"...{name[-77:]}"

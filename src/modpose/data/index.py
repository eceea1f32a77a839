"""Selections: which rows of an input are used."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modpose.data.identity import (
    IMAGE_COLUMNS,
    common_identity,
    identities_of,
)
from modpose.data.joining import BY_ORDER, Joined, join_rows, matched
from modpose.data.npy import read_npy
from modpose.data.particles import Particles
from modpose.data.plain_pickle import read_plain_pickle
from modpose.data.tables import TABLES, read_particles
from modpose.errors import InputError, shown
from modpose.files.text import read_text

logger = logging.getLogger("modpose")

Ints = NDArray[np.int64]

EXPECTED = "a list of row numbers from 0"
LONGEST_HEADER = 1 << 16
"""Largest number of characters in the header of a CSV file."""
NO_HEADER = ("nan", "na", "null", "none", "inf", "infinity", "true", "false")
"""Words that mean a value."""
LONGEST = 20
"""Digits of the largest number of 64 bits."""


def select_rows(
    index: str | Path | NDArray[Any], particles: Particles, *, partial: bool = False
) -> Ints:
    """Return the rows of the input that a selection keeps, in the selection's order.

    Parameters
    ----------
    index
        Row numbers from 0, (N,) booleans, or uids of cryoSPARC, as an array or a file (.npy, .pkl,
        .txt, .csv); or a table of particles (.star, .cs, .csv with a column of images or uids),
        whose rows are found by identity.
    particles
        The N images, all of the input.
    partial
        Leave out the rows of a table that the input does not have.

    Raises
    ------
    InputError
        If the selection cannot be read, is empty, or names images that are missing.
    """
    if not isinstance(index, str | Path):
        return check_index(np.asarray(index), particles, "index")
    path = Path(index)
    if not path.is_file():
        raise InputError(f"{path}: no such index file")
    if path.suffix.lower() in TABLES and (path.suffix.lower() != ".csv" or names_images(path)):
        return _rows_of_table(path, particles, partial)
    return check_index(_read_numbers(path), particles, str(path))


def check_index(rows: NDArray[Any], particles: Particles, name: str) -> Ints:
    """Check rows to keep, a mask (N,) of booleans, or uids, against the images."""
    n = particles.n
    if rows.dtype == np.bool_ and rows.ndim == 1:
        if len(rows) != n:
            raise InputError.of(name, "the length of the mask", len(rows), f"{n}, one per image")
        rows = np.flatnonzero(rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise InputError.of(name, "the index", f"{rows.dtype} of shape {rows.shape}", EXPECTED)
    if not rows.size:
        raise InputError.of(name, "the number of rows", 0, "at least one")
    bad = rows[(rows < 0) | (rows >= n)]
    if bad.size:
        found = _rows_of_uids(rows, particles)
        if found is None:
            from_one = int(rows.max()) == n and int(rows.min()) >= 1
            hint = " (row numbers start at 0, not 1)" if from_one else ""
            raise InputError.of(name, "a row number", int(bad[0]), f"0 to {n - 1}{hint}")
        logger.info("%s: its numbers are uids of %s", name, particles.name)
        rows = found
    repeated = rows.size - np.unique(rows).size
    if repeated:
        logger.warning("%s: %d of its %d rows are repeats", name, repeated, rows.size)
    return rows.astype(np.int64)


def _rows_of_uids(values: NDArray[Any], particles: Particles) -> Ints | None:
    """Find the rows with these uids; None unless each is the uid of one row."""
    uids = next((i for i in identities_of(particles) if i.kind == "uid"), None)
    if uids is None or (values < 0).any() or uids.occurrence.any():
        return None
    order = np.argsort(uids.key)
    wanted = values.astype(np.uint64)
    place = np.minimum(np.searchsorted(uids.key, wanted, sorter=order), uids.n - 1)
    rows = order[place]
    return rows if np.array_equal(uids.key[rows], wanted) else None


# --- files --------------------------------------------------------------------------------------


def names_images(path: Path) -> bool:
    """Return whether a CSV file has a header with a column of images or uids."""
    with path.open(errors="replace") as file:
        header = file.readline(LONGEST_HEADER)
    names = {name.strip().strip('"') for name in header.split(",")}
    return not names.isdisjoint((*IMAGE_COLUMNS, "uid"))


def _rows_of_table(path: Path, particles: Particles, partial: bool) -> Ints:
    table = read_particles(path)
    pair = common_identity(identities_of(table), identities_of(particles))
    if pair is None:
        raise InputError(
            f"{path}: it shares no uid or image name with {particles.name}, so the images that it "
            f"lists are unknown; give {EXPECTED}"
        )
    joined = join_rows(particles, table)
    images = np.flatnonzero(joined.rows >= 0)
    rows = np.full(table.n, -1)
    rows[joined.rows[images]] = images
    if joined.by == BY_ORDER:
        rows[:] = -1
    names = (str(path), particles.name)
    lines = matched(Joined(rows, joined.by), np.arange(table.n), names, partial, of="rows")
    return rows[lines]


def _read_numbers(path: Path) -> NDArray[Any]:
    suffix = path.suffix.lower()
    if suffix == ".pkl":
        arrays = read_plain_pickle(path)
        if len(arrays) != 1:
            raise InputError.of(path, "the number of arrays", len(arrays), EXPECTED)
        return arrays[0]
    if suffix == ".npy":
        return read_npy(path)
    words = _words(path, read_text(path, "an index"))
    bad = next((word for word in words if not _is_integer(word)), None)
    if bad is not None:
        raise InputError.of(path, "an entry", shown(bad), "a row number from 0")
    numbers = [int(word) for word in words]
    if numbers and max(numbers) >= 1 << 63 and min(numbers) >= 0 and max(numbers) < 1 << 64:
        return np.array(numbers, dtype=np.uint64)
    large = next((number for number in numbers if abs(number) >= 1 << 63), None)
    if large is not None:
        raise InputError.of(path, "an entry", large, "a row number from 0")
    return np.array(numbers, dtype=np.int64)


def _words(path: Path, text: str) -> list[str]:
    """Split a list of numbers, without a header."""
    lines = [line for line in text.split("\n") if line.strip()]
    columns = {len(re.split("[,;]", line.rstrip(" \t,;"))) for line in lines}
    if len(lines) > 1 and len(columns) == 1 and columns != {1}:
        found = "of several columns"
        raise InputError.of(path, "the file", found, "one row number per line, from 0")
    words = re.split(r"[\s,;]+", "\n".join(lines).strip())
    named = words[0].lower() not in NO_HEADER and re.fullmatch(r"[^\W\d]\w*", words[0])
    return [word for word in words[1 if named else 0 :] if word]


def _is_integer(word: str) -> bool:
    return len(word) <= LONGEST and re.fullmatch(r"-?[0-9]+", word) is not None

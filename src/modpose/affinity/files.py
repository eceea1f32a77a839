"""Affinity matrices as CSV: with names on both sides, or with a header as in affinity-VAE."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Literal

import numpy as np

from modpose.affinity.matrix import Affinity
from modpose.data.csv_reader import csv_rows
from modpose.errors import InputError, shown
from modpose.files.text import number, read_utf8
from modpose.files.writing import replace_atomically

Layout = Literal["named", "header"]
"""``named``: names in the first line and the first column.  ``header``: names in the first line
only, as in the reference program of affinity-VAE.
"""

LARGEST = 1 << 30
"""Largest size of a file, bytes."""


def write_affinity(
    affinity: Affinity, path: str | Path, layout: Layout = "named", overwrite: bool = False
) -> None:
    """Write a matrix as CSV; reading it gives exactly the same numbers.

    Parameters
    ----------
    affinity
        The matrix and its names.
    path
        The file.
    layout
        See :data:`Layout`.
    overwrite
        Replace an existing file.
    """
    if layout not in ("named", "header"):
        raise InputError.of(path, "the layout", f"'{layout}'", "'named' or 'header'")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    named = layout == "named"
    writer.writerow(["", *affinity.names] if named else affinity.names)
    for name, row in zip(affinity.names, affinity.values.tolist(), strict=True):
        numbers = [repr(value) for value in row]
        writer.writerow([name, *numbers] if named else numbers)
    replace_atomically(Path(path), lambda file: file.write(text.getvalue().encode()), overwrite)


def read_affinity(path: str | Path) -> Affinity:
    """Read a matrix in either layout (recognised by the first column), and validate it.

    Raises
    ------
    InputError
        If the file has neither layout, its names do not agree, or the matrix is not square and
        symmetric with ones on the diagonal and numbers from -1 to 1.
    """
    affinity = read_matrix(path)
    affinity.validate()
    return affinity


def read_matrix(path: str | Path) -> Affinity:
    """Read a matrix like :func:`read_affinity`, but do not validate it as an affinity."""
    path = Path(path)
    rows = _rows(path)
    header, body = [cell.strip() for cell in rows[0]], rows[1:]
    named = header[0] == "" and len(header) > 1
    names = header[1:] if named else header
    if len(body) == len(names) - 1 and all(number(name) is not None for name in header):
        raise InputError.of(path, "the first line", "numbers", "the names of the classes")
    if len(body) != len(names):
        found = f"{len(body)} under {len(names)} names"
        raise InputError.of(path, "the number of rows", found, "a square matrix")
    values = np.empty((len(names), len(names)))
    for i, row in enumerate(body):
        if named and row[0].strip() != names[i]:
            found, expected = f"named {shown(row[0].strip())}", shown(names[i])
            raise InputError.of(path, f"row {i + 1}", found, f"{expected} as in the first line")
        numbers = row[1:] if named else row
        if len(numbers) != len(names):
            found = f"{len(numbers)} numbers long"
            raise InputError.of(path, f"row {i + 1}", found, f"{len(names)}, one per class")
        for j, cell in enumerate(numbers):
            value = number(cell.strip())
            if value is None:
                where = f"row {i + 1}, column {j + 1}"
                raise InputError.of(path, where, shown(cell.strip()), "a number")
            values[i, j] = value
    return Affinity(values, tuple(names), str(path))


def _rows(path: Path) -> list[list[str]]:
    content = read_utf8(path, "an affinity matrix", LARGEST)
    rows = [row for _, row in csv_rows(path, content) if any(cell.strip() for cell in row)]
    if not rows:
        raise InputError(f"{path}: the file is empty, expected an affinity matrix as CSV")
    return rows

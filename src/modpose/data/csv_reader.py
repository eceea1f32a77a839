"""CSV tables: commas, a header line, and one value per column in each row."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modpose.errors import InputError, shown
from modpose.files.text import number, read_utf8

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 1 << 24
"""Bytes that are checked per step."""
COMMA, QUOTE, LINE = 44, 34, 10


def read_csv_table(path: Path) -> pd.DataFrame:
    """Read a table whose first line names the columns.

    Values are as in pandas: numbers if the whole column is numeric, else text; an empty value,
    ``NA`` and ``nan`` are missing.

    Raises
    ------
    InputError
        If the file has another form; the message names the line.
    """
    import pandas as pd

    content = read_utf8(path, "CSV").lstrip(b"\n")
    names = _header(path, content)
    _check_rows(path, content, len(names))
    try:
        table = pd.read_csv(io.BytesIO(content), index_col=False, low_memory=False)
    except (ValueError, OverflowError):  # for example a quotation mark that is not closed
        raise InputError(f"{path}: not readable as CSV") from None
    table.columns = pd.Index(names)
    for name in names:
        if table[name].dtype == object:  # whole numbers of more than 64 bits, among others
            table[name] = [v if isinstance(v, str | float) else str(v) for v in table[name]]
    return table


def _header(path: Path, content: bytes) -> list[str]:
    line, names = next(csv_rows(path, content), (1, [""]))
    names = [name.strip() for name in names]
    if not any(names):
        raise InputError(f"{path}: the file is empty, expected a line of names and rows below it")
    for mark, word in ((";", "semicolons"), ("\t", "tabs")):
        if len(names) == 1 and mark in names[0]:
            raise InputError.of(path, "the first line", f"separated by {word}", "commas")
    for i, name in enumerate(names):
        if not name:
            raise InputError.of(path, f"the name of column {i + 1}", "empty", "a name")
        if number(name) is not None:
            raise InputError.of(path, f"line {line}", shown(name), "the names of the columns")
        if name in names[:i]:
            raise InputError(f"{path}: the column {shown(name)} appears twice")
    return names


def _check_rows(path: Path, content: bytes, columns: int) -> None:
    """Check that every row has as many values as there are columns."""
    if QUOTE not in content and _all_of_length(content, columns):
        return
    for line, row in csv_rows(path, content):
        if len(row) != columns:
            found = f"{len(row)} values long"
            raise InputError.of(path, f"line {line}", found, f"{columns}, one a column")


def _all_of_length(content: bytes, columns: int) -> bool:
    """Return whether rows without quotation marks have this many values; False if unsure."""
    view, start = memoryview(content), 0
    while start < len(content):
        end = content.find(b"\n", start + CHUNK)
        end = len(content) if end < 0 else end + 1
        values = np.frombuffer(view[start:end], np.uint8)
        ends = np.flatnonzero(values == LINE)
        if values[-1] != LINE:
            ends = np.append(ends, len(values))
        begins = np.concatenate([[0], ends[:-1] + 1])
        commas = np.concatenate([[0], np.cumsum(values == COMMA)])
        full = ends > begins  # blank lines are no rows
        if (commas[ends] - commas[begins] != columns - 1)[full].any():
            return False
        start = end
    return True


def csv_rows(path: Path, content: bytes) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the line and the values of each row that is not blank.

    Raises
    ------
    InputError
        If a quotation mark is misplaced or a value is very long.
    """
    reader = csv.reader(io.StringIO(content.decode(), newline=""), strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error:
        line = max(reader.line_num, 1)
        expected = "values in quotation marks, or none, between commas"
        raise InputError.of(path, f"line {line}", "not readable as CSV", expected) from None

"""Labels in a text file: one per line."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modpose.data.csv_reader import csv_rows
from modpose.errors import InputError, shown
from modpose.files.text import number, read_utf8

LONGEST = 200
"""Largest number of characters in a label."""


def read_label_lines(path: Path, counts: Collection[int]) -> NDArray[Any]:
    """Read one label per line, or all labels in one line; labels may have blanks and commas.

    Parameters
    ----------
    path
        A text file; blank lines are ignored.  In a .csv file the first line may be a name.
    counts
        Expected numbers of labels; any of these.

    Returns
    -------
    NDArray
        (M,) text; M is not in ``counts`` if the file has another number of lines.

    Raises
    ------
    InputError
        If the file is not text, or has other content than labels.
    """
    content = read_utf8(path, "labels")
    lines = [(i, t.strip()) for i, t in enumerate(content.decode().split("\n"), 1) if t.strip()]
    if len(lines) == 1 and min(counts) > 1:
        words = lines[0][1].replace(",", " ").replace(";", " ").split()
        lines = [(1, word) for word in words]
    elif path.suffix.lower() == ".csv" or (lines and all(t.startswith('"') for _, t in lines)):
        lines = _of_csv(path, content, counts)
    else:
        _refuse_columns(path, [text for _, text in lines])
    labels = [text for _, text in lines]
    for line, text in lines:
        if len(text) > LONGEST:
            expected = f"a label of at most {LONGEST}"
            raise InputError.of(path, f"line {line}", f"{len(text)} characters long", expected)
        if not text.isprintable():
            raise InputError.of(path, f"line {line}", shown(text), "a label that can be printed")
    n = len(labels) - 1
    if n in counts and n > 1 and n + 1 not in counts:
        raise InputError(
            f"{path}: it has {n + 1} labels for {n} images, expected one per image; is the first "
            f"one, {shown(labels[0])}, a header? Then remove it"
        )
    return np.array(_of_one_form(labels), dtype=np.str_)


def _of_csv(path: Path, content: bytes, counts: Collection[int]) -> list[tuple[int, str]]:
    """Read lines with labels, quoted or not; leave out a header."""
    lines = []
    for line, row in csv_rows(path, content):
        if len(row) > 1:
            found = f"{len(row)} values long"
            raise InputError.of(path, f"line {line}", found, "one label per line")
        if row[0].strip():
            lines.append((line, row[0].strip()))
    one_more = len(lines) not in counts and len(lines) - 1 in counts
    named = one_more and lines[0][1] not in {text for _, text in lines[1:]}
    return lines[1:] if named and number(lines[0][1]) is None else lines


def _refuse_columns(path: Path, labels: list[str]) -> None:
    """Refuse a table in place of labels."""
    for mark, word in ((",", "commas"), (";", "semicolons"), ("\t", "tabs")):
        if labels and all(mark in label for label in labels):
            found = f"separated by {word}, as in a table"
            expected = "one label per line (in quotation marks where it has commas)"
            raise InputError.of(path, "every line", found, expected)


def _of_one_form(labels: list[str]) -> list[str]:
    """Write 1.0 as 1 if all labels are numbers, so that both are one class."""
    values = [number(label) for label in labels]
    if any(value is None for value in values):
        return labels
    return [
        str(int(value)) if value is not None and value.is_integer() and "." in label else label
        for label, value in zip(labels, values, strict=True)
    ]

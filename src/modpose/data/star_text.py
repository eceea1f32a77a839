"""The text of a STAR file's rows, made column by column.

A number is written with six decimals if that is exact, else with all its digits.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Bytes = NDArray[np.uint8]

QUOTED = re.compile(r"\s|#|^data_|^_|['\"]")
"""Characters that require quotation marks."""
STARTS = ("\n_", "\ndata_")
DECIMALS = 6
LARGEST = 2.0**53
"""Up to this number, float64 represents every whole number."""
BLANK, MINUS, POINT, ZERO, NEWLINE = b" -.0\n"


def rows_text(table: pd.DataFrame) -> bytes:
    """Write the rows of a table, one per line, in aligned columns."""
    line_ends = np.full((len(table), 1), NEWLINE, np.uint8)
    between = np.full((len(table), 1), BLANK, np.uint8)
    parts: list[Bytes] = []
    for i in range(table.shape[1]):
        parts += [_cells(table.iloc[:, i].to_numpy()), between]
    return np.concatenate([*parts[:-1], line_ends], axis=1).tobytes()


def value_text(value: Any) -> str:
    """Write one value."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        short = f"{value:.{DECIMALS}f}"
        return short if float(short) == value else repr(float(value))
    text = "nan" if value is None else str(value)
    if not text or QUOTED.search(text):
        return f"'{text}'" if '"' in text else f'"{text}"'
    return text


def _cells(values: NDArray[Any]) -> Bytes:
    """Write a column (N,) as N lines of one width, (N, width)."""
    if values.dtype.kind in "biu":
        negative = values < 0
        whole = values.astype(np.uint64)
        return _digits(np.where(negative, ~whole + np.uint64(1), whole), negative, 0)
    if values.dtype.kind == "f":
        return _reals(values.astype(np.float64))
    words = values.tolist()
    if set(map(type, words)) == {str} and _plain(words):
        return _left([word.encode() for word in words])
    return _left([value_text(word).encode() for word in words])


def _plain(words: list[str]) -> bool:
    """Whether certainly no word needs quotation marks."""
    text = "\n" + "\n".join(words)
    return text.split() == words and not any(mark in text for mark in ("#", "'", '"', *STARTS))


def _reals(values: NDArray[np.float64]) -> Bytes:
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.rint(values * 10**DECIMALS)
        short = (np.abs(scaled) < LARGEST) & (scaled / 10**DECIMALS == values)
    magnitude = np.where(short, np.abs(scaled), 0).astype(np.uint64)
    cells = _digits(magnitude, short & np.signbit(values), DECIMALS)
    if short.all():
        return cells
    long = _left([repr(value).encode() for value in values[~short].tolist()])
    width = max(cells.shape[1], long.shape[1])
    out = np.full((len(values), width), BLANK, np.uint8)
    out[:, width - cells.shape[1] :] = cells
    out[~short] = BLANK
    out[~short, : long.shape[1]] = long
    return out


def _left(words: list[bytes]) -> Bytes:
    """Put words into lines of one width, blanks after each."""
    lines = np.array(words, dtype=np.bytes_)
    cells = lines.view(np.uint8).reshape(len(words), -1)
    return np.where(cells == 0, np.uint8(BLANK), cells)


def _digits(magnitude: NDArray[np.uint64], negative: NDArray[np.bool_], decimals: int) -> Bytes:
    """Write magnitude / 10^decimals with its sign, blanks before each."""
    digits = max(len(str(magnitude.max(initial=0))), decimals + 1)
    width = digits + (decimals > 0) + bool(negative.any())
    cells = np.full((len(magnitude), width), BLANK, np.uint8)
    left, place = magnitude.copy(), width - 1
    for k in range(digits):
        if decimals and k == decimals:
            cells[:, place] = POINT
            place -= 1
        left, digit = np.divmod(left, np.uint64(10))
        shown = slice(None) if k <= decimals else ((left > 0) | (digit > 0))
        cells[shown, place] = (digit.astype(np.uint8) + ZERO)[shown]
        place -= 1
    if negative.any():
        first = np.argmax(cells != BLANK, axis=1)
        cells[negative, first[negative] - 1] = MINUS
    return cells

"""Rows of words with one space between them, read by Arrow, which reads names faster than pandas.

Only rows that pandas reads alike are read here: numbers of up to 15 digits without an exponent,
which both round correctly.  Pandas reads numbers faster, so it keeps tables of mainly numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

LONGEST = 16
"""Characters of a number: 15 digits and a point, or fewer and a sign."""


def read_plain_rows(
    content: bytes, start: int, end: int, text: Sequence[bool], missing: Sequence[str]
) -> pd.DataFrame | None:
    """Read bytes ``start`` to ``end``, without quotation marks and control characters.

    Parameters
    ----------
    content, start, end
        The rows.
    text
        Of each column, whether its values are text even if they look like numbers.
    missing
        Words that mean no value.

    Returns
    -------
    pandas.DataFrame
        None where pandas has to read them: with more than two columns of numbers for each of text,
        more than one space between words, values that are missing, numbers that are long or have an
        exponent, or rows of another length.
    """
    import pyarrow as pa
    from pyarrow import csv

    if 3 * sum(text) < len(text):
        return None
    odd = (b"  ", b"\t", b" \n", b"\n ")
    edges = content[start : start + 1] + content[end - 1 : end]
    if b" " in edges or any(content.find(mark, start, end) >= 0 for mark in odd):
        return None
    names = [str(number) for number in range(len(text))]
    try:
        table = csv.read_csv(
            pa.BufferReader(pa.py_buffer(memoryview(content)[start:end])),
            csv.ReadOptions(column_names=names),
            csv.ParseOptions(delimiter=" ", quote_char=False, double_quote=False),
            csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.large_string()),
                null_values=list(missing),
                strings_can_be_null=True,
            ),
        )
        columns = [
            column if is_text else _numbers(column)
            for column, is_text in zip(table.columns, text, strict=True)
        ]
    except pa.ArrowInvalid:
        return None
    if any(column is None or column.null_count for column in columns):
        return None
    read: pd.DataFrame = pa.table(columns, names).to_pandas()
    return read


def _numbers(column: Any) -> Any:
    """Read words as whole numbers, or as floats if one has a point; None if that is not safe."""
    import pyarrow as pa
    import pyarrow.compute as pc

    longest = pc.max(pc.binary_length(column)).as_py()
    if longest is None or longest > LONGEST:
        return None
    if pc.any(pc.match_substring_regex(column, "[^0-9.-]")).as_py():
        return None
    pointed = pc.any(pc.match_substring(column, ".")).as_py()
    return pc.cast(column, pa.float64() if pointed else pa.int64())

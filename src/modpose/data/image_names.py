"""Names of images as ``12@stack``: a number from 1, and a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modpose.errors import InputError

if TYPE_CHECKING:
    from modpose.data.particles import Particles

Ints = NDArray[np.int64]

MOST_IMAGES = 1 << 40
"""A larger image number in a stack is an error."""
MOST_DIGITS = 11
"""Longest number that is read in one go with others."""


def split_column(particles: Particles, column: str) -> tuple[Ints, NDArray[Any]]:
    """Split a column of names as :func:`split_names` does, once for a table."""
    known = particles.names_split
    if column not in known:
        known[column] = split_names(particles.column(column), f"{particles.name}: {column}")
    return known[column]


def split_names(values: NDArray[Any], where: str) -> tuple[Ints, NDArray[Any]]:
    """Split names ``12@stack`` into numbers from 1, (N,), and stacks; -1 for a name without one.

    Raises
    ------
    InputError
        If a number is 0 or impossibly large.
    """
    texts = list(map(str, values.tolist()))
    quick = _split_alike(texts)
    if quick is not None:
        return quick
    paths = np.empty(len(texts), dtype=object)
    numbers: list[int] = []
    for i, name in enumerate(texts):
        head, at, tail = name.partition("@")
        if not (at and head.isascii() and head.isdigit() and tail):
            numbers.append(-1)
            paths[i] = name
            continue
        k = int(head[:20])
        if not 0 < k < MOST_IMAGES:
            raise InputError(
                f"{where} in row {i + 1} is '{name[:80]}', expected image numbers from 1"
            )
        numbers.append(k)
        paths[i] = tail
    return np.array(numbers, dtype=np.int64), paths


def _split_alike(texts: list[str]) -> tuple[Ints, NDArray[Any]] | None:
    """Split names that are all a whole number above 0 and ``@stack``; None if one is not."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        names = pa.array(texts, pa.large_string())
    except UnicodeEncodeError:
        return None
    at = pc.find_substring(names, "@").to_numpy()
    if not len(at) or at.min() < 1 or at.max() > MOST_DIGITS:
        return None
    _, offsets, content = names.buffers()
    start = np.frombuffer(offsets, np.int64)[: len(texts) + 1]
    letters = np.frombuffer(content, np.uint8)[: start[-1]]
    begin, end = start[:-1], start[1:]
    number = np.zeros(len(texts), np.int64)
    for k in range(int(at.max())):
        here = k < at
        digit = letters[np.where(here, begin + k, begin)].astype(np.int64) - ord("0")
        if ((digit < 0) | (digit > 9)).any():
            return None
        number = np.where(here, 10 * number + digit, number)
    length = end - begin - at - 1
    if number.min() < 1 or length.min() < 1:
        return None
    parts = np.stack([at + 1, length], axis=1).ravel()
    kept = np.repeat(np.tile([False, True], len(texts)), parts)
    places = np.concatenate([[0], length.cumsum()])
    tails = pa.LargeStringArray.from_buffers(
        len(texts), pa.py_buffer(places), pa.py_buffer(letters[kept])
    ).dictionary_encode()
    stacks = np.array([*tails.dictionary.to_pylist(), None], dtype=object)[:-1]
    return number, stacks[tails.indices.to_numpy()]

"""Damage files in the ways that disks, networks, editors and attackers do."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

Random = np.random.Generator
Mutator = Callable[[bytearray, Random, Sequence[bytes]], bytearray]

EXTREMES = (
    0,
    1,
    2,
    3,
    255,
    256,
    65535,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**62,
    2**63,
    2**64 - 1,
)
NUMBERS = (
    *(
        b"0",
        b"-1",
        b"1",
        b"2",
        b"9",
        b"65536",
        b"2147483648",
        b"4294967296",
        b"9223372036854775807",
    ),
    *(b"18446744073709551616", b"1" + b"0" * 30, b"9" * 400, b"nan", b"inf", b"-inf", b"1e999"),
    *(b"1e-999", b"0x10", b"", b" ", b"1.5", b"--1", b"1_0", b"abc"),
)
TEXTS = (
    b"\x00",
    b"\xff\xfe",
    b"\r\n",
    b"\n",
    b"{",
    b"}",
    b"(",
    b"[" * 300,
    b"'",
    b'"',
    b"#",
    b"data_",
)


def mutate(data: bytes, random: Random, tokens: Sequence[bytes] = ()) -> bytes:
    """Apply one to three mutators, drawn at random.

    Parameters
    ----------
    data
        A good file.
    random
        Decides everything.
    tokens
        Words of the format, some of which are put in place of others.
    """
    out = bytearray(data)
    for _ in range(int(random.choice([1, 1, 1, 2, 3]))):
        out = MUTATORS[int(random.integers(len(MUTATORS)))](out, random, tokens)
    return bytes(out)


def _place(data: bytearray, random: Random) -> int:
    """Draw a position; every second one lies in the first 256 bytes, where headers are."""
    end = len(data) if random.integers(2) else min(len(data), 256)
    return int(random.integers(max(end, 1)))


def _flip(data: bytearray, random: Random, _: Sequence[bytes]) -> bytearray:
    for _ in range(int(random.integers(1, 5))):
        if data:
            data[_place(data, random)] ^= 1 << int(random.integers(8))
    return data


def _overwrite(data: bytearray, random: Random, _: Sequence[bytes]) -> bytearray:
    start, length = _place(data, random), int(random.choice([1, 1, 2, 4, 16, 64]))
    kind = int(random.integers(3))
    new = random.bytes(length) if kind == 2 else bytes([255 * kind]) * length
    data[start : start + length] = new[: max(0, len(data) - start)]
    return data


def _extreme(data: bytearray, random: Random, _: Sequence[bytes]) -> bytearray:
    size = int(random.choice([1, 2, 4, 8]))
    start = _place(data, random) // size * size
    value = EXTREMES[int(random.integers(len(EXTREMES)))] % 2 ** (8 * size)
    order = "little" if random.integers(2) else "big"
    if start + size <= len(data):
        data[start : start + size] = value.to_bytes(size, order)  # type: ignore[arg-type]
    return data


def _truncate(data: bytearray, random: Random, _: Sequence[bytes]) -> bytearray:
    return data[: int(random.choice([0, 1, 10, _place(data, random), len(data) - 1]))]


def _extend(data: bytearray, random: Random, _: Sequence[bytes]) -> bytearray:
    length = int(random.choice([1, 7, 512, 1024]))
    return data + (random.bytes(length) if random.integers(2) else bytes(length))


def _swap(data: bytearray, random: Random, _: Sequence[bytes]) -> bytearray:
    length = int(random.choice([1, 4, 16, 64]))
    a, b = sorted((_place(data, random), _place(data, random)))
    if a + length <= b and b + length <= len(data):
        data[a : a + length], data[b : b + length] = data[b : b + length], data[a : a + length]
    return data


def _repeat(data: bytearray, random: Random, _: Sequence[bytes]) -> bytearray:
    start, length = _place(data, random), int(random.choice([1, 8, 64, 256]))
    return data[: start + length] + data[start:]


def _remove(data: bytearray, random: Random, _: Sequence[bytes]) -> bytearray:
    start, length = _place(data, random), int(random.choice([1, 8, 64, 256]))
    return data[:start] + data[start + length :]


def _number(data: bytearray, random: Random, _: Sequence[bytes]) -> bytearray:
    """Put another number in place of one that is written as text."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?", data[:20000]))
    new = NUMBERS[int(random.integers(len(NUMBERS)))]
    return _replaced(data, found, new, random)


def _token(data: bytearray, random: Random, tokens: Sequence[bytes]) -> bytearray:
    """Put a word of the format in place of another, or anywhere."""
    words = [*tokens, *TEXTS]
    new = words[int(random.integers(len(words)))]
    known = b"|".join(re.escape(t) for t in sorted(tokens, key=len, reverse=True) if t)
    found = list(re.finditer(known, data[:20000])) if known else []
    if not found or random.integers(4) == 0:
        start = _place(data, random)
        return data[:start] + new + data[start:]
    return _replaced(data, found, new, random)


def _replaced(
    data: bytearray, found: list[re.Match[bytes]], new: bytes, random: Random
) -> bytearray:
    if not found:
        return data
    match = found[int(random.integers(len(found)))]
    return data[: match.start()] + new + data[match.end() :]


def _text(data: bytearray, random: Random, _: Sequence[bytes]) -> bytearray:
    """Replace the file, or its tail, by text."""
    text = bytearray(b"data_\nloop_\n_rlnImageName #1\n1@a.mrcs\n<html>Not found</html>\n")
    return text if random.integers(3) == 0 else data[: _place(data, random)] + text


MUTATORS: tuple[Mutator, ...] = (
    *(_flip, _overwrite, _extreme, _truncate, _extend, _swap, _repeat, _remove),
    *(_number, _token, _number, _token, _text),
)

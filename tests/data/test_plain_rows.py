"""Arrow reads rows as pandas does, to the last bit, or leaves them to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from modpose import InputError
from modpose.data import star_reader
from modpose.data.star_reader import read_star

TAGS = ("rlnImageName", "rlnClassNumber", "rlnCoordinateX")


def star(path: Path, rows: str) -> Path:
    tags = "\n".join(f"_{tag} #{k}" for k, tag in enumerate(TAGS, 1))
    path.write_text(f"data_particles\n\nloop_\n{tags}\n{rows}", encoding="utf-8")
    return path


def both(path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[pd.DataFrame, pd.DataFrame, bool]:
    """What is read, what pandas alone reads, and whether Arrow has read it."""
    found: list[pd.DataFrame | None] = []

    def watched(*given: object) -> pd.DataFrame | None:
        found.append(read(*given))  # type: ignore[arg-type]
        return found[-1]

    read = star_reader.read_plain_rows
    with monkeypatch.context() as context:
        context.setattr(star_reader, "read_plain_rows", watched)
        here = read_star(path)["particles"]
        context.setattr(star_reader, "read_plain_rows", lambda *_: None)
        there = read_star(path)["particles"]
    assert isinstance(here, pd.DataFrame)
    assert isinstance(there, pd.DataFrame)
    return here, there, found[-1] is not None


@pytest.mark.parametrize(
    ("rows", "by_arrow"),
    [
        ("1@a.mrcs 1 12.500000\n2@a.mrcs 2 -0.000001\n", True),
        ("1@a.mrcs 1 12.5\n\n2@a.mrcs 2 7", True),  # an empty line, and no end of line
        ("001 007 5.\n1.0 -1 .5\n", True),  # names that look like numbers
        ("a -0 -0\nb 12 -0.0\n", True),
        ("TRUE 1 2\nNone 0 3\n", True),
        ("a 1 1e-5\nb 2 3\n", False),
        ("a 1 0.12345678901234567\nb 2 3\n", False),
        ("a 1 nan\nb 2 3\n", False),
        ("nan 1 1\nb 2 3\n", False),
        ("a True 1\nb False 3\n", False),
        ("a 1  1\nb 2 3\n", False),
        ("a\t1 1\nb 2 3\n", False),
        (" a 1 1\nb 2 3 \n", False),
        ("a 99999999999999999999 1\nb 2 3\n", False),
        ("a x 1\nb 2 -\n", False),
        ("a +1 1\nb 2 1_0\n", False),
        ("a 1 1.2.3\nb 2 3\n", False),
        ("ä@é.mrcs 1 1\nb 2 3\n", True),
    ],
)
def test_rows_are_those_of_pandas(
    rows: str, by_arrow: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there, arrow = both(star(tmp_path / "a.star", rows), monkeypatch)
    pd.testing.assert_frame_equal(here, there, check_exact=True)
    for name in TAGS[1:]:
        if here[name].dtype == float:
            assert np.array_equal(np.signbit(here[name]), np.signbit(there[name]))
    assert arrow == by_arrow


def test_numbers_of_many_lengths_are_those_of_pandas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    value = rng.normal(size=20_000) * 10.0 ** rng.integers(-5, 7, 20_000)
    digits = rng.integers(0, 9, 20_000)
    rows = "".join(
        f"{k}@a.mrcs {k % 7} {x:.{d}f}"[:30] + "\n"
        for k, (x, d) in enumerate(zip(value, digits, strict=True))
    )
    here, there, arrow = both(star(tmp_path / "a.star", rows), monkeypatch)
    pd.testing.assert_frame_equal(here, there, check_exact=True)
    assert arrow


def test_tables_of_mainly_numbers_are_left_to_pandas() -> None:
    rows = b"a 1 1 1\nb 2 2 2\n"
    text = [True, False, False, False]
    assert star_reader.read_plain_rows(rows, 0, len(rows), text, []) is None
    assert star_reader.read_plain_rows(rows, 0, len(rows), [True, *text[:3]], []) is not None


@pytest.mark.parametrize("rows", ["a 1 1\nb 2\n", "a 1 1\nb 2 3 4\n", "a 1 1 b 2 3\n"])
def test_rows_of_another_length_are_refused_as_before(rows: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected 3, one per column"):
        read_star(star(tmp_path / "a.star", rows))

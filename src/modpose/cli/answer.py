"""The result of a command: lines for a person, or one JSON object for a program (``--json``)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON object, for programs.")
]


def answer(facts: Mapping[str, object], lines: Iterable[str], as_json: bool) -> None:
    """Print the result of a command on standard output.

    Parameters
    ----------
    facts
        Names and values, for ``--json``: text, numbers, paths, and lists or mappings of these.  A
        number that is not finite becomes null, which JSON has.
    lines
        The same in words.
    as_json
        Which of the two is printed.
    """
    if as_json:
        typer.echo(json.dumps(_plain(facts), indent=2, allow_nan=False))
        return
    for line in lines:
        typer.echo(line)


def answer_written(n: int, what: str, path: Path, as_json: bool) -> None:
    """Print that ``n`` images or volumes (``what``) are in a new file or folder."""
    answer({what: n, "written": [path]}, [f"wrote {n} {what} to {path}"], as_json)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if hasattr(value, "tolist"):  # numbers and arrays of numpy
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value

"""Read and check the small files of a run; errors name the wrong value."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modpose.errors import InputError, shown
from modpose.files.text import read_text

if TYPE_CHECKING:
    import pandas as pd

LARGEST = 1 << 30
"""Bytes of a file."""


class Values(dict[str, Any]):
    """The values of a JSON file; an error names a missing value."""

    def __init__(self, values: dict[str, Any], path: Path) -> None:
        super().__init__(values)
        self.path = path

    def __missing__(self, key: str) -> Any:
        """Raise an error that names the missing value."""
        raise InputError(f"{self.path}: there is no {shown(key)[1:-1]}")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, or raise an error that says what is wrong."""
    values = _parsed(read_text(path, "JSON", LARGEST), path)
    if not isinstance(values, dict):
        raise InputError.of(path, "the file", "a list or one value", "a JSON object")
    return Values(values, path)


def read_environment(path: Path) -> dict[str, Any]:
    """Read ``environment.json`` and check the types of its values.

    Raises
    ------
    InputError
        If it cannot be read, or holds a value that is not as a fit writes it.
    """
    values = read_json(path)
    for name, (check, expected) in ENVIRONMENT.items():
        if name in values and not check(values[name]):
            raise InputError.of(path, name, shown(values[name]), expected)
    if isinstance(values.get("data"), dict):
        values["data"] = Values(values["data"], path)
        for name, (check, expected) in DATA.items():
            if name in values["data"] and not check(values["data"][name]):
                raise InputError.of(path, f"data.{name}", shown(values["data"][name]), expected)
    return values


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Read ``metrics.jsonl``: one mapping of numbers per epoch."""
    rows = []
    for number, line in enumerate(read_text(path, "JSON", LARGEST).splitlines(), 1):
        row = _parsed(line, path)
        if not isinstance(row, dict) or not _is_whole(row.get("epoch")):
            raise InputError.of(path, f"line {number}", shown(line), "the metrics of one epoch")
        for name, value in row.items():
            if not name.isprintable():  # half of a character, which nothing can write
                raise InputError.of(path, f"a name in line {number}", shown(name), "a word")
            if isinstance(value, bool) or not isinstance(value, int | float):
                where = f"{shown(name)[1:-1]} in line {number}"
                raise InputError.of(path, where, shown(value), "a number")
        rows.append(dict(_renamed(name, value) for name, value in row.items()))
    return rows


def with_former_defaults(values: dict[str, Any]) -> dict[str, Any]:
    """Complete the options of an older run: a newer option gets the value that acts as before."""
    model = values.get("model")
    encoder = model.get("encoder") if isinstance(model, dict) else None
    if not isinstance(encoder, dict) or encoder.get("kind") != "polar":
        return values
    completed = {**values["model"], "encoder": {"read_again": 0, **encoder}}
    return {**values, "model": completed}


def _renamed(name: str, value: float) -> tuple[str, float]:
    """Give a metric of version 0.1 its present name and sign."""
    if name == "taught":
        return "pose_supervision", -value
    return "first_pass" if name == "first" else name, value


def check_latents(path: Path, table: pd.DataFrame, z_dim: int, n: object) -> None:
    """Check that the latents are numbers, one row for each of n images."""
    if isinstance(n, int) and len(table) != n:
        raise InputError.of(
            path, "the number of rows", len(table), f"{n}, the n of environment.json"
        )
    for name in [*(f"z_{k}" for k in range(z_dim)), "elbo"]:
        if name not in table:
            expected = f"the {z_dim} dimensions of config.yaml, and the ELBO"
            raise InputError(f"{path}: there is no column {name}, expected {expected}")
        if table[name].dtype.kind not in "iuf":
            raise InputError.of(path, f"the column {name}", "not of numbers", "numbers")
        bad = np.flatnonzero(~np.isfinite(table[name].to_numpy()))
        if name != "elbo" and bad.size:
            raise InputError.of(path, f"{name} in row {bad[0] + 1}", "not finite", "a number")


def _parsed(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(f"{path}: not readable as JSON") from None


# --- what values are ----------------------------------------------------------------------------


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_number(value: Any) -> bool:
    real = isinstance(value, int | float) and not isinstance(value, bool)
    return real and abs(value) < 1e300 and math.isfinite(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable()


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_label(value: Any) -> bool:
    return value is None or isinstance(value, int | float | str)


def _or_none(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


def _list_of(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _is_shape(value: Any) -> bool:
    return _list_of(_is_whole)(value) and 2 <= len(value) <= 3 and min(value) >= 1


def _is_range(value: Any) -> bool:
    return _list_of(_is_number)(value) and len(value) == 2


def _is_size(value: Any) -> bool:
    return _is_number(value) and value > 0


def _is_input(value: Any) -> bool:
    return _is_path(value) or (
        isinstance(value, list) and all(map(_is_path, value)) and value != []
    )


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_text(v) for v in value.values())


Check = tuple[Callable[[Any], bool], str]
TEXT: Check = (_is_text, "text")
TEXT_OR_NULL: Check = (_or_none(_is_text), "text or null")
PATH_OR_NULL: Check = (_or_none(_is_path), "the name of a file, or null")
ENVIRONMENT: dict[str, Check] = {
    **dict.fromkeys(("modpose", "fingerprint", "images", "started", "finished", "device"), TEXT),
    "stopped": TEXT,
    "input": (_or_none(_is_input), "the name of a file, several in a list, or null"),
    **dict.fromkeys(("datadir", "index", "poses", "ctf"), PATH_OR_NULL),
    **dict.fromkeys(("shape", "stored_shape"), (_is_shape, "two or three whole numbers")),
    "poses_found": (lambda value: value in (None, True, False), "true, false or null"),
    "n": (lambda value: _is_whole(value) and value >= 1, "a whole number from 1"),
    "channels": (lambda value: value in (1, 3) and _is_whole(value), "1 or 3"),
    "pixel_size": (_or_none(_is_size), "a number above 0, or null"),
    "value_range": (_or_none(_is_range), "two numbers, or null"),
    "labels": (_or_none(_list_of(_is_label)), "a list of numbers or texts, or null"),
    "clusters": (_or_none(_is_whole), "a whole number, or null"),
    "training_seconds": (_is_number, "a number"),
    "best_epoch": (_or_none(_is_whole), "a whole number, or null"),
    "data": (_or_none(lambda value: isinstance(value, dict)), "an object"),
    "copied": (_or_none(_is_object), "an object of texts"),
}
"""The types of the values of ``environment.json``, if they exist."""
DATA: dict[str, Check] = {
    "kind": TEXT_OR_NULL,
    "bare": (lambda value: isinstance(value, bool), "true or false"),
    "whole": (_is_whole, "a whole number"),
    "columns": (_is_object, "an object of texts"),
    "labels": TEXT_OR_NULL,
}

"""cryoSPARC's groups (``.csg``): a text that says which tables hold which results of particles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modpose.config.yaml_text import parse_yaml
from modpose.data.cryosparc import read_cs
from modpose.data.locate import is_there
from modpose.data.particles import Particles
from modpose.errors import InputError, shown
from modpose.files.text import read_text

if TYPE_CHECKING:
    import pandas as pd

LARGEST = 1 << 20
"""Bytes of a group; those of cryoSPARC have a few thousand."""


def read_csg(path: Path) -> Particles:
    """Read the tables of a group, and take from each the results that the group names it for.

    Rows are those of the first table; the others are joined by uid.

    Raises
    ------
    InputError
        If the group cannot be read, holds no particles, or a table of it lacks some.
    """
    tables: dict[Path, Particles] = {}
    columns: dict[str, Any] = {}
    fields: list[tuple[Any, ...]] = []
    first: Particles | None = None
    for result, file in _results(path).items():
        part = tables[file] = tables.get(file) or read_cs(file)
        first = first or part
        rows = None if part is first else _rows(first, part, path)
        for name in part.table:
            if str(name).startswith(f"{result}/"):
                values = part.table[name].to_numpy()
                columns[str(name)] = values if rows is None else values[rows]
        dtype = part.form.dtype or np.dtype([])
        fields += [
            (name, dtype[name].base, dtype[name].shape)
            for name in dtype.names or ()
            if name.startswith(f"{result}/")
        ]
    assert first is not None
    uid = "uid"
    table = first.table[[uid]].assign(**columns) if first.has(uid) else _frame(columns)
    own = [(uid, first.table[uid].dtype)] if first.has(uid) else []
    form = replace(first.form, dtype=np.dtype([*own, *fields]))
    return replace(first, table=table, name=str(path), form=form)


def _frame(columns: dict[str, Any]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(columns)


def _rows(first: Particles, part: Particles, path: Path) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Find the row of ``part`` with the uid of each row of ``first``."""
    wanted, offered = first.column("uid"), part.column("uid")
    order = np.argsort(offered)
    place = np.minimum(np.searchsorted(offered, wanted, sorter=order), len(offered) - 1)
    rows = order[place]
    lacking = int(np.count_nonzero(offered[rows] != wanted))
    if lacking:
        raise InputError(
            f"{path}: {Path(part.name).name} lacks {lacking} of the {first.n} particles of "
            f"{Path(first.name).name}, expected the same uids in both"
        )
    return rows


def _results(path: Path) -> dict[str, Path]:
    """Name the table of each result."""
    group = parse_yaml(read_text(path, "a cryoSPARC group", LARGEST), str(path))
    try:
        kind, results = group["group"]["type"], group["results"]
        files = {name: result["metafile"] for name, result in results.items()}
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: not readable as a cryoSPARC group") from None
    if not all(isinstance(file, str) for file in files.values()):
        raise InputError(f"{path}: not readable as a cryoSPARC group")
    if kind != "particle" or not files:
        raise InputError.of(path, "the type of the group", shown(kind), "particle, with results")
    found = {}
    for name, file in files.items():
        place = path.parent / file.removeprefix(">")
        beside = path.parent / Path(file.removeprefix(">")).name
        found[name] = place if is_there(place) else beside
        if not is_there(found[name]):
            raise InputError(f"{path}: its table {shown(file)} cannot be found beside it")
    return found

"""Several tables of particles as one."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modpose.data.identity import particles_of_rows
from modpose.data.locate import as_written
from modpose.data.optics import (
    BEAM_TILT,
    CORRECTED,
    EVEN,
    FLIPPED,
    MAGNIFICATION,
    ODD,
    PREMULTIPLIED,
    SIGN,
)
from modpose.data.particles import HALF_SETS, Particles, listed
from modpose.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

NAMING = ("rlnImageName", "rlnCtfImage", "blob/path")
"""Columns that name files."""
NEUTRAL: dict[str, Any] = {
    **dict.fromkeys((FLIPPED, PREMULTIPLIED, CORRECTED, "rlnIsFlip"), 0),
    **dict.fromkeys(("rlnPhaseShift", "rlnCtfBfactor", *BEAM_TILT), 0.0),
    **dict.fromkeys(("rlnCtfScalefactor", SIGN), 1.0),
    **dict.fromkeys(("ctf/phase_shift_rad", "ctf/bfactor"), 0.0),
    **dict.fromkeys((ODD, EVEN), "[0]"),
    **{name: float(name[-2] == name[-1]) for name in MAGNIFICATION},
}
"""Columns that say what was done to images, and the value that says nothing was."""


def joined_tables(parts: Sequence[Particles], files: Sequence[Path]) -> Particles:
    """Join tables of one format, row after row.

    Columns that one of the tables lacks are left out, with a note, unless a value means what the
    table means (:data:`NEUTRAL`, shifts of 0, shifts in Å).  Optics groups get new numbers.
    File names are rewritten relative to the first table if they could not be found from there.

    Parameters
    ----------
    parts
        The tables.
    files
        The file of each table.

    Raises
    ------
    InputError
        If the tables have several formats, or only some have optics groups.
    """
    import pandas as pd

    first = parts[0]
    for part in parts[1:]:
        if part.format != first.format:
            expected = f"{first.format}, as {first.name} has"
            raise InputError.of(part.name, "the format", part.format, expected)
        if (part.optics is None) != (first.optics is None):
            found, expected = ("without", "with") if part.optics is None else ("with", "without")
            where = f"{expected} optics groups, as in {first.name}"
            raise InputError.of(part.name, "the table", f"{found} optics groups", where)
    pairs = zip(_alike(parts), files, strict=True)
    tables = [_from_first(table, file, files[0]) for table, file in pairs]
    optics = None
    if first.optics is not None:
        tables, optics = _with_new_groups(tables, [p.optics for p in parts if p.optics is not None])
    common = [name for name in tables[0] if all(name in table for table in tables)]
    table = pd.concat([table[common] for table in tables], ignore_index=True)
    for name, second in HALF_SETS.items():
        if name in common and table[name].nunique() > 2:  # from 0 in one table, from 1 in another
            halves = [half for part in parts if (half := part.half_sets()) is not None]
            table[name] = np.concatenate(halves) + second - 1
    joined = replace(
        first,
        table=table,
        optics=optics,
        name=f"{first.name} and {len(parts) - 1} more",
        form=replace(first.form, dtype=_fields(first, set(map(str, common)))),
    )
    unit, number = particles_of_rows(joined), np.arange(len(parts)).repeat([p.n for p in parts])
    first_seen = np.full(joined.n, len(parts))
    np.minimum.at(first_seen, unit, number)
    shared = len(np.unique(unit[number > first_seen[unit]]))
    if shared:
        joined.note(f"images that are in several of the tables, and count several times: {shared}")
    dropped = {str(name) for table in tables for name in table} - set(map(str, common))
    dropped = {name for name in dropped if f"{name}Angst" not in common}
    if dropped:
        joined.note(f"columns that not all tables have are left out: {listed(sorted(dropped))}")
    return joined


def _alike(parts: Sequence[Particles]) -> list[pd.DataFrame]:
    """Give all tables the columns of one whose value is known for the others."""
    names = dict.fromkeys(str(name) for part in parts for name in part.table)
    in_angstrom = any(name.startswith("rlnOrigin") and name.endswith("Angst") for name in names)
    names |= dict.fromkeys(f"rlnOrigin{a}Angst" for a in "XYZ" if in_angstrom)
    tables = []
    for part in parts:
        lacking = [name for name in names if name not in part.table]
        values = {name: _known(part, name) for name in lacking}
        known = {name: value for name, value in values.items() if value is not None}
        tables.append(part.table.assign(**known) if known else part.table)
    return tables


def _known(part: Particles, name: str) -> Any:
    """Return the values of a column that a table lacks; None if they are not known."""
    if part.has(name):  # in data_optics
        return part.column(name)
    if name.endswith("Angst") and part.has(pixels := name.removesuffix("Angst")):
        sizes = part.pixel_sizes()
        if sizes is None:
            expected = f"{name}, as another table has, or a pixel size"
            raise InputError.of(part.name, "the shift", pixels, expected)
        return part.numbers(pixels) * sizes
    if name.startswith(("rlnOriginX", "rlnOriginY")):
        return None if part.has(f"{name}Angst") else 0.0
    if re.fullmatch(r"alignments[23]D/psize_A", name):
        return part.pixel_sizes()
    return NEUTRAL.get(name)


def _from_first(table: pd.DataFrame, file: Path, first: Path) -> pd.DataFrame:
    """Rewrite file names relative to the first table."""
    if file.absolute().parent == first.absolute().parent:
        return table
    changed = {}
    for column in NAMING:
        if column not in table:
            continue
        heads, ats, tails = zip(
            *(_split(str(name)) for name in table[column].tolist()), strict=True
        )
        moved = {tail: _moved(tail, file, first) for tail in set(tails)}
        if any(moved[tail] != tail for tail in moved):
            changed[column] = [
                head + at + moved[tail] for head, at, tail in zip(heads, ats, tails, strict=True)
            ]
    return table.assign(**changed) if changed else table


def _split(name: str) -> tuple[str, str, str]:
    """Split ``12@stack``; a name without a number is all stack."""
    head, at, tail = name.partition("@")
    return (head, at, tail) if at else ("", "", name)


def _moved(name: str, file: Path, first: Path) -> str:
    """Return the name as it is found from the first table."""
    plain = name.lstrip(">")
    own = as_written(plain, file)
    if own is None or as_written(plain, first) == own:
        return name
    return os.path.relpath(own.absolute(), first.absolute().parent)


def _with_new_groups(
    tables: list[pd.DataFrame], optics: list[pd.DataFrame]
) -> tuple[list[pd.DataFrame], pd.DataFrame]:
    """Number the optics groups of all tables from 1; equal groups become one."""
    import pandas as pd

    key = "rlnOpticsGroup"
    numbers: dict[tuple[tuple[str, object], ...], int] = {}
    rows: list[pd.Series[Any]] = []
    renumbered = []
    for table, groups in zip(tables, optics, strict=True):
        new: dict[object, int] = {}
        used = set(table[key].tolist()) if key in table else set(groups.get(key, []))
        for _, group in groups.iterrows():
            if used and group.get(key) not in used:
                continue
            said = tuple(sorted((str(n), v) for n, v in group.items() if n != key))
            if said not in numbers:
                numbers[said] = len(numbers) + 1
                rows.append(group)
            new[group.get(key, 1)] = numbers[said]
        if key in table:
            stray = next((g for g in table[key].tolist() if g not in new), None)
            if stray is not None:
                raise InputError(f"the optics group {stray} of a table is not in its data_optics")
            renumbered.append(table.assign(**{key: table[key].map(new)}))
        else:
            renumbered.append(table.assign(**{key: next(iter(new.values()))}))
    merged = pd.DataFrame(rows).reset_index(drop=True)
    merged = merged.fillna({name: v for name, v in NEUTRAL.items() if name in merged})
    merged[key] = np.arange(1, len(merged) + 1)
    return renumbered, merged


def _fields(first: Particles, common: set[str]) -> np.dtype[np.void] | None:
    """Keep the fields of a cryoSPARC table whose columns all tables have."""
    dtype = first.form.dtype
    if dtype is None or dtype.names is None:
        return None
    kept = []
    for name in dtype.names:
        shape = dtype[name].shape
        columns = [f"{name}_{i}" for i in range(int(np.prod(shape)))] if shape else [name]
        if common.issuperset(columns):
            kept.append((name, dtype[name].base, shape))
    return np.dtype(kept)

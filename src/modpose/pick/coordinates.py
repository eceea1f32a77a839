"""Coordinates of objects in images as STAR (RELION's columns) and as CSV."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modpose.data.csv_reader import read_csv_table
from modpose.data.star import read_star, write_star
from modpose.errors import InputError
from modpose.files.writing import replace_atomically

if TYPE_CHECKING:
    import pandas as pd

    from modpose.pick.find import Picks

STAR_COLUMNS = {
    "micrograph": "rlnMicrographName",
    "x": "rlnCoordinateX",
    "y": "rlnCoordinateY",
    "score": "rlnAutopickFigureOfMerit",
    "angle_deg": "rlnAnglePsi",
    "template": "rlnClassNumber",
}
"""Our columns, those of CSV files, and RELION's.  Its angle has the other sign, and its classes
begin at 1."""
SUFFIXES = (".star", ".csv")


def table_of(picks: Picks, micrograph: str) -> pd.DataFrame:
    """Return one row per object, with the columns of :data:`STAR_COLUMNS` that are known."""
    import pandas as pd

    table = pd.DataFrame({"micrograph": micrograph, "x": picks.x, "y": picks.y})
    table["score"] = picks.score
    if picks.angle_deg is not None and picks.template is not None:
        table["angle_deg"], table["template"] = picks.angle_deg, picks.template
    return table


def read_coordinates(path: str | Path) -> pd.DataFrame:
    """Read ``x`` and ``y``, and what else is there of the columns of :data:`STAR_COLUMNS`.

    Raises
    ------
    InputError
        If the file has no coordinates, or one that is not a finite number.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError.of(path, "the extension", f"'{path.suffix}'", "star or csv")
    table = _of_star(path) if suffix == ".star" else read_csv_table(path)
    for name in ("x", "y"):
        if name not in table:
            column = STAR_COLUMNS[name] if suffix == ".star" else name
            raise InputError(f"{path}: there is no column {column}, expected coordinates")
        if not _are_numbers(table[name]):
            raise InputError(f"{path}: column {name} holds what is no finite number of pixels")
    if "micrograph" in table:
        table["micrograph"] = table["micrograph"].astype(str)
    return table[[name for name in STAR_COLUMNS if name in table]].reset_index(drop=True)


def _are_numbers(column: pd.Series[float]) -> bool:
    values = column.to_numpy()
    if not len(values):
        return True
    return values.dtype.kind in "fiu" and bool(np.isfinite(values).all())


def _of_star(path: Path) -> pd.DataFrame:
    import pandas as pd

    for block in read_star(path).values():
        table = pd.DataFrame([block]) if isinstance(block, dict) else block
        if STAR_COLUMNS["x"] in table:
            found = table.rename(columns={star: name for name, star in STAR_COLUMNS.items()})
            for name, sign, first in (("angle_deg", -1, 0), ("template", 1, 1)):
                if name in found and _are_numbers(found[name]):
                    found[name] = sign * found[name] - first
            return found
    raise InputError(f"{path}: no table of it has a column rlnCoordinateX, expected coordinates")


def star_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return coordinates with RELION's names, signs and first numbers."""
    written = table.copy()
    if "angle_deg" in written:
        written["angle_deg"] = -written["angle_deg"]
    if "template" in written:
        written["template"] = written["template"] + 1
    return written.rename(columns=STAR_COLUMNS)


def write_coordinates(path: Path, table: pd.DataFrame, overwrite: bool = False) -> None:
    """Write coordinates as STAR or CSV, by the extension."""
    if path.suffix.lower() == ".star":
        write_star(path, star_table(table), overwrite=overwrite)
        return
    text = table.to_csv(index=False, lineterminator="\n")
    replace_atomically(path, lambda file: file.write(text.encode()), overwrite)

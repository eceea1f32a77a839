"""cryoSPARC's tables (``.cs``): NumPy arrays with any number of named fields."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modpose.data.npy import check_npy_size, read_npy_header, read_numbers
from modpose.data.particles import Particles
from modpose.data.table_form import TableForm
from modpose.errors import InputError, shown
from modpose.files.reading import open_regular

if TYPE_CHECKING:
    import pandas as pd

WHAT = "a cryoSPARC table"


def read_cs(path: Path) -> Particles:
    """Read a cryoSPARC table, without pickled fields.

    Parameters
    ----------
    path
        The file.  A field with several numbers becomes the columns ``field_0``, ``field_1``, ...

    Raises
    ------
    InputError
        If the file is damaged, has no rows, or has other fields than numbers and text.
    """
    import pandas as pd

    records = read_cs_records(path)
    columns: dict[str, NDArray[Any]] = {}
    for name in records.dtype.names or ():
        values = _plain(path, name, records[name])
        flat = values.reshape(len(values), -1)
        parts = {name: values} if values.ndim == 1 else {}
        if values.ndim > 1:
            parts = {f"{name}_{i}": flat[:, i] for i in range(flat.shape[1])}
        twice = next((column for column in parts if column in columns), None)
        if twice is not None:
            raise InputError(f"{path}: not readable as {WHAT} ({shown(twice)} appears twice)")
        columns |= parts
    form = TableForm(dtype=records.dtype)
    return Particles(pd.DataFrame(columns), None, "cs", str(path), form)


def read_cs_records(path: Path) -> NDArray[Any]:
    """Read the rows of a cryoSPARC table as they are in the file, (N,) of named fields."""
    with open_regular(path) as file:
        header = read_npy_header(file, str(path), WHAT)
        if header.dtype.names is None:
            raise InputError.of(path, "the array", f"of plain {header.dtype}", "named fields")
        if len(header.shape) != 1:
            raise InputError.of(path, "the shape of the table", header.shape, "(rows,)")
        if not header.shape[0]:
            raise InputError.of(path, "the number of particles", 0, "at least one")
        check_npy_size(header, path.stat().st_size, str(path))
        return read_numbers(file, header, str(path))


def records_of(table: pd.DataFrame, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Convert columns back to fields; the inverse of :func:`read_cs`.

    Parameters
    ----------
    table
        Columns as from :func:`read_cs`; new columns become fields at the end if they are numbers.
    dtype
        The fields, with types and shapes; text fields are widened if needed, and fields whose
        columns were taken out are left out.

    Returns
    -------
    (N,) of named fields.
    """
    parts: dict[str, tuple[NDArray[Any], np.dtype[Any], tuple[int, ...]]] = {}
    left = [str(name) for name in table]
    for name in dtype.names or ():
        field, count = dtype[name], int(np.prod(dtype[name].shape))
        columns = [f"{name}_{i}" for i in range(count)] if field.shape else [name]
        if not table.columns.isin(columns).any():
            continue
        left = [column for column in left if column not in columns]
        values = np.stack([_stored(table[c], field.base) for c in columns], axis=-1)
        kind = values.dtype if field.base.kind in "SU" else field.base
        parts[name] = values.reshape(len(table), *field.shape), kind, field.shape
    for name, columns in _vectors(left).items():
        values = np.stack([table[column].to_numpy() for column in columns], axis=-1)
        shape = values.shape[1:] if columns != [name] else ()
        parts[name] = values.reshape(len(table), *shape), values.dtype, shape
    records = np.empty(len(table), [(n, kind, shape) for n, (_, kind, shape) in parts.items()])
    for name, (values, _, _) in parts.items():
        records[name] = values
    return records


def _stored(column: pd.Series[Any], kind: np.dtype[Any]) -> NDArray[Any]:
    """Convert a column to the type of its field; text fields become wide enough."""
    values = column.to_numpy()
    if kind.kind not in "SU":
        return values.astype(kind)
    words = [str(word).encode() if kind.kind == "S" else str(word) for word in values]
    longest = max(map(len, words), default=0)
    size = max(kind.itemsize // np.dtype(f"{kind.kind}1").itemsize, longest)
    return np.array(words, f"{kind.kind}{size}")


def _vectors(columns: list[str]) -> dict[str, list[str]]:
    """Collect ``field_0``, ``field_1``, ... of fields (they have a /) under ``field``."""
    found: dict[str, list[str]] = {}
    for column in columns:
        base, _, number = column.rpartition("_")
        part = column.rpartition("/")[2]
        vector = number.isdecimal() and "_" in part and len(found.get(base, ())) == int(number)
        found.setdefault(base if vector else column, []).append(column)
    return found


def write_cs_records(path: Path, records: NDArray[Any]) -> None:
    """Write the rows of a cryoSPARC table; a wide one needs the second version of the header."""
    with path.open("wb") as file:
        short = len(repr(np.lib.format.dtype_to_descr(records.dtype))) < 2**15
        np.lib.format.write_array(file, records, (1, 0) if short else (2, 0), allow_pickle=False)


def _plain(path: Path, name: str, values: NDArray[Any]) -> NDArray[Any]:
    """Convert a field to numbers in this machine's byte order, or to text."""
    if values.dtype.kind in "SU":
        try:
            if values.dtype.kind == "S":
                return np.char.decode(values, "utf-8", "replace").astype(object)
            return values.astype(object)
        except ValueError:  # an invalid character code
            raise InputError(f"{path}: the field {shown(name)} holds invalid text") from None
    if values.dtype.kind not in "biuf":
        kind = f"of type {values.dtype}"
        raise InputError.of(path, f"the field {shown(name)}", kind, "numbers or text")
    return values.astype(values.dtype.newbyteorder("="))

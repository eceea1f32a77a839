"""``added.parquet``: columns that commands add to a finished run, one row per image.

``latents.parquet`` is what the fit wrote, and never changes.  The table beside it names the
latents that it belongs to by their checksum.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modpose.data.particles import listed
from modpose.errors import InputError, shown
from modpose.files.locks import writing
from modpose.files.writing import replace_atomically
from modpose.run.folder import ADDED, read_table, sha256

if TYPE_CHECKING:
    import pandas as pd

    from modpose.run import Run

OF_LATENTS, HOW = b"modpose.latents", b"modpose.how"
"""Keys of the file's metadata: checksum of the latents, and how each column was made (JSON)."""
OF_FITS = re.compile(
    r"z_\d+(_std)?|index|name|split|label|elbo\w*|recon|kl_\w+|outlier|r\d\d|pose_\w+"
    r"|(angle|contrast|rotation|shift|scale|mirrored)(_\w+)?"
)
"""Names of columns that a fit writes; poses and content must not come from elsewhere."""
WORD = re.compile(r"[A-Za-z]\w{0,59}", re.ASCII)


def add_columns(
    run: Run,
    columns: Mapping[str, NDArray[Any]],
    how: str = "",
    *,
    overwrite: bool = False,
    remove: Iterable[str] = (),
) -> list[str]:
    """Add columns to a finished run, beside its latents.

    Afterwards :meth:`modpose.run.Run.latents` has them, and so have ``select``, ``export`` and
    ``report``.

    Parameters
    ----------
    run
        A finished run of N images.
    columns
        Their names, and (N,) numbers or texts.
    how
        How they were made, in a few words; ``modpose inspect`` prints it.
    overwrite
        Replace columns that were added before.  The ``cluster`` of a fit stays in
        ``latents.parquet``, but an added one is used in its place.
    remove
        Names of added columns that no longer hold.

    Returns
    -------
    The names.

    Raises
    ------
    InputError
        If a name is not a word or is one of the columns of a fit, a column already exists, or its
        length differs.
    """
    import pandas as pd

    latents = run.latents()
    check_names(run, columns, overwrite=overwrite)
    for name, values in columns.items():
        if np.shape(values) != (len(latents),):
            found = f"of shape {np.shape(values)}"
            raise InputError.of(run.path, f"the column {name}", found, f"({len(latents)},)")
    with writing(run.path):
        check_names(run, columns, overwrite=overwrite)
        earlier = read_added(run.path)
        table = latents[[]] if earlier is None else earlier
        table = table.drop(columns=[name for name in remove if name in table])
        made = {name: text for name, text in how_added(run.path).items() if name in table}
        made |= dict.fromkeys(columns, how)
        _write(run.path, joined(table, pd.DataFrame(dict(columns), index=table.index)), made)
    return list(columns)


def check_names(run: Run, names: Iterable[str], *, overwrite: bool = False) -> None:
    """Refuse names of columns that :func:`add_columns` would refuse, before the work."""
    there = set(run.latents().columns)
    for name in names:
        if not WORD.fullmatch(name) or keyword.iskeyword(name):
            raise InputError.of("--name", "the name", shown(name), "a word such as cluster_2")
        if OF_FITS.fullmatch(name):
            raise InputError.of("--name", "the name", shown(name), "one that no fit writes")
        if name in there and not overwrite:
            raise InputError(
                f"{run.path}: the column {name} already exists; --overwrite (overwrite=True) "
                "replaces it"
            )


def joined(table: pd.DataFrame, columns: pd.DataFrame) -> pd.DataFrame:
    """Return a table with columns of the same rows, which replace those of the same name."""
    import pandas as pd

    kept = table.drop(columns=[name for name in columns if name in table])
    return pd.concat([kept, columns], axis=1)


def read_added(folder: Path) -> pd.DataFrame | None:
    """Read the added columns of a run folder, one row per image; None if there are none.

    Raises
    ------
    InputError
        If the file cannot be read, or belongs to other latents.
    """
    path = folder / ADDED
    if not path.is_file():
        return None
    table = read_table(path)
    ours = sha256(folder / "latents.parquet").encode()
    if _metadata(path).get(OF_LATENTS) != ours:
        raise InputError(
            f"{path}: belongs to other latents than those of the run ({listed(table.columns)}); "
            "delete the file, and add the columns again"
        )
    return table


def how_added(folder: Path) -> dict[str, str]:
    """Return the names of the added columns of a run folder, and how each was made."""
    path = folder / ADDED
    try:
        values = json.loads(_metadata(path).get(HOW, b"{}")) if path.is_file() else {}
    except ValueError:
        values = None
    if not isinstance(values, dict) or not all(isinstance(v, str) for v in values.values()):
        raise InputError(f"{path}: its metadata are not readable, expected what modpose wrote")
    return values


def _metadata(path: Path) -> dict[bytes, bytes]:
    from pyarrow import parquet

    try:
        return dict(parquet.read_schema(path).metadata or {})
    except Exception:  # a damaged file makes pyarrow fail in any way
        raise InputError(f"{path}: not readable as Parquet") from None


def _write(folder: Path, table: pd.DataFrame, how: Mapping[str, str]) -> None:
    import pyarrow
    from pyarrow import parquet

    made = pyarrow.Table.from_pandas(table, preserve_index=False)
    sums = {OF_LATENTS: sha256(folder / "latents.parquet"), HOW: json.dumps(how)}
    made = made.replace_schema_metadata(sums)
    replace_atomically(folder / ADDED, lambda file: parquet.write_table(made, file), overwrite=True)

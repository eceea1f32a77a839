"""Positions of the images of a run in their input, if possible without opening the images."""

from __future__ import annotations

import stat
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from modpose.data.image_files import split_array_name
from modpose.data.mrc import is_mrc
from modpose.data.table_form import HEAD
from modpose.errors import InputError
from modpose.run.folder import read_table

if TYPE_CHECKING:
    from modpose.run import Run


def positions(run: Run) -> NDArray[np.int64]:
    """Return the rows of the whole input that hold the images of a run, (N,) from 0.

    The images are opened only if their file may have changed since the fit.
    """
    if _untouched(run):
        return read_table(run.path / "rows.parquet", ["row"])["row"].to_numpy(np.int64)
    source = run.dataset().source
    return np.arange(source.n) if source.selection is None else source.selection


def _untouched(run: Run) -> bool:
    """Whether the input is an array, or a file last changed, moved or copied before the fit."""
    environment = run.environment
    where, started = environment.get("input"), environment.get("started")
    known = isinstance(environment.get("data"), dict) and (run.path / "rows.parquet").is_file()
    if run.input is not None or not known:
        return False
    if where is None:  # an array in memory
        return True
    if not isinstance(where, str) or started is None:
        return False
    try:
        path = split_array_name(Path(where))[0]
        if not _names_no_other_table(path):
            return False
        status = path.stat()
        begun = datetime.fromisoformat(str(started)).timestamp()
    except (InputError, OSError, ValueError):
        return False
    return stat.S_ISREG(status.st_mode) and max(status.st_mtime, status.st_ctime) < begun


def _names_no_other_table(path: Path) -> bool:
    """Whether rows are those of the file itself: no group, list of files or optimisation set."""
    if path.suffix.lower() == ".star":
        with path.open("rb") as file:
            return b"_rlnImageName" in file.read(HEAD)
    return path.suffix.lower() in (".cs", ".npy") or is_mrc(path)

"""Write the chosen images of a run: rows of its STAR or .cs file, or a list of positions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from modpose.data.cryosparc import read_cs_records, write_cs_records
from modpose.data.star import write_star
from modpose.errors import InputError
from modpose.files.writing import all_or_nothing, check_outputs
from modpose.outputs.export import path_notes
from modpose.run.inputs import files_of_run

if TYPE_CHECKING:
    from modpose.data.source import Source
    from modpose.run import Run

TABLES = {".star": "star", ".cs": "cs"}
"""Extension of a selection and the format of the input that it needs."""
NAMES = {".star": "STAR", ".cs": ".cs"}


def export_selection(
    run: Run, mask: NDArray[np.bool_], out: Path, *, overwrite: bool = False
) -> list[str]:
    """Write the chosen images: a table with their rows, or a list of positions.

    Parameters
    ----------
    run
        The run that was fitted to the images.
    mask
        (N,) which to keep.
    out
        ``.star`` or ``.cs``, as the input: its own rows, in its order, with every column (and
        optics group); or ``.txt``: positions in the input from 0, one a line, as ``--index``
        takes them.
    overwrite
        Replace a file that is there.

    Returns
    -------
    Sentences about what should be known.

    Raises
    ------
    InputError
        Nothing is left, the input had no such table, or ``out`` is an input or is there already.
    """
    suffix = out.suffix.lower()
    if suffix not in (*TABLES, ".txt"):
        raise InputError.of(out, "the extension", repr(suffix), ".star, .cs or .txt")
    check_outputs([out], overwrite, files_of_run(run))
    if not mask.any():
        raise InputError.of("select", "the number of images left", 0, "at least one")
    source = run.dataset().source
    if len(mask) != source.n:
        raise InputError.of(source.stack.name, "the input", f"{source.n} images", f"{len(mask)}")
    if suffix in TABLES and source.particles.format != TABLES[suffix]:
        raise InputError(
            f"{out}: the run's input {source.stack.name} is no {NAMES[suffix]} file; write a list "
            "of positions with -o selected.txt, which --index takes"
        )
    rows = np.flatnonzero(mask)
    positions = rows if source.selection is None else source.selection[rows]
    with all_or_nothing() as place:
        if suffix == ".txt":
            place(out).write_text("".join(f"{row}\n" for row in positions))
            return []
        if suffix == ".cs":
            _write_records(source, positions, place(out))
            return path_notes(source, out)
        kept = source.subset(rows).particles
        write_star(place(out), kept.table, kept.optics)
    return path_notes(source, out)


def _write_records(source: Source, positions: NDArray[np.int64], out: Path) -> None:
    """Write the records of a cryoSPARC table at some positions, every field to the last bit."""
    assert source.path is not None
    write_cs_records(out, read_cs_records(source.path)[positions])

"""Write the chosen images of a run: rows of its STAR or .cs file, or a list of positions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from modpose.data.table_files import FORMATS, files_of_table, write_table
from modpose.errors import InputError
from modpose.files.writing import all_or_nothing, check_outputs
from modpose.outputs.cryodrgn import write_pickle
from modpose.outputs.export import path_notes
from modpose.run.inputs import files_of_run

if TYPE_CHECKING:
    from modpose.run import Run

LISTS = (".txt", ".npy", ".pkl")
"""Extensions of a selection that is a list of positions."""


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
        optics group, a ``.cs`` with its ``.csg``); or positions in the input from 0, as
        ``--index`` takes them: ``.txt``, one a line; ``.npy``; or ``.pkl``, as cryoDRGN's
        ``--ind`` takes them.
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
    if suffix not in (*FORMATS, *LISTS):
        raise InputError.of(out, "the extension", repr(suffix), ".star, .cs, .txt, .npy or .pkl")
    written = files_of_table(out)
    check_outputs(written, overwrite, files_of_run(run))
    if not mask.any():
        raise InputError.of("select", "the number of images left", 0, "at least one")
    source = run.dataset().source
    if len(mask) != source.n:
        raise InputError.of(source.stack.name, "the input", f"{source.n} images", f"{len(mask)}")
    if suffix in FORMATS and source.particles.format != FORMATS[suffix]:
        what = "STAR" if suffix == ".star" else ".cs"
        raise InputError(
            f"{out}: the run's input {source.stack.name} is no {what} file; write a list "
            "of positions with -o selected.txt, which --index takes"
        )
    rows = np.flatnonzero(mask)
    with all_or_nothing() as place:
        if suffix in LISTS:
            _write_positions(
                rows if source.selection is None else source.selection[rows], place(out)
            )
            return []
        write_table(source.particles.subset(rows), out, place)
    return path_notes(source, out)


def _write_positions(positions: NDArray[np.int64], out: Path) -> None:
    if out.suffix.lower() == ".txt":
        out.write_text("".join(f"{row}\n" for row in positions.tolist()))
    elif out.suffix.lower() == ".npy":
        np.save(out, positions)
    else:
        write_pickle(out, positions)

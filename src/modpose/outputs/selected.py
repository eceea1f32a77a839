"""Write the chosen images of a run: rows of its table, a list of positions, or a stack."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from modpose.data.mrc import write_mrcs_parts
from modpose.data.plain_pickle import write_plain_pickle
from modpose.data.table_files import FORMATS, files_of_table, path_notes, write_table
from modpose.errors import InputError
from modpose.files.writing import all_or_nothing, check_outputs, refuse_to_replace
from modpose.run.inputs import files_of_run
from modpose.run.positions import positions

if TYPE_CHECKING:
    from modpose.data.source import Source
    from modpose.run import Run

LISTS = (".txt", ".npy", ".pkl")
"""Extensions of a selection that is a list of positions."""
STACK = ".mrcs"
"""Extension of a selection that is a stack of images."""
WRITABLE = (*FORMATS, *LISTS, STACK)
"""Extensions that a selection can be written to."""
AT_ONCE = 1 << 26
"""Bytes of images that are read at once."""


def export_selection(
    run: Run, mask: NDArray[np.bool_], out: Path, *, overwrite: bool = False
) -> list[str]:
    """Write the chosen images: a table with their rows, a list of positions, or a stack.

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
        ``--ind`` takes them; or ``.mrcs``, the images themselves as they are stored.
    overwrite
        Replace a file that is there.

    Returns
    -------
    Sentences about what should be known.

    Raises
    ------
    InputError
        Nothing is left, the input had no such table, or ``out`` is an input or already exists.
    """
    suffix = out.suffix.lower()
    if suffix not in WRITABLE:
        expected = f"one of {' '.join(WRITABLE)}"
        raise InputError.of(out, "the extension", repr(suffix), expected)
    written = files_of_table(out)
    refuse_to_replace(written, overwrite)
    if not mask.any():
        raise InputError.of("select", "the number of images left", 0, "at least one")
    rows = np.flatnonzero(mask)
    if suffix in LISTS:
        of_images = suffix == ".npy" and os.path.lexists(out)
        check_outputs(written, overwrite, files_of_run(run, images=of_images))
        chosen = positions(run)
        _check_count(run, len(chosen), mask)
        with all_or_nothing() as place:
            _write_positions(chosen[rows], place(out))
        return []
    source = run.dataset().source
    check_outputs(written, overwrite, files_of_run(run, source))
    _check_count(run, source.n, mask)
    if suffix == STACK:
        _write_stack(source, rows, out)
        return []
    if source.particles.format != FORMATS[suffix]:
        what = "STAR" if suffix == ".star" else ".cs"
        own = next(
            (end for end, kind in FORMATS.items() if kind == source.particles.format), ".txt"
        )
        meaning = "a list of positions, which --index takes" if own == ".txt" else "like the input"
        raise InputError(
            f"{out}: the run's input {source.stack.name} is no {what} file, expected "
            f"{out.with_suffix(own).name} ({meaning})"
        )
    notes = path_notes(source, out)
    with all_or_nothing() as place:
        write_table(source.subset(rows).written(), out, place)
    return notes


def _check_count(run: Run, n: int, mask: NDArray[np.bool_]) -> None:
    if n != len(mask):
        raise InputError.of(run.path, "the number of images", n, f"{len(mask)}, one a condition")


def _write_stack(source: Source, rows: NDArray[np.int64], out: Path) -> None:
    stack = source.stack
    if stack.channels != 1:
        raise InputError.of(out, "the images", "coloured", "grey ones, for a stack .mrcs")
    step = max(1, AT_ONCE // (4 * int(np.prod(stack.shape))))
    parts = (stack.read(rows[i : i + step])[:, 0] for i in range(0, len(rows), step))
    with all_or_nothing() as place:
        write_mrcs_parts(place(out), parts, (len(rows), *stack.shape), source.pixel_size)


def _write_positions(positions: NDArray[np.int64], out: Path) -> None:
    if out.suffix.lower() == ".txt":
        out.write_text("".join(f"{row}\n" for row in positions.tolist()))
    elif out.suffix.lower() == ".npy":
        np.save(out, positions)
    else:
        write_plain_pickle(out, positions)

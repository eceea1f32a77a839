"""Select images by the classes that a search gave them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from modpose.data.particles import Particles
from modpose.data.table_files import check_format, files_of_table, notes_of_paths, write_table
from modpose.data.tables import read_particles
from modpose.errors import InputError
from modpose.files.writing import all_or_nothing, check_outputs
from modpose.outputs.select import labelled
from modpose.outputs.where import Mask
from modpose.search.files import TABLES

COLUMNS = {"rlnClassNumber": 0, "alignments2D/class": 1, "alignments3D/class": 1}
"""Columns of classes, and what turns their numbers into those that a user sees, from 1."""


def select_classes(
    folder: str | Path, classes: str, out: str | Path, *, overwrite: bool = False
) -> Mask:
    """Write the rows of some classes of ``modpose align`` or ``modpose abinitio``.

    Parameters
    ----------
    folder
        What these commands wrote.
    classes
        Numbers from 1, separated by commas.
    out
        ``.star`` or ``.cs``, like the table in the folder.
    overwrite
        Replace a file that is there.

    Returns
    -------
    (N,) which images were kept.

    Raises
    ------
    InputError
        The folder has no such table, a class does not exist, no image is left, or ``out`` cannot
        be written.
    """
    folder, out = Path(folder), Path(out)
    table = next((path for name in TABLES if (path := folder / name).is_file()), None)
    if table is None:
        raise InputError(f"{folder}: it holds no particles.star or .cs of align or abinitio")
    particles = read_particles(table)
    check_format(out, particles)
    check_outputs(files_of_table(out), overwrite, files_of_table(table))
    numbers = _class_numbers(particles)
    known = np.unique(numbers)
    mask = labelled(numbers, known, classes, "--class", "class")
    notes = notes_of_paths(particles, table, out)
    with all_or_nothing() as place:
        write_table(particles.subset(np.flatnonzero(mask)), out, place)
    for note in notes:
        particles.note(note)
    return mask


def _class_numbers(particles: Particles) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    for name, add in COLUMNS.items():
        if particles.has(name):
            return particles.numbers(name).astype(np.int64) + add
    expected = f"one of {', '.join(COLUMNS)}"
    raise InputError.of(particles.name, "the column of classes", "missing", expected)

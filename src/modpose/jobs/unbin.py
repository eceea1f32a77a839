"""Copy poses that were found on binned images into the table of the original images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from modpose.data.given import poses_of
from modpose.data.joining import join_rows, matched
from modpose.data.particles import Particles
from modpose.data.posing import with_pose

CARRIED = {
    "star": ("rlnClassNumber", "rlnMaxValueProbDistribution", "modposeZ"),
    "cs": ("alignments3D/class", "components_mode_"),
}
"""Columns (or their prefixes) that are copied with poses and half sets, to the same format."""
CLASS = {"star": ("rlnClassNumber", 1), "cs": ("alignments3D/class", 0)}
"""Columns of the class, and the first class."""


def unbinned(found: Particles, onto: Particles, *, partial: bool = False) -> Particles:
    """Put the poses of one table into another table of the same images.

    Shifts are converted to the pixels of the other table; half sets, classes and content go along.

    Parameters
    ----------
    found
        The table with poses, in any order.
    onto
        The table of the images that are to have them.
    partial
        Leave out rows of ``onto`` that the other table does not have.

    Raises
    ------
    InputError
        A row is missing, or which row belongs to which image is not certain.
    """
    joined = join_rows(onto, found)
    rows = matched(joined, np.arange(onto.n), (onto.name, found.name), partial)
    places = joined.rows[rows]
    rotation, shift = poses_of(found, onto.pixel_size())
    kept = onto.subset(rows)
    half = found.half_sets()
    posed = with_pose(
        kept,
        rotation=rotation[places],
        shift=shift[places],
        half=None if half is None else half[places],
    )
    table = posed.table.copy()
    if found.format == onto.format:
        for name in map(str, found.table):
            if name.startswith(CARRIED[found.format]):
                table[name] = found.table[name].to_numpy()[places]
    elif found.has(CLASS[found.format][0]):
        (old, first), (new, first_of_new) = CLASS[found.format], CLASS[onto.format]
        table[new] = (found.column(old) - first + first_of_new).astype(np.int64)[places]
    return replace(posed, table=table)

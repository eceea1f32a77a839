"""Tetrominoes in three dimensions, as affinity-VAE's paper has them (section 2.5).

Five classes are four cubes joined face to face.  The paper names a class E and a fusion EL without
saying how four cubes make an E.  Here the fourth cube is attached to a row of three: whole at the
middle (T), whole at one end (L), in thirds at both ends and the middle (E), or in halves at one
end and the middle (EL).  All have the same volume and thickness.  E is similar to T and L, and EL
is between E and L.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modpose.errors import InputError
from modpose.simulate.blocks import Blocks
from modpose.simulate.species import Species

Corners = tuple[float, float, float, float]

_ROW: Corners = (0.0, 0.0, 3.0, 1.0)
_SHAPES: dict[str, tuple[Corners, ...]] = {
    "I": ((0.0, 0.0, 4.0, 1.0),),
    "O": ((0.0, 0.0, 2.0, 2.0),),
    "S": ((0.0, 0.0, 2.0, 1.0), (1.0, 1.0, 3.0, 2.0)),
    "T": (_ROW, (1.0, 1.0, 2.0, 2.0)),
    "L": (_ROW, (0.0, 1.0, 1.0, 2.0)),
    "E": (_ROW, *((left, 1.0, left + 1 / 3, 2.0) for left in (0.0, 4 / 3, 8 / 3))),
    "EL": (_ROW, *((left, 1.0, left + 1 / 2, 2.0) for left in (0.0, 5 / 4))),
}
"""Corners (x0, y0, x1, y1) of blocks one cube thick, in cubes."""

CLASSES = ("I", "O", "S", "T", "L", "E")
"""The six classes that are trained on."""
UNSEEN = "EL"
"""The fusion that is held out."""


def tetromino(name: str, cube: float = 1.0) -> Blocks:
    """Build one shape about its centre of mass.

    Parameters
    ----------
    name
        One of :data:`CLASSES`, or :data:`UNSEEN`.
    cube
        Side of a cube, Å.
    """
    if name not in _SHAPES:
        raise InputError.of("tetrominoes", "a class", repr(name), f"one of {', '.join(_SHAPES)}")
    flat = np.array(_SHAPES[name])
    low = np.column_stack([flat[:, :2], np.zeros(len(flat))])
    high = np.column_stack([flat[:, 2:], np.ones(len(flat))])
    volumes = (high - low).prod(1)
    centre = volumes @ (low + high) / 2 / volumes.sum()
    return Blocks(cube * (low - centre), cube * (high - centre))


def tetromino_species(names: Sequence[str] = CLASSES, cube: float = 6.0) -> list[Species]:
    """Return shapes with their names, for :func:`modpose.simulate.subtomograms`.

    Parameters
    ----------
    names
        Different names, as in :func:`tetromino`.
    cube
        Side of a cube, Å; the longest shape, I, reaches 2.12 cubes from its centre.
    """
    if not 0 < cube < float("inf"):
        raise InputError.of("tetrominoes", "cube", cube, "more than 0")
    twice = next((name for name in names if list(names).count(name) > 1), None)
    if twice is not None:
        raise InputError.of("tetrominoes", "a class given twice", twice, "names that differ")
    return [Species(name, tetromino(name, cube)) for name in names]

"""The place in a micrograph or tomogram as the identity of a row: images that were cut out twice.

Two extractions of the same picks, at two binnings, number their images differently and name other
files.  Their coordinates stay the same where they are in pixels of the micrograph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from modpose.data.identity import RowIdentity
from modpose.data.paths import normalised

if TYPE_CHECKING:
    from modpose.data.particles import Particles

MICROGRAPHS = (("rlnTomoName",), ("rlnMicrographName",))
COORDINATES = (
    tuple(f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"),
    tuple(f"rlnCoordinate{axis}" for axis in "XYZ"),
    tuple(f"rlnCoordinate{axis}" for axis in "XY"),
)
SAME = 0.01
"""Coordinates that differ by less are the same: programs round them, some to single precision."""

ELSEWHERE = 0.1
"""Rows that are farther apart than this, in standard deviations of the coordinates, are of other
picks.  To centre a particle again moves it less."""

Floats = NDArray[np.float64]


def places_of(particles: Particles, table: Particles) -> tuple[RowIdentity, RowIdentity] | None:
    """Identify the rows of two STAR files by micrograph and coordinates; None if they do not tell.

    Coordinates in other units, or of other picks, agree by chance here and there.
    """
    sides = (particles, table)
    micrograph, axes = (_shared(groups, sides) for groups in (MICROGRAPHS, COORDINATES))
    if not micrograph or not axes or not all(_tells(one, micrograph + axes) for one in sides):
        return None
    names = [normalised(str(name)) for one in sides for name in one.column(*micrograph)]
    number = np.unique(np.array(names), return_inverse=True)[1]
    values = [np.concatenate([one.numbers(name) for one in sides]) for name in axes]
    columns = [_joined(number, one).round(3).tolist() for one in values]
    rows = zip(names, *columns, strict=True)
    keys = np.array([" ".join(map(str, row)) for row in rows], dtype=object)
    first, second = keys[: particles.n], keys[particles.n :]
    return RowIdentity.of("place", first), RowIdentity.of("place", second)


def of_other_picks(particles: Particles, table: Particles, rows: NDArray[np.int64]) -> bool:
    """Whether most rows of two STAR files that were joined by name lie at other coordinates.

    Names of micrographs do not count, as programs change them.

    Parameters
    ----------
    particles, table
        The two tables.
    rows
        (N,) rows of ``table`` for those of ``particles``; -1 for none.
    """
    axes, known = _shared(COORDINATES, (particles, table)), rows >= 0
    if not axes or not known.any():
        return False
    one = np.stack([particles.numbers(name) for name in axes])
    other = np.stack([table.numbers(name) for name in axes])[:, rows[known]]
    spread = np.minimum(one.std(axis=1), other.std(axis=1))[:, None]
    if not (np.isfinite(one).all() and np.isfinite(other).all() and spread.all()):
        return False
    far = (np.abs(one[:, known] - other) > ELSEWHERE * spread).any(axis=0)
    return bool(far.mean() > 0.5)


def _shared(
    groups: tuple[tuple[str, ...], ...], sides: tuple[Particles, Particles]
) -> tuple[str, ...]:
    """Choose the first group of columns that both STAR files have, or none."""
    if any(one.format != "star" for one in sides):
        return ()
    both = (names for names in groups if all(one.has(name) for one in sides for name in names))
    return next(both, ())


def _tells(particles: Particles, columns: tuple[str, ...]) -> bool:
    """Whether all coordinates are known, and not the same for all rows."""
    micrograph, *axes = columns
    values = np.stack([particles.numbers(name) for name in axes])
    if particles.n > 1 and len(set(particles.column(micrograph).tolist())) == 1:
        return bool(np.isfinite(values).all() and np.ptp(values, axis=1).any())
    return bool(np.isfinite(values).all())


def _joined(micrograph: NDArray[np.int64], values: Floats) -> Floats:
    """Give values (N,) of a micrograph that are near each other the smallest of them."""
    order = np.lexsort((values, micrograph))
    ordered = values[order]
    new = (np.diff(micrograph[order], prepend=-1) != 0) | (np.diff(ordered, prepend=0.0) > SAME)
    first = np.maximum.accumulate(np.where(new, np.arange(len(new)), 0))
    found = np.empty_like(values)
    found[order] = ordered[first]
    return found

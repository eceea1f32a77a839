"""The place in a micrograph or tomogram as the identity of a row: images that were cut out twice.

Two extractions of the same picks, at two binnings, number their images differently and name other
files.  Coordinates are in pixels of the micrograph, so they stay the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from modpose.data.identity import RowIdentity
from modpose.data.paths import normalised

if TYPE_CHECKING:
    from modpose.data.particles import Particles

MICROGRAPHS = ("rlnTomoName", "rlnMicrographName")
COORDINATES = (
    tuple(f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"),
    tuple(f"rlnCoordinate{axis}" for axis in "XYZ"),
    tuple(f"rlnCoordinate{axis}" for axis in "XY"),
)
DECIMALS = 3
"""Decimals of a coordinate that are compared; programs write more, and may round the last ones."""


def places_of(particles: Particles) -> RowIdentity | None:
    """Identify the rows of a STAR file by micrograph and coordinates; None if they do not tell."""
    if particles.format != "star":
        return None
    micrograph = next((name for name in MICROGRAPHS if particles.has(name)), None)
    axes = next((names for names in COORDINATES if all(map(particles.has, names))), None)
    if micrograph is None or axes is None:
        return None
    columns = [np.round(particles.numbers(name), DECIMALS) + 0.0 for name in axes]
    files = [normalised(str(name)) for name in particles.column(micrograph)]
    rows = zip(files, *(column.tolist() for column in columns), strict=True)
    keys = np.array([" ".join(map(str, row)) for row in rows], dtype=object)
    same = len(keys) > 1 and bool((keys == keys[0]).all())
    return None if same else RowIdentity.of("place", keys)

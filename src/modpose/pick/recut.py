"""The table of boxes that are cut out again at the coordinates of a RELION table.

Poses, CTF, half sets and all other columns stay those of the particles.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from modpose.data.optics import CORRECTED, FLIPPED, PREMULTIPLIED
from modpose.data.particles import DEFAULT_MAGNIFICATION, Particles
from modpose.errors import InputError
from modpose.jobs.positions import EXTRACTED, MEASURED, PLACES, shifts

SAME_SIZE = 0.01
"""Pixel sizes with a smaller relative difference are equal."""
SHIFTS = tuple(f"rlnOrigin{axis}{unit}" for axis in "XY" for unit in ("Angst", ""))


def check_coordinates(particles: Particles, pixel_size: float | None) -> None:
    """Refuse coordinates that are not in pixels of the images, where the table says so."""
    name = next((name for name in MEASURED if particles.has(name)), None)
    if name is None or pixel_size is None:
        return
    sizes = particles.positive(name)
    far = np.flatnonzero(np.abs(sizes - pixel_size) > SAME_SIZE * pixel_size)
    if far.size:
        raise InputError.of(
            particles.name,
            f"the pixel size of its coordinates ({name})",
            f"{sizes[far[0]]:g} Å",
            f"{pixel_size:g} Å, as that of the images",
        )


def cut_again(
    particles: Particles,
    names: list[str],
    micrographs: NDArray[np.object_],
    box: int,
    pixel_size: float | None,
) -> Particles:
    """Let each particle name a new box of the pixels of its micrograph.

    The middle of a box is a whole pixel, so a fraction of a coordinate becomes a part of the shift
    where the table has shifts.

    Parameters
    ----------
    particles
        N particles with coordinates, of a STAR file.
    names, micrographs
        Image and micrograph of each.
    box
        Side of the boxes, pixels.
    pixel_size
        Å, or None.

    Raises
    ------
    InputError
        There are shifts, and the pixel size is not known.
    """
    table = particles.table.drop(columns=[c for c in EXTRACTED if c in particles.table])
    optics = None if particles.optics is None else particles.optics.copy()
    if any(name in table for name in SHIFTS):
        _keep_places(particles, table, pixel_size)
    for block in (table, optics):
        for name in (FLIPPED, PREMULTIPLIED, CORRECTED):
            if block is not None and name in block:
                block[name] = 0
    if pixel_size is not None:
        optics = _sized(table, optics, pixel_size)
    if optics is not None or "rlnImageSize" in table:
        (table if optics is None else optics)["rlnImageSize"] = box
    if optics is not None:
        optics["rlnImageDimensionality"] = 2
    table.insert(0, "rlnImageName", names)
    table["rlnMicrographName"] = micrographs
    return replace(particles, table=table, optics=optics)


def _keep_places(particles: Particles, table: pd.DataFrame, pixel_size: float | None) -> None:
    if pixel_size is None:
        raise InputError(f"{particles.name}: its shifts need a pixel size (--pixel-size)")
    moved = shifts(particles, 2)
    for k, axis in enumerate("XY"):
        place = particles.numbers(PLACES[k])
        table[PLACES[k]] = np.rint(place)
        origin = -moved[:, k] - (place - np.rint(place)) * pixel_size
        for name, unit in ((f"rlnOrigin{axis}Angst", 1.0), (f"rlnOrigin{axis}", pixel_size)):
            if name in table:
                table[name] = (origin / unit).round(6) + 0.0


def _sized(
    table: pd.DataFrame, optics: pd.DataFrame | None, pixel_size: float
) -> pd.DataFrame | None:
    """Write the pixel size where the table has it; optics groups come back, maybe new ones."""
    old = ("rlnPixelSize", "rlnDetectorPixelSize", "rlnMagnification")
    before_31 = optics is None and "rlnDetectorPixelSize" in table
    for block in (table, optics):
        for column in old:
            if block is not None and column in block:
                del block[column]
    if before_31:
        table["rlnDetectorPixelSize"] = pixel_size
        table["rlnMagnification"] = DEFAULT_MAGNIFICATION
    elif "rlnImagePixelSize" in table:
        table["rlnImagePixelSize"] = pixel_size
    elif optics is None:
        table["rlnOpticsGroup"] = 1
        optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnOpticsGroupName": ["opticsGroup1"]})
    if optics is not None:
        optics["rlnImagePixelSize"] = pixel_size
    return optics

"""Where particles are in their micrograph or tomogram, and tables for another extraction.

The centre of a particle is its coordinate minus its origin (RELION), or plus
the shift of its pose in modpose.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from modpose.data.particles import Particles
from modpose.data.star import read_star
from modpose.data.table_form import star_version
from modpose.data.tables import particles_of_star, read_particles
from modpose.errors import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CENTRED = tuple(f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ")
PLACES = tuple(f"rlnCoordinate{axis}" for axis in "XYZ")
FRACTIONS = ("location/center_x_frac", "location/center_y_frac")
EXTENTS = ("location/micrograph_shape_1", "location/micrograph_shape_0")
GROUPS = (
    "rlnTomoName",
    "rlnMicrographName",
    "location/micrograph_uid",
    "location/micrograph_path",
)
SERIES = "rlnTomoTiltSeriesPixelSize"
MEASURED = ("location/micrograph_psize_A", SERIES, "rlnMicrographPixelSize")
PIXELS = (*MEASURED, "rlnMicrographOriginalPixelSize")
"""Columns of the pixel size of coordinates, the most reliable first."""
TURNED = tuple(f"rlnTomoSubtomogram{name}" for name in ("Rot", "Tilt", "Psi"))
EXTRACTED = ("rlnImageName", "rlnImageOriginalName", "rlnCtfImage")
"""Columns of the images, which another extraction replaces."""


def open_table(path: Path) -> Particles:
    """Read a STAR file or a cryoSPARC table whose images are not needed, or not yet cut out."""
    suffix = path.suffix.lower()
    if suffix in (".cs", ".csg"):
        return read_particles(path)
    if suffix != ".star":
        raise InputError.of(path, "the extension", f"'{path.suffix}'", ".star, .cs or .csg")
    columns = ("rlnImageName", "rlnCoordinateX")
    return particles_of_star(read_star(path), str(path), star_version(path), columns=columns)


def groups(particles: Particles) -> Ints:
    """Number the micrograph or tomogram of each particle, (N,) from 0.

    Raises
    ------
    InputError
        The table does not name them.
    """
    name = next((name for name in GROUPS if particles.has(name)), None)
    if name is None:
        raise InputError(
            f"{particles.name}: there is no rlnMicrographName, rlnTomoName or "
            "location/micrograph_uid, expected one that tells where particles are"
        )
    return np.asarray(pd.factorize(particles.column(name))[0], np.int64)


def centres(particles: Particles, micrograph_pixel_size: float | None = None) -> Floats:
    """Return where each particle is, (N, 2) or (N, 3) Å: its coordinate and its shift.

    Parameters
    ----------
    particles
        With coordinates; shifts are 0 where the table has none.
    micrograph_pixel_size
        Å per pixel of the coordinates, if the table does not give it.

    Raises
    ------
    InputError
        There are no coordinates, or their pixel size is not known.
    """
    places = _coordinates(particles, micrograph_pixel_size)
    return places + shifts(particles, places.shape[1])


def _coordinates(particles: Particles, given: float | None) -> Floats:
    if all(particles.has(name) for name in CENTRED):
        return _stacked(particles, CENTRED)
    if all(particles.has(name) for name in FRACTIONS + EXTENTS):
        pixels = _stacked(particles, FRACTIONS) * _stacked(particles, EXTENTS)
        return pixels * pixel_sizes(particles, given)[:, None]
    flat = PLACES[:2]
    if not all(particles.has(name) for name in flat):
        raise InputError(
            f"{particles.name}: there are no coordinates, expected rlnCoordinateX and "
            "rlnCoordinateY, rlnCenteredCoordinateXAngst, ... or location/center_x_frac"
        )
    axes = PLACES if particles.has(PLACES[2]) else flat
    return _stacked(particles, axes) * pixel_sizes(particles, given)[:, None]


def _stacked(particles: Particles, names: tuple[str, ...]) -> Floats:
    return np.stack([particles.numbers(name) for name in names], axis=1)


def pixel_sizes(particles: Particles, given: float | None) -> Floats:
    """Return the pixel size of the coordinates, (N,) Å."""
    if given is not None:
        if not given > 0:
            expected = "a positive number"
            raise InputError.of(particles.name, "--micrograph-pixel-size", f"{given:g}", expected)
        return np.full(particles.n, float(given))
    name = next((name for name in PIXELS if particles.has(name)), None)
    if name is None:
        raise InputError(
            f"{particles.name}: no column gives the pixel size of the coordinates "
            f"({', '.join(PIXELS[2:])}, ...), expected --micrograph-pixel-size"
        )
    if name == SERIES and _counts_in_images(particles):
        name = "rlnImagePixelSize"
    found = particles.positive(name)
    particles.note(f"coordinates are taken to be in pixels of {np.median(found):.4g} Å ({name})")
    return found


def _counts_in_images(particles: Particles) -> bool:
    """Whether coordinates are in pixels of the images (WarpTools), not of the tilt series.

    RELION 4 counts in pixels of the tilt series, and has volumes; RELION 5 counts in Å.
    """
    if not particles.has("rlnImagePixelSize"):
        return False
    flat = "rlnImageDimensionality"
    if particles.has(flat) and (particles.numbers(flat) == 2).all():
        return True
    names = particles.column("rlnTomoName") if particles.has("rlnTomoName") else np.array([""])
    return all(str(name).endswith(".tomostar") for name in np.unique(names))


def shifts(particles: Particles, dims: int) -> Floats:
    """Return the shift from the coordinate to the centre of each particle, (N, dims) Å."""
    if particles.format == "cs":
        return _shifts_of_cryosparc(particles)
    if any(particles.has(name) and particles.numbers(name).any() for name in TURNED):
        names = ", ".join(TURNED)
        raise InputError(f"{particles.name}: shifts are in turned axes ({names}), expected none")
    found = np.zeros((particles.n, dims))
    for k, axis in enumerate("XYZ"[:dims]):
        name = f"rlnOrigin{axis}"
        if particles.has(f"{name}Angst"):
            found[:, k] = -particles.numbers(f"{name}Angst")
        elif particles.has(name):
            sizes = particles.pixel_sizes()
            if sizes is None:
                raise InputError(f"{particles.name}: {name} is there but no pixel size of images")
            found[:, k] = -particles.numbers(name) * sizes
    return found


def _shifts_of_cryosparc(particles: Particles) -> Floats:
    group = next(
        (g for g in ("alignments3D", "alignments2D") if particles.has(f"{g}/shift_0")), None
    )
    if group is None:
        return np.zeros((particles.n, 2))
    size = f"{group}/psize_A"
    sizes = particles.positive(size if particles.has(size) else "blob/psize_A")
    return -_stacked(particles, (f"{group}/shift_0", f"{group}/shift_1")) * sizes[:, None]


def recentred(particles: Particles, micrograph_pixel_size: float | None = None) -> Particles:
    """Add the shift of each particle to its coordinate: a table for another extraction.

    Coordinates in micrographs become whole pixels, as programs extract at these, and the rest of
    the shift stays a shift; coordinates in tomograms take the whole shift.  The names of the images
    are left out, since these are no longer the images of the table.

    Parameters
    ----------
    particles
        With coordinates and shifts.
    micrograph_pixel_size
        Å per pixel of the coordinates, if the table does not give it.
    """
    centre = centres(particles, micrograph_pixel_size)
    table = particles.table.copy()
    if all(particles.has(name) for name in CENTRED):
        table[list(CENTRED)] = centre.round(6)
        rest = np.zeros_like(centre)
    else:
        sizes = pixel_sizes(particles, micrograph_pixel_size)[:, None]
        pixels = centre / sizes
        if centre.shape[1] == 2:
            pixels = np.rint(pixels)
        rest = centre - pixels * sizes
        names = PLACES[: centre.shape[1]]
        if particles.format == "cs":
            names, pixels = FRACTIONS, pixels / _stacked(particles, EXTENTS)
        for name, values in zip(names, pixels.T, strict=True):
            kind = table[name].dtype if particles.format == "cs" else np.float64
            table[name] = values.astype(kind)
    _put_rest(particles, table, rest, micrograph_pixel_size)
    gone = [c for c in table if c in EXTRACTED or str(c).startswith("blob/")]
    if all(name in table for name in CENTRED):  # what also says the place would now contradict
        gone += [name for name in PLACES if name in table]
    return replace(particles, table=table.drop(columns=gone))


def _put_rest(
    particles: Particles, table: pd.DataFrame, rest: Floats, micrograph_pixel_size: float | None
) -> None:
    """Write the shift (Å) that is left, where shifts are; move expected shifts by the same."""
    if particles.format == "cs":
        for group in ("alignments3D", "alignments2D"):
            if f"{group}/shift_0" in table:
                size = f"{group}/psize_A"
                sizes = particles.positive(size if particles.has(size) else "blob/psize_A")
                for k in (0, 1):
                    table[f"{group}/shift_{k}"] = (-rest[:, k] / sizes).astype(np.float32)
        return
    origin, change = -rest, shifts(particles, rest.shape[1]) - rest
    for k, axis in enumerate("XYZ"[: rest.shape[1]]):
        name = f"rlnOrigin{axis}"
        prior, angst = f"{name}Prior", f"{name}Angst"
        if angst in table or name not in table:
            table[angst] = origin[:, k].round(6) + 0.0
        if f"{prior}Angst" in table:
            moved = particles.numbers(f"{prior}Angst") + change[:, k]
            table[f"{prior}Angst"] = moved.round(6) + 0.0
        if name not in table and prior not in table:
            continue
        found = particles.pixel_sizes()  # of this table's images, which stays
        sizes = pixel_sizes(particles, micrograph_pixel_size) if found is None else found
        if name in table:
            table[name] = (origin[:, k] / sizes).round(6) + 0.0
        if prior in table:
            table[prior] = (particles.numbers(prior) + change[:, k] / sizes).round(6) + 0.0

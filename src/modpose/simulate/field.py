"""One large image with many hinged macromolecules, turned any way, and where they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from modpose.data.mrc import write_mrcs
from modpose.data.star import write_star
from modpose.errors import InputError
from modpose.files.writing import all_or_nothing, check_outputs
from modpose.limits import check_whole
from modpose.simulate.molecules import hinged_molecule
from modpose.simulate.particles import simulate_particles
from modpose.simulate.settings import HingeSettings

if TYPE_CHECKING:
    import pandas as pd

TRIES = 200
"""Places that are drawn for each object before the field counts as full."""
LARGEST_SIDE = 16_384
WRITTEN = ("field.mrc", "coordinates.star")


@dataclass(frozen=True)
class Field:
    """A large image and its truth.

    Attributes
    ----------
    image
        (side, side) float32; the noise is white and has unit variance.
    truth
        One row per object: ``x`` and ``y`` (pixels, from 0 at the middle of the first),
        ``angle_deg``, ``hinge_deg``.
    pixel_size
        Å per pixel.
    """

    image: NDArray[np.float32]
    truth: pd.DataFrame
    pixel_size: float


def simulate_field(settings: HingeSettings, side: int) -> Field:
    """Plant molecules that do not overlap, and add noise.

    Parameters
    ----------
    settings
        Of the molecules: ``n`` of them, in boxes of ``box`` pixels, in which ``snr`` is measured.
        ``shift_std_px`` moves them off the middles of pixels.
    side
        Of the image, pixels.

    Raises
    ------
    InputError
        If there is no room for so many.
    """
    check_whole("simulate field", "the side", side, settings.box + 1, LARGEST_SIDE)
    simulated = simulate_particles(settings)
    rng = np.random.default_rng([settings.seed, 1])
    molecule = hinged_molecule()
    apart = 2 * molecule.radius(np.array(settings.hinge_range_deg)) / settings.pixel_size
    place = _places(settings.n, side - settings.box, apart, rng)
    image = np.zeros((side, side), np.float32)
    for (row, column), clean in zip(place, simulated.clean, strict=True):
        image[row : row + settings.box, column : column + settings.box] += clean
    image += rng.standard_normal(image.shape, dtype=np.float32)
    truth = simulated.truth[["angle_deg", "hinge_deg"]].copy()
    middle = settings.box // 2
    truth.insert(0, "x", place[:, 1] + middle + simulated.truth["shift_x"])
    truth.insert(1, "y", place[:, 0] + middle + simulated.truth["shift_y"])
    return Field(image, truth, settings.pixel_size)


def _places(count: int, last: int, apart: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw corners (count, 2) from 0 to ``last`` that are ``apart`` from one another."""
    place = np.empty((count, 2), np.int64)
    found = 0
    for _ in range(TRIES * count):
        if found == count:
            break
        drawn = rng.integers(0, last, 2, endpoint=True)
        if found == 0 or np.hypot(*(place[:found] - drawn).T).min() >= apart:
            place[found] = drawn
            found += 1
    if found < count:
        expected = f"at most about {found}, which is what there is room for"
        raise InputError.of("simulate field", "the number of objects", count, expected)
    return place


def write_field(field: Field, folder: Path, overwrite: bool = False) -> Path:
    """Write ``field.mrc`` and ``coordinates.star``, the truth; return the image's path.

    The truth has RELION's coordinates, and ``modposeTruthAngle`` and ``modposeTruthHinge``.
    """
    import pandas as pd

    image, star = (folder / name for name in WRITTEN)
    check_outputs([image, star], overwrite)
    table = pd.DataFrame(
        {
            "rlnMicrographName": image.name,
            "rlnCoordinateX": field.truth["x"],
            "rlnCoordinateY": field.truth["y"],
            "modposeTruthAngle": field.truth["angle_deg"],
            "modposeTruthHinge": field.truth["hinge_deg"],
        }
    )
    with all_or_nothing() as place:
        write_mrcs(place(image), field.image[None], field.pixel_size)
        write_star(place(star), table)
    return image

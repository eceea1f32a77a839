"""Class averages as MRC, poses as STAR, correlations as CSV."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from modpose.data.fresh_table import fresh_particles, has_image_names, image_names
from modpose.data.mrc import write_mrcs
from modpose.data.particles import Particles
from modpose.data.posing import with_pose
from modpose.data.table_files import files_of_table, write_table
from modpose.files.writing import Staging
from modpose.fourier.coefficients import Coefficients
from modpose.fourier.reference import make_references
from modpose.search.folder import holds_search
from modpose.search.shared import information_of

if TYPE_CHECKING:
    from modpose.data.source import Source
    from modpose.search.alignment import Alignment

TABLES = ("particles.star", "particles.cs")
"""Tables of poses in the folder of a search."""
MAPS = ("class{:03d}.mrc", "class{:03d}_half1.mrc", "class{:03d}_half2.mrc")
MOTION = "class{:03d}_motion{}.mrc"
"""File name of the volumes along a motion."""
STEPS = (-2.0, -1.0, 0.0, 1.0, 2.0)
"""Contents of these volumes, standard deviations."""


Spread = tuple[torch.Tensor, torch.Tensor]
"""Standard deviations of each pose: degrees, and voxels of the averages."""


def earlier_tables(folder: Path) -> list[Path]:
    """Name the tables of an earlier search in a folder; none if no search was written there."""
    if not holds_search(folder):
        return []
    return [path for name in TABLES for path in files_of_table(folder / name)]


def write_results(
    folder: Path,
    source: Source,
    found: Alignment,
    spread: Spread,
    place: Staging,
    posed: Callable[[Spread], Particles] | None = None,
) -> None:
    """Write averages, their halves, correlations and, last, the table of poses.

    The table is ``posed``, called with the uncertainties of the poses, ``spread``, or that of
    volumes.
    """
    size = None if source.pixel_size is None else found.binning * source.pixel_size
    maps = found.maps
    for number in range(len(maps.combined)):
        volumes = (maps.combined, maps.plain_first, maps.plain_second)
        for name, stack in zip(MAPS, volumes, strict=True):
            path = folder / name.format(number + 1)
            write_mrcs(place(path), stack[number : number + 1].numpy(), size)
        for motion in range(len(found.motions[number].directions) if found.motions else 0):
            path = folder / MOTION.format(number + 1, motion + 1)
            write_mrcs(place(path), along_motion(found, number, motion).numpy(), size)
    box = maps.combined.shape[-1]
    correlation_table(found, size, box).to_csv(place(folder / "fsc.csv"), index=False)
    table = pose_table(source, found, folder, spread) if posed is None else posed(spread)
    write_table(table, folder / "particles.star", place)


def along_motion(found: Alignment, number: int, motion: int) -> torch.Tensor:
    """Draw a class along one of its motions, (steps, D, D, D)."""
    motions = found.motions[number]
    z = torch.zeros(len(STEPS), motions.z.shape[1])
    z[:, motion] = torch.tensor(STEPS)
    return motions.volumes(z)


def content(found: Alignment) -> torch.Tensor:
    """Content (N, J) of all volumes, each along the motions of its own class."""
    class_index = found.assignment.class_index
    z = torch.zeros(len(class_index), found.motions[0].z.shape[1])
    for number, motions in enumerate(found.motions):
        z[class_index == number] = motions.z
    return z


def correlation_table(found: Alignment, pixel_size: float | None, box: int) -> pd.DataFrame:
    """Fourier shell correlation of the halves of each class, one row per shell."""
    shells = found.maps.fsc.shape[1]
    frequency = np.arange(shells) / box
    rows = []
    for number, fsc in enumerate(found.maps.fsc.numpy(), 1):
        for shell in range(shells):
            row = {"class": number, "shell": shell, "frequency_per_px": frequency[shell]}
            if pixel_size is not None and shell:
                row["resolution_angst"] = pixel_size / frequency[shell]
            rows.append(row | {"fsc": float(fsc[shell])})
    return pd.DataFrame(rows)


def uncertainties(found: Alignment, data: Coefficients) -> Spread:
    """Standard deviations of each pose, from the curvature of the likelihood.

    Returns
    -------
    angle_deg, shift_px
        (N,) root mean square of the geodesic angle, and of the length of the shift's error.
    """
    here = found.assignment
    references = make_references(found.maps.combined, float(data.radius[-1]), slopes=True)
    information = information_of(data, references, here.class_index, here.rotation, here.shift)
    weak = 1e-9 * torch.eye(6)
    variances = torch.linalg.inv((information + weak).double()).diagonal(dim1=1, dim2=2)
    angle = torch.rad2deg(variances[:, :3].sum(1).clamp(min=0).sqrt()).clamp(max=180.0)
    return angle, variances[:, 3:].sum(1).clamp(min=0).sqrt().clamp(max=data.box)


def pose_table(source: Source, found: Alignment, folder: Path, spread: Spread) -> Particles:
    """Write poses and classes into the particles' table; other columns do not change.

    Returns
    -------
    The table with poses (:func:`modpose.data.posing.with_pose`), ``rlnClassNumber`` and
    ``rlnRandomSubset`` (from 1), ``modposeScore`` (nats), ``modposeAmplitude``,
    ``modposeAngleStd`` (degrees), ``modposeShiftStd`` (voxels of the input) and, with motions,
    ``modposeZ0`` ... along those of its class.
    """
    here, particles = found.assignment, source.particles
    posed = with_pose(
        particles if particles.format == "star" else named_images(source, folder),
        rotation=here.rotation.double().numpy(),
        shift=found.shift_px.double().numpy(),
        half=found.half.numpy(),
        pixel_size=source.pixel_size,
    )
    columns = {"rlnClassNumber": here.class_index.numpy() + 1} | own_columns(found, spread)
    return replace(posed, table=posed.table.assign(**columns))


def own_columns(found: Alignment, spread: Spread) -> dict[str, NDArray[np.float64]]:
    """Columns beside poses and classes, one number per volume (:func:`pose_table`)."""
    own = {
        "Score": found.assignment.score,
        "Amplitude": found.assignment.amplitude,
        "AngleStd": spread[0],
        "ShiftStd": found.binning * spread[1],
    }
    own |= {f"Z{k}": column for k, column in enumerate(content(found).T if found.motions else [])}
    return {f"modpose{name}": _rounded(values.double().numpy()) for name, values in own.items()}


def table_of_images(source: Source, folder: Path) -> Particles:
    """Return the table of the images; those without RELION's or cryoSPARC's get one of RELION's."""
    if source.particles.format in ("star", "cs"):
        return source.particles
    if has_image_names(source):
        return fresh_particles(source, folder / "particles.star")
    return named_images(source, folder)


def named_images(source: Source, folder: Path) -> Particles:
    """Make a table of RELION that only names the images."""
    names = image_names(source, folder)
    return Particles(pd.DataFrame({"rlnImageName": names}), None, "star", str(folder))


def _rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values.round(6) + 0.0

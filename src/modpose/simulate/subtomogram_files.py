"""Writing simulated subtomograms: STAR, MRC files, the wedge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from modpose.data.mrc import write_mrcs
from modpose.data.particles import TILT_RANGE
from modpose.data.star import write_star
from modpose.files.writing import all_or_nothing, refuse_to_replace
from modpose.observe.wedge import wedge_mask
from modpose.progress import bar
from modpose.simulate.star_tables import tables

if TYPE_CHECKING:
    import pandas as pd

    from modpose.simulate.subtomogram_settings import SubtomogramSettings
    from modpose.simulate.subtomograms import Subtomograms

WRITTEN = ("particles.star", "wedge.mrc", "subtomograms", "templates")
"""The table, the mask, and the folders of volumes and of molecules."""
HELD = 64
"""Volumes in memory at a time."""


def write_subtomograms(simulated: Subtomograms, folder: Path, overwrite: bool = False) -> Path:
    """Write a RELION table with one MRC file per volume.

    ``particles.star``, ``subtomograms/000001.mrc``, ..., ``wedge.mrc`` (what was measured, 1 or 0,
    on the centred Fourier lattice) and ``templates/`` (the molecules upright, free of noise). The
    truth goes into separate columns, never into the pose columns.  The table is written last, so
    if it exists, all files exist.  Parameters and errors are those of
    :func:`modpose.simulate.particles.write_particles`.
    """
    star, wedge, volumes, templates = written = [folder / name for name in WRITTEN]
    refuse_to_replace(written, overwrite)
    size = simulated.pixel_size
    names = [f"{volumes.name}/{number:06d}.mrc" for number in range(1, simulated.n + 1)]
    with (
        all_or_nothing() as place,
        bar(label="writing", unit="vol", total=simulated.n) as progress,
    ):
        for old in volumes.glob("[0-9]" * 6 + ".mrc"):
            place.remove(old)
        for rows in np.array_split(np.arange(simulated.n), -(-simulated.n // HELD)):
            for row, volume in zip(rows, simulated.volumes(rows), strict=True):
                write_mrcs(place(folder / names[row]), volume[None], size)
            progress.update(len(rows))
        for one, template in zip(simulated.species, simulated.templates(), strict=True):
            write_mrcs(place(templates / f"{one.name}.mrc"), template[None], size)
        write_mrcs(place(wedge), centred_wedge(simulated.settings)[None], size)
        particles, optics = star_tables(simulated, names)
        write_star(place(star), particles, optics)
    return star


def centred_wedge(settings: SubtomogramSettings) -> NDArray[np.float32]:
    """Return the mask of measured frequencies, (box, box, box), the origin at box // 2."""
    mask = wedge_mask(torch.tensor([settings.tilt_range_deg]), (settings.box,) * 3, rfft=False)
    return np.fft.fftshift(mask[0].numpy())


def star_tables(simulated: Subtomograms, names: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Build the particles and optics tables of RELION 3.1, with additional columns."""
    particles: dict[str, object] = {"rlnImageName": list(names)}
    if simulated.ctf is None:  # RELION reads the wedge and the CTF from this one file
        particles["rlnCtfImage"] = ["wedge.mrc"] * simulated.n
    particles |= dict(zip(TILT_RANGE, simulated.tilt_range.T, strict=True))
    settings = simulated.settings
    return tables(
        particles,
        simulated.truth,
        simulated.ctf,
        pixel_size=settings.pixel_size,
        box=settings.box,
        dimensions=3,
    )

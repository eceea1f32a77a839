"""Poses, CTF and choice of images as cryoDRGN reads them: pickles of plain numpy arrays.

cryoDRGN has no other format for them.  Nothing else here is pickled, and no run holds a pickle.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modpose.data.plain_pickle import write_plain_pickle
from modpose.data.source import Source
from modpose.files.writing import Staging
from modpose.infer.latents import rotations_of_table
from modpose.observe.ctf import CtfColumn

if TYPE_CHECKING:
    import pandas as pd

NAMES = POSES, CTF, INDEX = "poses.pkl", "ctf.pkl", "index.pkl"

CTF_COLUMNS = (
    CtfColumn.PIXEL_SIZE,
    CtfColumn.DEFOCUS_U,
    CtfColumn.DEFOCUS_V,
    CtfColumn.DEFOCUS_ANGLE,
    CtfColumn.VOLTAGE,
    CtfColumn.CS,
    CtfColumn.AMPLITUDE_CONTRAST,
    CtfColumn.PHASE_SHIFT,
)
"""Columns after the box in cryoDRGN's table."""


def names_for(source: Source) -> tuple[str, ...]:
    """Name the files for these images: without a CTF there is no ``ctf.pkl``."""
    ctf = source.particles.ctf(source.stack.pixel_size)
    return (POSES, INDEX) if ctf is None else NAMES


def write_cryodrgn(
    source: Source,
    latents: pd.DataFrame,
    folder: Path,
    place: Staging,
    pixels_per_model_pixel: float = 1.0,
) -> list[str]:
    """Write ``poses.pkl``, ``ctf.pkl`` and ``index.pkl``.

    The first two have one row for each image of the whole input, in its order; the third holds the
    positions of the images of the run.  Images that are not in the run have zero rotation and
    shift.

    Parameters
    ----------
    source
        The images of the run.
    latents
        Their poses, one row per image.
    folder
        Where the files go.
    place
        Returns the temporary path of a file.
    pixels_per_model_pixel
        Side of a pixel that the model saw, in pixels of the images.

    Returns
    -------
    Sentences about what should be known.
    """
    whole, box = source.all_particles, source.stack.shape[-1]
    rows = np.arange(source.n) if source.selection is None else source.selection
    rotation = np.tile(np.eye(3, dtype=np.float32), (whole.n, 1, 1))
    shift = np.zeros((whole.n, 2), np.float32)
    rotation[rows] = rotations_of_table(latents)
    for k, axis in enumerate("xy"):
        moved = np.asarray(latents.get(f"shift_{axis}", 0.0), np.float64)
        shift[rows, k] = -moved * pixels_per_model_pixel / box
    ctf = whole.ctf(source.stack.pixel_size)
    write_plain_pickle(place(folder / POSES), (rotation, shift + np.float32(0)))
    notes = []
    if ctf is None:
        notes.append(f"{whole.name}: there is no CTF, so no {CTF} is written")
    else:
        table = ctf[:, list(CTF_COLUMNS)]
        write_plain_pickle(place(folder / CTF), np.insert(table, 0, np.float32(box), axis=1))
        if ctf.shape[1] > CtfColumn.SCALE or ctf[:, CtfColumn.B_FACTOR].any():
            notes.append(
                f"{CTF} cannot hold what {whole.name} says: a B factor, a scale factor, flipped "
                "phases, or images that were multiplied by their CTF"
            )
    write_plain_pickle(place(folder / INDEX), rows.astype(np.int64))
    if len(rows) < whole.n:
        notes.append(f"the run has {len(rows)} of {whole.n} images: give cryoDRGN --ind {INDEX}")
    return notes

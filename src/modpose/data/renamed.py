"""A table of particles for other images of the same particles: binned, cropped, subtracted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from modpose.data.joining import ORIGINAL
from modpose.data.optics import FLIPPED, PREMULTIPLIED, SIGN
from modpose.data.particles import Particles
from modpose.errors import InputError
from modpose.observe.ctf_columns import CtfState

SIZES = ("rlnImagePixelSize", "rlnPixelSize", "rlnDetectorPixelSize", "blob/psize_A")
"""Columns of the pixel size; the first that is there speaks of the images."""


def with_images(
    particles: Particles,
    files: Sequence[str],
    rows: NDArray[np.int64],
    box: int,
    *,
    pixels_grew: float = 1.0,
    state: CtfState = CtfState.RECORDED,
    inverted: bool = False,
) -> Particles:
    """Let each row name a new image, and say what was done to it.

    Parameters
    ----------
    particles
        N particles of a STAR file or a cryoSPARC table.
    files, rows
        File and position in it, from 0, of each new image.
    box
        Side of the new images, pixels.
    pixels_grew
        Side of a new pixel, in old ones; shifts in pixels follow.
    state
        Whether phases were flipped or images multiplied by their CTF.
    inverted
        Whether images were multiplied by -1.

    Raises
    ------
    InputError
        The table cannot say it: no field of cryoSPARC tells of flipped phases.
    """
    table = particles.table.copy()
    optics = None if particles.optics is None else particles.optics.copy()
    size = next((name for name in SIZES if particles.has(name)), None)
    if size is not None:
        _scale(table, optics, size, pixels_grew)
    if particles.format == "cs":
        if state != CtfState.RECORDED:
            expected = "a STAR file, which tells of flipped phases (a .cs does not)"
            raise InputError.of(particles.name, "the table", "a .cs", expected)
        table["blob/path"] = [f">{file}" for file in files]
        table["blob/idx"] = rows.astype(np.uint32)
        for axis in (0, 1):
            table[f"blob/shape_{axis}"] = np.uint32(box)
        for name in [c for c in table if str(c).endswith(("/shift_0", "/shift_1"))]:
            if f"{str(name).rpartition('/')[0]}/psize_A" not in table:
                table[name] = table[name] / pixels_grew
        if SIGN in table and inverted:
            table[SIGN] = -table[SIGN]
        return replace(particles, table=table, optics=optics)
    if ORIGINAL not in table:
        table[ORIGINAL] = table["rlnImageName"]
    table["rlnImageName"] = [f"{row + 1:06d}@{file}" for row, file in zip(rows, files, strict=True)]
    for name in ("rlnOriginX", "rlnOriginY"):
        if name in table and pixels_grew != 1:
            table[name] = (table[name] / pixels_grew).round(6)
    blocks = table if optics is None else optics
    if optics is not None or "rlnImageSize" in table:
        blocks["rlnImageSize"] = box
    for name, value in ((FLIPPED, CtfState.FLIPPED), (PREMULTIPLIED, CtfState.PREMULTIPLIED)):
        if state == value:
            (table if name in table else blocks)[name] = 1
    return replace(particles, table=table, optics=optics)


def _scale(table: pd.DataFrame, optics: pd.DataFrame | None, name: str, factor: float) -> None:
    """Multiply a column of a table or of its optics groups, as it is read."""
    block = table if name in table or optics is None else optics
    if factor != 1:
        values = block[name].to_numpy(np.float64) * factor
        block[name] = values.astype(np.float32) if name.startswith("blob/") else values.round(6)

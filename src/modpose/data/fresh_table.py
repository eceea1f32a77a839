"""A table of RELION 3.1 for images that came without one, or with one of another program."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd

from modpose.data.image_files import image_references
from modpose.data.mrc import is_mrc
from modpose.data.optics import FLIPPED, PREMULTIPLIED
from modpose.data.particles import Particles
from modpose.data.source import Source
from modpose.observe.ctf_columns import CtfColumn, CtfState


def has_image_names(source: Source) -> bool:
    """Tell whether a STAR file can name the images: numbers in a stack, or those of a table."""
    if source.particles.format in ("star", "cs"):
        return True
    files = set(_files(source))
    return len(source.stack.shape) == 2 and bool(files) and all(map(_is_stack, files))


def _is_stack(file: Path) -> bool:
    return file.is_file() and is_mrc(file)


def _files(source: Source) -> list[Path]:
    """Name the file of each image that came without a table; none for an array."""
    if source.path is None:
        return []
    if not source.particles.has("file"):
        return [source.path.absolute()] * source.n
    base = source.path if source.path.is_dir() else Path()
    return [(base / str(name)).absolute() for name in source.particles.column("file")]


def image_names(source: Source, folder: Path) -> list[str]:
    """Name images that came without a table, relative to the folder of a new one.

    Files that hold one volume, or one picture, have no number.
    """
    files = _files(source) or [(folder / "volumes.mrcs").absolute()] * source.n
    relative = {file: os.path.relpath(file, folder.absolute()) for file in set(files)}
    every, position = source.all_particles.position, source.particles.position
    volumes = len(source.stack.shape) == 3
    if source.particles.has("file") and (every is None or (volumes and not every.any())):
        return [relative[file] for file in files]
    numbers = np.arange(source.n) if position is None else position
    return [f"{k + 1:06d}@{relative[file]}" for k, file in zip(numbers, files, strict=True)]


def fresh_particles(source: Source, out: Path) -> Particles:
    """Make a RELION 3.1 table for images that came without one."""
    if source.particles.format == "cs":
        pairs = zip(*image_references(source.particles), strict=True)
        names = [f"{row + 1:06d}@{file}" for file, row in pairs]
    else:
        names = image_names(source, out.parent)
    ctf = source.particles.ctf(source.stack.pixel_size)
    table = pd.DataFrame({"rlnImageName": names})
    optics = pd.DataFrame({"rlnImagePixelSize": [source.pixel_size or np.nan]})
    group = np.zeros(source.n, dtype=np.int64)
    if ctf is not None:
        for column, name in _CTF_OF_PARTICLE.items():
            table[name] = ctf[:, column].astype(np.float64)
        if ctf.shape[1] > CtfColumn.SCALE:
            table["rlnCtfScalefactor"] = ctf[:, CtfColumn.SCALE].astype(np.float64)
        else:
            ctf = np.pad(ctf, ((0, 0), (0, len(CtfColumn) - ctf.shape[1])))
        kinds, group = np.unique(ctf[:, list(_CTF_OF_GROUP)], axis=0, return_inverse=True)
        optics = pd.DataFrame(kinds.astype(np.float64), columns=list(_CTF_OF_GROUP.values()))
        state = optics.pop(_CTF_OF_GROUP[CtfColumn.STATE])
        for value, name in ((CtfState.FLIPPED, FLIPPED), (CtfState.PREMULTIPLIED, PREMULTIPLIED)):
            if (state == value).any():
                optics[name] = (state == value).astype(np.int64)
    optics = optics.dropna(axis=1).round(6)
    count = len(optics)
    optics.insert(0, "rlnOpticsGroup", np.arange(1, count + 1))
    optics.insert(1, "rlnOpticsGroupName", [f"opticsGroup{i + 1}" for i in range(count)])
    optics["rlnImageSize"] = source.stack.shape[-1]
    optics["rlnImageDimensionality"] = len(source.stack.shape)
    table["rlnOpticsGroup"] = group.reshape(-1) + 1
    return Particles(table, optics, "star", str(out))


_CTF_OF_PARTICLE = {
    CtfColumn.DEFOCUS_U: "rlnDefocusU",
    CtfColumn.DEFOCUS_V: "rlnDefocusV",
    CtfColumn.DEFOCUS_ANGLE: "rlnDefocusAngle",
    CtfColumn.PHASE_SHIFT: "rlnPhaseShift",
    CtfColumn.B_FACTOR: "rlnCtfBfactor",
}
_CTF_OF_GROUP = {
    CtfColumn.PIXEL_SIZE: "rlnImagePixelSize",
    CtfColumn.VOLTAGE: "rlnVoltage",
    CtfColumn.CS: "rlnSphericalAberration",
    CtfColumn.AMPLITUDE_CONTRAST: "rlnAmplitudeContrast",
    CtfColumn.STATE: "state",
}

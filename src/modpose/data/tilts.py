"""Tilts of tomograms, as RELION 4 and 5 list them, and the particles that each holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modpose.data.locate import find_files
from modpose.data.particles import Particles
from modpose.data.star import columns_of, read_star
from modpose.errors import InputError, shown
from modpose.files.text import number

Floats = NDArray[np.float64]

FRAMES, TOMOGRAM = "rlnTomoVisibleFrames", "rlnTomoName"
NOMINAL = "rlnTomoNominalStageTiltAngle"
OFF_AXIS = 0.3
"""Largest y component of the beam's direction for which the tilt axis is about y."""


def check_limits(tilt_range: Floats, where: str) -> None:
    """Refuse tilt ranges (N, 2), degrees, that leave nothing measured or mean nothing."""
    import torch

    from modpose.observe.wedge import check_tilt_range

    check_tilt_range(torch.from_numpy(tilt_range), where)


def tilt_ranges(particles: Particles, tomograms: Path) -> Floats:
    """Look up each particle's tomogram; its smallest and largest tilt, (N, 2) degrees.

    Frames that rlnTomoVisibleFrames marks with 0 for a particle are left out for it.
    """
    tilts = _tilts_of_tomograms(tomograms)
    names = [str(name) for name in particles.column(TOMOGRAM)]
    unknown = next((name for name in names if name not in tilts), None)
    if unknown is not None:
        raise InputError(
            f"{tomograms}: there is no tomogram {unknown}, which {particles.name} names"
        )
    frames = particles.column(FRAMES) if particles.has(FRAMES) else None
    limits = np.empty((particles.n, 2))
    for row, name in enumerate(names):
        angles = tilts[name]
        if frames is not None:
            seen = numbers_in(frames[row], f"{particles.name}: {FRAMES} in row {row + 1}")
            if len(seen) != len(angles):
                raise InputError.of(
                    f"{particles.name}: row {row + 1}",
                    FRAMES,
                    f"{len(seen)} numbers",
                    f"{len(angles)}, the tilts of {name}",
                )
            angles = angles[seen != 0]
        limits[row] = (angles.min(), angles.max()) if len(angles) else (0.0, 0.0)
    check_limits(limits, particles.name)
    return limits


def _tilts_of_tomograms(path: Path) -> dict[str, Floats]:
    """Read the tilts of every tomogram of a RELION 4 or 5 list, degrees."""
    blocks = read_star(path)
    tilts: dict[str, Floats] = {}
    for name, block in blocks.items():
        if "rlnTomoProjZ" in columns_of(block):
            rows = [
                numbers_in(v, f"{path}: rlnTomoProjZ of {name}")
                for v in _column(block, "rlnTomoProjZ")
            ]
            if not rows or min(map(len, rows)) < 3:
                expected = "rows of four numbers in brackets"
                raise InputError.of(path, f"rlnTomoProjZ of {name}", "too short", expected)
            beam = np.stack([row[:3] for row in rows])
            if np.abs(beam[:, 1]).max() > OFF_AXIS:
                raise InputError(f"{path}: {name} was tilted about another axis than y")
            tilts[name] = np.rad2deg(np.arctan2(-beam[:, 0], beam[:, 2]))
    for block in blocks.values():
        if "rlnTomoTiltSeriesStarFile" in columns_of(block):
            files = [str(v) for v in _column(block, "rlnTomoTiltSeriesStarFile")]
            found, missing = find_files(files, path, None)
            if missing:
                raise InputError(f"{path}: the tilt series {missing[0]} cannot be found")
            if TOMOGRAM not in columns_of(block):
                raise InputError(f"{path}: there is no column {TOMOGRAM} beside the tilt series")
            for name, file in zip(_column(block, TOMOGRAM), files, strict=True):
                tilts[str(name)] = _nominal_tilts(found[file])
    if not tilts:
        raise InputError(f"{path}: it names no tilts (rlnTomoProjZ or rlnTomoTiltSeriesStarFile)")
    return tilts


def _nominal_tilts(path: Path) -> Floats:
    for block in read_star(path).values():
        if NOMINAL in columns_of(block):
            where = f"{path}: {NOMINAL}"
            found = [numbers_in(value, where) for value in _column(block, NOMINAL)]
            if found and {len(value) for value in found} == {1}:
                return np.concatenate(found)
            raise InputError.of(path, NOMINAL, "empty or a list", "an angle a row")
    raise InputError(f"{path}: it has no column rlnTomoNominalStageTiltAngle")


def _column(block: Any, name: str) -> Sequence[Any]:
    return [block[name]] if isinstance(block, dict) else list(block[name])


def numbers_in(text: Any, where: str) -> Floats:
    """Read numbers between commas, in brackets or not."""
    values = [number(word.strip()) for word in str(text).strip("[] ").split(",")]
    if None in values:
        raise InputError.of(where, "the value", shown(str(text)), "numbers in brackets")
    return np.array(values, dtype=np.float64)

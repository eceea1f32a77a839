"""Tilts of tomograms in lists of RELION 4 and 5, for each particle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modpose.data.particles import Particles
from modpose.data.tomograms import FRAMES, TOMOGRAM, numbers_in, tilts_of
from modpose.errors import InputError

Floats = NDArray[np.float64]


def check_limits(tilt_range: Floats, where: str) -> None:
    """Refuse tilt ranges (N, 2), degrees, that are impossible or measure nothing."""
    import torch

    from modpose.observe.wedge import check_tilt_range

    check_tilt_range(torch.from_numpy(tilt_range), where)


def tilt_ranges(particles: Particles, tomograms: Path) -> Floats:
    """Return the smallest and largest tilt of each particle's tomogram, (N, 2) degrees.

    Frames that rlnTomoVisibleFrames marks with 0 for a particle are left out.
    """
    tilts = tilts_of(tomograms)
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

"""A small set of tilt series, and the same as a table of M."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from modpose.data.particles import Particles
from modpose.data.posing import with_pose
from modpose.data.star import write_star
from modpose.data.tilt_series import open_tilt_series
from modpose.simulate.species import built_in_species
from modpose.simulate.tilt_settings import TiltSettings
from modpose.simulate.tilt_stack_files import write_tilts
from modpose.simulate.tilt_stacks import SimulatedTilts, simulate_tilts

BOX = 24
CTF_TAGS = (
    *("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnVoltage", "rlnSphericalAberration"),
    *("rlnAmplitudeContrast", "rlnPhaseShift", "rlnCtfBfactor", "rlnCtfScalefactor"),
)
"""In the order of the columns of CTF parameters."""
SETTINGS = TiltSettings(n=48, tomograms=2, tilts=11, box=BOX, pixel_size=10.0, snr=0.5, seed=1)


@cache
def simulated() -> SimulatedTilts:
    """Simulate 48 particles of one molecule."""
    return simulate_tilts(SETTINGS, built_in_species(1))


def grouped(made: SimulatedTilts, table: Path, name: str) -> Path:
    """Write the images as a table of M: one row per image, with its own pose."""
    posed = write_tilts(made, table.parent / name, poses=True)
    every = open_tilt_series(posed).images
    star = {
        "rlnImageName": every.particles.column("rlnImageName"),
        "rlnGroupName": every.particles.column("rlnGroupName"),
        "rlnDetectorPixelSize": np.full(every.n, 10.0),
    }
    for tag, column in zip(CTF_TAGS, every.particles.ctf(10.0).T[1:10], strict=True):
        star[tag] = column
    rotation, shift = every.particles.poses(10.0)
    plain = Particles(pd.DataFrame(star), None, "star", "table")
    posed_table = with_pose(plain, rotation=rotation, shift=shift[:, :2], pixel_size=None)
    path = posed.with_name("m.star")
    write_star(path, posed_table.table)
    return path

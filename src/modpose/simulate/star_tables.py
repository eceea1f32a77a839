"""RELION 3.1 tables of simulated data: optics, CTF, and the truth in columns of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modpose.data.particles import TRUTH
from modpose.observe.ctf_columns import CtfColumn
from modpose.simulate import microscope

if TYPE_CHECKING:
    import pandas as pd


def tables(
    particles: dict[str, Any],
    truth: pd.DataFrame,
    ctf: NDArray[np.float64] | None,
    *,
    pixel_size: float,
    box: int,
    dimensions: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Build the tables of particles and of optics.

    Parameters
    ----------
    particles
        Columns of their own: names of images, poses.
    truth
        (N, ...) what is known of each particle.
    ctf
        (N, 9) parameters, or None.
    pixel_size, box, dimensions
        Å, pixels a side, and 2 or 3.
    """
    import pandas as pd

    optics = {
        "rlnOpticsGroup": [1],
        "rlnOpticsGroupName": ["simulated"],
        "rlnVoltage": [microscope.VOLTAGE_KV],
        "rlnSphericalAberration": [microscope.CS_MM],
        "rlnAmplitudeContrast": [microscope.AMPLITUDE_CONTRAST],
        "rlnImagePixelSize": [pixel_size],
        "rlnImageSize": [box],
        "rlnImageDimensionality": [dimensions],
    }
    columns = particles | {"rlnOpticsGroup": np.ones(len(truth), int)}
    if ctf is not None:
        columns["rlnDefocusU"] = ctf[:, CtfColumn.DEFOCUS_U]
        columns["rlnDefocusV"] = ctf[:, CtfColumn.DEFOCUS_V]
        columns["rlnDefocusAngle"] = ctf[:, CtfColumn.DEFOCUS_ANGLE]
        columns["rlnPhaseShift"] = ctf[:, CtfColumn.PHASE_SHIFT]
    columns |= {name: truth[own].to_numpy() for name, own in TRUTH.items() if own in truth}
    return pd.DataFrame(columns), pd.DataFrame(optics)

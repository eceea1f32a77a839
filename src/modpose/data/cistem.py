"""STAR files of cisTEM, converted to RELION's columns.

cisTEM shifts the image before it rotates it, so RELION's origin is minus cisTEM's shift; Phi, Theta
and Psi are Rot, Tilt and Psi.  This agrees with cisTEM's own export to RELION.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modpose.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("modpose")

POSITION, STACK = "cisTEMPositionInStack", "cisTEMStackFilename"
COLUMNS = {
    "cisTEMAnglePhi": ("rlnAngleRot", 1.0),
    "cisTEMAngleTheta": ("rlnAngleTilt", 1.0),
    "cisTEMAnglePsi": ("rlnAnglePsi", 1.0),
    "cisTEMXShift": ("rlnOriginXAngst", -1.0),
    "cisTEMYShift": ("rlnOriginYAngst", -1.0),
    "cisTEMDefocus1": ("rlnDefocusU", 1.0),
    "cisTEMDefocus2": ("rlnDefocusV", 1.0),
    "cisTEMDefocusAngle": ("rlnDefocusAngle", 1.0),
    "cisTEMPhaseShift": ("rlnPhaseShift", 180 / np.pi),
    "cisTEMPixelSize": ("rlnImagePixelSize", 1.0),
    "cisTEMMicroscopeVoltagekV": ("rlnVoltage", 1.0),
    "cisTEMVoltage": ("rlnVoltage", 1.0),
    "cisTEMMicroscopeCsMM": ("rlnSphericalAberration", 1.0),
    "cisTEMCs": ("rlnSphericalAberration", 1.0),
    "cisTEMAmplitudeContrast": ("rlnAmplitudeContrast", 1.0),
    "cisTEMBest2DClass": ("rlnClassNumber", 1.0),
    "cisTEMAssignedSubset": ("rlnRandomSubset", 1.0),
}
"""Column of cisTEM to the column of RELION, and the factor."""
TILTS = ("cisTEMBeamTiltX", "cisTEMBeamTiltY")


def is_cistem(table: pd.DataFrame) -> bool:
    """Return whether the columns are those of cisTEM."""
    return POSITION in table.columns and "rlnImageName" not in table.columns


def with_relion_columns(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Add RELION's columns to a table of cisTEM.

    Parameters
    ----------
    table
        One row per particle.
    name
        The file.  If it does not name its stack, the stack is the MRC file with the same name in
        the same folder.

    Returns
    -------
    table
        The columns of cisTEM, followed by those of RELION.

    Raises
    ------
    InputError
        If no stack is named or found, or the beam is tilted, which is not modelled for cisTEM.
    """
    for column in TILTS:
        if column in table.columns and _numbers(table, column, name).any():
            expected = "0: beam tilt of cisTEM is not read; export the set to RELION instead"
            raise InputError.of(name, column, "not 0", expected)
    stacks = _stacks(table, name)
    numbers = _numbers(table, POSITION, name).astype(np.int64)
    names = [f"{number}@{stack}" for number, stack in zip(numbers, stacks, strict=True)]
    added: dict[str, Any] = {"rlnImageName": names}
    for column, (relion, factor) in COLUMNS.items():
        if column in table.columns:
            values = _numbers(table, column, name)
            whole = relion in ("rlnClassNumber", "rlnRandomSubset")
            added[relion] = values.astype(np.int64) if whole else factor * values + 0.0
    if "rlnRandomSubset" in added and not np.all(np.asarray(added["rlnRandomSubset"]) >= 1):
        added.pop("rlnRandomSubset")
    return table.assign(**added)


def _numbers(table: pd.DataFrame, column: str, name: str) -> NDArray[np.float64]:
    try:
        return table[column].to_numpy(np.float64)
    except (ValueError, TypeError):
        raise InputError.of(name, column, "text", "numbers") from None


def _stacks(table: pd.DataFrame, name: str) -> list[str]:
    """Name the stack of each particle."""
    if STACK in table.columns:
        return [str(text).strip("'\"") for text in table[STACK]]
    beside = [Path(name).with_suffix(suffix) for suffix in (".mrc", ".mrcs")]
    found = next((path for path in beside if path.exists()), None)
    if found is None:
        raise InputError(
            f"{name}: it has no column {STACK} and {beside[0].name} is not beside it, expected the "
            "stack of the particles"
        )
    logger.info("%s: names no stack; %s in its folder is used", name, found.name)
    return [found.name] * len(table)

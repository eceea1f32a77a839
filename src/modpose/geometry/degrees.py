"""Angles in degrees, as users see them; arrays of NumPy, no torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def wrap_deg(angles: ArrayLike) -> NDArray[np.float64]:
    """Wrap angles (...), degrees, into (−180, 180]."""
    wrapped = 180.0 - (180.0 - np.asarray(angles, float)) % 360.0
    return np.where(wrapped <= -180.0, 180.0, wrapped)  # the remainder can round up to 360


def rotation_of_relion(rot: ArrayLike, tilt: ArrayLike, psi: ArrayLike) -> NDArray[np.float64]:
    """Matrices R = Rz(psi) Ry(tilt) Rz(rot) of RELION's Euler angles.

    With RELION's Rz(a) = [[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]] and
    Ry(a) = [[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]]; a point u of the map appears at R u + t.

    Parameters
    ----------
    rot, tilt, psi
        (N,) rlnAngleRot, rlnAngleTilt, rlnAnglePsi.

    Returns
    -------
    NDArray
        (N, 3, 3).
    """
    from scipy.spatial.transform import Rotation

    angles = np.stack([rot, tilt, psi], -1)
    return Rotation.from_euler("ZYZ", angles, degrees=True).inv().as_matrix()

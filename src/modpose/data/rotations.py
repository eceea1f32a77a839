"""Rotations as file formats write them, to matrices, without torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def relion_rotation(rot: Floats, tilt: Floats, psi: Floats) -> Floats:
    """Build R = Rz(psi) Ry(tilt) Rz(rot), RELION's Euler matrix.

    Rz(a) = [[cos a, sin a, 0], [-sin a, cos a, 0], [0, 0, 1]] and
    Ry(a) = [[cos a, 0, -sin a], [0, 1, 0], [sin a, 0, cos a]].

    Parameters
    ----------
    rot, tilt, psi
        (N,) degrees.

    Returns
    -------
    rotation
        (N, 3, 3).
    """

    def turn(angle: Floats, axes: tuple[int, int], sign: int) -> Floats:
        cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle)) * sign
        matrix = np.tile(np.eye(3), (len(angle), 1, 1))
        i, j = axes
        matrix[:, i, i], matrix[:, j, j] = cos, cos
        matrix[:, i, j], matrix[:, j, i] = sin, -sin
        return matrix

    return turn(psi, (0, 1), 1) @ turn(tilt, (0, 2), -1) @ turn(rot, (0, 1), 1)


def rotation_of_vector(vector: Floats) -> Floats:
    """Turn rotation vectors (N, 3), radians, into matrices (N, 3, 3) (Rodrigues' formula)."""
    angle = np.linalg.norm(vector, axis=1)[:, None, None]
    x, y, z = vector.T
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)
    sinc = np.sinc(angle / np.pi)
    cosc = 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    turned: Floats = np.eye(3) + sinc * cross + cosc * (cross @ cross)
    return turned

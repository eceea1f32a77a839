"""Rotations as matrices, and the angles that users see."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def rotation_2d(angle: Tensor) -> Tensor:
    """Matrix of a plane rotation, [[cos, -sin], [sin, cos]] on column vectors (x, y).

    Parameters
    ----------
    angle
        (...) radians.

    Returns
    -------
    Tensor
        (..., 2, 2).
    """
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)


def orthogonal_2d(angle: Tensor, mirrored: Tensor | None = None) -> Tensor:
    """Matrix of a plane rotation, after the reflection (x, y) to (x, -y) if ``mirrored``.

    Parameters
    ----------
    angle
        (...) radians.
    mirrored
        (...) bool, or None for no reflection.

    Returns
    -------
    Tensor
        (..., 2, 2), with determinant -1 if mirrored.
    """
    turn = rotation_2d(angle)
    if mirrored is None:
        return turn
    return torch.where(mirrored[..., None, None], turn * turn.new_tensor([1.0, -1.0]), turn)


def wrap(angle: Tensor) -> Tensor:
    """Wrap radians into (-pi, pi]."""
    return math.pi - torch.remainder(math.pi - angle, 2 * math.pi)


# --- three dimensions -------------------------------------------------------------------------
#
# Every function accepts leading batch dimensions, keeps the floating type, and is differentiable
# where the map is.


def rotation_of_vector(vector: Tensor) -> Tensor:
    """Matrix of a rotation vector: right-handed about it, angle = its length (Rodrigues' formula).

    Parameters
    ----------
    vector
        (..., 3) radians.

    Returns
    -------
    Tensor
        (..., 3, 3).
    """
    squared = vector.square().sum(-1)[..., None, None]
    small = squared < 1e-8
    safe = torch.where(small, torch.ones_like(squared), squared)  # no 0/0 in the gradient
    angle = safe.sqrt()
    sinc = torch.where(small, 1 - squared / 6, angle.sin() / angle)
    cosc = torch.where(small, 0.5 - squared / 24, 2 * (angle / 2).sin().square() / safe)
    cross = _cross(vector)
    return (
        torch.eye(3, dtype=vector.dtype, device=vector.device)
        + sinc * cross
        + cosc * (cross @ cross)
    )


def vector_of_rotation(rotation: Tensor) -> Tensor:
    """Rotation vector (..., 3), radians, length in [0, pi], of matrices (..., 3, 3)."""
    quaternion = quaternion_of_rotation(rotation)
    imaginary = quaternion[..., 1:]
    sine = imaginary.norm(dim=-1, keepdim=True)
    half = torch.atan2(sine, quaternion[..., :1])
    near = sine < 1e-6
    scale = torch.where(near, torch.full_like(sine, 2.0), 2 * half / torch.where(near, 1.0, sine))
    return scale * imaginary


def rotation_of_quaternion(quaternion: Tensor) -> Tensor:
    """Matrix of a quaternion.

    Parameters
    ----------
    quaternion
        (..., 4), real part first (w, x, y, z); any length but zero.

    Returns
    -------
    Tensor
        (..., 3, 3).
    """
    w, x, y, z = torch.nn.functional.normalize(quaternion, dim=-1).unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
    ]
    return torch.stack(rows, -2)


def quaternion_of_rotation(rotation: Tensor) -> Tensor:
    """Unit quaternion (..., 4), real part first and not negative, of matrices (..., 3, 3).

    Each of the four components times the quaternion is linear in the matrix.  The row of the
    largest component is used, so no division is by a small number (Shepperd 1978,
    doi:10.2514/3.55767b).
    """
    r = rotation
    skew = [r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1]]
    even = [r[..., 0, 1] + r[..., 1, 0], r[..., 0, 2] + r[..., 2, 0], r[..., 1, 2] + r[..., 2, 1]]
    a, b, c = r[..., 0, 0], r[..., 1, 1], r[..., 2, 2]
    rows = torch.stack(
        [
            torch.stack([1 + a + b + c, skew[0], skew[1], skew[2]], -1),
            torch.stack([skew[0], 1 + a - b - c, even[0], even[1]], -1),
            torch.stack([skew[1], even[0], 1 - a + b - c, even[2]], -1),
            torch.stack([skew[2], even[1], even[2], 1 - a - b + c], -1),
        ],
        -2,
    )
    best = rows.diagonal(dim1=-2, dim2=-1).argmax(-1)
    row = rows.gather(-2, best[..., None, None].expand(*best.shape, 1, 4)).squeeze(-2)
    unit = torch.nn.functional.normalize(row, dim=-1)
    return torch.where(unit[..., :1] < 0, -unit, unit)


def relion_of_rotation(rotation: Tensor) -> Tensor:
    """RELION's Euler angles of matrices (..., 3, 3).

    Returns
    -------
    Tensor
        (..., 3) rlnAngleRot and rlnAnglePsi in (-180, 180], rlnAngleTilt in [0, 180], degrees. If
        tilt is 0 or 180, only the sum or difference of the others is determined; rot is then 0.

    Raises
    ------
    ValueError
        For a reflection, which has no Euler angles.
    """
    r = rotation
    if (torch.linalg.det(r) < 0).any():
        raise ValueError("a matrix of determinant -1 is a reflection and has no Euler angles")
    sine = torch.hypot(r[..., 0, 2], r[..., 1, 2])
    tilt = torch.atan2(sine, r[..., 2, 2])
    degenerate = sine < 8 * torch.finfo(r.dtype).eps
    rot = torch.atan2(r[..., 2, 1], r[..., 2, 0])
    rot = torch.where(degenerate, torch.zeros_like(rot), rot)
    psi = torch.atan2(r[..., 1, 2], -r[..., 0, 2])
    psi = torch.where(degenerate, torch.atan2(r[..., 0, 1], r[..., 1, 1]), psi)
    return torch.rad2deg(torch.stack([wrap(rot), tilt, wrap(psi)], -1))


def rotation_of_yaw_pitch_roll(angles: Tensor) -> Tensor:
    """Matrix Rz(yaw) Ry(pitch) Rx(roll) of right-handed rotations (Yi et al. 2021, equation 8).

    Parameters
    ----------
    angles
        (..., 3) radians.

    Returns
    -------
    Tensor
        (..., 3, 3).
    """
    yaw, pitch, roll = angles.unbind(-1)
    return _turn(yaw, 2) @ _turn(pitch, 1) @ _turn(roll, 0)


def rotation_of_columns(columns: Tensor) -> Tensor:
    """Orthogonal matrix from two vectors for its first two columns (Gram-Schmidt).

    A continuous representation of rotations (Zhou et al. 2019, doi:10.1109/CVPR.2019.00589).

    Parameters
    ----------
    columns
        (..., 6) two vectors, neither zero nor parallel to the other.

    Returns
    -------
    Tensor
        (..., 3, 3).
    """
    a, b = columns[..., :3], columns[..., 3:]
    first = torch.nn.functional.normalize(a, dim=-1)
    across = b - (first * b).sum(-1, keepdim=True) * first
    second = torch.nn.functional.normalize(across, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], -1)


def geodesic(a: Tensor, b: Tensor) -> Tensor:
    """Angle of the rotation from ``a`` to ``b``.

    Accurate for small angles and near half turns, unlike the arccosine of the trace.

    Parameters
    ----------
    a, b
        (..., 3, 3), broadcast against each other.

    Returns
    -------
    Tensor
        (...) radians, in [0, pi].
    """
    r = a.transpose(-1, -2) @ b
    sine = torch.stack(
        [r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1]], -1
    ).norm(dim=-1)
    return torch.atan2(sine, r.diagonal(dim1=-2, dim2=-1).sum(-1) - 1)


def haar_rotations(
    n: int,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Tensor:
    """Draw (n, 3, 3) rotations uniformly over SO(3): quaternions uniform on the sphere."""
    drawn = torch.randn(n, 4, generator=generator, dtype=dtype, device=device)
    return rotation_of_quaternion(drawn)


def _turn(angle: Tensor, axis: int) -> Tensor:
    """Right-handed rotation (..., 3, 3) about the axis 0 (x), 1 (y) or 2 (z)."""
    vector = torch.nn.functional.one_hot(torch.tensor(axis), 3).to(angle)
    cross = _cross(vector)
    cos, sin = angle.cos()[..., None, None], angle.sin()[..., None, None]
    return (
        torch.eye(3, dtype=angle.dtype, device=angle.device)
        + sin * cross
        + (1 - cos) * (cross @ cross)
    )


def _cross(vector: Tensor) -> Tensor:
    """Matrix (..., 3, 3) of the cross product with a vector (..., 3)."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    rows = [[zero, -z, y], [z, zero, -x], [-y, x, zero]]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)

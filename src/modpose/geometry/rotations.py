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


def angle_2d(rotation: Tensor) -> Tensor:
    """Angle in (-pi, pi] of a plane rotation matrix (..., 2, 2)."""
    return torch.atan2(rotation[..., 1, 0], rotation[..., 0, 0])


def wrap(angle: Tensor) -> Tensor:
    """Wrap radians into (-pi, pi]."""
    return math.pi - torch.remainder(math.pi - angle, 2 * math.pi)

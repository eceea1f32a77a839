"""Finite groups of rotations, and even grids over all of them.

All are (n, 3, 3) float64 tensors, the identity first in every group.
"""

from __future__ import annotations

import math
import re

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.errors import InputError
from modpose.geometry.rotations import rotation_of_quaternion, rotation_of_vector

GOLDEN = (1 + math.sqrt(5)) / 2
SUPER_FIBONACCI = (math.sqrt(2), 1.533751168755204288118041)
"""Steps of the two spirals: sqrt 2 and the real root of x⁴ = x + 4."""


def cyclic(n: int) -> Tensor:
    """Rotations by multiples of 360/n degrees about z, (n, 3, 3)."""
    _check(n >= 1, "cyclic group", "the order", n, "at least 1")
    turns = 2 * math.pi / n * torch.arange(n, dtype=torch.float64)
    return rotation_of_vector(turns[:, None] * torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))


def dihedral(n: int) -> Tensor:
    """Rotations of :func:`cyclic`, and these followed by half a turn about x, (2 n, 3, 3)."""
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
    turns = cyclic(n)
    return torch.cat([turns, flip @ turns])


def tetrahedral() -> Tensor:
    """Return the 12 rotations of the tetrahedron; two-fold axes along x, y and z."""
    return _generate([[0, 0, math.pi], _third(1, 1, 1)], 12).round()


def octahedral() -> Tensor:
    """Return the 24 rotations of the cube: signed permutation matrices, exact."""
    return _generate([[0, 0, math.pi / 2], _third(1, 1, 1)], 24).round()


def icosahedral() -> Tensor:
    """Return the 60 rotations of the icosahedron; two-fold axes along x, y and z (RELION's I1)."""
    fifth = torch.tensor([0.0, 1.0, GOLDEN], dtype=torch.float64)
    fifth = 2 * math.pi / 5 * fifth / fifth.norm()
    return _generate([fifth.tolist(), _third(1, 1, 1)], 60)


def symmetry_group(name: str) -> Tensor:
    """Rotations of a point group by its name.

    Parameters
    ----------
    name
        C1, C2, ...; D1, D2, ...; T, O or I, upper or lower case.  The axes are those of the
        functions above: the main axis along z; for T, O and I, two- or four-fold axes along x, y,
        z.

    Raises
    ------
    InputError
        If there is no such group.
    """
    solids = {"T": tetrahedral, "O": octahedral, "I": icosahedral}
    upper = name.strip().upper()
    if upper in solids:
        return solids[upper]()
    match = re.fullmatch(r"([CD])([1-9]\d{0,2})", upper)
    if match is None:
        raise InputError.of("symmetry", "the point group", f"'{name}'", "C1, D7, T, O or I, say")
    return (cyclic if match[1] == "C" else dihedral)(int(match[2]))


def point_group(name: str) -> NDArray[np.float64]:
    """Return the rotations (n, 3, 3) of a point group whose axes all programs agree on.

    Parameters
    ----------
    name
        C4, D7, ... (main axis along z, two-fold axis of D along x); O (four-fold axes along x, y
        and z); I1 (two-fold axes along x, y and z, five-fold axes in the xz plane near x), or I2,
        which is I1 turned by 90 degrees about z and RELION's I.

    Raises
    ------
    InputError
        There is no such group, or programs lay its axes in different ways (T, I).
    """
    upper = name.strip().upper()
    if upper in ("I", "T"):
        other = "I1 or I2 (RELION's I)" if upper == "I" else "C, D, O, I1 or I2"
        found = f"{upper}, whose axes differ between programs"
        raise InputError.of("symmetry", "the point group", found, other)
    if upper in ("I1", "I2"):
        group = symmetry_group("I").numpy()
        quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        return group if upper == "I1" else quarter @ group @ quarter.T
    return np.asarray(symmetry_group(upper).numpy())


def symmetric(mask: Tensor, group: Tensor) -> Tensor:
    """Return the union (D, D, D) of a mask and its copies, turned about n // 2 by (n, 3, 3)."""
    from scipy.ndimage import affine_transform

    found, middle = mask, np.full(3, len(mask) // 2)
    for element in group[1:].double().numpy():
        turn = element[::-1, ::-1]  # voxels are z, y, x
        moved = affine_transform(mask.numpy(), turn, middle - turn @ middle, order=1)
        found = torch.maximum(found, torch.from_numpy(moved))
    return found


def so3_grid(n: int) -> Tensor:
    """Spread n rotations evenly over SO(3), for any n.

    Two spirals on the torus of a quaternion's two halves (Alexa 2022, Super-Fibonacci spirals,
    doi:10.1109/CVPR52688.2022.00811).  The grid is always the same; multiply it by a random
    rotation to move its points.

    Returns
    -------
    Tensor
        (n, 3, 3) float64.
    """
    _check(n >= 1, "grid of rotations", "the number", n, "at least 1")
    s = torch.arange(n, dtype=torch.float64) + 0.5
    first, second = (2 * math.pi * s / step for step in SUPER_FIBONACCI)
    low, high = (s / n).sqrt(), (1 - s / n).sqrt()
    spiral = [low * first.sin(), low * first.cos(), high * second.sin(), high * second.cos()]
    return rotation_of_quaternion(torch.stack(spiral, -1))


def grid_spacing(n: int) -> float:
    """Approximate angle in radians between neighbours of an even grid of n rotations.

    It is that of cubic cells of equal volume; SO(3) has the volume 8 pi² in rotation vectors.
    """
    return math.cbrt(8 * math.pi**2 / n)


def nearest(rotations: Tensor, grid: Tensor) -> Tensor:
    """Index (...) of the grid rotation (K, 3, 3) that is nearest to each of (..., 3, 3)."""
    alike = rotations.flatten(-2) @ grid.to(rotations).flatten(-2).T
    return alike.argmax(-1)


def _third(x: float, y: float, z: float) -> list[float]:
    """Rotation vector of a third of a turn about an axis."""
    scale = 2 * math.pi / 3 / math.hypot(x, y, z)
    return [scale * x, scale * y, scale * z]


def _generate(vectors: list[list[float]], order: int) -> Tensor:
    """Multiply rotations until the group is complete; (order, 3, 3), the identity first."""
    generators = rotation_of_vector(torch.tensor(vectors, dtype=torch.float64))
    members = torch.eye(3, dtype=torch.float64)[None]
    while True:
        products = (generators[:, None] @ members).reshape(-1, 3, 3)
        both = torch.cat([members, products])
        keys = (both * 1e6).round().long().flatten(1)
        earlier = (keys[:, None] == keys[None]).all(-1).long().argmax(1)
        fresh = both[earlier == torch.arange(len(both))]
        if len(fresh) == len(members):
            assert len(members) == order
            return members
        members = fresh


def _check(good: bool, where: str, field: str, found: object, expected: str) -> None:
    if not good:
        raise InputError.of(where, field, found, expected)

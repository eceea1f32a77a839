"""Writing poses into a table, in the columns and the convention of the program that made it.

RELION and cryoSPARC write the inverse of modpose's pose, so the in-plane angle and the shift change
their sign.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modpose.data.particles import Particles
from modpose.errors import InputError

Floats = NDArray[np.float64]

OUT_OF_PLANE = ("rlnAngleRot", "rlnAngleTilt")
"""RELION's angles beside the in-plane one."""
CLASS = "rlnClassNumber"
SCORE = "modposeScore"
"""Column that ``align`` and ``abinitio`` write beside the poses that they find."""


def with_pose(
    particles: Particles,
    *,
    rotation: Floats | None = None,
    angle_deg: Floats | None = None,
    shift: Floats | None = None,
    half: NDArray[np.int64] | None = None,
    pixel_size: float | None = None,
) -> Particles:
    """Write the pose of each image into its table; all other columns stay in place.

    Parameters
    ----------
    particles
        N particles of a STAR file or a cryoSPARC table.
    rotation
        (N, 3, 3) 3-D rotations; or None.
    angle_deg
        (N,) in-plane angles; or None.  Without both, rotations do not change.
    shift
        (N, 2) or, for volumes, (N, 3) pixels of the images in the table, order x, y[, z]; None
        does not change shifts.
    half
        (N,) 0 or 1, the half set in which each pose was found; None does not change half sets.
    pixel_size
        Å per pixel of those images, if the table does not give it.

    Returns
    -------
    STAR: ``rlnAnglePsi`` (degrees), for 3-D rotations also ``rlnAngleRot`` and ``rlnAngleTilt``
    (for in-plane angles these become 0 where the table has them), and ``rlnOriginXAngst``, ...
    (Å); ``rlnOriginX``, ... (pixels) in files of RELION 3.0, without a pixel size, or if the table
    has them; ``rlnRandomSubset``.  cryoSPARC: ``pose``, ``shift`` and
    ``split`` of ``alignments3D`` or, for 2-D poses, ``alignments2D``.
    """
    table = particles.table.copy()
    columns: Mapping[str, NDArray[np.floating[Any]]]
    if particles.format == "cs":
        columns = _of_cryosparc(particles, rotation, angle_deg, shift)
    elif particles.format == "star":
        columns = _of_relion(particles, rotation, angle_deg, shift, pixel_size)
    else:
        expected = "a STAR file or a .cs"
        raise InputError.of(particles.name, "the table", particles.format, expected)
    for name, values in columns.items():
        table[name] = values
    if half is not None:
        star = particles.format == "star"
        name = "rlnRandomSubset" if star else "alignments3D/split"
        table[name] = half + 1 if star else half.astype(np.uint32)
    return replace(particles, table=table, given_poses=None, given_halves=None)


def _of_relion(
    particles: Particles,
    rotation: Floats | None,
    angle_deg: Floats | None,
    shift: Floats | None,
    pixel_size: float | None,
) -> dict[str, Floats]:
    columns: dict[str, Floats] = {}
    if rotation is not None:
        columns |= _relion_angles(rotation)
    elif angle_deg is not None:
        columns["rlnAnglePsi"] = _rounded(-angle_deg)
        columns |= {name: np.zeros(len(angle_deg)) for name in OUT_OF_PLANE if particles.has(name)}
    if shift is None:
        return columns
    sizes = particles.sizes_or(pixel_size)
    for axis, values in zip("XYZ", shift.T, strict=False):
        origin, name = _rounded(-values), f"rlnOrigin{axis}"
        if sizes is not None:
            columns[f"{name}Angst"] = _rounded(-values * sizes)
        if sizes is None or particles.optics is None or name in particles.table:
            columns[name] = origin
    return columns


def _relion_angles(rotation: Floats) -> dict[str, Floats]:
    """RELION's Euler angles, degrees, of rotations (N, 3, 3)."""
    import torch

    from modpose.geometry.rotations import relion_of_rotation

    angles = relion_of_rotation(torch.from_numpy(rotation.copy())).numpy()
    names = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
    return {name: _rounded(angles[:, k]) for k, name in enumerate(names)}


def _of_cryosparc(
    particles: Particles,
    rotation: Floats | None,
    angle_deg: Floats | None,
    shift: Floats | None,
) -> dict[str, NDArray[np.float32]]:
    in_space = rotation is not None or (angle_deg is None and particles.has("alignments3D/pose_0"))
    group = "alignments3D" if in_space else "alignments2D"
    columns: dict[str, Floats] = {}
    if rotation is not None:
        columns |= {f"{group}/pose_{i}": v for i, v in enumerate(_vectors(rotation).T)}
    elif angle_deg is not None:
        columns[f"{group}/pose"] = np.deg2rad(-angle_deg)
    if shift is not None:
        size, images = f"{group}/psize_A", particles.pixel_sizes()
        factor = np.ones(particles.n)
        if images is not None and particles.has(size):
            factor = images / particles.positive(size)
        elif images is not None:
            columns[size] = images
        columns |= {f"{group}/shift_{i}": -shift[:, i] * factor for i in (0, 1)}
    return {name: (values + 0.0).astype(np.float32) for name, values in columns.items()}


def _vectors(rotation: Floats) -> Floats:
    """Rotation vectors (N, 3), radians, of the transposes of (N, 3, 3), as in cryoSPARC."""
    import torch

    from modpose.geometry.rotations import vector_of_rotation

    found = vector_of_rotation(torch.from_numpy(rotation.transpose(0, 2, 1).copy()))
    return np.asarray(found.numpy(), np.float64)


def _rounded(values: Floats) -> Floats:
    """Round to six decimals, no negative zeros."""
    return np.asarray(values, np.float64).round(6) + 0.0

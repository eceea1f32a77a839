"""Errors of poses in three dimensions, after one rotation and offset that no method can know.

A method chooses its own upright frame: with the object g(u) = f(Q u + d) in place of f, every
rotation R becomes R Q and every shift t becomes t + R d.  One Q and one d a class are taken off.
Where a part of the object moves, that frame may also rotate and shift with it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from modpose.errors import InputError
from modpose.geometry.rotations import geodesic, rotation_of_vector, vector_of_rotation

CANDIDATES = 64
"""Volumes whose own alignment is tried for all."""
ITERATIONS = 20


class PoseErrors(NamedTuple):
    """Errors of N poses of one object.

    Attributes
    ----------
    raw_deg
        (N,) geodesic angle to the truth as it is.
    aligned_deg
        (N,) after the one global rotation.
    angle_deg
        (N,) the same, modulo the symmetry of the object.
    shift_px
        (N,) length, after the one offset of the object's frame.
    rotation, offset
        (3, 3) Q and (3,) d, voxels.
    """

    raw_deg: Tensor
    aligned_deg: Tensor
    angle_deg: Tensor
    shift_px: Tensor
    rotation: Tensor
    offset: Tensor


def pose_errors(
    rotation: Tensor,
    shift: Tensor,
    true_rotation: Tensor,
    true_shift: Tensor,
    symmetry: Tensor | None = None,
    motion: Tensor | None = None,
) -> PoseErrors:
    """Compare poses of one object with the truth.

    Parameters
    ----------
    rotation, true_rotation
        (N, 3, 3).
    shift, true_shift
        (N, 3) voxels.
    symmetry
        (G, 3, 3) rotations that leave the true object unchanged, including the identity
        (:func:`modpose.geometry.groups.symmetry_group`); None for none.
    motion
        (N,) how far a part of each object has moved, such as the angle of a hinge: a turn and an
        offset of the frame in proportion to it are taken off ``angle_deg`` and ``shift_px``, too.
        None takes off none.

    Raises
    ------
    InputError
        If there are no poses or their numbers differ.
    """
    if len(rotation) != len(true_rotation) or len(rotation) == 0:
        raise InputError.of(
            "poses", "their number", len(rotation), f"{len(true_rotation)} true ones"
        )
    found, true = rotation.double(), true_rotation.double()
    group = torch.eye(3, dtype=found.dtype)[None] if symmetry is None else symmetry.double()
    between, plain = align_rotations(found, true, group), align_rotations(found, true, group[:1])
    aligned = torch.rad2deg(geodesic(true @ plain, found))
    raw = torch.rad2deg(geodesic(true, found))
    if motion is not None:
        found = found @ rotation_of_vector(-_drift(found, true, between, group, motion.double()))
        between = align_rotations(found, true, group)
    images = torch.rad2deg(geodesic(true[:, None] @ group @ between, found[:, None]))
    angle, image = images.min(1)
    upright = true @ group[image]  # the frame of the symmetric copy that each pose means
    moved = torch.einsum("nji,nj->ni", upright, (shift - true_shift).double())
    if motion is not None:
        moved = moved - _in_proportion(moved - moved.median(0).values, motion.double())
    offset = moved.median(0).values
    return PoseErrors(
        raw_deg=raw,
        aligned_deg=aligned,
        angle_deg=angle,
        shift_px=(moved - offset).norm(dim=1),
        rotation=between,
        offset=offset,
    )


def align_rotations(found: Tensor, true: Tensor, group: Tensor) -> Tensor:
    """Find Q that makes ``true g Q`` close to ``found`` for most, g any of a group.

    The best of many volumes' own alignments, then means over those near it.
    """
    own = true.transpose(1, 2) @ found
    few = own[torch.linspace(0, len(own) - 1, min(CANDIDATES, len(own))).round().long()]
    cost = torch.stack([_nearest(own, group @ one).values.median() for one in few])
    best = few[cost.argmin()]
    for _ in range(ITERATIONS):
        angle, image = _nearest(own, group @ best)
        weight = 1 / (angle.square() + angle.median().square().clamp(min=1e-12))
        back = group[image].transpose(1, 2) @ own
        best = project_to_rotation((weight[:, None, None] * back).sum(0))
    return best


def _drift(found: Tensor, true: Tensor, between: Tensor, group: Tensor, motion: Tensor) -> Tensor:
    """Rotation vectors (N, 3), in the object's frame, of the turn that goes with a motion."""
    images = group @ between
    own = true.transpose(1, 2) @ found
    image = _nearest(own, images).indices
    return _in_proportion(vector_of_rotation(images[image].transpose(1, 2) @ own), motion)


def _in_proportion(errors: Tensor, motion: Tensor) -> Tensor:
    """Part of errors (N, 3) that is proportional to a motion (N,) about its mean, robustly."""
    motion = motion - motion.mean()
    along = torch.stack([torch.ones_like(motion), motion], 1)
    weight = torch.ones_like(motion)
    for _ in range(ITERATIONS):
        root = weight.sqrt()[:, None]
        fit = torch.linalg.lstsq(root * along, root * errors).solution
        left = (errors - along @ fit).square().sum(1)
        weight = 1 / (left + left.median().clamp(min=1e-12))
    part: Tensor = motion[:, None] * fit[1]
    return part


def project_to_rotation(matrix: Tensor) -> Tensor:
    """Return the rotation (..., 3, 3) nearest to a matrix."""
    u, _, vh = torch.linalg.svd(matrix)
    sign = torch.linalg.det(u @ vh)
    scale = torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], -1)
    nearest: Tensor = (u * scale[..., None, :]) @ vh
    return nearest


def _nearest(own: Tensor, images: Tensor) -> torch.return_types.min:
    return geodesic(images[None], own[:, None]).min(1)

"""Samples of the latent variables, and the KL of their posterior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from modpose.geometry.pose import Pose
from modpose.geometry.rotations import (
    orthogonal_2d,
    rotation_of_vector,
    rotation_of_yaw_pitch_roll,
)


class Latents(NamedTuple):
    """Samples from the posterior, K an image.

    Attributes
    ----------
    z
        (B, K, z_dim) content.
    angle
        (B, K) radians in the plane.  In three dimensions (B, K, 3): yaw, pitch and roll or, where
        there is a ``centre``, a rotation vector.  Zero where rotation is not inferred.
    shift
        (B, K, d) pixels (zero where shift is not inferred).
    cell
        (B, K) int64, the cell that each sample came from.
    centre
        (B, K, 3, 3) rotation from which ``angle`` is measured, R = centre exp(angle); None if
        ``angle`` is the whole rotation.
    channel
        (B, K, p) pose channel, or None if the model has none.
    log_scale
        (B, K) logarithm of how many times larger than upright the object is; None: not at all.
    mirrored
        (B, K) bool, whether the object is mirrored before it is rotated; None: never.
    """

    z: Tensor
    angle: Tensor
    shift: Tensor
    cell: Tensor
    centre: Tensor | None = None
    channel: Tensor | None = None
    mirrored: Tensor | None = None
    log_scale: Tensor | None = None

    @property
    def decoded(self) -> Tensor:
        """(B, K, z_dim + p), input of the field: content, then the pose channel."""
        return self.z if self.channel is None else torch.cat([self.z, self.channel], -1)

    @property
    def rotation(self) -> Tensor:
        """Rotation matrices (B, K, d, d), of determinant -1 where mirrored."""
        if self.centre is not None:
            return self.centre @ rotation_of_vector(self.angle)
        if self.shift.shape[-1] == 2:
            return orthogonal_2d(self.angle, self.mirrored)
        return rotation_of_yaw_pitch_roll(self.angle)

    def pose(self) -> Pose:
        """Poses (B, K) as rotation matrices and shifts."""
        return Pose(self.rotation, self.shift)

    def to_object(self, x: Tensor) -> Tensor:
        """Carry image coordinates (P, d), pixels, into the object's frame, (B, K, P, d)."""
        u = self.pose().to_object(x)
        return u if self.log_scale is None else u * (-self.log_scale).exp()[..., None, None]

    def at(self, *index: slice) -> Latents:
        """Take some images (first index) and samples (second)."""
        z, angle, shift, cell, *further = self
        kept = (None if part is None else part[index] for part in further)
        return Latents(z[index], angle[index], shift[index], cell[index], *kept)


def joined(parts: Sequence[Latents]) -> Latents:
    """Lay samples of the same images side by side, (B, K1 + K2 + ...)."""
    z, angle, shift, cell, *further = zip(*parts, strict=True)
    needed = (torch.cat(part, 1) for part in (z, angle, shift, cell))
    return Latents(*needed, *(None if part[0] is None else torch.cat(part, 1) for part in further))


class Kl(NamedTuple):
    """KL of the posterior to the prior, nats per image: (B,) each."""

    pose: Tensor
    content: Tensor

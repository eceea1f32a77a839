"""Poses that a search found before training, a row an image: what an encoder learns from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modpose.geometry.pose import Pose


class SearchedPoses(nn.Module):
    """Rotation, shift, and how surely they are known, of each of N volumes.

    Parameters
    ----------
    n_images
        N.
    """

    rotation: Tensor
    shift: Tensor
    width: Tensor

    def __init__(self, n_images: int) -> None:
        super().__init__()
        self.register_buffer("rotation", torch.eye(3).repeat(n_images, 1, 1))
        self.register_buffer("shift", torch.zeros(n_images, 3))
        self.register_buffer("width", torch.ones(n_images, 2))

    def set(self, rotation: Tensor, shift: Tensor, width: Tensor) -> None:
        """Keep rotations (N, 3, 3), shifts (N, 3), and their s.d. (N, 2), radians and voxels."""
        self.rotation.copy_(rotation)
        self.shift.copy_(shift)
        self.width.copy_(width)

    def at(self, index: Tensor) -> tuple[Pose, Tensor]:
        """Poses (B,) of the images at ``index`` (B,), and their s.d. (B, 2)."""
        return Pose(self.rotation[index], self.shift[index]), self.width[index]

"""Corrections of given poses: a small rotation and shift an image, learned with the model."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from modpose.config import PoseRefinementConfig
from modpose.geometry.pose import Pose
from modpose.geometry.rotations import rotation_of_vector


class PoseCorrections(nn.Module):
    """One row an image: a rotation vector and a shift, in units of their prior's s.d.

    The rotation acts last, about the axes of the microscope.  Rows are point estimates (maximum a
    posteriori), so what they add to the objective is the prior's penalty and no KL divergence.
    """

    scale: Tensor

    def __init__(self, config: PoseRefinementConfig, n_images: int) -> None:
        super().__init__()
        self.lr = config.lr
        self.rows = nn.Embedding(n_images, 5, sparse=True)
        nn.init.zeros_(self.rows.weight)
        turn, shift = math.radians(config.rotation_std_deg), config.shift_std_px
        self.register_buffer("scale", torch.tensor([turn] * 3 + [shift] * 2), persistent=False)

    def forward(self, index: Tensor, pose: Pose) -> Pose:
        """Return the corrected poses (B,) of the images at ``index`` (B,)."""
        change = self.rows(index) * self.scale
        turn = rotation_of_vector(change[:, :3])
        return Pose(turn @ pose.rotation, pose.shift + change[:, 3:])

    def per_image(self) -> dict[Tensor, float]:
        """Give the rows and their learning rate."""
        return {self.rows.weight: self.lr}

    def penalty(self, index: Tensor) -> Tensor:
        """Minus the log prior of the corrections, but for its constant, (B,) nats."""
        rows: Tensor = self.rows(index)
        return 0.5 * rows.square().sum(-1)

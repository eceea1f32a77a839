"""Parameters that a model has for each image that it is fitted to: one row per image.

Only the fitted images have rows: ``Batch.fitted`` says which images these are.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from modpose.config import PoseRefinementConfig
from modpose.geometry.pose import Pose
from modpose.geometry.rotations import rotation_of_vector


class ImageRows(nn.Embedding):
    """One row of numbers per image, zero at first, trained by a separate optimiser (sparse Adam).

    Parameters
    ----------
    n_images
        Number of rows.
    size
        Numbers of a row.
    lr
        Learning rate.
    """

    def __init__(self, n_images: int, size: int, lr: float) -> None:
        super().__init__(n_images, size, sparse=True)
        self.lr = lr
        nn.init.zeros_(self.weight)


def rows_trained_in(model: nn.Module) -> dict[Tensor, float]:
    """Return all rows of a model that are trained, and the learning rate of each."""
    rows = (part for part in model.modules() if isinstance(part, ImageRows))
    return {part.weight: part.lr for part in rows if part.weight.requires_grad}


class PoseCorrections(nn.Module):
    """Corrections of given poses: a rotation vector and a shift, in units of their prior's s.d.

    The rotation acts last, about the axes of the microscope.  Rows are point estimates (maximum a
    posteriori), so they add the prior's penalty to the objective, and no KL divergence.
    """

    scale: Tensor

    def __init__(self, config: PoseRefinementConfig, n_images: int) -> None:
        super().__init__()
        self.rows = ImageRows(n_images, 5, config.lr)
        turn, shift = math.radians(config.rotation_std_deg), config.shift_std_px
        self.register_buffer("scale", torch.tensor([turn] * 3 + [shift] * 2), persistent=False)

    def forward(self, index: Tensor, pose: Pose) -> Pose:
        """Return the corrected poses (B,) of the images at ``index`` (B,)."""
        change = self.rows(index) * self.scale
        turn = rotation_of_vector(change[:, :3])
        return Pose(turn @ pose.rotation, pose.shift + change[:, 3:])

    def penalty(self, index: Tensor) -> Tensor:
        """Minus the log prior of the corrections, up to a constant, (B,) nats."""
        rows: Tensor = self.rows(index)
        return 0.5 * rows.square().sum(-1)


class KeptPoses(nn.Module):
    """Several poses of each of N projections; the model takes one of them.

    Parameters
    ----------
    n_images
        N.
    count
        Most poses of an image, H.

    Attributes
    ----------
    rotation, shift
        (N, H, 3, 3), and (N, H, 2) pixels.
    number
        (N,) int64 poses of an image; 0 until they are set.
    chosen
        (N,) int64 which of them the model takes.
    """

    rotation: Tensor
    shift: Tensor
    number: Tensor
    chosen: Tensor

    def __init__(self, n_images: int, count: int) -> None:
        super().__init__()
        self.register_buffer("rotation", torch.zeros(n_images, count, 3, 3))
        self.register_buffer("shift", torch.zeros(n_images, count, 2))
        self.register_buffer("number", torch.zeros(n_images, dtype=torch.int64))
        self.register_buffer("chosen", torch.zeros(n_images, dtype=torch.int64))

    def set(self, rotation: Tensor, shift: Tensor, number: Tensor) -> None:
        """Keep the first H poses of all images, or all if there are fewer; the first is taken."""
        most = min(rotation.shape[1], self.rotation.shape[1])
        self.rotation[:, :most] = rotation[:, :most]
        self.shift[:, :most] = shift[:, :most]
        self.number.copy_(number.clamp(max=most))

    def at(self, index: Tensor, pose: Pose) -> Pose:
        """Return the poses that are taken for the images at ``index`` (B,); ``pose`` if not set."""
        which = self.chosen[index]
        known = self.number[index] > 0
        rotation = torch.where(known[:, None, None], self.rotation[index, which], pose.rotation)
        return Pose(rotation, torch.where(known[:, None], self.shift[index, which], pose.shift))


class KnownPoses(NamedTuple):
    """Poses (B,) that a search found before training.

    Attributes
    ----------
    pose
        Of the images.
    width
        (B, 2) s.d. of rotation, radians, and shift, voxels.
    """

    pose: Pose
    width: Tensor


class SearchedPoses(nn.Module):
    """Poses of N volumes that a search found before training; an encoder learns from them.

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

    def set(self, index: Tensor, rotation: Tensor, shift: Tensor, width: Tensor) -> None:
        """Keep poses of the volumes at ``index`` (B,).

        Rotations (B, 3, 3), shifts (B, 3), and their s.d. (B, 2), radians and voxels.
        """
        self.rotation[index] = rotation
        self.shift[index] = shift
        self.width[index] = width

    def at(self, index: Tensor) -> KnownPoses:
        """Take the images at ``index`` (B,)."""
        return KnownPoses(Pose(self.rotation[index], self.shift[index]), self.width[index])

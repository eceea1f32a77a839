"""Small corrections of given poses, from the maps of each image's own content.

One step of Gauss and Newton at a time, of rotation and shift together, towards the most probable
pose: the errors are expected to be normal, with a deviation that is learned from the corrections.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from modpose.content_maps.lattice import HalfLattice, PlacedImages
from modpose.content_maps.posterior import mixed
from modpose.geometry.rotations import rotation_of_vector
from modpose.search.projections import PosedImages

TURN = math.radians(1.0)
"""Rotation over which slopes are taken."""
FIRST_SPREAD = (math.radians(2.0), 1.0)
"""Expected deviation of rotations about an axis, and of shifts in pixels, before any correction."""
LARGEST = 2.0
"""Largest step, in expected deviations."""


class Corrections(NamedTuple):
    """Corrections of the poses of a set.

    Attributes
    ----------
    pose
        (N, 5) turns about x, y, z in the object's frame, radians, and shifts in x and y, pixels.
    spread
        (5,) expected deviation of each.
    """

    pose: Tensor
    spread: Tensor

    @classmethod
    def none(cls, count: int) -> Corrections:
        """Leave the poses of so many images as they are."""
        turn, shift = FIRST_SPREAD
        return cls(torch.zeros(count, 5), torch.tensor([turn] * 3 + [shift] * 2))

    def improved(self, pose: Tensor, variance: Tensor) -> Corrections:
        """Take new corrections (N, 5), with the variance that is left of each, for these.

        The expected deviation is one for the three turns and one for the two shifts; it does not
        grow.
        """
        square = (pose.square() + variance).mean(0)
        spread = torch.stack([square[:3].mean()] * 3 + [square[3:].mean()] * 2).sqrt()
        return Corrections(pose, torch.minimum(self.spread, spread))


def corrected(images: PosedImages, pose: Tensor) -> PosedImages:
    """Turn (in the object's frame, radians) and shift (pixels) images by corrections (B, 5)."""
    shift = images.shift.clone()
    shift[:, :2] += pose[:, 3:]
    return replace(images, rotation=images.rotation @ rotation_of_vector(pose[:, :3]), shift=shift)


def improved(
    lattice: HalfLattice,
    images: PosedImages,
    table: Tensor,
    amount: Tensor,
    pose: Tensor,
    spread: Tensor,
) -> tuple[Tensor, Tensor]:
    """Take one step from corrections of poses, where that makes an image more probable.

    Parameters
    ----------
    lattice, images
        B images with their given poses.
    table
        Of J maps (:meth:`HalfLattice.table`).
    amount
        (B, J) of each map in each image.
    pose
        (B, 5) corrections so far.
    spread
        (5,) expected deviation of each.

    Returns
    -------
    pose, variance
        (B, 5) new corrections, and the variance that is left of each.
    """

    def seen(at: Tensor) -> tuple[Tensor, Tensor]:
        placed = lattice.place(corrected(images, at))
        return placed.upright(placed.value), placed.upright(_model(lattice, placed, table, amount))

    value, model = seen(pose)
    slopes = []
    for axis in range(3):
        step = pose.new_zeros(5)
        step[axis] = TURN
        slopes.append((model - seen(pose + step)[1]) / TURN)
    wave = 2j * math.pi * images.data.frequency[:, :2]
    slopes += [model * wave[:, axis] for axis in range(2)]
    slope = torch.view_as_real(torch.stack(slopes, 1)).flatten(2)
    rest = torch.view_as_real(value - model).flatten(1)
    precision = 0.5 / spread.square()
    curvature = slope @ slope.transpose(1, 2) + torch.diag(precision)
    right = -(slope @ rest[..., None]).squeeze(-1) - pose * precision
    step = torch.linalg.solve(curvature, right)
    step = step.clamp(-LARGEST * spread, LARGEST * spread)
    there = torch.view_as_real(torch.sub(*seen(pose + step))).flatten(1)
    cost = [
        one.square().sum(1) + (at.square() * precision).sum(1)
        for one, at in ((rest, pose), (there, pose + step))
    ]
    better = (cost[1] < cost[0])[:, None]
    variance = 0.5 * torch.linalg.inv(curvature).diagonal(dim1=1, dim2=2)
    return torch.where(better, pose + step, pose), variance


def _model(lattice: HalfLattice, placed: PlacedImages, table: Tensor, amount: Tensor) -> Tensor:
    """What images (B, K) would be, with these amounts of maps."""
    return mixed(lattice.read(placed, table), amount)

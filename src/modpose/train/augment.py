"""Turning training images: the same objects in more poses."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from modpose.data.batches import Batch
from modpose.geometry.grids import lattice
from modpose.geometry.groups import octahedral
from modpose.geometry.pose import Pose
from modpose.geometry.rotations import haar_rotations, rotation_2d

Augment = Literal["none", "quarter-turns", "rotations"]


def turned(batch: Batch, how: Augment, generator: torch.Generator) -> Batch:
    """Turn every image of a batch about its centre by a random rotation of its own.

    Parameters
    ----------
    batch
        Images (B, C, H, W) or volumes (B, C, D, H, W).
    how
        ``quarter-turns``: one of the 4 turns of a square or the 24 of a cube, exactly, about the
        middle between the pixels of an even box.  ``rotations``: any, in space uniform (Haar),
        about the centre of the box by linear interpolation; pixels that would come from outside
        the box keep their values.
    generator
        Source of the rotations, on the processor.
    """
    if how == "none":
        return batch
    image = batch.image
    flat = image.dim() == 4
    if how == "quarter-turns":
        return batch.with_image(_quarter_turned(image, generator))
    if flat:
        rotation = rotation_2d(2 * math.pi * torch.rand(len(image), generator=generator))
    else:
        rotation = haar_rotations(len(image), generator)
    return batch.with_image(_rotated(image, rotation.to(image.device)))


def _quarter_turned(image: Tensor, generator: torch.Generator) -> Tensor:
    group = _square() if image.dim() == 4 else octahedral()
    choice = torch.randint(len(group), (len(image),), generator=generator)
    out = torch.empty_like(image)
    for k in set(choice.tolist()):
        rows = torch.nonzero(choice == k).squeeze(1).to(image.device)
        out[rows] = exactly_turned(image[rows], group[k])
    return out


def exactly_turned(image: Tensor, rotation: Tensor) -> Tensor:
    """Turn (B, C, [D,] H, W) by a signed permutation (d, d), actively: axes swapped and flipped."""
    dim = len(rotation)
    source = rotation.abs().argmax(1).tolist()  # coordinate i comes from coordinate source[i]
    sign = [float(rotation[i, source[i]]) for i in range(dim)]
    axis = [image.dim() - 1 - i for i in range(dim)]  # the array axis of coordinate i
    order = list(range(image.dim()))
    for i in range(dim):
        order[axis[i]] = axis[source[i]]
    return image.permute(order).flip([axis[i] for i in range(dim) if sign[i] < 0])


def _square() -> Tensor:
    return rotation_2d(math.pi / 2 * torch.arange(4)).round()


def _rotated(image: Tensor, rotation: Tensor) -> Tensor:
    """Turn by matrices (B, d, d) with linear interpolation; the image shows where it ends."""
    shape = image.shape[2:]
    x = lattice(shape).to(image.device)
    u = Pose(rotation, rotation.new_zeros(len(image), len(shape))).to_object(x)
    sizes = torch.tensor(shape[::-1], device=image.device)
    unit = 2 * (u + sizes // 2) / (sizes - 1).clamp(min=1) - 1
    grid = unit.reshape(len(image), *shape, len(shape))
    inside = (grid.abs() <= 1).all(-1).unsqueeze(1)
    found = torch.nn.functional.grid_sample(image, grid, padding_mode="border", align_corners=True)
    return torch.where(inside, found, image)

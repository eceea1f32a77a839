"""Rotating and shifting training images: the same objects in more poses."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modpose.config import AugmentConfig
from modpose.data.batches import Batch
from modpose.geometry.grids import lattice
from modpose.geometry.groups import octahedral
from modpose.geometry.pose import Pose
from modpose.geometry.rotations import haar_rotations, rotation_2d


def augmented(batch: Batch, config: AugmentConfig, generator: torch.Generator) -> Batch:
    """Apply an independent random rotation and shift to every image of a batch.

    Parameters
    ----------
    batch
        Images (B, C, H, W) or volumes (B, C, D, H, W).
    config
        The settings.  ``quarter-turns`` are exact, about the middle between the pixels of an even
        box.  ``any`` rotates about the centre of the box; pixels that would come from outside the
        box keep their values.
    generator
        Random number generator, on the CPU.
    """
    if not config.moves_images:
        return batch
    image = batch.image
    if config.rotate == "quarter-turns":
        image = _quarter_turned(image, generator)
    elif config.rotate == "any":
        image = _rotated(image, _any_rotation(image, generator).to(image.device))
    if config.shift_px:
        image = _shifted(image, config.shift_px, generator)
    return batch.with_image(image)


def _any_rotation(image: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one rotation per image, (B, d, d)."""
    if image.dim() == 4:
        return rotation_2d(2 * math.pi * torch.rand(len(image), generator=generator))
    return haar_rotations(len(image), generator)


def _shifted(image: Tensor, largest: int, generator: torch.Generator) -> Tensor:
    """Shift cyclically by whole pixels, up to ``largest`` on each axis."""
    axes = list(range(1, image.dim() - 1))
    shifts = torch.randint(-largest, largest + 1, (len(image), len(axes)), generator=generator)
    each = zip(image, shifts.tolist(), strict=True)
    return torch.stack([one.roll(shift, axes) for one, shift in each])


def _quarter_turned(image: Tensor, generator: torch.Generator) -> Tensor:
    group = _square() if image.dim() == 4 else octahedral()
    choice = torch.randint(len(group), (len(image),), generator=generator)
    out = torch.empty_like(image)
    for k in set(choice.tolist()):
        rows = torch.nonzero(choice == k).squeeze(1).to(image.device)
        out[rows] = exactly_turned(image[rows], group[k])
    return out


def exactly_turned(image: Tensor, rotation: Tensor) -> Tensor:
    """Rotate (B, C, [D,] H, W) by a signed permutation (d, d): swap and flip axes."""
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
    """Rotate by matrices (B, d, d) with linear interpolation; pixels from outside are kept."""
    shape = image.shape[2:]
    x = lattice(shape).to(image.device)
    u = Pose(rotation, rotation.new_zeros(len(image), len(shape))).to_object(x)
    sizes = torch.tensor(shape[::-1], device=image.device)
    unit = 2 * (u + sizes // 2) / (sizes - 1).clamp(min=1) - 1
    grid = unit.reshape(len(image), *shape, len(shape))
    inside = (grid.abs() <= 1).all(-1).unsqueeze(1)
    found = torch.nn.functional.grid_sample(image, grid, padding_mode="border", align_corners=True)
    return torch.where(inside, found, image)

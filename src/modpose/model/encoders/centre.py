"""The centre of the object: attention that rotates with the image.

Every filter depends on distance alone, and the image is smoothed before it is sampled coarsely.
So the centre rotates and moves exactly with the image, also by fractions of a pixel.  If it
followed only roughly, objects that look similar upside down would be read sometimes one way up and
sometimes the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from modpose.config import PolarEncoderConfig
from modpose.geometry.pose import sample_images
from modpose.geometry.rotations import rotation_2d
from modpose.nn.perceptron import ACTIVATIONS

HEAT_SIDE = 13
"""Values of the map of attention along the image's longer side."""
WIDTHS = (0.5, 1.0, 2.0)
"""S.d. of the Gaussians that smooth the image, in spacings of the map."""
KERNEL = 5
RADII = (0.0, 0.9, 1.8)
"""Of the rings that kernels are made of, in spacings of the map."""
RING_WIDTH = 0.55
NEGLIGIBLE = 1e-5
"""Smaller weights, relative to a Gaussian's sum, are set to zero (this avoids denormal numbers)."""


class Centre(nn.Module):
    """The centre of an image, with subpixel accuracy: the mean of a map of attention.

    Parameters
    ----------
    channels, shape
        Of the images.
    config
        Of the encoder: width and activation.
    """

    rows: Tensor
    columns: Tensor
    middle: Tensor

    def __init__(self, channels: int, shape: Sequence[int], config: PolarEncoderConfig) -> None:
        super().__init__()
        longest = max(shape)
        sides = [-(-n * min(longest, HEAT_SIDE) // longest) for n in shape]  # rounded up
        act, width = ACTIVATIONS[config.activation], max(4, config.channels // 2)
        self.attention = nn.Sequential(
            SmoothedSampling(shape, sides),
            IsotropicConvolution(len(WIDTHS) * channels, width),
            act(),
            IsotropicConvolution(width, width),
            act(),
            IsotropicConvolution(width, 1),
        )
        for name, n, side in zip(("rows", "columns"), shape, sides, strict=True):
            self.register_buffer(name, coarse_grid(n, side) - n // 2, persistent=False)
        middle = torch.tensor([(n - 1) / 2 - n // 2 for n in reversed(shape)])
        self.register_buffer("middle", middle, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) to (B, 2) pixels (x, y) relative to the box centre n // 2."""
        heat = self.attention(image)
        weight = heat.flatten(1).softmax(-1).view(heat.shape[0], *heat.shape[2:])
        # not as products of matrices, which mixed precision would round
        x, y = (weight.sum(1) * self.columns).sum(1), (weight.sum(2) * self.rows).sum(1)
        return torch.stack([x, y], dim=-1)

    def again(self, image: Tensor, centre: Tensor, angle: Tensor) -> Tensor:
        """Find it again in the image rotated back by ``angle`` (B,) about ``centre`` (B, 2).

        This is sampled evenly to both sides of the centre, so half a turn more turns the result
        exactly.
        """
        turn = rotation_2d(angle)
        height, width = image.shape[2:]
        x = torch.arange(width, device=image.device) - (width - 1) / 2
        y = torch.arange(height, device=image.device) - (height - 1) / 2
        along, down = x * turn[..., :1], y * turn[..., 1:]  # (B, 2, side), axis by axis
        points = (down + centre.unsqueeze(-1)).unsqueeze(-1) + along.unsqueeze(-2)
        read = sample_images(image, points.flatten(2).transpose(1, 2))
        upright = read.transpose(1, 2).reshape(image.shape)
        off: Tensor = self(upright) - self.middle
        return centre + (off.unsqueeze(1) @ turn.transpose(-1, -2)).squeeze(1)


class SmoothedSampling(nn.Module):
    """Gaussians of several widths on a coarse grid: finer detail is removed, without aliasing."""

    rows: Tensor
    columns: Tensor

    def __init__(self, shape: Sequence[int], sides: Sequence[int]) -> None:
        super().__init__()
        for name, n, side in zip(("rows", "columns"), shape, sides, strict=True):
            weights = torch.stack([gaussian_weights(n, side, width) for width in WIDTHS])
            self.register_buffer(name, weights, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) to (B, len(WIDTHS) * C, h, w)."""
        across = torch.einsum("bchw,svw->bschv", image, self.columns)
        return (self.rows.unsqueeze(1) @ across).flatten(1, 2)


class IsotropicConvolution(nn.Module):
    """Convolution with kernels that depend on distance alone: weighted rings."""

    rings: Tensor

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        offset = torch.arange(KERNEL) - KERNEL // 2
        distance = torch.hypot(offset[:, None].float(), offset.float())
        away = (distance - torch.tensor(RADII)[:, None, None]) / RING_WIDTH
        rings = torch.exp(-0.5 * away.square())
        rings = rings / torch.linalg.vector_norm(rings, dim=(1, 2), keepdim=True)
        self.register_buffer("rings", rings, persistent=False)
        scale = 1 / math.sqrt(n_in * len(RADII))
        self.weight = nn.Parameter(scale * torch.randn(n_out, n_in, len(RADII)))
        self.bias = nn.Parameter(torch.zeros(n_out))

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, h, w) to (B, n_out, h, w)."""
        if len(self.weight) == 1:  # mixed first: a convolution to one channel is slow
            x = (self.weight[0].T @ x.flatten(2)).reshape(len(x), -1, *x.shape[2:])
            return functional.conv2d(x, self.rings[None], self.bias, padding=KERNEL // 2)
        kernel = torch.einsum("oir,rhw->oihw", self.weight, self.rings)
        return functional.conv2d(x, kernel, self.bias, padding=KERNEL // 2)


def coarse_grid(n: int, side: int) -> Tensor:
    """Return the middles (side,) of as many equal parts of n pixels, in pixels from the first."""
    return (torch.arange(side) + 0.5) * (n / side) - 0.5


def gaussian_weights(n: int, side: int, width: float) -> Tensor:
    """Return Gaussians (side, n) about the middles of the parts, their s.d. ``width`` parts.

    Each sums to one, and to less near the border, where a part of it lies outside.
    """
    away = (torch.arange(n) - coarse_grid(n, side)[:, None]) / (width * n / side)
    weights = torch.exp(-0.5 * away.square())
    weights = weights / weights.sum(1).max()
    return torch.where(weights > NEGLIGIBLE, weights, 0.0)

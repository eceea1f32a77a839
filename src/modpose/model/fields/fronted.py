"""3D-SpVAE++ (Yi et al. 2021, Table 5): a linear layer of coordinates, then convolutions.

As published, coordinates and content make a picture of ``hidden`` channels at full resolution, and
transposed convolutions reduce the channels.  No activation stands between that layer and the first
convolution, so the two are one linear map, and are computed as one: coordinates are convolved with
the product of their weights, and content, which is the same at every voxel, is multiplied with the
sum of the kernel that falls inside the box.  The numbers are the same; the picture of 1250
channels, 110 MB for a volume of 28³, and 190 of its 200 GFLOP are never needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from modpose.config import FrontedFieldConfig


class CoordConvField(nn.Module):
    """Map posed coordinates of the whole box, in the order of the box, to its values."""

    inside: Tensor

    whole_box = True

    def __init__(
        self, config: FrontedFieldConfig, z_dim: int, n_outputs: int, shape: Sequence[int]
    ) -> None:
        super().__init__()
        dim = len(shape)
        self.shape, self.kernel = tuple(shape), config.kernel
        convolution = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[dim]
        normalize = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dim]
        self.from_coordinates = nn.Linear(dim, config.hidden)
        self.from_content = nn.Linear(z_dim, config.hidden) if z_dim else None
        widths = (config.hidden, *config.channels, n_outputs)
        convolutions = [
            convolution(a, b, config.kernel, padding=config.kernel // 2)
            for a, b in pairwise(widths)
        ]
        self.first = convolutions[0]
        rest: list[nn.Module] = []
        for width, layer in zip(widths[1:], [*convolutions[1:], None], strict=True):
            rest += [nn.ReLU(), normalize(width)]
            if layer is not None:
                rest.append(layer)
        self.rest = nn.Sequential(*rest)
        # Which part of the kernel meets the box, at every voxel: (kernel^d, 1, *shape)
        count = config.kernel**dim
        taps = torch.eye(count).reshape(1, count, *[config.kernel] * dim)
        ones = torch.ones(1, 1, *shape)
        transposed = {2: functional.conv_transpose2d, 3: functional.conv_transpose3d}[dim]
        inside = transposed(ones, taps, padding=config.kernel // 2)
        self.register_buffer("inside", inside[0].flatten(1), persistent=False)
        self._transposed = transposed

    def forward(self, u: Tensor, z: Tensor) -> Tensor:
        """Values (B, P, n_outputs) at the P network coordinates u (B, P, d) of the whole box."""
        assert u.shape[1] == math.prod(self.shape), "the field needs every pixel of the box"
        weight = self.first.weight  # (hidden, channels, kernel...)
        moved = torch.einsum("hd,hc...->dc...", self.from_coordinates.weight, weight)
        pictures = u.transpose(1, 2).reshape(len(u), -1, *self.shape)
        h = self._transposed(pictures, moved, self.first.bias, padding=self.kernel // 2)
        still = self.from_coordinates.bias.expand(len(u), -1)
        if self.from_content is not None:
            still = still + self.from_content(z)
        spread = (still @ weight.flatten(1)).reshape(len(u), weight.shape[1], -1)
        h = h + (spread @ self.inside).reshape(h.shape)
        return cast(Tensor, self.rest(h).flatten(2).transpose(1, 2))

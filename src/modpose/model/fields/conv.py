"""The convolutional decoder of affinity-VAE: one upright picture per z, for any box."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from modpose.config import ConvFieldConfig
from modpose.geometry.grids import half_box
from modpose.geometry.pose import sample_images
from modpose.nn.conv import (
    CONVOLUTION,
    TRANSPOSED,
    channels_innermost,
    normalization,
    reduced,
    widths_of,
)
from modpose.nn.perceptron import ACTIVATIONS


class ConvField(nn.Module):
    """A linear layer to a coarse picture, and transposed convolutions that each double it.

    Parameters
    ----------
    config
        Depth, channels and the rest.
    z_dim
        Numbers that are decoded.
    n_outputs, shape
        Of the picture; a box that no doubling reaches is cut from a larger one.
    """

    gridded = True

    def __init__(
        self, config: ConvFieldConfig, z_dim: int, n_outputs: int, shape: Sequence[int]
    ) -> None:
        super().__init__()
        self.scale, self.shape = half_box(shape), tuple(shape)
        transposed, activation = TRANSPOSED[len(shape)], ACTIVATIONS[config.activation]
        fine_to_coarse = widths_of(
            config.channels, config.depth, config.widths and config.widths[::-1]
        )
        widths = fine_to_coarse[::-1]
        last = config.patch or 2
        coarse = reduced(shape, 2 ** (len(widths) - 1) * last)
        layers: list[nn.Module] = []
        if config.hidden:
            layers += [nn.Linear(z_dim, config.hidden), activation()]
        features = config.hidden or z_dim
        layers += [
            nn.Linear(features, widths[0] * math.prod(coarse)),
            nn.Unflatten(1, (widths[0], *coarse)),
            *normalization(config.normalize, widths[0]),
            activation(),
        ]
        for before, after in itertools.pairwise(widths):
            layers.append(transposed(before, after, 4, stride=2, padding=1))
            layers += [*normalization(config.normalize, after), activation()]
        if config.patch is None:
            layers.append(transposed(widths[-1], n_outputs, 4, stride=2, padding=1))
        else:
            layers.append(Patches(widths[-1], n_outputs, config.patch, len(shape)))
        self.network = nn.Sequential(*layers)
        channels_innermost(self.network, len(shape))

    def picture(self, z: Tensor) -> Tensor:
        """Upright pictures (B, n_outputs, *shape) for content z (B, z_dim)."""
        whole = cast(Tensor, self.network(z))
        for axis, side in enumerate(self.shape, start=2):
            whole = whole.narrow(axis, (whole.shape[axis] - side) // 2, side)
        return whole

    def forward(self, u: Tensor, z: Tensor) -> Tensor:
        """Values (B, P, n_outputs) at network coordinates u (B, P, d) for content z (B, z_dim)."""
        return sample_images(self.picture(z).float(), u * self.scale, padding="border")


class Patches(nn.Module):
    """Each point of a coarse picture becomes a patch, by one linear map for all.

    The same as a transposed convolution whose kernel equals its stride, several times faster.
    """

    def __init__(self, channels: int, n_outputs: int, side: int, dim: int) -> None:
        super().__init__()
        self.n_outputs, self.side, self.dim = n_outputs, side, dim
        self.map = CONVOLUTION[dim](channels, n_outputs * side**dim, 1)

    def forward(self, coarse: Tensor) -> Tensor:
        """(B, C, [d,] h, w) to (B, n_outputs, [d side,] h side, w side)."""
        dim, box = self.dim, coarse.shape[2:]
        parts = self.map(coarse).reshape(len(coarse), self.n_outputs, *[self.side] * dim, *box)
        order = [axis for k in range(dim) for axis in (2 + dim + k, 2 + k)]
        fine = [self.side * length for length in box]
        return cast(Tensor, parts.permute(0, 1, *order)).reshape(len(coarse), self.n_outputs, *fine)

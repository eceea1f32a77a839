"""The usual VAE decoder: one upright picture per z, read at posed coordinates by interpolation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from modpose.config import DenseFieldConfig
from modpose.geometry.grids import half_box
from modpose.geometry.pose import linear_weights, sample_images
from modpose.nn.kept import Kept
from modpose.nn.perceptron import perceptron


class DenseField(nn.Module):
    """A perceptron from content to every pixel at once."""

    gridded = True

    def __init__(
        self, config: DenseFieldConfig, z_dim: int, n_outputs: int, shape: Sequence[int]
    ) -> None:
        super().__init__()
        self.scale = half_box(shape)
        self._kept = Kept()
        self.shape = tuple(max(2, math.ceil(config.extent * n)) for n in shape)
        self.n_outputs = n_outputs
        self.network = perceptron(
            z_dim,
            n_outputs * math.prod(self.shape),
            config.hidden,
            config.depth,
            config.activation,
            config.residual,
        )

    def picture(self, z: Tensor) -> Tensor:
        """Upright pictures (B, n_outputs, *shape) for content z (B, z_dim)."""
        return cast(Tensor, self.network(z).reshape(len(z), self.n_outputs, *self.shape))

    def forward(self, u: Tensor, z: Tensor) -> Tensor:
        """Values (B, P, n_outputs) at network coordinates u (B, P, d) for content z (B, z_dim)."""
        return sample_images(self.picture(z).float(), u * self.scale, padding="border")

    def train(self, mode: bool = True) -> Self:
        """Forget what was kept: an optimiser of others may not tell that it changed weights."""
        self._kept = Kept()
        return super().train(mode)

    @torch.no_grad()
    def read(self, x: Tensor, z: Tensor) -> Tensor:
        """Values (B, P, n_outputs) at the same points x (P, 2), pixels, of upright pictures.

        The last layer draws these points alone.  Its weights there are kept until it changes.
        """
        last = cast(nn.Linear, self.network[-1])
        weight = self._kept("weight", (x, last.weight), lambda: self._mixed(x, last.weight))
        bias = self._kept("bias", (x, last.bias), lambda: self._mixed(x, last.bias[:, None])[:, 0])
        drawn = functional.linear(self.network[:-1](z), weight, bias)
        return drawn.float().reshape(len(z), self.n_outputs, -1).transpose(1, 2)

    def _mixed(self, x: Tensor, rows: Tensor) -> Tensor:
        """Mix the rows (n_outputs * pixels, k) of the pixels about each point."""
        index, share = linear_weights(x, self.shape)
        first = math.prod(self.shape) * torch.arange(self.n_outputs, device=x.device)
        return functional.embedding_bag(
            (first[:, None, None] + index).flatten(0, 1),
            rows,
            per_sample_weights=share.repeat(self.n_outputs, 1),
            mode="sum",
        )

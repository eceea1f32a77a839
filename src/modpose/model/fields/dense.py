"""The usual VAE decoder: one upright picture per z, read at posed coordinates by interpolation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from modpose.config import DenseFieldConfig
from modpose.geometry.grids import half_box
from modpose.geometry.pose import sample_images
from modpose.nn.perceptron import perceptron


class DenseField(nn.Module):
    """A perceptron from content to every pixel at once."""

    gridded = True

    def __init__(
        self, config: DenseFieldConfig, z_dim: int, n_outputs: int, shape: Sequence[int]
    ) -> None:
        super().__init__()
        self.scale = half_box(shape)
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

"""A few pictures or volumes, added up in amounts that depend on content."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from modpose.config import BasisFieldConfig
from modpose.geometry.grids import half_box
from modpose.geometry.pose import sample_images
from modpose.nn.perceptron import perceptron

PACE = 0.05
"""Learning rate of the pictures relative to the perceptron: each voxel is a parameter, so they
overfit noise easily.
"""


class BasisField(nn.Module):
    """Sum over k of a_k(z) B_k: a perceptron from content to the amounts of J pictures.

    Parameters
    ----------
    config
        How many pictures, and of the perceptron.
    z_dim
        Numbers that are decoded.
    n_outputs, shape
        Of the pictures.
    """

    gridded = True

    def __init__(
        self, config: BasisFieldConfig, z_dim: int, n_outputs: int, shape: Sequence[int]
    ) -> None:
        super().__init__()
        self.scale, self.shape = half_box(shape), tuple(shape)
        self.amounts = perceptron(
            z_dim, config.count, config.hidden, config.depth, config.activation, False
        )
        self.slow = nn.Parameter(torch.zeros(config.count, n_outputs, *shape))

    @property
    def pictures(self) -> Tensor:
        """(J, n_outputs, *shape), the pictures that are added up."""
        return PACE * self.slow

    @torch.no_grad()
    def set_pictures(self, pictures: Tensor) -> None:
        """Start from pictures (I, n_outputs, *shape), I <= J; the others are empty."""
        self.slow.zero_()
        self.slow[: len(pictures)] = pictures / PACE

    def picture(self, z: Tensor) -> Tensor:
        """Upright pictures (B, n_outputs, *shape) for content z (B, z_dim)."""
        summed = self.amounts(z) @ self.pictures.flatten(1)
        return cast(Tensor, summed.reshape(len(z), *self.slow.shape[1:]))

    def forward(self, u: Tensor, z: Tensor) -> Tensor:
        """Values (B, P, n_outputs) at network coordinates u (B, P, d) for content z (B, z_dim)."""
        return sample_images(self.picture(z).float(), u * self.scale, padding="border")

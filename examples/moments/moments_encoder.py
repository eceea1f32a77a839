"""The network of the example: circular moments, two perceptrons, one cell."""

from __future__ import annotations

import torch
from moments_vae import MomentsEncoderConfig
from torch import Tensor, nn

from modpose.data.batches import Batch
from modpose.geometry.grids import half_box, lattice
from modpose.model.encoders import Place
from modpose.model.encoders.encoder import Context, Encoder
from modpose.model.posterior import LatentLayout, Posterior


def build(section: MomentsEncoderConfig, place: Place) -> Encoder:
    """Make the encoder for images of a size."""
    return MomentsEncoder(section, place.layout, place.shape)


class MomentsEncoder(Encoder):
    """Sums of the pixels times (x + i y)^m r^2: their sizes do not turn, their phases do."""

    weights: Tensor

    def __init__(
        self, section: MomentsEncoderConfig, layout: LatentLayout, shape: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.layout = layout
        x, y = (lattice(shape) / half_box(shape)).unbind(-1)
        ring = torch.exp(-2 * (x**2 + y**2))
        powers = [torch.complex(x, y) ** m * ring for m in range(section.orders + 1)]
        weights = torch.stack(powers, dim=-1) / len(x)
        self.register_buffer("weights", weights, persistent=False)
        count, n_content = section.orders + 1, 2 * layout.z_dim
        self.content = self._perceptron(count, section.hidden, n_content)
        self.pose = self._perceptron(2 * count, section.hidden, layout.n_params - n_content)

    @staticmethod
    def _perceptron(n_in: int, width: int, n_out: int) -> nn.Module:
        return nn.Sequential(nn.Linear(n_in, width), nn.SiLU(), nn.Linear(width, n_out))

    def forward(self, batch: Batch, context: Context) -> Posterior:
        """Propose one cell."""
        moments = batch.image[:, 0].flatten(1).to(self.weights.dtype) @ self.weights
        content = self.content(moments.abs())
        pose = self.pose(torch.view_as_real(moments).flatten(1))
        return self.layout.one_cell(torch.cat([content, pose], dim=-1))

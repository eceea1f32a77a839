"""The perceptron of Bepler et al. 2019 on the flattened image, or on its transform: one cell."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from modpose.config import MlpEncoderConfig
from modpose.data.batches import Batch
from modpose.perceptron import perceptron, start_small
from modpose.posterior.cells import Proposal


class MlpEncoder(nn.Module):
    """Flattened image to posterior parameters."""

    def __init__(self, config: MlpEncoderConfig, n_inputs: int, n_params: int) -> None:
        super().__init__()
        self.network = perceptron(
            n_inputs, n_params, config.hidden, config.depth, config.activation, config.residual
        )
        start_small(cast(nn.Linear, self.network[-1]))

    def forward(self, batch: Batch) -> Proposal:
        """Return parameters (B, 1, n_params) and cell logits (B, 1)."""
        params = self.network(batch.image.flatten(1)).unsqueeze(1)
        return Proposal(params, torch.zeros_like(params[..., 0]))

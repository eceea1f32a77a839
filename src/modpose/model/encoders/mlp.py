"""The perceptron of Bepler et al. 2019 on the flattened image, or on its transform: one cell."""

from __future__ import annotations

from typing import cast

from torch import nn

from modpose.config import MlpEncoderConfig
from modpose.data.batches import Batch
from modpose.model.encoders.encoder import Context, Encoder
from modpose.model.posterior import LatentLayout, Posterior
from modpose.nn.perceptron import perceptron, start_small


class MlpEncoder(Encoder):
    """Flattened image, or its transform, to the posterior.

    Parameters
    ----------
    config
        Widths, depth, and what it sees of an image.
    n_inputs
        Numbers that it sees of an image.
    layout
        Which latent variables there are.
    """

    def __init__(self, config: MlpEncoderConfig, n_inputs: int, layout: LatentLayout) -> None:
        super().__init__()
        self.layout, self.sees = layout, config.sees
        self.network = perceptron(
            n_inputs,
            layout.n_params,
            config.hidden,
            config.depth,
            config.activation,
            config.residual,
        )
        start_small(cast(nn.Linear, self.network[-1]))

    def forward(self, batch: Batch, context: Context) -> Posterior:
        """Propose one cell."""
        seen = batch.image
        if self.sees != "image":
            seen = context.render.show(batch, self.sees)
        return self.layout.one_cell(self.network(seen.flatten(1)))

"""Content from the amplitudes of motions: the exact linear posterior, then a network."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from modpose.config import PrincipalEncoderConfig
from modpose.data.batches import Batch
from modpose.model.encoders.encoder import Context, Encoder
from modpose.model.posterior import LatentLayout, Posterior
from modpose.nn.perceptron import perceptron


class PrincipalEncoder(Encoder):
    """Map the posterior of the motions' amplitudes to the posterior of content.

    Given the pose, all information of an image about J amplitudes a is the precision P and the
    slope s of log p(image | a) = s.a - a.P a / 2 + constant.  With a ~ N(0, I) the posterior is
    N((P + I)^-1 s, (P + I)^-1); content starts as its first ``z_dim`` amplitudes.  P and s include
    shift, rotation, CTF and noise of the image.

    Parameters
    ----------
    config
        Of the perceptron.
    motions
        J.
    layout
        Which latent variables there are; content has at most J dimensions.
    """

    def __init__(self, config: PrincipalEncoderConfig, motions: int, layout: LatentLayout) -> None:
        super().__init__()
        self.layout = layout
        self.z_dim = z_dim = layout.z_dim
        self.register_buffer("pairs", torch.triu_indices(motions, motions, 1), persistent=False)
        n_inputs = 2 * motions + motions * (motions - 1) // 2
        self.network = perceptron(
            n_inputs, 2 * z_dim, config.hidden, config.depth, config.activation, residual=False
        )
        last = cast(nn.Linear, self.network[-1])
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, batch: Batch, context: Context) -> Posterior:
        """Propose content from the likelihood of the amplitudes, given each pose."""
        return self.layout.one_cell(self.numbers(*context.render.amplitude_likelihood(batch)))

    def numbers(self, precision: Tensor, slope: Tensor) -> Tensor:
        """Mean and log s.d. of content, (B, 2 z_dim), from the likelihood of the amplitudes.

        Parameters
        ----------
        precision, slope
            (B, J, J) and (B, J).
        """
        covariance = torch.linalg.inv(precision + torch.eye(slope.shape[1], device=slope.device))
        mean = (covariance @ slope.unsqueeze(-1)).squeeze(-1)
        std = covariance.diagonal(dim1=1, dim2=2).sqrt()
        correlation = covariance / (std.unsqueeze(2) * std.unsqueeze(1))
        pairs = cast(Tensor, self.pairs)
        seen = torch.cat([mean, std.log(), correlation[:, pairs[0], pairs[1]]], dim=1)
        start = torch.cat([mean[:, : self.z_dim], std.log()[:, : self.z_dim]], dim=1)
        return cast(Tensor, start + self.network(seen))

"""Encoders propose q: a batch goes in, the parameters of the posterior come out.

Contract: ``encoder(batch) -> (params (B, C, n_params), cell_logits (B, C))``, read by
:meth:`modpose.posterior.posterior.LatentLayout.posterior`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from modpose.config import EncoderConfig, MlpEncoderConfig
from modpose.encoders.mlp import MlpEncoder
from modpose.encoders.table import TableEncoder


def build_encoder(
    config: EncoderConfig, *, n_params: int, channels: int, shape: Sequence[int], n_images: int
) -> nn.Module:
    """Make the encoder that ``config`` names."""
    if isinstance(config, MlpEncoderConfig):
        return MlpEncoder(config, channels * math.prod(shape), n_params)
    return TableEncoder(config, n_images, n_params)

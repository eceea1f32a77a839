"""Encoders propose q: a batch goes in, the parameters of the posterior come out.

Contract: ``encoder(batch) -> Proposal(params (B, C, n_params), cell_logits (B, C), cells)``, read
by :meth:`modpose.posterior.posterior.LatentLayout.posterior`.  An encoder that searches
(:class:`modpose.encoders.polar.PolarEncoder`) is given the model's own prediction as well, and one
that reads principal motions (:class:`modpose.encoders.principal.PrincipalEncoder`) what images say
of these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from modpose.config import (
    BasisFieldConfig,
    ConvEncoderConfig,
    HarmonicEncoderConfig,
    MlpEncoderConfig,
    ModelConfig,
    OctahedralEncoderConfig,
    OrbitEncoderConfig,
    PolarEncoderConfig,
    PrincipalEncoderConfig,
    PrincipalFieldConfig,
)
from modpose.encoders.conv import ConvEncoder
from modpose.encoders.harmonic import HarmonicEncoder
from modpose.encoders.mlp import MlpEncoder
from modpose.encoders.octahedral import OctahedralEncoder
from modpose.encoders.orbit import OrbitEncoder
from modpose.encoders.polar import PolarEncoder
from modpose.encoders.principal import PrincipalEncoder
from modpose.encoders.table import TableEncoder


def build_encoder(
    model: ModelConfig,
    *,
    n_params: int,
    channels: int,
    shape: Sequence[int],
    n_images: int,
    n_shown: int | None = None,
) -> nn.Module:
    """Make the encoder that ``model.encoder`` names.

    ``n_shown`` is how many numbers it sees of an image, where not the pixels.
    """
    config = model.encoder
    if isinstance(config, MlpEncoderConfig):
        return MlpEncoder(config, n_shown or channels * math.prod(shape), n_params)
    if isinstance(config, OrbitEncoderConfig):
        return OrbitEncoder(model, config, n_params=n_params, channels=channels, shape=shape)
    if isinstance(config, OctahedralEncoderConfig):
        assert isinstance(model.field, BasisFieldConfig), "checked with the configuration"
        return OctahedralEncoder(
            model, config, pictures=model.field.count, channels=channels, shape=shape
        )
    if isinstance(config, PolarEncoderConfig):
        return PolarEncoder(model, config, channels=channels, shape=shape)
    if isinstance(config, ConvEncoderConfig):
        return ConvEncoder(config, channels=channels, shape=shape, n_params=n_params)
    if isinstance(config, PrincipalEncoderConfig):
        assert isinstance(model.field, PrincipalFieldConfig)  # checked
        return PrincipalEncoder(config, model.field.motions, model.z_dim)
    if isinstance(config, HarmonicEncoderConfig):
        n_content = 2 * model.z_dim
        return HarmonicEncoder(
            config,
            channels=channels,
            shape=shape,
            n_content=n_content,
            n_pose=n_params - n_content,
        )
    return TableEncoder(config, n_images, n_params, model.z_dim)

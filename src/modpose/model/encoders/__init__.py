"""Encoders propose q: ``encoder(batch, context)`` gives the posterior of content and pose.

See :class:`modpose.model.encoders.encoder.Encoder`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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
from modpose.model.encoders.conv import ConvEncoder
from modpose.model.encoders.encoder import Encoder
from modpose.model.encoders.harmonic import HarmonicEncoder
from modpose.model.encoders.mlp import MlpEncoder
from modpose.model.encoders.octahedral import OctahedralEncoder
from modpose.model.encoders.orbit import OrbitEncoder
from modpose.model.encoders.polar import PolarEncoder
from modpose.model.encoders.principal import PrincipalEncoder
from modpose.model.encoders.table import TableEncoder
from modpose.model.posterior import LatentLayout


def build_encoder(
    model: ModelConfig,
    *,
    layout: LatentLayout,
    channels: int,
    shape: Sequence[int],
    n_images: int,
    n_shown: int | None = None,
) -> Encoder:
    """Make the encoder that ``model.encoder`` names.

    ``n_shown`` is how many numbers it sees of an image, where not the pixels.
    """
    config = model.encoder
    if isinstance(config, MlpEncoderConfig):
        return MlpEncoder(config, n_shown or channels * math.prod(shape), layout)
    if isinstance(config, OrbitEncoderConfig):
        return OrbitEncoder(model, config, layout=layout, channels=channels, shape=shape)
    if isinstance(config, OctahedralEncoderConfig):
        assert isinstance(model.field, BasisFieldConfig), "checked with the configuration"
        return OctahedralEncoder(
            model, config, layout=layout, pictures=model.field.count, channels=channels, shape=shape
        )
    if isinstance(config, PolarEncoderConfig):
        return PolarEncoder(model, config, layout=layout, channels=channels, shape=shape)
    if isinstance(config, ConvEncoderConfig):
        return ConvEncoder(config, channels=channels, shape=shape, layout=layout)
    if isinstance(config, PrincipalEncoderConfig):
        assert isinstance(model.field, PrincipalFieldConfig)  # checked
        return PrincipalEncoder(config, model.field.motions, layout)
    if isinstance(config, HarmonicEncoderConfig):
        return HarmonicEncoder(config, channels=channels, shape=shape, layout=layout)
    return TableEncoder(config, n_images, layout)

"""Encoders: ``encoder(batch, context)`` gives the posterior of content and pose.

See :class:`modpose.model.encoders.encoder.Encoder`.
"""

from __future__ import annotations

import math
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from modpose.config import (
    BasisFieldConfig,
    ConvEncoderConfig,
    EncoderSection,
    HarmonicEncoderConfig,
    MlpEncoderConfig,
    ModelConfig,
    OctahedralEncoderConfig,
    OrbitEncoderConfig,
    PolarEncoderConfig,
    PrincipalEncoderConfig,
    PrincipalFieldConfig,
    TableEncoderConfig,
)
from modpose.config.system import builder_of
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


@dataclass(frozen=True)
class Place:
    """What an encoder is made for.

    Attributes
    ----------
    model
        The options of the model; its section ``encoder`` is built.
    layout
        Which latent variables there are, and how a posterior is made of numbers.
    channels, shape
        Of the images.
    n_images
        Size of the stack.
    n_shown
        Numbers per image that it sees, if it does not see pixels.
    """

    model: ModelConfig
    layout: LatentLayout
    channels: int
    shape: tuple[int, ...]
    n_images: int
    n_shown: int | None = None


def _mlp(config: MlpEncoderConfig, at: Place) -> Encoder:
    return MlpEncoder(config, at.n_shown or at.channels * math.prod(at.shape), at.layout)


def _orbit(config: OrbitEncoderConfig, at: Place) -> Encoder:
    return OrbitEncoder(at.model, config, layout=at.layout, channels=at.channels, shape=at.shape)


def _octahedral(config: OctahedralEncoderConfig, at: Place) -> Encoder:
    pictures = cast(BasisFieldConfig, at.model.field).count  # checked with the configuration
    return OctahedralEncoder(
        at.model,
        config,
        layout=at.layout,
        pictures=pictures,
        channels=at.channels,
        shape=at.shape,
    )


def _polar(config: PolarEncoderConfig, at: Place) -> Encoder:
    return PolarEncoder(at.model, config, layout=at.layout, channels=at.channels, shape=at.shape)


def _conv(config: ConvEncoderConfig, at: Place) -> Encoder:
    return ConvEncoder(config, channels=at.channels, shape=at.shape, layout=at.layout)


def _principal(config: PrincipalEncoderConfig, at: Place) -> Encoder:
    motions = cast(PrincipalFieldConfig, at.model.field).count(at.model.z_dim)  # checked
    return PrincipalEncoder(config, motions, at.layout)


def _harmonic(config: HarmonicEncoderConfig, at: Place) -> Encoder:
    return HarmonicEncoder(config, channels=at.channels, shape=at.shape, layout=at.layout)


def _table(config: TableEncoderConfig, at: Place) -> Encoder:
    return TableEncoder(config, at.n_images, at.layout)


BUILDERS: dict[type[EncoderSection], Callable[[Any, Place], Encoder]] = {
    MlpEncoderConfig: _mlp,
    OrbitEncoderConfig: _orbit,
    OctahedralEncoderConfig: _octahedral,
    PolarEncoderConfig: _polar,
    ConvEncoderConfig: _conv,
    PrincipalEncoderConfig: _principal,
    HarmonicEncoderConfig: _harmonic,
    TableEncoderConfig: _table,
}
"""Section to the function that makes its encoder; other packages register theirs in their systems.
"""


def build_encoder(place: Place) -> Encoder:
    """Make the encoder that ``model.encoder`` names."""
    section = place.model.encoder
    build = BUILDERS.get(type(section)) or pkgutil.resolve_name(builder_of(section))
    return cast(Encoder, build(section, place))

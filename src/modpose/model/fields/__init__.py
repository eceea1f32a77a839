"""Fields decode: what the object looks like at coordinates of its own upright frame.

Contract: ``field(u, z)`` with u (B, P, d) network coordinates (about [-1, 1]) and z (B, z_dim)
gives (B, P, n_outputs).  Coordinates are positions over half the box; for
:class:`modpose.model.fields.slices.SliceField` and
:class:`modpose.model.fields.principal.PrincipalField` they are frequencies over Nyquist's.
A gridded field has
``shape`` and ``picture(z)``, (B, n_outputs, *shape), too, which is read as it is where no pose is
inferred.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from modpose.config import (
    BasisFieldConfig,
    ConvFieldConfig,
    FieldConfig,
    FourierFieldConfig,
    FrontedFieldConfig,
    ImplicitFieldConfig,
    PrincipalFieldConfig,
)
from modpose.model.fields.basis import BasisField
from modpose.model.fields.conv import ConvField
from modpose.model.fields.dense import DenseField
from modpose.model.fields.fronted import FrontedField
from modpose.model.fields.implicit import ImplicitField
from modpose.model.fields.principal import PrincipalField
from modpose.model.fields.slices import SliceField


def build_field(
    config: FieldConfig, *, z_dim: int, n_outputs: int, shape: Sequence[int]
) -> nn.Module:
    """Make the field that ``config`` names."""
    if isinstance(config, FourierFieldConfig):
        return SliceField(config, z_dim, max(shape))
    if isinstance(config, PrincipalFieldConfig):
        return PrincipalField(config, z_dim, max(shape))
    if isinstance(config, ImplicitFieldConfig):
        return ImplicitField(config, z_dim, n_outputs, len(shape))
    if isinstance(config, FrontedFieldConfig):
        return FrontedField(config, z_dim, n_outputs, shape)
    if isinstance(config, BasisFieldConfig):
        return BasisField(config, z_dim, n_outputs, shape)
    if isinstance(config, ConvFieldConfig):
        return ConvField(config, z_dim, n_outputs, shape)
    return DenseField(config, z_dim, n_outputs, shape)

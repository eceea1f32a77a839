"""Fields decode: they give the object's values at coordinates of its upright frame.

Contract: ``field(u, z)`` with u (B, P, d) network coordinates (about [-1, 1]) and z (B, z_dim)
gives (B, P, n_outputs).  Coordinates are positions over half the box; for
:class:`modpose.model.fields.slices.SliceField` and
:class:`modpose.model.fields.principal.PrincipalField` they are frequencies over Nyquist's.
A field that says ``gridded = True`` has ``shape`` and ``picture(z)``, (B, n_outputs, *shape), too,
which is read as it is where no pose is inferred.  One that has ``read(x, z)`` draws the same points
x (P, 2), pixels, of the pictures of all images at once.  One that says ``whole_box = True`` needs
the coordinates of every pixel of the box at once.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Sequence
from typing import Any, cast

from torch import nn

from modpose.config import (
    BasisFieldConfig,
    ConvFieldConfig,
    DenseFieldConfig,
    FieldSection,
    FourierFieldConfig,
    FrontedFieldConfig,
    ImplicitFieldConfig,
    PrincipalFieldConfig,
)
from modpose.config.system import builder_of
from modpose.model.fields.basis import BasisField
from modpose.model.fields.conv import ConvField
from modpose.model.fields.dense import DenseField
from modpose.model.fields.fronted import CoordConvField
from modpose.model.fields.implicit import ImplicitField
from modpose.model.fields.principal import PrincipalField
from modpose.model.fields.slices import SliceField

BUILDERS: dict[type[FieldSection], Callable[[Any, int, int, Sequence[int]], nn.Module]] = {
    ImplicitFieldConfig: lambda c, z, outputs, shape: ImplicitField(c, z, outputs, len(shape)),
    FourierFieldConfig: lambda c, z, outputs, shape: SliceField(c, z, max(shape)),
    PrincipalFieldConfig: lambda c, z, outputs, shape: PrincipalField(c, z, max(shape)),
    FrontedFieldConfig: CoordConvField,
    BasisFieldConfig: BasisField,
    ConvFieldConfig: ConvField,
    DenseFieldConfig: DenseField,
}
"""Section to the function that makes its field, from z_dim, n_outputs and shape."""


def build_field(
    section: FieldSection, *, z_dim: int, n_outputs: int, shape: Sequence[int]
) -> nn.Module:
    """Make the field that a section describes."""
    build = BUILDERS.get(type(section)) or pkgutil.resolve_name(builder_of(section))
    return cast(nn.Module, build(section, z_dim, n_outputs, shape))

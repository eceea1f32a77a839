"""Shared parts of the sections of a configuration."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Field, model_validator
from pydantic_core import PydanticCustomError

from modpose.limits import LARGEST_SEED, MOST_EPOCHS

if TYPE_CHECKING:
    from modpose.config.facts import Facts
    from modpose.config.model import ModelConfig

Activation = Literal["tanh", "relu", "leaky-relu", "silu"]

Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
Epochs = Annotated[int, Field(ge=1, le=MOST_EPOCHS)]
Steps = Annotated[int, Field(ge=0, le=10**9)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
"""Number of images, pixels or rounds."""
Width = Annotated[int, Field(ge=1, le=65_536)]
"""Width of a layer of a network."""
Depth = Annotated[int, Field(ge=1, le=64)]
"""Number of layers of a network."""
Side = Annotated[int, Field(ge=2, le=65_536)]
"""Side of a box, pixels."""
Rate = Annotated[float, Field(gt=0, le=1)]
"""A learning rate."""
Scale = Annotated[float, Field(ge=1e-9, le=1e9)]
"""A standard deviation, a temperature or another positive size."""
Weight = Annotated[float, Field(ge=0, le=1e9)]


class Frozen(BaseModel):
    """Base of all sections: immutable, unknown options are errors, and numbers are finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _truth_is_no_number(cls, values: Any) -> Any:
        """Refuse true and false as numbers; they would count as 1 and 0."""
        for name, field in cls.model_fields.items() if isinstance(values, dict) else ():
            if isinstance(values.get(name), bool):
                types = set(_types(field.annotation))
                if bool not in types and types & {int, float}:
                    found = {"field": name, "value": values[name]}
                    raise PydanticCustomError("number", "a number", found)
        return values

    def check(self, facts: Facts) -> None:
        """Raise InputError if this section does not fit the data and other sections."""


class CellRole(NamedTuple):
    """The parts of the pose that an encoder's cells give, and whether with a residual shift."""

    angle: bool = False
    shift: bool = False
    shift_residual: bool = False


class EncoderSection(Frozen):
    """Base of the sections of ``model.encoder``; each kind is a subclass with its options.

    Attributes
    ----------
    mirrors
        Whether its cells can include a reflection (``model.reflection``).
    shared_content
        Whether all cells of an image have one content and shift.
    flat
        Whether it reads only pictures, no volumes.
    """

    mirrors: ClassVar[bool] = False
    shared_content: ClassVar[bool] = False
    flat: ClassVar[bool] = False
    kind: str = ""

    def check(self, facts: Facts) -> None:
        """Refuse volumes if it reads only pictures."""
        if self.flat and facts.dim not in (2, None):
            expected = "octahedral, mlp, conv or table for volumes"
            raise facts.refusal("model.encoder.kind", self.kind, expected)

    def cell_role(self, model: ModelConfig) -> CellRole:
        """Return which parts of the pose its cells give; by default none."""
        return CellRole()


class FieldSection(Frozen):
    """Base of the sections of ``model.field``; each kind is a subclass with its options.

    Attributes
    ----------
    spectral
        Whether it gives coefficients of central slices, not pixels.
    """

    spectral: ClassVar[bool] = False
    kind: str = ""

    @property
    def point_group(self) -> str:
        """Name of the point group of what is drawn; C1 is none."""
        return "C1"

    def check(self, facts: Facts) -> None:
        """Refuse coefficients without the spectral likelihood, and that likelihood without them."""
        likelihood = facts.config.model.likelihood.kind
        if self.spectral != (likelihood == "spectral"):
            expected = "spectral with fields of slices and principal motions, and only there"
            raise facts.refusal("model.likelihood.kind", likelihood, expected)


def kind_of(value: Any) -> Any:
    """Return the kind of a section, given as options or as an object; None without a kind."""
    return value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)


OTHER = "of another package"
"""Tag of the sections of other packages in a union of sections."""


def tag_in_union(section: type, own: Collection[str]) -> Discriminator:
    """Return what chooses a member of a union by its kind, also for kinds of other packages."""

    def tag(value: Any) -> Any:
        kind = kind_of(value)
        return OTHER if isinstance(value, section) and kind not in own else kind

    return Discriminator(tag)


def _types(annotation: Any) -> list[Any]:
    parts = get_args(annotation)
    return [part for one in parts for part in _types(one)] if parts else [annotation]

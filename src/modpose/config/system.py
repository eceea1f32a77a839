"""Systems: recipes with their encoders and fields, also from other packages.

A package declares its system as an entry point of the group ``modpose.systems``.  It is loaded when
a user asks for a recipe, encoder or field that modpose does not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from modpose.config.section import EncoderSection, FieldSection
from modpose.errors import InputError

GROUP = "modpose.systems"
Options = dict[str, Any]
Section = EncoderSection | FieldSection


@dataclass(frozen=True)
class Recipe:
    """A named configuration.

    Attributes
    ----------
    title
        One line for lists.
    description
        What it does and when to use it.
    paper
        The source.
    options
        The options that it sets; the others are the defaults of :class:`modpose.config.Config`.
    """

    title: str
    description: str
    paper: str
    options: Options


@dataclass(frozen=True)
class System:
    """Recipes, and their own encoders and fields.

    Attributes
    ----------
    recipes
        The recipes by name.
    encoders, fields
        Class of a section to ``package.module:function``, which builds the part that the section
        describes.  The module is imported only then, so its import may be slow.
    """

    recipes: Mapping[str, Recipe]
    encoders: Mapping[type[EncoderSection], str] = field(default_factory=dict)
    fields: Mapping[type[FieldSection], str] = field(default_factory=dict)


@cache
def installed_systems() -> tuple[System, ...]:
    """Load the systems of other packages.

    Raises
    ------
    InputError
        If a package's entry point cannot be loaded, or is not a :class:`System`.
    """
    return tuple(_load(entry) for entry in entry_points(group=GROUP))


def _load(entry: Any) -> System:
    where = f"the entry point {entry.name} of {GROUP} ({entry.value})"
    try:
        system = entry.load()
    except Exception as error:  # another package's code may raise any error
        kind = type(error).__name__
        raise InputError(
            f"{where} cannot be loaded ({kind}); repair or remove its package"
        ) from None
    if not isinstance(system, System):
        raise InputError.of(where, "the object", type(system).__name__, "a modpose.config.System")
    return system


def section_of(name: str, kind: object) -> type[Section] | None:
    """Find the section class of other packages for a kind of ``encoder`` or ``field``."""
    for system in installed_systems():
        sections: list[type[Section]] = list(
            system.encoders if name == "encoder" else system.fields
        )
        for section in sections:
            if section.model_fields["kind"].default == kind:
                return section
    return None


def builder_of(section: Section) -> str:
    """Return the function that builds the part of another package's section."""
    for system in installed_systems():
        if isinstance(section, EncoderSection) and type(section) in system.encoders:
            return system.encoders[type(section)]
        if isinstance(section, FieldSection) and type(section) in system.fields:
            return system.fields[type(section)]
    raise InputError(f"no installed package makes the kind '{section.kind}' of encoder or field")

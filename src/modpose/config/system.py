"""Systems: recipes, with encoders and fields of their own, also from other packages.

A package names its system as an entry point of the group ``modpose.systems``.  It is loaded when a
recipe, or a kind of encoder or field, is asked for that is none of ours.
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
        A line for lists.
    description
        What it does and when to use it.
    paper
        The source.
    options
        What it sets; the rest are the defaults of :class:`modpose.config.Config`.
    """

    title: str
    description: str
    paper: str
    options: Options


@dataclass(frozen=True)
class System:
    """Recipes, and what they need that others do not have.

    Attributes
    ----------
    recipes
        By name.
    encoders, fields
        Class of a section to ``package.module:function``, which makes the part that the section
        describes.  The module is imported when the part is made, so that it may be slow.
    """

    recipes: Mapping[str, Recipe]
    encoders: Mapping[type[EncoderSection], str] = field(default_factory=dict)
    fields: Mapping[type[FieldSection], str] = field(default_factory=dict)


@cache
def installed_systems() -> tuple[System, ...]:
    """Load the systems that other packages bring.

    Raises
    ------
    InputError
        If a package's entry point cannot be loaded, or is no :class:`System`.
    """
    return tuple(_load(entry) for entry in entry_points(group=GROUP))


def _load(entry: Any) -> System:
    where = f"the entry point {entry.name} of {GROUP} ({entry.value})"
    try:
        system = entry.load()
    except Exception as error:  # another package's code fails in its own way
        kind = type(error).__name__
        raise InputError(f"{where} cannot be loaded ({kind}); mend or remove its package") from None
    if not isinstance(system, System):
        raise InputError.of(where, "the object", type(system).__name__, "a modpose.config.System")
    return system


def section_of(name: str, kind: object) -> type[Section] | None:
    """Find the class of section that other packages have for a kind of ``encoder`` or ``field``."""
    for system in installed_systems():
        sections: list[type[Section]] = list(
            system.encoders if name == "encoder" else system.fields
        )
        for section in sections:
            if section.model_fields["kind"].default == kind:
                return section
    return None


def builder_of(section: Section) -> str:
    """Name the function that makes the part that a section of another package describes."""
    for system in installed_systems():
        if isinstance(section, EncoderSection) and type(section) in system.encoders:
            return system.encoders[type(section)]
        if isinstance(section, FieldSection) and type(section) in system.fields:
            return system.fields[type(section)]
    raise InputError(f"no installed package makes the kind '{section.kind}' of encoder or field")

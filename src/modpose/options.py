"""From a recipe, a file and command-line options to one complete configuration.

The order of precedence is recipe < ``--config`` file < options < ``--set``.  Each layer is
validated when it is applied, so that an error names its layer.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel

from modpose.config import Config, DataConfig, merge, parse_config, read_yaml, set_option
from modpose.data.opened import refuse_axes_of_table
from modpose.data.source import open_source
from modpose.errors import SHOWN, InputError
from modpose.recipes import DEFAULT_RECIPE, recipe_config
from modpose.recipes.recipe import Options
from modpose.suggest import given_options, suggest, suited

if TYPE_CHECKING:
    from modpose.data.source import Source, Wedge
    from modpose.data.unopened import Input

NO_CLASSES = "does not search for classes"
OF_OTHER_RECIPE = (" where model.", NO_CLASSES)
"""Parts of messages about an option of another kind of encoder, field or noise, and of a recipe
with classes."""


def configure(
    source: Input,
    *,
    recipe: str | None = None,
    file: Path | None = None,
    flags: Mapping[str, tuple[str, object]] | None = None,
    assignments: Sequence[str] = (),
    datadir: Path | None = None,
    index: Path | None = None,
    poses: Path | None = None,
    ctf: Path | None = None,
    wedge: Wedge | None = None,
    partial: bool = False,
    tomograms: Path | None = None,
    tilt_series: bool = False,
) -> tuple[Source, Config, str]:
    """Open images and resolve the options for them.

    Parameters
    ----------
    source, datadir, index, poses, ctf, wedge, partial, tomograms, tilt_series
        See :func:`modpose.data.source.open_source`.
    recipe
        Its name; else that in ``file``, else the default.
    file, flags, assignments
        See :func:`resolve`.  The recipe and these override the options for the kind of data.

    Returns
    -------
    source, config, sentence
        The opened images, the complete configuration, and a sentence about the chosen recipe and
        the options for the kind of data.
    """
    name = recipe
    if name is None and file is not None:
        name = read_yaml(file).get("recipe")
    base = recipe_config(DEFAULT_RECIPE if name is None else str(name))

    def resolved(options: Mapping[str, Any]) -> Config:
        return resolve(options, file=file, flags=flags, assignments=assignments)

    try:  # refuse wrong options before the data are opened
        resolved(base)
    except InputError as error:
        if name is not None or not any(part in str(error) for part in OF_OTHER_RECIPE):
            raise  # else the recipe that the data choose may have the option
    kind = _data_section(base, file, flags or {}, assignments).kind
    opened = open_source(
        source,
        kind=kind,
        datadir=datadir,
        index=index,
        poses=poses,
        ctf=ctf,
        wedge=wedge,
        partial=partial,
        tomograms=tomograms,
        tilt_series=tilt_series,
    )
    refuse_axes_of_table(opened, kind)
    best, for_data, meaning = suggest(opened, None if name is None else base)
    if name is None:
        base = recipe_config(best)

    def complete(for_data: Options) -> Config:
        return resolved(merge(merge(for_data, base), given_options(opened)))

    config = complete(suited(for_data, complete(for_data)))
    chosen = f"recipe {base['recipe']}" + (" (the default)" if name is None else "")
    return opened, config, f"{chosen}; {meaning}"


def _data_section(
    base: Mapping[str, Any],
    file: Path | None,
    flags: Mapping[str, tuple[str, object]],
    assignments: Sequence[str],
) -> DataConfig:
    """Resolve only ``data``: it is needed to read the data, which decide the recipe."""
    values = parse_config(dict(base), "the recipe").model_dump(mode="json")
    if file is not None:
        values = merge(values, {"data": read_yaml(file).get("data") or {}})
        _parse(values, str(file))
    about_data = [text for text in assignments if text.startswith("data.")]
    of_data = {flag: pair for flag, pair in flags.items() if pair[0].startswith("data.")}
    return resolve(values, flags=of_data, assignments=about_data).data


def resolve(
    base: Mapping[str, Any],
    *,
    file: Path | None = None,
    flags: Mapping[str, tuple[str, object]] | None = None,
    assignments: Sequence[str] = (),
) -> Config:
    """Apply a file, flags and assignments to ``base``; return the validated configuration.

    Parameters
    ----------
    base
        Nested values of a recipe.
    file
        A YAML file of options; its ``recipe`` is only a name and changes nothing here.
    flags
        Name of each flag with its dotted option and the value; None does not change it.
    assignments
        ``section.option=value`` texts, in order.

    Raises
    ------
    InputError
        If an option does not exist (similar ones are listed) or a value is out of range.
    """
    config = parse_config(dict(base), "the recipe")
    values = merge(config.model_dump(mode="json"), dict(base))  # 1/z_dim follows later layers
    if file is not None:
        values = merge(values, {**read_yaml(file), "recipe": config.recipe})
        config = _parse(values, str(file))
    for flag, (option, value) in (flags or {}).items():
        if value is not None:
            if option == "train.start.classes" and config.train.start is None:
                raise InputError(
                    f"{flag}: recipe {config.recipe} {NO_CLASSES}, expected --clusters, which "
                    "divides the content; maps of several structures: modpose abinitio --classes"
                )
            values = merge(values, nest(option, value))
            config = _parse(values, flag)
    for assignment in assignments:
        where = f"--set {assignment[:SHOWN]}"
        values = set_option(values, assignment)
        config = _parse(values, where)
    return config


def nest(option: str, value: object) -> dict[str, Any]:
    """Convert ``section.option`` and its value to nested mappings."""
    nested: Any = value
    for part in reversed(option.split(".")):
        nested = {part: nested}
    return dict(nested)


def _parse(values: dict[str, Any], where: str) -> Config:
    """Validate, and name similar options if one does not exist."""
    try:
        return parse_config(values, where)
    except InputError as error:
        message = str(error)
    if "there is no option" in message:
        unknown = message.partition("option '")[2].partition("'")[0]
        if kinds := _kinds_with(unknown):
            raise InputError(f"{message}, expected {' or '.join(kinds)}")
        names = sorted(set(option_names()))
        near = difflib.get_close_matches(unknown, names, n=3, cutoff=0.6)
        last = unknown.rpartition(".")[2]
        near = near or [name for name in names if name.rpartition(".")[2] == last]
        if near:
            message += f", did you mean {' or '.join(near)}?"
    raise InputError(message)


def _kinds_with(option: str) -> list[str]:
    """Kinds of a section that have the option."""
    *path, last = option.split(".")
    sections: list[type[BaseModel]] = [Config]
    for part in path:
        fields = [
            section.model_fields[part] for section in sections if part in section.model_fields
        ]
        parts = [part for field in fields for part in _parts(field.annotation)]
        sections = [part for part in parts if issubclass(part, BaseModel)]
    having = [section.model_fields for section in sections if last in section.model_fields]
    return [str(fields["kind"].default) for fields in having if "kind" in fields]


def option_names(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[str]:
    """Yield the dotted name of every option, for every kind of each section."""
    for name, field in model.model_fields.items():
        sections = [part for part in _parts(field.annotation) if issubclass(part, BaseModel)]
        for section in sections:
            yield from option_names(section, f"{prefix}{name}.")
        if not sections:
            yield prefix + name


def _parts(annotation: Any) -> Iterator[type]:
    """Yield the classes in an annotation."""
    if isinstance(annotation, type):
        yield annotation
    for part in get_args(annotation):
        yield from _parts(part)

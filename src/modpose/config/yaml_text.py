"""YAML of options: plain values only, of bounded size, and nothing that may run or never end.

A part of YAML 1.2: mappings, lists, text, numbers, true and false.  Anchors, aliases, tags and
names that are given twice are refused; ``off``, ``no`` and ``1:30`` are text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from modpose.errors import InputError, shown
from modpose.files.text import read_text

LARGEST = 1 << 18
"""Bytes of a file of options; a complete one has 4,000."""
DEEPEST = 20
"""Sections within sections."""
CORE = {
    "null": (r"(~|null|Null|NULL|)", "~nN\0"),
    "bool": (r"(true|True|TRUE|false|False|FALSE)", "tTfF"),
    "int": (r"[-+]?(0|[1-9][0-9_]*)", "-+0123456789"),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
}
"""What plain text is read as: the pattern, and the characters that it begins with."""
LEADING_ZERO = re.compile(r"[-+]?0([0-9_]+|[xob][0-9a-fA-F_]+)")
"""Numbers that readers of YAML read differently."""
TOO_SMALL = re.compile(r"[-+]?[0-9.]*[1-9][0-9.]*[eE]-[0-9]+")
"""Numbers that may be read as 0."""


class _RefusedError(Exception):
    """Something that is YAML, but is not read here."""


class _Loader(yaml.SafeLoader):
    """Reads the part of YAML that options need."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse what is not plain, before it is made."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _RefusedError(f"line {line} has an anchor or alias, expected plain values")
        if getattr(event, "tag", None) is not None:
            raise _RefusedError(f"line {line} has a tag, !, expected plain values")
        if self.depth >= DEEPEST:
            raise _RefusedError(f"line {line} is more than {DEEPEST} sections deep")
        self.depth += 1
        node: Any = super().compose_node(parent, index)
        self.depth -= 1
        plain = isinstance(node, yaml.ScalarNode) and node.style is None
        if plain and LEADING_ZERO.fullmatch(node.value):
            raise _RefusedError(f"line {line} has a number that begins with 0, {shown(node.value)}")
        if plain and TOO_SMALL.fullmatch(node.value) and float(node.value) == 0:
            raise _RefusedError(f"line {line} has a number that is too small, {shown(node.value)}")
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Refuse a name that appears twice, or is not text."""
        found: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise _RefusedError(f"line {line} has {shown(key)} for the name of an option")
            if key in found:
                raise _RefusedError(f"line {line} gives {shown(key)} a second time")
            found[key] = self.construct_object(value_node, deep=True)
        return found


class _Dumper(yaml.SafeDumper):
    """Writes what :class:`_Loader` reads: text that looks like a number is put in quotes."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write everything out."""
        return True


_Loader.yaml_implicit_resolvers = {}
for _tag, (_pattern, _first) in CORE.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_tag}",
            re.compile(f"(?:{_pattern})$"),
            [*_first.replace("\0", ""), *([""] if "\0" in _first else [])],
        )


def parse_yaml(text: str, where: str) -> Any:
    """Read one YAML value; an error names ``where``.

    Raises
    ------
    InputError
        If the text is not YAML, or has what is not read here.
    """
    try:
        return yaml.load(text, _Loader)
    except _RefusedError as refused:
        raise InputError(f"{where}: {refused}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f"line {mark.line + 1} is "
        raise InputError(f"{where}: {line}not readable as YAML") from None
    except (yaml.YAMLError, ValueError, RecursionError):  # a broken letter, a very long number
        raise InputError(f"{where}: not readable as YAML") from None


def dump_yaml(values: dict[str, Any]) -> str:
    """Write values as YAML that :func:`parse_yaml` and other readers read alike."""
    return str(yaml.dump(values, Dumper=_Dumper, sort_keys=False))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a configuration file (a mapping) without running anything that it contains."""
    if not path.exists():
        raise InputError(f"{path}: no such configuration file")
    values = parse_yaml(read_text(path, "YAML", LARGEST), str(path))
    if not isinstance(values, dict):
        found = {list: "a list", str: "text", type(None): "empty"}.get(type(values), "one value")
        raise InputError.of(path, "the file", found, "a mapping of options")
    return values

"""Messages about wrong values of a configuration, in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BOUNDS = {
    "greater_than_equal": ("ge", "{:g} or more"),
    "greater_than": ("gt", "more than {:g}"),
    "less_than_equal": ("le", "{:g} or less"),
    "less_than": ("lt", "less than {:g}"),
    "multiple_of": ("multiple_of", "a multiple of {:g}"),
}
KINDS = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "number": "a number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list of numbers",
    "model": "a section of options",
    "dict": "a section of options",
}
"""By the first word of the error's type."""


def expectation(error: Mapping[str, Any]) -> str:
    """Say what was expected, from the type and context of one error of validation."""
    kind, context = str(error["type"]), error.get("ctx", {})
    if kind in BOUNDS:
        name, words = BOUNDS[kind]
        bound = context[name]
        return (
            words.replace(":g", "").format(bound) if isinstance(bound, int) else words.format(bound)
        )
    if kind == "literal_error":
        return f"one of {context['expected']}".replace(" or ", ", ")
    if kind == "union_tag_invalid":
        return f"one of {context['expected_tags']}".replace(", 'of another package'", "")
    if kind in ("too_short", "too_long"):
        length = context.get("min_length", context.get("max_length"))
        return f"a list of {length} or {'more' if kind == 'too_short' else 'fewer'}"
    if kind == "missing":
        return "a list with one more entry"
    if kind == "value_error":
        return str(context["error"])
    return KINDS.get(kind.split("_")[0], "another value")

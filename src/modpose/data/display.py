"""Facts about images and runs, as a notebook shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modpose.data.stack import Stack


def stack_facts(stack: Stack) -> dict[str, str]:
    """Return number, box, pixel size and type of the images of a stack."""
    size = stack.pixel_size
    facts = {
        "images" if len(stack.shape) == 2 else "volumes": f"{stack.n:,}",
        "box": " x ".join(str(side) for side in stack.shape) + " px",
        "pixel size": "unknown" if size is None else f"{size:.4g} A",
        "type": stack.dtype.name,
    }
    if stack.channels > 1:
        facts["channels"] = str(stack.channels)
    return facts


def html_facts(title: str, facts: Mapping[str, str], problems: Sequence[str] = ()) -> str:
    """Write a table of names and values, under a title; any text is safe in it."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th>"
        f"<td style='text-align:left'>{escape(value)}</td></tr>"
        for name, value in facts.items()
    )
    notes = "".join(f"<li>{escape(problem)}</li>" for problem in problems)
    listed = f"<ul>{notes}</ul>" if notes else ""
    return f"<div><strong>{escape(title)}</strong><table>{rows}</table>{listed}</div>"

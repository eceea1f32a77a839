"""The page: sections with figures and captions, in one file without external resources."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modpose.plot import surface

if TYPE_CHECKING:
    from matplotlib.figure import Figure


SCRIPTS = ("vendor/hammer.js", "vendor/chart.js", "vendor/zoom.js", "scatter.js")
"""Scripts of an interactive page, in the order in which they are needed.

vendor/LICENSES.md names the plotting library."""
PAGE_QUALITY = 80
"""Quality of the WebP pictures in the page; the PNG beside it is exact."""


def data_uri(kind: str, content: bytes) -> str:
    """Write a picture as the address that a page uses instead of a file."""
    return f"data:image/{kind};base64," + base64.b64encode(content).decode()


def module_uri(path: Path) -> str:
    """Write a module of JavaScript as the address that a page imports it from."""
    return f"data:text/javascript;base64,{base64.b64encode(path.read_bytes()).decode()}"


@dataclass(frozen=True)
class Picture:
    """A figure of a section: its file name in the report folder, what it shows, its PNG."""

    name: str
    alt: str
    png: bytes
    width: float
    """Natural width on the page, CSS pixels."""

    @classmethod
    def of(cls, figure: Figure, name: str, alt: str) -> Picture:
        """Draw ``figure`` into a PNG."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", facecolor="white")
        return cls(name, alt, buffer.getvalue(), float(figure.get_figwidth()) * 104)

    @property
    def uri(self) -> str:
        """The picture as a data URI, compressed for the page."""
        from PIL import Image

        buffer = io.BytesIO()
        with Image.open(io.BytesIO(self.png)) as picture:
            picture.convert("RGB").save(buffer, "WEBP", quality=PAGE_QUALITY)
        return data_uri("webp", buffer.getvalue())


@dataclass(frozen=True)
class Section:
    """A titled part of the page.

    ``caption`` describes the figure, ``good`` and ``bad`` what to look for.  ``table`` has one
    tuple of texts per row, under ``header``.  ``scatter`` comes from
    :func:`modpose.plot.scatter.interactive`, ``surfaces`` from
    :func:`modpose.plot.surface.turning`.
    """

    anchor: str
    title: str
    caption: str
    good: str = ""
    bad: str = ""
    pictures: list[Picture] = field(default_factory=list)
    header: tuple[str, ...] = ()
    table: list[tuple[str, ...]] = field(default_factory=list)
    scatter: dict[str, Any] | None = None
    surfaces: dict[str, Any] | None = None


def render(
    title: str,
    subtitle: str,
    facts: list[tuple[str, str]],
    notes: list[str],
    sections: list[Section],
) -> str:
    """Fill the template; the page contains the libraries that a scatter or surfaces need."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    interactive = any(section.scatter for section in sections)
    turned = any(section.surfaces for section in sections)
    modules = {name: module_uri(path) for name, path in surface.MODULES.items()} if turned else {}
    loader = PackageLoader("modpose.report", ".")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["script_json"] = script_json
    return environment.get_template("template.html.j2").render(
        title=title,
        subtitle=subtitle,
        facts=facts,
        notes=notes,
        sections=sections,
        modules=modules,
        turn=loader.get_source(environment, "turn.js")[0] if turned else "",
        scripts=[loader.get_source(environment, name)[0] for name in SCRIPTS if interactive],
    )


def script_json(value: Any) -> str:
    """Write JSON that is safe inside a script element for any text."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text

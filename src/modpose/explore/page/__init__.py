"""The files of the page: HTML, style, modules of JavaScript, and a vendored component."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from modpose.plot import surface
from modpose.plot.html import module_uri

HERE = Path(__file__).parent
CONTENT_TYPES = {"js": "text/javascript", "css": "text/css"}
VENDORED = "vendor/regl-scatterplot.js"


@cache
def files() -> dict[str, Path]:
    """Files that the page may ask for, by name."""
    names = [path.name for path in HERE.iterdir() if path.suffix[1:] in CONTENT_TYPES]
    own = {name: HERE / name for name in (*sorted(names), VENDORED)}
    return own | {path.name: path for path in surface.MODULES.values()}


def served_file(name: str) -> bytes | None:
    """Return the content of a file of the page; None if it has no such file."""
    path = files().get(name)
    return None if path is None else path.read_bytes()


def modules() -> dict[str, str]:
    """Name the modules as they import each other: ``explore/NAME`` to the name of the file.

    Those that draw a surface have the names of :data:`modpose.plot.surface.MODULES`.
    """
    of_surface = {name: path.name for name, path in surface.MODULES.items()}
    scripts = [name for name in files() if name.endswith(".js")]
    own = [name for name in scripts if name not in of_surface.values()]
    return {f"explore/{Path(name).stem}": name for name in own} | of_surface


SERVED = ("source.js", *(path.name for path in surface.MODULES.values()))
OFFLINE = "folder.js"
"""Modules that need the server, and the one that reads from a folder instead."""


def html(nonce: str) -> str:
    """Return the page as the server gives it; the nonce allows its one inline script."""
    served = {name: file for name, file in modules().items() if file != OFFLINE}
    addresses = {name: f"./page/{file}" for name, file in served.items()}
    head = (
        '<link rel="stylesheet" href="page/style.css">\n'
        f'<script type="importmap" nonce="{nonce}">{json.dumps({"imports": addresses})}</script>\n'
        '<script type="module" src="page/start.js"></script>'
    )
    return (HERE / "index.html").read_text(encoding="utf-8").replace("<!-- head -->", head)


def offline_html(about: str) -> str:
    """Return the page that needs no server, with its modules inside.

    Parameters
    ----------
    about
        What :file:`folder.js` reads, as JSON.
    """
    addresses = {
        name: module_uri(files()[file]) for name, file in modules().items() if file not in SERVED
    }
    addresses["explore/source"] = addresses.pop("explore/folder")
    inline = about.replace("</", "<\\/")  # so that no text of it ends the script
    style = files()["style.css"].read_text(encoding="utf-8")
    head = (
        f"<style>{style}</style>\n"
        f'<script type="importmap">{json.dumps({"imports": addresses})}</script>\n'
        f"<script>window.MODPOSE = {inline};</script>\n"
        '<script type="module">import "explore/start";</script>'
    )
    return (HERE / "index.html").read_text(encoding="utf-8").replace("<!-- head -->", head)

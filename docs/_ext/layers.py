"""Directive ``{layers}``: the parts of the package and their imports, drawn from the source."""

from __future__ import annotations

import sys
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).parents[2]))

from tools.layers import drawn, imports


class Layers(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", drawn(list(imports())), format="html")]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("layers", Layers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

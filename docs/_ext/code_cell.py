"""Cells of the tutorials, which are notebooks too: shown as code, run by make notebooks."""

from __future__ import annotations

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

BASH = "%%bash"


class CodeCell(Directive):
    """``code-cell``: shell commands after ``%%bash``, else Python."""

    has_content = True
    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        lines = list(self.content)
        shell = bool(lines) and lines[0] == BASH
        text = "\n".join(lines[1:] if shell else lines)
        block = nodes.literal_block(text, text)
        block["language"] = "bash" if shell else "python"
        return [block]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("code-cell", CodeCell)
    return {"parallel_read_safe": True}

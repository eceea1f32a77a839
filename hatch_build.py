"""The README as a package index shows it: pictures and links lead to the repository."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(!?)(\[[^\]]*\]\()(?!https?:|#)([^)]+)\)")


class ReadmeHook(MetadataHookInterface):
    """Give the README with whole addresses; the file itself keeps paths of the repository."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the README to the metadata."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        home = metadata["urls"]["Repository"]

        def whole(found: re.Match[str]) -> str:
            picture, label, path = found.groups()
            return f"{picture}{label}{home}/{'raw' if picture else 'blob'}/main/{path})"

        readme = {"content-type": "text/markdown", "text": LINK.sub(whole, text)}
        metadata["readme"] = readme

"""Open a run for a command that needs every image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from modpose.cli.lazily import lazily

with lazily():
    from modpose import fit as fits
    from modpose import run as runs

if TYPE_CHECKING:
    from modpose.run import Run


def whole_run(path: Path, moved: str | None = None, datadir: Path | None = None) -> Run:
    """Open a run; if only a sample of its images is encoded, encode the rest first."""
    opened = runs.Run.open(path, input=moved, datadir=datadir)
    return fits.whole_run(path, input=moved, datadir=datadir) if opened.partial else opened

"""Start a command again in several processes, for ``--devices``."""

from __future__ import annotations

import sys

import typer

from modpose.cli.lazily import lazily

with lazily():
    from modpose import ranks


def launched(devices: int | None) -> bool:
    """Run this command in as many processes, unless this is one of them; return whether it ran."""
    if devices is None or devices == 1 or ranks.place().size > 1:
        return False
    code = ranks.launch([sys.executable, "-m", "modpose", *sys.argv[1:]], devices)
    if code:
        raise typer.Exit(code)
    return True

"""Start a command again in several processes, for ``--devices`` and ``--nodes``."""

from __future__ import annotations

import sys

import typer

from modpose.cli.lazily import lazily
from modpose.errors import InputError

with lazily():
    from modpose import processes, ranks


def launched(devices: int | None, nodes: int | None) -> bool:
    """Run this command in as many processes, unless this is one of them; return whether it ran."""
    wanted = (devices or 1) * (nodes or 1)
    size = ranks.place().size
    if size > 1:
        if wanted not in (1, size):
            raise InputError.of(
                "--devices",
                "the number of processes of all nodes",
                wanted,
                f"{size}, as torchrun or srun has started",
            )
        return False
    if wanted == 1:
        return False
    command = [sys.executable, "-m", "modpose", *sys.argv[1:]]
    code = processes.launch(command, devices or 1, nodes or 1)
    if code:
        raise typer.Exit(code)
    return True

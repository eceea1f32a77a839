"""How the folder of a run is known at a glance."""

from __future__ import annotations

from pathlib import Path

MARKER = "modpose-run.json"
"""File that marks the folder of a run."""


def looks_like_run(folder: Path) -> bool:
    """Tell by the names of its files whether a folder is a run, of this version or of 0.1."""
    old = ("config.yaml", "environment.json", "checkpoints")
    return (folder / MARKER).is_file() or all((folder / name).exists() for name in old)

"""How the folder of a run is known."""

from __future__ import annotations

import json
import re
from pathlib import Path

from modpose.errors import InputError
from modpose.files.text import read_text

MARKER = "modpose-run.json"
"""File that marks the folder of a run."""


def is_run(folder: Path) -> bool:
    """Tell whether a folder is a run: by its marker, else by what the files of version 0.1 hold."""
    if (folder / MARKER).is_file():
        return True
    config, environment = folder / "config.yaml", folder / "environment.json"
    if not (config.is_file() and environment.is_file()):
        return False
    try:
        sections = re.findall(r"^(\w+):", read_text(config, "YAML"), re.MULTILINE)
        values = json.loads(read_text(environment, "JSON"))
    except (InputError, ValueError, RecursionError):
        return False
    return {"recipe", "model", "train"} <= set(sections) and "modpose" in values

"""The files in ``RUN/report`` that modpose wrote: only these are ever deleted."""

from __future__ import annotations

import base64
import json
from pathlib import Path

PAGE = "index.html"
MANIFEST = ".files.json"
"""Lists the files of a report, a name each."""


def files_of_report(folder: Path) -> list[Path] | None:
    """Name the files in a folder that a report wrote, its list among them.

    Returns
    -------
    None if the folder holds no report of modpose.  A report without a list is of an older
    version: its page, and the pictures that the page shows.
    """
    listed = folder / MANIFEST
    if listed.is_file():
        return [folder / name for name in (*_names(listed), MANIFEST)]
    try:
        page = (folder / PAGE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    if "modpose" not in page:
        return None
    pictures = (path for path in folder.glob("*.png") if path.is_file())
    shown = (p for p in pictures if base64.b64encode(p.read_bytes()).decode() in page)
    return [folder / PAGE, *shown]


def manifest(names: list[str]) -> str:
    """Return the text of the list for files of these names."""
    return json.dumps({"program": "modpose", "files": names}, indent=1) + "\n"


def _names(listed: Path) -> list[str]:
    """Read the list; what is not the name of a file beside it counts for nothing."""
    try:
        values = json.loads(listed.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    names = values.get("files") if isinstance(values, dict) else None
    listing = names if isinstance(names, list) else []
    return [n for n in listing if isinstance(n, str) and n not in ("", "..") and Path(n).name == n]

"""Options of the shards of an alignment, kept in a file so that ``modpose merge`` finds them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from modpose.cli.lazily import lazily
from modpose.errors import InputError

with lazily():
    from modpose.files import writing
    from modpose.search import folder as folders

NAME = "options.json"
PATHS = ("out", "ctf", "tomograms", "datadir", "index")
NOT_KEPT = ("shard", "wait", "device", "devices", "nodes", "overwrite", "resume")


def record(context: typer.Context, out: Path) -> None:
    """Write the options of ``align``."""
    kept = {name: value for name, value in context.params.items() if name not in NOT_KEPT}
    number = context.params["shard"].split("/")[1]
    text = json.dumps({"from": str(Path.cwd()), "of": number, "options": kept}, default=str)
    path = out / folders.SHARDS / NAME
    writing.replace_atomically(path, lambda file: file.write(text.encode()), overwrite=True)


def recorded(out: Path, expected: set[str]) -> dict[str, Any]:
    """Read the options of the names ``expected``, for the process that adds up.

    Raises
    ------
    InputError
        If there are none, or this is another folder than that of the shards.
    """
    path = out / folders.SHARDS / NAME
    if not path.is_file():
        raise InputError(f"{out}: there are no shards to merge (no {folders.SHARDS}/{NAME})")
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        place, number, options = known["from"], known["of"], dict(known["options"])
        if set(options) != expected.difference(NOT_KEPT):
            raise ValueError("options of another command")
        for name in PATHS:
            options[name] = None if options[name] is None else Path(options[name])
        here = Path(place).is_dir() and Path(place).samefile(Path.cwd())
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise InputError(
            f"{path}: damaged, expected what a shard writes; start one again"
        ) from None
    if not here:
        raise InputError.of(
            "merge", "the folder", str(Path.cwd()), f"{place}, where the shards ran"
        )
    return options | {"out": out, "shard": f"0/{number}"}

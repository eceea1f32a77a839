"""All formats that are damaged."""

from __future__ import annotations

from tests.fuzz import binary, chunks, containers, tables
from tests.fuzz.judge import Format


def every() -> list[Format]:
    """Return the formats, in the order of the counts."""
    return [*binary.formats(), *containers.formats(), *chunks.formats(), *tables.formats()]

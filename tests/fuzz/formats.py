"""All formats that are damaged."""

from __future__ import annotations

from tests.fuzz import binary, chunks, containers, instruments, tables, texts
from tests.fuzz.judge import Format


def every() -> list[Format]:
    """Return the formats, in the order of the counts."""
    damaged = [*binary.formats(), *containers.formats(), *chunks.formats(), *instruments.formats()]
    return [*damaged, *tables.formats(), *texts.formats()]

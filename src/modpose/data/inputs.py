"""The input files of images, which no output may replace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from modpose.data.source import Source


def files_of_source(source: Source, *others: Path | None) -> Iterator[Path]:
    """Yield the table, the files of the images, and related files."""
    if source.path is not None:
        yield source.path
    yield from source.others
    yield from source.stack.files()
    yield from (path for path in others if path is not None)

"""The page of an experiment: Markdown with tables (also CSV) and figures (PNG) beside it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modpose.files.writing import replace_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, str | int | float | None]


@dataclass(frozen=True)
class Section:
    """A titled part: blocks of Markdown in order."""

    title: str
    blocks: Sequence[str]


class Page:
    """Writes what an experiment found into its folder.

    Parameters
    ----------
    folder
        Gets ``index.md``, ``sections/*.md``, ``tables/*.csv`` and ``figures/*.png``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("tables", "figures", "sections"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def table(
        self, name: str, caption: str, rows: Sequence[Row], digits: Mapping[str, int] | None = None
    ) -> str:
        """Write ``tables/NAME.csv`` in full precision and return the table as Markdown.

        Parameters
        ----------
        name
            Of the file.
        caption
            What the table shows.
        rows
            Column name to value; None is an empty cell.  The first row has every column.
        digits
            Decimals of a column on the page; 1 by default.
        """
        columns = list(rows[0])
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        writer.writerows(rows)
        self._write(f"tables/{name}.csv", text.getvalue().encode())
        decimals = digits or {}
        cells = [[_cell(row[c], decimals.get(c, 1)) for c in columns] for row in rows]
        lines = [f"**{caption}** ([CSV](tables/{name}.csv))", "", _line(columns)]
        right = [any(isinstance(row[c], int | float) for row in rows) for c in columns]
        lines.append(_line(["---:" if number else "---" for number in right]))
        return "\n".join([*lines, *map(_line, cells)])

    def figure(self, name: str, figure: Figure, caption: str) -> str:
        """Write ``figures/NAME.png`` and return Markdown that shows it."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", facecolor="white")
        self._write(f"figures/{name}.png", buffer.getvalue())
        return f"![{caption}](figures/{name}.png)\n\n*{caption}*"

    def keep(self, name: str, section: Section) -> None:
        """Write ``sections/NAME.md``, for :meth:`write`, now or when the rest is done."""
        blocks = [f"## {section.title}", *section.blocks]
        self._write(f"sections/{name}.md", "\n\n".join(blocks).encode())

    def write(self, title: str, introduction: Sequence[str], order: Sequence[str]) -> Path:
        """Write ``index.md`` from the sections that were kept, in order; return its path."""
        paths = [self.folder / "sections" / f"{name}.md" for name in order]
        sections = [path.read_text() for path in paths if path.is_file()]
        text = "\n\n".join([f"# {title}", *introduction, *sections]) + "\n"
        return self._write("index.md", text.encode())

    def _write(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        replace_atomically(path, lambda file: file.write(content), overwrite=True)
        return path


def _cell(value: str | int | float | None, decimals: int) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.{decimals}f}".replace("-", "−")
    return str(value)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

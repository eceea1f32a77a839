"""Reading STAR files: blocks of single values or of one table each.

This is the part of STAR that RELION writes.  Constructs that programs read differently are refused:
rows of another length, quotation marks within a word, a second loop in a block.
"""

from __future__ import annotations

import csv
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from modpose.data.cistem import is_cistem, with_relion_columns
from modpose.data.plain_rows import read_plain_rows
from modpose.errors import InputError, shown
from modpose.files.text import read_utf8, whole_number

if TYPE_CHECKING:
    import pandas as pd

StarBlocks = dict[str, "pd.DataFrame | dict[str, Any]"]
"""Block name to a table (a loop) or to single values."""

TEXT_TAG = re.compile(r"(Name|File|Image|Label|Half[12])$")
"""Tags with text values, even if they look like numbers."""
TAG_LINE = re.compile(r"_(\S+)(?:[ \t]+(?:#.*|\d+))?")
TOKEN = re.compile(r"\"[^\"]*\"(?=[ \t]|$)|'[^']*'(?=[ \t]|$)|[^ \t]+")
MISSING = ["nan", "NaN", "<NA>"]
LINE_OF_BLOCK = re.compile(rb"\n[ \t]*(data_[^\n]*)")
LINE_OUT_OF_PLACE = re.compile(rb"\n[ \t]*(?:_|loop_[ \t]*(?=\n|$))")
CHUNK = 1 << 24
"""Bytes that are checked per step."""


def read_star(path: Path) -> StarBlocks:
    """Read every block of a STAR file; a table of cisTEM gets RELION's columns as well.

    Raises
    ------
    InputError
        If the file is not a STAR file, or a row, tag or block is malformed; the message names the
        line.
    """
    blocks = _Reader(path).blocks()
    for name, block in blocks.items():
        if not isinstance(block, dict) and is_cistem(block):
            blocks[name] = with_relion_columns(block, str(path))
    return blocks


class _Reader:
    """Reads a file: blocks and tags line by line, rows in large pieces."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content = read_utf8(path, "STAR")
        self.position = 0
        self.line_number = 0

    def blocks(self) -> StarBlocks:
        found: StarBlocks = {}
        names: set[str] = set()
        line = self._next()
        while line is not None:
            if not line.startswith("data_"):
                raise self._misplaced(line, "a block (data_...)")
            name = line[5:]
            if name in names:
                raise InputError(f"{self._here()}: the block {_cut(line)} already exists")
            names.add(name)
            content, line = self._block(line)
            if len(content) or not isinstance(content, dict):  # an empty block
                found[name] = content
        if not names:
            raise InputError(f"{self.path}: not readable as STAR (it has no block data_...)")
        return found

    def _block(self, block: str) -> tuple[pd.DataFrame | dict[str, Any], str | None]:
        """Read a block; return it and the line after it."""
        values: dict[str, Any] = {}
        line = self._next()
        while line is not None and not line.startswith("data_"):
            if line == "loop_":
                if values:
                    raise self._second_loop(block)
                return self._loop(block)
            if not line.startswith("_"):
                raise self._misplaced(line, "a _tag and its value" if values else "loop_ or a _tag")
            tag, value = self._single(line)
            if tag in values:
                raise self._twice(tag, block)
            values[tag] = value
            line = self._next()
        return values, line

    def _single(self, line: str) -> tuple[str, Any]:
        try:
            words = shlex.split(line)
        except ValueError:  # a quotation mark that is not closed
            words = []
        if len(words) != 2 or len(words[0]) < 2 or words[1].startswith("#"):
            raise self._misplaced(line, "a _tag and its value")
        tag, text = words[0][1:], words[1]
        return tag, text if TEXT_TAG.search(tag) else _number(text)

    def _loop(self, block: str) -> tuple[pd.DataFrame, str | None]:
        tags: list[str] = []
        start, line = self.position, self._next()
        while line is not None and line.startswith("_"):
            match = TAG_LINE.fullmatch(line)
            if match is None:
                raise self._misplaced(line, "one _tag a line")
            if match[1] in tags:
                raise self._twice(match[1], block)
            tags.append(match[1])
            start, line = self.position, self._next()
        if not tags:
            raise self._misplaced(line or "", "a _tag")
        if line is None or (line.startswith("data_") and not _is_row(line, len(tags))):
            return _no_rows(tags), line
        end = self._end_of_rows(len(tags))
        rows = _Rows(self, block, tags, start, end)
        table = rows.table()
        self.line_number = self.line_at(end) - 1
        self.position = end
        return table, self._next()

    def _end_of_rows(self, columns: int) -> int:
        """Find the next line that begins a block; rows may begin with ``data_`` too."""
        for match in LINE_OF_BLOCK.finditer(self.content, self.position - 1):
            if not _is_row(match[1].decode(), columns):
                return match.start() + 1
        return len(self.content)

    def _next(self) -> str | None:
        """Return the next line that is neither blank nor a comment; None at the end."""
        while self.position < len(self.content):
            end = self.content.find(b"\n", self.position)
            end = len(self.content) if end < 0 else end
            line = self.content[self.position : end].strip(b" \t")
            self.position = end + 1
            self.line_number += 1
            if line and not line.startswith(b"#"):
                if not line.decode().replace("\t", " ").isprintable():
                    raise InputError(f"{self._here()}: a character cannot be printed")
                return line.decode()
        return None

    def line_at(self, position: int) -> int:
        return self.content.count(b"\n", 0, position) + 1

    def _here(self) -> str:
        return f"{self.path}: line {self.line_number}"

    def _misplaced(self, line: str, expected: str) -> InputError:
        return InputError.of(self._here(), "the text", shown(line[:40]), expected)

    def _second_loop(self, block: str) -> InputError:
        return InputError(f"{self._here()}: {_cut(block)} has a second loop_, expected one")

    def _twice(self, tag: str, block: str) -> InputError:
        return InputError(f"{self._here()}: the column {_cut(tag)} is in {_cut(block)} twice")


class _Rows:
    """The rows of a loop: bytes ``start`` to ``end`` of a file."""

    def __init__(self, reader: _Reader, block: str, tags: list[str], start: int, end: int) -> None:
        self.reader, self.block, self.tags = reader, block, tags
        self.start, self.end = start, end
        self.content = memoryview(reader.content)[start:end]

    def table(self) -> pd.DataFrame:
        match = LINE_OUT_OF_PLACE.search(self.reader.content, self.start - 1, self.end)
        if match is not None:
            where = self._where(self.reader.line_at(match.start() + 1))
            if match[0].strip().startswith(b"loop_"):
                raise InputError(f"{where}: {_cut(self.block)} has a second loop_, expected one")
            raise InputError(f"{where}: a row begins with _, expected a value (in quotation marks)")
        table = None
        marks = (self.reader.content.find(mark, self.start, self.end) for mark in b"\"'#")
        if max(marks) < 0:
            table = self._plain()
        if table is None:
            table = self._word_by_word()
        table.columns = self.tags
        for name in self.tags:
            if not TEXT_TAG.search(name):
                table[name] = _numbers(table[name])
        return table

    def _plain(self) -> pd.DataFrame | None:
        """Read rows without quotation marks and comments; None if their lengths differ."""
        import pandas as pd

        words = _count_words(self.content)
        if words is None or words % len(self.tags):
            return None
        text = [bool(TEXT_TAG.search(tag)) for tag in self.tags]
        read = read_plain_rows(self.reader.content, self.start, self.end, text, MISSING)
        if read is not None:
            return read if len(read) * len(self.tags) == words else None
        try:
            table = self._parsed(self._file(), sep=r"\s+", quoting=csv.QUOTE_NONE)
        except pd.errors.ParserError:
            return None
        whole = table.shape[1] == len(self.tags) and len(table) * len(self.tags) == words
        return table if whole else None

    def _file(self) -> io.BytesIO:
        """Open the rows; without a copy if they continue to the end of the file."""
        if self.end < len(self.reader.content):
            return io.BytesIO(self.content)
        file = io.BytesIO(self.reader.content)
        file.seek(self.start)
        return file

    def _word_by_word(self) -> pd.DataFrame:
        text = io.StringIO()
        writer = csv.writer(text, quoting=csv.QUOTE_ALL)
        for line, words in self._lines():
            if len(words) != len(self.tags):
                raise InputError(
                    f"{self._where(line)}: a row of {_cut(self.block)} has {len(words)} values, "
                    f"expected {len(self.tags)}, one per column"
                )
            writer.writerow(words)
        file = io.BytesIO(text.getvalue().encode())
        return self._parsed(file, sep=",", quoting=csv.QUOTE_ALL)

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the number and the words of each line that is not empty."""
        first = self.reader.line_at(self.start)
        for i, line in enumerate(bytes(self.content).decode().split("\n")):
            if not line.replace("\t", " ").isprintable():
                raise InputError(f"{self._where(first + i)}: a character cannot be printed")
            words = []
            for word in TOKEN.findall(line):
                if word.startswith("#"):
                    break
                quoted = len(word) > 1 and word[0] in "\"'" and word[-1] == word[0]
                bare = word[1:-1] if quoted else word
                if not quoted and ("'" in word or '"' in word):
                    raise InputError(
                        f"{self._where(first + i)}: the word {shown(word)} has a quotation mark "
                        "within it, expected one at each end or none"
                    )
                words.append(bare)
            if words:
                yield first + i, words

    def _parsed(self, file: io.BytesIO, sep: str, quoting: Literal[1, 3]) -> pd.DataFrame:
        import pandas as pd

        return pd.read_csv(
            file,
            sep=sep,
            quoting=quoting,
            header=None,
            dtype={i: str for i, tag in enumerate(self.tags) if TEXT_TAG.search(tag)},
            keep_default_na=False,
            na_values=MISSING,
            low_memory=False,
        )

    def _where(self, line: int) -> str:
        return f"{self.reader.path}: line {line}"


def _is_row(line: str, columns: int) -> bool:
    return columns > 1 and len(line.split()) > 1


def _no_rows(tags: list[str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(np.zeros((0, len(tags))), columns=tags)


def _count_words(content: memoryview) -> int | None:
    """Count the words of rows; None if a character is not allowed in a row."""
    count, before = 0, True
    for start in range(0, len(content), CHUNK):
        values = np.frombuffer(content[start : start + CHUNK], np.uint8)
        blank = values <= 32
        if (blank & (values != 32) & (values != 9) & (values != 10)).any() or 127 in values:
            return None
        count += int(np.count_nonzero(blank[:-1] & ~blank[1:])) + (before and not blank[0])
        before = bool(blank[-1])
    return count


def _numbers(column: pd.Series[Any]) -> pd.Series[Any]:
    """Convert a column to numbers if all its values are numbers."""
    import pandas as pd

    if column.dtype.kind in "iufb":
        return column
    if column.dtype == object:  # for example whole numbers of more than 64 bits
        column = column.map(lambda value: value if isinstance(value, str | float) else str(value))
    try:
        numbers = pd.to_numeric(column)
    except (ValueError, TypeError, OverflowError):
        return column
    return numbers if numbers.dtype.kind in "iuf" and not numbers.isna().all() else column


def _number(text: str) -> int | float | str:
    whole = whole_number(text)
    if whole is not None:
        return whole
    try:
        return float(text)
    except ValueError:
        return text


def _cut(text: str) -> str:
    return shown(text)[1:-1]

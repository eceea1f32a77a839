"""Checks of PDB and mmCIF files before gemmi reads them.

gemmi would read part of a damaged file, or of misaligned lines of a PDB file, without an error.
"""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path

from modpose.errors import InputError, shown
from modpose.files.text import read_file

LARGEST = 1 << 30
"""Bytes of a file, unpacked."""
COORDINATE = re.compile(rb" *[+-]?(\d+\.\d*|\.\d+) *")
OPTIONAL = re.compile(rb" *([+-]?(\d+\.?\d*|\.\d+))? *")
WHOLE = re.compile(rb" *[+-]?[0-9A-Za-z]+ *")
COLUMNS = (
    ("the x coordinate", 30, 38, COORDINATE, "a number with a decimal point"),
    ("the y coordinate", 38, 46, COORDINATE, "a number with a decimal point"),
    ("the z coordinate", 46, 54, COORDINATE, "a number with a decimal point"),
    ("the occupancy", 54, 60, OPTIONAL, "a number"),
    ("the B factor", 60, 66, OPTIONAL, "a number or blanks"),
    ("the number of the residue", 22, 26, WHOLE, "a whole number"),
)
"""Columns of an atom in a PDB file: name, first, last, pattern, expectation in words."""


def check_coordinate_file(path: Path) -> None:
    """Refuse files that are not text, and PDB files with misaligned columns.

    Raises
    ------
    InputError
        If the file is damaged; the sentence names the line and the column.
    """
    names = [part.lower() for part in path.name.split(".")[1:]]
    content = _unpacked(path) if names and names[-1] == "gz" else read_file(path, KIND, LARGEST)
    if "cif" in names or "mmcif" in names:
        _check_text(path, content)
        return
    for number, line in enumerate(content.split(b"\n"), 1):
        line = line.rstrip(b"\r")
        if line[:6].upper().startswith((b"ATOM", b"HETATM")):
            _check_atom(path, number, line)
        elif not _is_plain(line):
            raise InputError(f"{path}: line {number} has characters that no PDB file has")


KIND = "coordinates, PDB or mmCIF"


def _check_atom(path: Path, number: int, line: bytes) -> None:
    if not _is_plain(line):
        raise InputError(f"{path}: line {number} has characters that no PDB file has")
    if not line.startswith((b"ATOM  ", b"HETATM")):
        found = shown(line[:6].decode("ascii"))
        raise InputError.of(path, f"the start of line {number}", found, "'ATOM  ' or 'HETATM'")
    for what, first, last, pattern, expected in COLUMNS:
        word = line[first:last]
        if what == "the occupancy" and not word.strip() and len(line.rstrip()) > last:
            word = b"-"  # it would be read as zero, and the atom left out
        if pattern.fullmatch(word) is None:
            where = f"{what} in line {number}"
            raise InputError.of(path, where, shown(word.decode("ascii").strip()), expected)


def _is_plain(line: bytes) -> bool:
    return line.isascii() and line.decode("ascii").replace("\t", " ").isprintable()


def _check_text(path: Path, content: bytes) -> None:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise InputError(f"{path}: not readable as {KIND} (it is not text)") from None
    if "\0" in text:
        raise InputError(f"{path}: not readable as {KIND} (it is not text)")


def _unpacked(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            content = file.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error):
        raise InputError(f"{path}: not readable as {KIND} (the gzip file is damaged)") from None
    if len(content) > LARGEST:
        found = f"over {LARGEST:,} bytes"
        raise InputError.of(path, "the unpacked size", found, "the coordinates of one molecule")
    return content

"""STAR files: tables of RELION 3.0, 3.1 and 5, read with sound errors and written whole.

Reading is starfile's; what it would misread silently (short rows, a second loop in a block, a
value that begins with ``data_``) is found or mended first.
"""

from __future__ import annotations

import linecache
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modpose.data.files import replace_atomically
from modpose.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

StarBlocks = dict[str, "pd.DataFrame | dict[str, Any]"]
"""Block name to a table (a loop) or to single values."""

TEXT_TAG = re.compile(r"(Name|File|Image|Label|Half[12])$")
"""Tags whose values are text even where they look like numbers."""
TOKEN = re.compile(r'"[^"]*"|\'[^\']*\'|\S+')


def read_star(path: Path) -> StarBlocks:
    """Read every block of a STAR file.

    Raises
    ------
    InputError
        Where the file is not a STAR file, or a row, tag or block is not as it should be; the
        sentence names the line.
    """
    import starfile

    lines = _read_lines(path)
    mended, text_tags = _check(path, lines)
    try:
        if mended is None:
            blocks = starfile.read(path, always_dict=True, parse_as_string=text_tags)
        else:
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder) / path.name
                copy.write_text("\n".join(mended) + "\n", encoding="utf-8")
                blocks = starfile.read(copy, always_dict=True, parse_as_string=text_tags)
    except (ValueError, TypeError, KeyError, IndexError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: not readable as STAR ({reason})") from None
    finally:
        linecache.clearcache()
    return dict(blocks)


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise InputError(f"{path}: not readable ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not readable as STAR (it is not text)") from None


def _check(path: Path, lines: list[str]) -> tuple[list[str] | None, list[str]]:
    """Check the structure; return mended lines (None if none was needed) and the text tags."""
    mended: list[str] | None = None
    tags: list[str] = []
    text_tags: set[str] = set()
    names: set[str] = set()
    block, state = "", "outside"  # outside, open (a block), tags or rows (of a loop), values
    begun = 0
    for i, raw in enumerate(lines):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        here = f"{path}: line {i + 1}"
        if _begins_block(line, state, tags):
            if state == "open":  # starfile would take the next block's contents for this one's
                mended = list(lines) if mended is None else mended
                mended[begun] = ""
            block, state, tags, begun = line, "open", [], i
            if block in names:
                raise InputError(f"{here}: the block {block} is there already")
            names.add(block)
        elif state == "outside":
            raise InputError.of(here, "the text", repr(line[:40]), "a block (data_...)")
        elif line == "loop_":
            if state != "open":
                raise InputError(f"{here}: {block} has a second loop_, expected one a block")
            state = "tags"
        elif line.startswith("_") and state != "rows":
            state = "tags" if state == "tags" else "values"
            tag = line.split()[0][1:]
            if tag in tags:
                raise InputError(f"{here}: the column {tag} is in {block} twice")
            tags.append(tag)
            if TEXT_TAG.search(tag):
                text_tags.add(tag)
        elif state == "open" or not tags:
            raise InputError.of(here, "the text", repr(line[:40]), "loop_ or a _tag")
        elif state == "values":
            raise InputError.of(here, "the text", repr(line[:40]), "a _tag and its value")
        else:
            state = "rows"
            fixed = _check_row(here, block, line, len(tags))
            if fixed is not None:
                mended = list(lines) if mended is None else mended
                mended[i] = fixed
    if not names:
        raise InputError(f"{path}: not readable as STAR (it has no block data_...)")
    return mended, sorted(text_tags)


def _begins_block(line: str, state: str, tags: list[str]) -> bool:
    if not line.startswith("data_"):
        return False
    in_loop = state in ("tags", "rows") and len(tags) > 1
    return not (in_loop and len(line.split()) > 1)


def _check_row(here: str, block: str, line: str, columns: int) -> str | None:
    """Check the number of values; return the row quoted anew where starfile would misread it."""
    simple = "#" not in line and '"' not in line and "'" not in line
    values = line.split() if simple else _tokens(line)
    if len(values) != columns:
        raise InputError(
            f"{here}: a row of {block} has {len(values)} values, expected {columns}, one a column"
        )
    if simple and not line.startswith("data_"):
        return None
    quoted = [v if v[0] in "\"'" else f'"{v}"' for v in values]
    return " ".join(quoted) if any("#" in v for v in values) or line.startswith("data_") else None


def _tokens(line: str) -> list[str]:
    values: list[str] = []
    for token in TOKEN.findall(line):
        if token.startswith("#"):
            break
        values.append(token)
    return values


# --- writing ----------------------------------------------------------------------------------


def write_star(
    path: Path,
    table: pd.DataFrame,
    optics: pd.DataFrame | None = None,
    overwrite: bool = False,
) -> None:
    """Write particles (and their optics groups) as RELION reads them.

    Column and row order are kept; numbers are written with six decimals where that is exact and
    with all their digits where it is not.

    Parameters
    ----------
    path
        Written whole or not at all.
    table
        One row a particle; becomes ``data_particles``.
    optics
        One row an optics group; becomes ``data_optics``.  Without it the file is one of RELION
        3.0, and no version is written: newer ones refuse a version without optics groups.
    overwrite
        Replace a file that is there.
    """
    blocks = {"particles": table} if optics is None else {"optics": optics, "particles": table}
    version = "" if optics is None else VERSION
    text = "".join(_loop(name, block, version) for name, block in blocks.items())
    replace_atomically(path, lambda file: file.write(text.encode()), overwrite)


VERSION = "\n# version 30001\n"


def _loop(name: str, table: pd.DataFrame, version: str) -> str:
    head = [f"{version}\ndata_{name}\n\nloop_"]
    head += [f"_{column} #{i}" for i, column in enumerate(table.columns, 1)]
    columns = [_column(table.iloc[:, i].tolist()) for i in range(table.shape[1])]
    rows = [" ".join(row) for row in zip(*columns, strict=True)]
    return "\n".join([*head, *rows]) + "\n\n"


def _column(values: list[Any]) -> list[str]:
    texts = [_value(value) for value in values]
    width = max((len(text) for text in texts), default=0)
    return [text.rjust(width) for text in texts]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        short = f"{value:.6f}"
        return short if float(short) == value else repr(float(value))
    text = "nan" if value is None else str(value)
    if not text or re.search(r"\s|#|^data_|^_|^['\"]", text):
        return f"'{text}'" if '"' in text else f'"{text}"'
    return text


# --- what kind of STAR file -------------------------------------------------------------------

KINDS: list[tuple[str, str, str]] = [
    ("model_general", "", "a RELION model (references and spectra of a refinement)"),
    ("joboptions_values", "", "the options of a RELION job"),
    ("job", "", "the options of a RELION job"),
    ("sampling_general", "", "a RELION angular sampling"),
    ("stopgap_motivelist", "", "a STOPGAP motive list (positions and poses in tomograms)"),
    ("fsc", "rlnFourierShellCorrelationCorrected", "a RELION post-processing result (FSC)"),
    ("", "rlnMtfValue", "the MTF curve of a detector"),
    ("", "rlnTomoParticlesFile", "a RELION optimisation set (names a particles file)"),
    ("", "rlnTomoNominalStageTiltAngle", "a RELION tilt series"),
    ("global", "rlnTomoName", "a RELION list of tomograms"),
    ("", "rlnMicrographMovieName", "a RELION list of movies"),
    ("", "rlnCoordinateX", "a list of coordinates without images"),
    ("", "rlnMicrographName", "a RELION list of micrographs"),
]
"""Block, column, what a file with both is."""


def columns_of(block: pd.DataFrame | dict[str, Any]) -> list[str]:
    """Name the columns of a table or the tags of single values."""
    return [str(tag) for tag in (block if isinstance(block, dict) else block.columns)]


def particle_blocks(blocks: StarBlocks) -> list[str]:
    """Name the blocks that list particle images."""
    named = [n for n, b in blocks.items() if "rlnImageName" in columns_of(b)]
    return ["particles"] if "particles" in named else named


def other_kind(blocks: StarBlocks) -> str:
    """Say what a STAR file without particle images is."""
    for block, column, meaning in KINDS:
        for name, content in blocks.items():
            if (not block or name == block) and (not column or column in columns_of(content)):
                return meaning
    return "a STAR file of no kind known here"


def tilt_stack_reason(blocks: StarBlocks) -> str | None:
    """Say what marks particles as 2-D tilt-series stacks; None where nothing does."""
    general = blocks.get("general")
    flag = "rlnTomoSubTomosAre2DStacks"
    if isinstance(general, dict) and flag in general:
        return f"{flag} is 1" if str(general[flag]) == "1" else None
    optics = blocks.get("optics")
    if optics is not None and "rlnImageDimensionality" in columns_of(optics):
        sides = optics["rlnImageDimensionality"]
        if {str(side) for side in ([sides] if isinstance(optics, dict) else sides)} == {"3"}:
            return None
    for name in particle_blocks(blocks):
        if "rlnTomoVisibleFrames" in columns_of(blocks[name]):
            return "it has a column rlnTomoVisibleFrames"
    return None

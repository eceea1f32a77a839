"""STAR files: writing tables of RELION 3.0, 3.1 and 5, and recognising kinds of files.

:mod:`modpose.data.star_reader` reads them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from modpose.data.star_reader import StarBlocks, read_star
from modpose.data.star_text import rows_text, value_text
from modpose.data.table_form import TableForm
from modpose.files.writing import replace_atomically

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "StarBlocks",
    "columns_of",
    "other_kind",
    "particle_blocks",
    "read_star",
    "tilt_stack_reason",
    "write_blocks",
    "write_star",
]

# --- writing ----------------------------------------------------------------------------------


def write_star(
    path: Path,
    table: pd.DataFrame,
    optics: pd.DataFrame | None = None,
    overwrite: bool = False,
    form: TableForm | None = None,
) -> None:
    """Write particles (and their optics groups) for RELION.

    Column and row order are kept.  Numbers are written with six decimals if that is exact, else
    with all their digits.

    Parameters
    ----------
    path
        The file.
    table
        One row per particle; becomes ``data_particles``.
    optics
        One row per optics group; becomes ``data_optics``.  Without it the file has the form of
        RELION 3.0, without a version: newer programs refuse a version without optics groups.
    overwrite
        Replace an existing file.
    form
        Version, name of the block of particles, and other blocks of the original file.
    """
    form = form or TableForm()
    blocks: StarBlocks = dict(form.others)
    if optics is not None:
        blocks["optics"] = optics
    blocks[form.block] = table
    write_blocks(path, blocks, None if optics is None else form.version or VERSION, overwrite)


def write_blocks(
    path: Path, blocks: StarBlocks, version: int | str | None = None, overwrite: bool = False
) -> None:
    """Write a STAR file of any blocks, whole or not at all.

    Parameters
    ----------
    path
        The file.
    blocks
        Tables, and dictionaries of single values, by the name of the block.
    version
        Number in the comment before each block; None for no comment.
    overwrite
        Replace a file that is there.
    """
    comment = "" if version is None else f"\n# version {version}\n"

    def write(file: BinaryIO) -> None:
        for name, block in blocks.items():
            file.write(f"{comment}\ndata_{name}\n\n".encode())
            for text in _single(block) if isinstance(block, dict) else _loop(block):
                file.write(text)

    replace_atomically(path, write, overwrite)


VERSION = 30001
"""The version that RELION 3.1 and 4 write, and later ones read."""
CHUNK = 50_000
"""Rows written per step."""


def _single(values: dict[str, Any]) -> Iterator[bytes]:
    for tag, value in values.items():
        yield f"_{tag} {value_text(value)}\n".encode()
    yield b"\n"


def _loop(table: pd.DataFrame) -> Iterator[bytes]:
    """Yield the text of a table, some rows at a time."""
    head = ["loop_", *(f"_{column} #{i}" for i, column in enumerate(table.columns, 1))]
    yield ("\n".join(head) + "\n").encode()
    for start in range(0, len(table), CHUNK):
        yield rows_text(table.iloc[start : start + CHUNK])
    yield b"\n"


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
"""Block, column, and the kind of a file with both."""


def columns_of(block: pd.DataFrame | dict[str, Any]) -> list[str]:
    """Return the columns of a table or the tags of single values."""
    return [str(tag) for tag in (block if isinstance(block, dict) else block.columns)]


def particle_blocks(blocks: StarBlocks, column: str = "rlnImageName") -> list[str]:
    """Return the blocks that list particles: those with a column, by default of their images."""
    named = [n for n, b in blocks.items() if column in columns_of(b)]
    return ["particles"] if "particles" in named else named


def other_kind(blocks: StarBlocks) -> str:
    """Return the kind of a STAR file without particle images."""
    for block, column, meaning in KINDS:
        for name, content in blocks.items():
            if (not block or name == block) and (not column or column in columns_of(content)):
                return meaning
    return "a STAR file of unknown kind"


def tilt_stack_reason(blocks: StarBlocks) -> str | None:
    """Return the sign of 2-D tilt-series stacks, in words; None for other particles."""
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

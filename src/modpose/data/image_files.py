"""Files of images: one by its extension, and those that a table names."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modpose.data import formats
from modpose.data.identity import IMAGE_COLUMNS
from modpose.data.image_names import split_column
from modpose.data.locate import find_files, not_found
from modpose.data.mrc import SUFFIXES as MRC_SUFFIXES
from modpose.data.mrc import is_mrc, open_mrc, read_header
from modpose.data.one_scale import check_one_scale
from modpose.data.particles import Particles
from modpose.data.stack import Kind, RowsStack, Stack
from modpose.data.tables import TABLES
from modpose.errors import InputError
from modpose.files.reading import regular_file


def split_array_name(path: Path) -> tuple[Path, str | None]:
    """Split ``stack.npz:name`` into file and array, and check that the file is there."""
    text = str(path)
    if not os.path.lexists(path) and ":" in text:
        file, _, array = text.rpartition(":")
        if Path(file).suffix.lower() in formats.CONTAINERS:
            return split_array_name(Path(file))[0], array
    if not path.is_dir():
        regular_file(path)
    return path, None


def open_stack(path: Path, array: str | None = None, kind: Kind = "auto") -> Stack:
    """Open one file of pixels by its extension."""
    suffix = path.suffix.lower()
    if path.is_dir() and suffix != ".zarr":
        raise InputError(f"{path}: this is a folder, expected a file of images")
    if is_mrc(path):
        return open_mrc(path, kind)
    if suffix in formats.OPENERS:
        return formats.OPENERS[suffix](path, array, kind)
    if suffix in PACKED:
        expected = "what it holds (unpack it first)"
        raise InputError.of(path, "the file", f"packed ({suffix})", expected)
    known = " ".join(sorted(name[1:] for name in (*TABLES, *MRC_SUFFIXES, *formats.OPENERS)))
    raise InputError.of(path, "the extension", f"'{suffix}'", f"one of {known}")


PACKED = (".zip", ".tar", ".tgz", ".7z", ".rar", ".gz", ".bz2", ".xz")
"""Extensions of files that hold other files."""


# --- named by a table -------------------------------------------------------------------------


def image_references(particles: Particles) -> tuple[list[str], NDArray[np.int64]]:
    """Return the place of each image.

    Returns
    -------
    files, rows
        N file names as written, and (N,) positions in them from 0; -1 means the whole file
        (a volume, or a file of one image).
    """
    if particles.format == "cs":
        names = [str(name).lstrip(">") for name in particles.column("blob/path")]
        return names, particles.column("blob/idx").astype(np.int64)
    column = "rlnImageName"
    if particles.format == "csv":
        column = next((c for c in IMAGE_COLUMNS if particles.has(c)), IMAGE_COLUMNS[1])
    numbers, files = split_column(particles, column)
    return files.tolist(), np.where(numbers > 0, numbers - 1, -1)


def stack_of_table(particles: Particles, path: Path, datadir: Path | None) -> Stack:
    """Open the images that a table names, one for each of its rows.

    Parameters
    ----------
    particles
        The wanted rows; only the files that they name are opened.
    path
        The table; relative names start in its folder.
    datadir
        First folder in which files are searched, or None.

    Raises
    ------
    InputError
        If files are missing, or hold fewer images than the table says.
    """
    import pandas as pd

    names, rows = image_references(particles)
    found, missing = find_files(names, path, datadir)
    if missing:
        raise InputError(f"{path}: {not_found(missing, len(found), path)}")
    part, files = pd.factorize(np.array([*names, None], dtype=object)[:-1])
    whole = {names[i] for i in np.flatnonzero(rows < 0)}
    parts = [_open_part(found[name], name in whole, path) for name in files]
    check_one_scale(particles, parts, part)
    return RowsStack(parts, part, np.maximum(rows, 0), name=particles.name)


def _open_part(file: Path, whole: bool, table: Path) -> Stack:
    """Open one image file; ``whole`` if the table names it without an image number."""
    suffix = file.suffix.lower()
    if not whole:
        return open_mrc(file, _kind_of(file)) if is_mrc(file) else open_stack(file)
    if not is_mrc(file):
        stack = formats.PictureStack([file], str(file)) if _flat(suffix) else open_stack(file)
    else:
        stack = open_mrc(file)
        if len(stack.shape) == 3 and len(set(stack.shape)) != 1:
            stack = open_mrc(file, "images")
    if stack.n != 1:
        raise InputError(
            f"{table}: {file.name} is named without an image number but holds {stack.n} images "
            "(a 2-D tilt-series stack?), expected one image or one cubic volume"
        )
    return stack


def _kind_of(file: Path) -> Kind:
    """Decide what ``N@file`` is: an image, or a volume if the header says a stack of volumes."""
    header = read_header(file)
    return "volumes" if header.space_group > 400 and header.depth > 1 else "images"


def _flat(suffix: str) -> bool:
    return suffix in formats.PICTURES and suffix not in formats.TIFFS

"""Known classes of the images, from a column, a file or an array."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modpose.data.formats import read_npz
from modpose.data.identity import IMAGE_COLUMNS
from modpose.data.image_files import split_array_name
from modpose.data.index import names_images
from modpose.data.joining import join_rows, matched, say_order
from modpose.data.label_lines import read_label_lines
from modpose.data.npy import read_npy
from modpose.data.particles import Particles, listed, no_column
from modpose.data.source import Source
from modpose.data.tables import TABLES, read_particles
from modpose.errors import InputError

LABELS = "--labels"


def read_labels(
    labels: str | Path | ArrayLike, source: Source, *, partial: bool = False
) -> NDArray[Any]:
    """Return one label per image.

    Parameters
    ----------
    labels
        A column of the particles table; a column of another table, ``FILE:COLUMN`` (.star, .cs,
        .csv), with rows joined by identity; a file of labels in the order of the input (``.npy``,
        ``stack.npz:name``, or text); or an array.
    source
        The opened input; ordered labels are those of the whole input or of its selection.
    partial
        Images that are missing in a table get no label.

    Returns
    -------
    NDArray
        (N,) numbers or strings; NaN, -1 or the empty text if a table lacks the image.

    Raises
    ------
    InputError
        If they cannot be read, or it is not certain which image a label belongs to.
    """
    if not isinstance(labels, str | Path):
        return _in_order(np.asarray(labels), source, "labels")
    if source.particles.has(str(labels)):
        return source.particles.column(str(labels))
    path, column = _split_column(str(labels))
    suffix = path.suffix.lower()
    a_table = column is not None or suffix in (".star", ".cs")
    if path.is_file() and (a_table or (suffix == ".csv" and names_images(path))):
        return _of_table(read_particles(path), column, source, partial)
    try:
        path, array = split_array_name(Path(labels))
    except InputError:
        if os.path.lexists(labels):
            raise
        unknown = no_column(str(labels), source.particles.columns())
        raise InputError(f"{LABELS}: there is no such file, and {unknown}") from None
    if not path.is_file():
        raise InputError(
            f"{LABELS}: '{labels}' is neither a column of the particles table nor a file"
        )
    values = _in_order(_read(path, array, source), source, str(labels))
    say_order(str(labels), source.particles)
    return values


def _read(path: Path, array: str | None, source: Source) -> NDArray[Any]:
    suffix = path.suffix.lower()
    if suffix not in (".npy", ".npz"):
        return read_label_lines(path, (source.n, source.all_particles.n))
    values = read_npy(path) if suffix == ".npy" else read_npz(path, array)[1]
    if values.dtype.kind not in "biufSU":
        raise InputError.of(path, "the type of the labels", str(values.dtype), "numbers or text")
    return values


def _split_column(text: str) -> tuple[Path, str | None]:
    """Split ``FILE:COLUMN`` if the file is a table."""
    file, colon, column = text.rpartition(":")
    if colon and column and Path(file).suffix.lower() in TABLES and not Path(text).exists():
        return Path(file), column
    return Path(text), None


def _in_order(values: NDArray[Any], source: Source, name: str) -> NDArray[Any]:
    """Check ordered labels; select from those of the whole input."""
    n = source.all_particles.n
    if values.shape == (n,) and source.selection is not None:
        return values[source.selection]
    if values.shape != (source.n,):
        expected = f"({source.n},), one label per image"
        if n != source.n:
            expected = f"({source.n},) or ({n},), one label for each image, used or in the input"
        raise InputError.of(name, "the shape", values.shape, expected)
    return values


def _of_table(table: Particles, column: str | None, source: Source, partial: bool) -> NDArray[Any]:
    """Find the label of each image by identity."""
    if column is None:
        names = [str(name) for name in table.table.columns]
        others = [name for name in names if name not in (*IMAGE_COLUMNS, "uid")]
        if len(others) != 1 or table.format != "csv":
            raise InputError(
                f"{table.name}: no column of labels is given, expected "
                f"{LABELS} {Path(table.name).name}:COLUMN with one of {listed(others)}"
            )
        column = others[0]
    values = table.column(column)
    whole = source.all_particles
    selected = np.arange(whole.n) if source.selection is None else source.selection
    joined = join_rows(whole, table, per_image=True)
    use = "the others have no label"
    matched(joined, selected, (whole.name, table.name), partial, otherwise=use)
    rows = joined.rows[selected]
    found = np.array(values[rows])
    if (rows < 0).any():
        if found.dtype.kind in "iu":
            found = found.astype(np.int64)
        elif found.dtype.kind != "f":
            found = found.astype(object)
        found[rows < 0] = {"f": np.nan, "i": -1}.get(found.dtype.kind, "")
    return found

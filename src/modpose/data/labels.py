"""Known classes of the images, from a column, a file or an array."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modpose.data.formats import read_npz
from modpose.data.npy import read_npy
from modpose.data.source import Source, split_array_name
from modpose.data.text import read_text
from modpose.errors import InputError


def read_labels(labels: str | Path | ArrayLike, source: Source) -> NDArray[Any]:
    """Return one label an image.

    Parameters
    ----------
    labels
        A column of the particles table, a file (``.npy``, ``stack.npz:name``, or text with a
        label a line), or an array.
    source
        The opened input; labels for its whole file are cut to its selection where it has one.

    Returns
    -------
    NDArray
        (N,) numbers or strings.
    """
    if isinstance(labels, (str, Path)):
        if source.particles.has(str(labels)):
            return source.particles.column(str(labels))
        path, array = split_array_name(Path(labels))
        if not path.is_file():
            raise InputError(
                f"--labels: '{labels}' is neither a column of the particles table nor a file"
            )
        values, name = _read(path, array), str(labels)
    else:
        values, name = np.asarray(labels), "labels"
    if values.shape != (source.n,):
        raise InputError.of(name, "the shape", values.shape, f"({source.n},), one label an image")
    return values


def _read(path: Path, array: str | None) -> NDArray[Any]:
    if path.suffix not in (".npy", ".npz"):
        return np.array(read_text(path, "labels").split())
    values = read_npy(path) if path.suffix == ".npy" else read_npz(path, array)[1]
    if values.dtype.kind not in "biufSU":
        raise InputError.of(path, "the type of the labels", str(values.dtype), "numbers or text")
    return values

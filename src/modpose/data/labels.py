"""Known classes of the images, from a column, a file or an array."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modpose.data.source import Source, split_array_name
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
    try:
        if path.suffix in (".npy", ".npz"):
            loaded = np.load(path, allow_pickle=False)
            return np.asarray(loaded if array is None else loaded[array])
        return np.array(path.read_text().split())
    except (ValueError, KeyError, OSError, TypeError) as error:
        raise InputError(f"{path}: not readable as labels ({error})") from None

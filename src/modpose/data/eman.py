"""HDF5 stacks of EMAN2: one dataset per image, numbered from 0."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modpose.data.stack import Kind, Layout, SlicedStack, Stack
from modpose.errors import InputError
from modpose.files.reading import check_memory

FOLDER = "MDF/images"
PIXEL_SIZE = "EMAN.apix_x"


def eman_images(file: Any) -> list[str]:
    """Return the names of EMAN2's image datasets in an open HDF5 file, in order."""
    group = file.get(FOLDER)
    if group is None or not hasattr(group, "keys"):
        return []
    numbers = sorted(int(name) for name in group if name.isascii() and name.isdigit())
    return [f"{FOLDER}/{number}/image" for number in numbers]


def open_eman(
    path: Path, images: list[str], file: Any, opened: Callable[[], Any], kind: Kind
) -> Stack:
    """Make a stack of the images of an EMAN2 file.

    Parameters
    ----------
    path
        The file.
    images
        Names of the datasets.
    file
        The open file.
    opened
        Opens the file again to read pixels.
    kind
        ``auto``, ``images`` or ``volumes``; must agree with the file.

    Raises
    ------
    InputError
        If an image is missing or the images differ in size.
    """
    missing = next((name for name in images if name not in file), None)
    if missing is not None:
        raise InputError(f"{path}: there is no {missing}, expected the pixels of each image")
    shapes = {tuple(file[name].shape) for name in images}
    shape = next(iter(shapes))
    if len(shapes) > 1 or len(shape) not in (2, 3):
        found = " and ".join("x".join(map(str, one)) for one in sorted(shapes)[:2])
        raise InputError.of(path, "the size of the images", found, "one size, in 2-D or 3-D")
    wanted = "images" if len(shape) == 2 else "volumes"
    if kind not in ("auto", wanted):
        raise InputError.of(path, "the kind", f"'{kind}'", f"'{wanted}', as in the file")
    first = file[images[0]]
    check_memory(path, 4 * int(np.prod(shape, dtype=object)))
    size = float(file[images[0].rpartition("/")[0]].attrs.get(PIXEL_SIZE, 0.0))

    def stored(start: int, stop: int) -> NDArray[Any]:
        with opened() as again:
            return np.stack([np.asarray(again[name]) for name in images[start:stop]])

    layout = Layout(len(images), shape, 1, shape)
    pixel_size = size if np.isfinite(size) and size > 0 else None
    return SlicedStack(stored, layout, np.dtype(first.dtype), str(path), pixel_size)

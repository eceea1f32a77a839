"""FITS files (read with the package astropy)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modpose.data.stack import Kind, SlicedStack, Stack, layout_of
from modpose.errors import InputError
from modpose.files.extras import extra
from modpose.files.reading import check_memory, regular_file

SUFFIXES = (".fits", ".fit", ".fts")


def open_fits(path: Path, array: str | None = None, kind: Kind = "auto") -> Stack:
    """Open the images of a FITS file (needs the extra ``fits``).

    Either one extension is an image or a cube (images along its last FITS axis), or several are
    images of one size.

    Parameters
    ----------
    path
        The file.
    array
        Name or number of the extension to read; None for all.
    kind
        Meaning of the axes of a cube.

    Raises
    ------
    InputError
        If the extra is missing, or the file has no image, or images of several sizes.
    """
    regular_file(path)
    with _opened(path) as hdus:
        chosen = _chosen(path, hdus, array)
        shapes = {tuple(hdus[i].shape) for i in chosen}
        if len(shapes) > 1:
            found = " and ".join(sorted("x".join(map(str, shape)) for shape in shapes)[:2])
            raise InputError.of(path, "the size of the images", found, "one (or name an extension)")
        shape = next(iter(shapes))
    single = len(chosen) == 1
    layout = layout_of(shape if single else (len(chosen), *shape), kind, str(path))
    check_memory(path, 4 * int(np.prod(layout.item)))
    whole = single and len(shape) == len(layout.item)

    def stored(start: int, stop: int) -> NDArray[Any]:
        with _opened(path) as hdus:
            if not single:
                return np.stack([_pixels(hdus[i].data) for i in chosen[start:stop]])
            hdu = hdus[chosen[0]]
            return _pixels(hdu.data)[None] if whole else _pixels(hdu.section[start:stop])

    return SlicedStack(stored, layout, np.dtype(np.float32), str(path))


def _pixels(values: Any) -> NDArray[np.float32]:
    return np.asarray(values).astype(np.float32)  # FITS is big-endian, and scaled by BSCALE, BZERO


def _chosen(path: Path, hdus: Any, array: str | None) -> list[int]:
    """Return the positions of the extensions with images."""
    images = [i for i, hdu in enumerate(hdus) if hdu.is_image and hdu.header.get("NAXIS", 0) >= 2]
    if array is not None:
        names = {str(i): i for i in images} | {str(hdus[i].name): i for i in images}
        if array.upper() not in names:
            listed = ", ".join(names) or "none"
            raise InputError.of(path, "the extension", f"'{array}'", f"one of {listed}")
        return [names[array.upper()]]
    if not images:
        raise InputError(f"{path}: there is no image in it, expected one with two or three axes")
    return images


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file with astropy; turn any of its errors into one sentence."""
    fits = extra("astropy.io.fits", "fits", path)
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("error")  # for example a truncated file
            with fits.open(file, memmap=False, lazy_load_hdus=False) as hdus:
                yield hdus
    except InputError:
        raise
    except Exception:  # a damaged file makes astropy fail in any way
        raise InputError(f"{path}: not readable as FITS (the file is damaged)") from None

"""Folders of pictures: PNG, JPEG, TIFF."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modpose.data.stack import Stack
from modpose.errors import InputError
from modpose.files.reading import check_memory, regular_file
from modpose.files.writing import natural_key

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
TIFFS = (".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "TIFF")
"""Formats that Pillow may open.  By default it would start Ghostscript for PostScript."""
DENSEST = 10_000
"""Largest number of pixels per byte of the file in any compression."""
GREY_MODES = {"1": "?", "L": "u1", "LA": "u1", "I;16": "u2", "I;16B": "u2", "I": "i4", "F": "f4"}


class PictureStack(Stack):
    """A list of picture files, one image each, all with the same size.

    Parameters
    ----------
    paths
        PNG, TIFF or JPEG files, grey or colour; an alpha channel is dropped.
    name
        Name of the stack in messages.
    """

    def __init__(self, paths: list[Path], name: str) -> None:
        self._paths = paths
        first: tuple[tuple[int, int], int] | None = None
        self.dtype = np.dtype(np.uint8)
        for path in paths:
            size, channels, dtype = _picture_header(path)
            if first is None:
                first, self.dtype = (size, channels), dtype
            if (size, channels) != first:
                raise InputError(
                    f"{path}: the picture is {_picture(size, channels)}, expected "
                    f"{_picture(*first)} as in {paths[0].name}"
                )
        if first is None:
            raise InputError.of(name, "the number of pictures", 0, "at least one")
        self.n, self.shape, self.channels = len(paths), first[0], first[1]
        self.pixel_size, self.name = None, name

    def _read_into(self, rows: NDArray[np.int64], out: NDArray[np.float32]) -> None:
        for i, row in enumerate(rows):
            pixels = _read_picture(self._paths[row])
            if pixels.shape[:2] != self.shape or pixels.ndim != (3 if self.channels > 1 else 2):
                raise InputError(f"{self._paths[row]}: the picture has changed since it was opened")
            out[i] = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)

    def where(self, row: int) -> str:
        """Name the file."""
        return str(self._paths[row])

    def files(self) -> Iterator[Path]:
        """Yield the pictures' files."""
        yield from self._paths

    def sizes(self) -> NDArray[np.int64]:
        """Return the bytes of each picture's file, (N,)."""
        return np.array([path.stat().st_size for path in self._paths], np.int64)


def picture_files(folder: Path, nested: bool = True) -> list[Path]:
    """List a folder's pictures in natural order; if it has none, those of its subfolders."""
    files = [p for p in folder.iterdir() if _is_picture(folder, p)]
    if not files and nested:
        files = [p for p in folder.rglob("*") if _is_picture(folder, p)]
    return sorted(files, key=lambda p: natural_key(str(p.relative_to(folder))))


def folders_of_pictures(folder: Path) -> list[Path]:
    """List the folders within a folder that hold pictures, one level down."""
    inner = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return sorted(path for path in inner if any(_is_picture(path, p) for p in path.glob("*")))


def _is_picture(folder: Path, path: Path) -> bool:
    """Return whether the name is that of a picture; hidden files and folders are left out."""
    shown = not any(part.startswith(".") for part in path.relative_to(folder).parts)
    return shown and path.suffix.lower() in PICTURES


def _picture(size: tuple[int, int], channels: int) -> str:
    return f"{size[0]}x{size[1]} {'grey' if channels == 1 else 'colour'}"


def _picture_header(path: Path) -> tuple[tuple[int, int], int, np.dtype[Any]]:
    with _opened(path) as picture:
        frames, mode = getattr(picture, "n_frames", 1), picture.mode
        size = (picture.height, picture.width)
    if frames > 1:
        raise InputError.of(path, "the number of pages", frames, "1 in a folder of pictures")
    if mode in GREY_MODES:
        return size, 1, np.dtype(GREY_MODES[mode])
    return size, 3, np.dtype(np.uint8)


def _read_picture(path: Path) -> NDArray[Any]:
    with _opened(path) as picture:
        if picture.format == "PNG":
            picture.verify()  # compares the checksums, which reading the pixels would not
    with _opened(path) as picture:
        if picture.format == "TIFF":
            _check_strips(path, picture)
        if picture.mode == "LA":
            return np.asarray(picture.convert("L"))
        return np.asarray(picture if picture.mode in GREY_MODES else picture.convert("RGB"))


def _check_strips(path: Path, picture: Any) -> None:
    """Refuse a TIFF with missing strips or tiles; Pillow would leave gaps black."""
    tags = picture.tag_v2
    width, height, samples = picture.width, picture.height, int(tags.get(277, 1))
    tiled, planes = 324 in tags, samples if tags.get(284, 1) == 2 else 1
    across, rows = (tags[322], tags[323]) if tiled else (width, min(tags.get(278, height), height))
    offsets, sizes = (tags[324], tags[325]) if tiled else (tags[273], tags[279])
    number = math.ceil(width / across) * math.ceil(height / rows) * planes
    end = path.stat().st_size
    whole = (
        tags.get(284, 1) in (1, 2)
        and len(offsets) == len(sizes) == number
        and all(size > 0 for size in sizes)
    )
    whole &= all(start + size <= end for start, size in zip(offsets, sizes, strict=True))
    if whole and tags.get(259, 1) == 1:  # not compressed: each length is known
        line = math.ceil(across * sum(tags.get(258, (1,))) / planes / 8)
        last = rows if tiled else height - (math.ceil(height / rows) - 1) * rows
        short = [size < line * rows for size in sizes]
        ends = range(number // planes - 1, number, number // planes)
        whole = all(not s or (i in ends and sizes[i] == line * last) for i, s in enumerate(short))
        whole &= max(sizes) <= line * rows
    if not whole:
        raise InputError(f"{path}: not readable as a picture (parts of it are missing)")


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """Open a picture with Pillow; turn any of its errors into one sentence."""
    from PIL import Image, UnidentifiedImageError

    bytes_of_file = regular_file(path).stat().st_size
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # sizes are checked below
            with Image.open(path, formats=FORMATS) as picture:
                pixels = picture.width * picture.height
                if pixels > DENSEST * bytes_of_file:
                    found = f"{picture.height} x {picture.width}"
                    expected = f"what a file of {bytes_of_file} bytes can hold"
                    raise InputError.of(path, "the size", found, expected)
                check_memory(path, 8 * pixels)
                yield picture
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(f"{path}: not readable as a picture, expected PNG, JPEG or TIFF") from None
    except Image.DecompressionBombError:
        limit = f"at most {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels"
        raise InputError.of(path, "the size of the picture", "too large", limit) from None
    except Exception:  # a damaged file makes Pillow fail in any way
        raise InputError(f"{path}: not readable as a picture (the file is damaged)") from None

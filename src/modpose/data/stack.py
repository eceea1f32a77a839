"""Stacks: images or volumes that are read a few at a time.

A stack knows the number and size of its images.  Pixels are read only when needed, by seeking and
reading, never by mapping the file, so that resident memory stays small for files of any size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modpose.config.data import KINDS, check_axes
from modpose.errors import InputError
from modpose.files.reading import regular_file

Kind = str
"""Meaning of the axes of an array: a word, or letters such as ``NCYX``.

N is the image, C the channel, Z, Y and X the position; N comes first, if present.
"""

RUN_BYTES = 64 * 2**20
"""Largest number of bytes of one read."""


class Stack(ABC):
    """Images or volumes of one size, read lazily.

    Attributes
    ----------
    n
        Number of images (or volumes).
    shape
        Spatial shape of one image, (H, W) or (D, H, W).
    channels
        Numbers per pixel: 1, or 3 for colour.
    pixel_size
        Angstrom per pixel, None if unknown.
    name
        Name in messages, usually the path.
    dtype
        Type of the numbers as stored.
    """

    n: int
    shape: tuple[int, ...]
    channels: int
    pixel_size: float | None
    name: str
    dtype: np.dtype[Any]

    def read(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read the images at ``index``, in that order.

        Parameters
        ----------
        index
            (B,) positions from 0; repeats are allowed.

        Returns
        -------
        images
            (B, channels, *shape) float32.

        Raises
        ------
        InputError
            If a position is outside the stack or the file cannot be read.
        """
        index = np.asarray(index, dtype=np.int64).reshape(-1)
        bad = index[(index < 0) | (index >= self.n)]
        if bad.size:
            raise InputError.of(self.name, "an image index", int(bad[0]), f"0 to {self.n - 1}")
        rows, inverse = np.unique(index, return_inverse=True)
        images = np.empty((len(rows), self.channels, *self.shape), dtype=np.float32)
        self._read_into(rows, images)
        in_order = len(rows) == len(index) and bool(np.all(index[1:] > index[:-1]))
        return images if in_order else images[inverse]

    @abstractmethod
    def _read_into(self, rows: NDArray[np.int64], out: NDArray[np.float32]) -> None:
        """Fill ``out`` (B, channels, *shape) with the images at ``rows`` (sorted, unique)."""

    def where(self, row: int) -> str:
        """Return the name of one image for messages: file and number (from 1, as in RELION)."""
        return f"{self.name}, image {row + 1}"

    def files(self) -> Iterator[Path]:
        """Yield the files of the images; none for an array in memory."""
        for name in (self.name, self.name.rpartition(":")[0]):
            if name and Path(name).exists():
                yield Path(name)
                return

    def sizes(self) -> NDArray[np.int64]:
        """Return the bytes of the file that each image is read from, (N,); -1 where none is."""
        files = [path for path in self.files() if path.is_file()]
        return np.full(self.n, files[0].stat().st_size if len(files) == 1 else -1, np.int64)


@dataclass(frozen=True)
class Layout:
    """The meaning of an array's axes: how stored items become (channels, *shape)."""

    n: int
    shape: tuple[int, ...]
    channels: int
    item: tuple[int, ...]
    """Shape of one stored item."""
    channel_axis: int = -1
    """Axis of the channels in an item, if it has channels."""

    def arrange(self, block: NDArray[Any]) -> NDArray[Any]:
        """Convert (B, *item) to (B, channels, *shape), without an alpha channel."""
        block = block.reshape(-1, *self.item)
        if len(self.item) == len(self.shape):
            return block[:, None]
        axis = self.channel_axis % len(self.item) + 1
        return np.moveaxis(block, axis, 1)[:, : self.channels]


def layout_of(shape: tuple[int, ...], kind: Kind, name: str) -> Layout:
    """Decide the meaning of an array's axes.

    Parameters
    ----------
    shape
        (N, H, W), (N, H, W, 1|3|4) or (N, D, H, W); also a single (H, W), (H, W, 3|4) or (D, H, W)
        if ``kind`` says so.
    kind
        Resolves ambiguous shapes.
    name
        Name of the array in messages.
    """
    if kind not in KINDS:
        return _of_axes(shape, kind, name)
    wanted = {
        "auto": "(N, H, W), (N, H, W, 3) or cubic (N, D, D, D)",
        "images": "(H, W) or (N, H, W)",
        "rgb": "(N, H, W, 3) or (N, H, W, 4), channels last",
        "volumes": "(D, D, D) or (N, D, D, D)",
    }[kind]
    layout = _as_volumes(shape, kind) or _as_rgb(shape, kind) or _as_images(shape, kind)
    if layout is None or min(layout.shape) < 1:
        raise InputError.of(name, f"the shape (kind '{kind}')", shape, wanted)
    if layout.n < 1:
        raise InputError.of(name, "the number of images", 0, "at least one")
    return layout


def _as_images(shape: tuple[int, ...], kind: Kind) -> Layout | None:
    if kind not in ("auto", "images"):
        return None
    if len(shape) == 4 and shape[-1] == 1:
        return Layout(shape[0], shape[1:3], 1, shape[1:3])
    if len(shape) == 3:
        return Layout(shape[0], shape[1:], 1, shape[1:])
    return Layout(1, shape, 1, shape) if len(shape) == 2 else None


def _as_rgb(shape: tuple[int, ...], kind: Kind) -> Layout | None:
    if kind not in ("auto", "rgb") or len(shape) < 3 or shape[-1] not in (3, 4):
        return None
    if len(shape) == 4:
        return Layout(shape[0], shape[1:3], 3, shape[1:])
    return Layout(1, shape[:2], 3, shape) if kind == "rgb" and len(shape) == 3 else None


def _as_volumes(shape: tuple[int, ...], kind: Kind) -> Layout | None:
    cubic = len(shape) >= 3 and len(set(shape[-3:])) == 1
    if kind not in ("auto", "volumes") or not cubic:
        return None
    if len(shape) == 4:
        return Layout(shape[0], shape[1:], 1, shape[1:])
    return Layout(1, shape, 1, shape) if kind == "volumes" and len(shape) == 3 else None


def _of_axes(shape: tuple[int, ...], axes: str, name: str) -> Layout:
    """Use the axes that the user gives."""
    try:
        check_axes(axes)
    except ValueError as error:
        raise InputError.of(name, "the axes", f"'{axes}'", str(error)) from None
    if len(shape) != len(axes):
        raise InputError.of(name, "the shape", shape, f"{len(axes)} axes, {axes}")
    side = dict(zip(axes, shape, strict=True))
    n, channels = side.get("N", 1), side.get("C", 1)
    place = tuple(side[letter] for letter in "ZYX" if letter in side)
    if min(shape) < 1:
        raise InputError.of(name, f"the shape ({axes})", shape, "no side of 0")
    if channels not in (1, 3, 4):
        expected = "1, 3 or 4; save the channel to be used alone"
        raise InputError.of(name, "the number of channels", channels, expected)
    item = shape[1:] if "N" in side else shape
    at = axes.replace("N", "").find("C")
    return Layout(n, place, min(channels, 3), item, at)


def runs(rows: NDArray[np.int64], longest: int) -> Iterator[tuple[int, int, int]]:
    """Split sorted, unique rows into runs of consecutive rows.

    Yields
    ------
    position, start, stop
        ``rows[position : position + stop - start]`` is ``start, ..., stop - 1``.
    """
    cuts = np.flatnonzero(np.diff(rows) != 1) + 1
    for first, last in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        for position in range(int(first), int(last), longest):
            length = min(longest, int(last) - position)
            start = int(rows[position])
            yield position, start, start + length


class SlicedStack(Stack):
    """A stack over a function ``stored(start, stop)`` that returns (stop - start, *item) numbers.

    Parameters
    ----------
    stored
        Reads a run of items, in any type.
    layout
        Meaning of the axes.
    dtype
        Type of the stored numbers; real.
    name
        Name of the stack in messages.
    pixel_size
        Angstrom per pixel, None if unknown.
    """

    def __init__(
        self,
        stored: Callable[[int, int], NDArray[Any]],
        layout: Layout,
        dtype: np.dtype[Any],
        name: str,
        pixel_size: float | None = None,
    ) -> None:
        if dtype.kind not in "biuf":
            raise InputError.of(name, "the type of the numbers", str(dtype), "integers or reals")
        self._stored = stored
        self._layout = layout
        self.n, self.shape, self.channels = layout.n, layout.shape, layout.channels
        self.dtype, self.name, self.pixel_size = dtype, name, pixel_size
        self._longest = max(1, RUN_BYTES // max(1, dtype.itemsize * int(np.prod(layout.item))))

    def _read_into(self, rows: NDArray[np.int64], out: NDArray[np.float32]) -> None:
        for position, start, stop in runs(rows, self._longest):
            block = self._layout.arrange(self._stored(start, stop))
            with np.errstate(over="ignore", invalid="ignore"):  # too large for float32: infinite
                out[position : position + stop - start] = block


class ArrayStack(SlicedStack):
    """A stack in memory.

    Parameters
    ----------
    array
        See :func:`layout_of`.
    kind
        Meaning of the axes.
    name
        Name of the stack in messages.
    pixel_size
        Angstrom per pixel, None if unknown.
    """

    def __init__(
        self,
        array: NDArray[Any],
        kind: Kind = "auto",
        name: str = "array",
        pixel_size: float | None = None,
    ) -> None:
        layout = layout_of(array.shape, kind, name)
        items = array.reshape(layout.n, *layout.item)
        super().__init__(lambda a, b: items[a:b], layout, array.dtype, name, pixel_size)


def file_reader(
    path: Path, offset: int, dtype: np.dtype[Any], item: tuple[int, ...]
) -> Callable[[int, int], NDArray[Any]]:
    """Make ``stored(start, stop)`` for consecutive items in a file."""
    size = dtype.itemsize * int(np.prod(item))

    def stored(start: int, stop: int) -> NDArray[Any]:
        block = np.empty((stop - start, *item), dtype=dtype)
        regular_file(path)
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(offset + start * size)
                read_fully(file.readinto, block.reshape(-1).view(np.uint8).data, path)
        except OSError as error:
            raise InputError(f"{path}: not readable ({error.strerror})") from None
        return block

    return stored


def read_fully(readinto: Callable[[memoryview], int | None], view: memoryview, path: Path) -> None:
    """Fill ``view``; an unbuffered read may return less than requested, at most 2 GiB."""
    done = 0
    while done < len(view):
        got = readinto(view[done:])
        if not got:
            raise InputError(f"{path}: the file ended {len(view) - done} bytes early")
        done += got


class RowsStack(Stack):
    """Rows from several stacks with one image size, in any order.

    Parameters
    ----------
    parts
        The stacks.
    part
        (N,) index into ``parts`` for each row.
    row
        (N,) position in that part, from 0.
    name
        Name of the stack in messages.
    """

    def __init__(
        self,
        parts: Sequence[Stack],
        part: NDArray[np.int64],
        row: NDArray[np.int64],
        name: str,
    ) -> None:
        first = parts[0]
        for other in parts[1:]:
            if (other.channels, other.shape) != (first.channels, first.shape):
                found = f"{_size(first)} in {first.name} and {_size(other)} in {other.name}"
                raise InputError(f"{name}: the box is {found}, expected one box size throughout")
        self._parts, self._part, self._row = tuple(parts), part, row
        self.n, self.shape, self.channels = len(row), first.shape, first.channels
        same = all(p.pixel_size == first.pixel_size for p in parts)
        self.pixel_size = first.pixel_size if same else None
        self.dtype, self.name = first.dtype, name
        held = np.array([p.n for p in parts], dtype=np.int64)
        bad = np.flatnonzero((row < 0) | (row >= held[part]))
        if bad.size:
            member = parts[int(part[bad[0]])]
            raise InputError(
                f"{name}: row {bad[0] + 1} asks for image {row[bad[0]] + 1} of {member.name}, "
                f"which holds {member.n}"
            )

    def _read_into(self, rows: NDArray[np.int64], out: NDArray[np.float32]) -> None:
        part = self._part[rows]
        for i in np.unique(part):
            mine = np.flatnonzero(part == i)
            out[mine] = self._parts[i].read(self._row[rows[mine]])

    def where(self, row: int) -> str:
        """Return the file of one image and its number there."""
        return self._parts[int(self._part[row])].where(int(self._row[row]))

    def files(self) -> Iterator[Path]:
        """Yield the files of all parts."""
        for part in self._parts:
            yield from part.files()

    def sizes(self) -> NDArray[np.int64]:
        """Return the bytes of the file that each image is read from, (N,); -1 where none is."""
        sizes = np.empty(self.n, np.int64)
        order = np.argsort(self._part, kind="stable")
        cuts = np.flatnonzero(np.diff(self._part[order])) + 1
        for mine in np.split(order, cuts):
            sizes[mine] = self._parts[self._part[mine[0]]].sizes()[self._row[mine]]
        return sizes


def subset(stack: Stack, index: NDArray[np.int64]) -> Stack:
    """Keep the images at ``index``, in that order."""
    if isinstance(stack, RowsStack):
        part, row = stack._part[index], stack._row[index]
        return RowsStack(stack._parts, part, row, stack.name)
    return RowsStack([stack], np.zeros(len(index), dtype=np.int64), index, stack.name)


def _size(stack: Stack) -> str:
    text = "x".join(str(side) for side in stack.shape)
    return text if stack.channels == 1 else f"{text} with {stack.channels} channels"

"""Zarr stores and HDF5 files: arrays in chunks, without access to any other file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from modpose.data.eman import eman_images, open_eman
from modpose.data.ome import angstrom, ome_kind
from modpose.data.stack import Kind, SlicedStack, Stack, layout_of
from modpose.errors import InputError, shown
from modpose.files.extras import extra
from modpose.files.reading import check_memory, regular_file

T = TypeVar("T")

CODECS = frozenset(
    {"blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma", "bytes", "endian", "transpose"}
    | {"sharding_indexed", "crc32", "crc32c", "adler32", "fletcher32", "jenkins_lookup3"}
    | {"delta", "shuffle", "bitround", "fixedscaleoffset", "quantize", "packbits", "astype"}
)
"""Allowed codecs for the chunks of a Zarr array; others, such as ``pickle``, could run code."""


DEEPEST = 8
"""Largest number of links in a chain."""


def open_zarr(path: Path, array: str | None, kind: Kind = "auto") -> Stack:
    """Open an array of a Zarr store (needs the extra ``zarr``)."""
    zarr = extra("zarr", "zarr", path)
    if not path.is_dir():
        regular_file(path)
    _refuse_links(path)
    store = _guarded(lambda: zarr.open(str(path), mode="r"), path, "Zarr")
    image = None if array else _guarded(lambda: _ome_image(store), path, "Zarr")
    array = image.name if image else array
    node = _guarded(lambda: _member(path, store, array, lambda _: None), path, "Zarr")
    metadata = _guarded(lambda: node.metadata.to_dict(), path, "Zarr")
    strange = sorted(set(_codecs(metadata)) - CODECS)
    if strange:
        raise InputError.of(path, "the codec", f"'{strange[0]}'", "one that only unpacks numbers")
    _check_stored(path, node)
    dtype = _guarded(lambda: np.dtype(node.dtype), path, "Zarr")
    found = _Array(node.shape, node.chunks, dtype, lambda part: np.asarray(node[part]))
    if image is None:
        return _chunked(path, found, kind, "Zarr")
    found = _squeezed(found)
    kind = ome_kind(path, image.axes, found.shape) if kind == "auto" else kind
    return _chunked(path, found, kind, "Zarr", image.pixel_size)


def _check_stored(path: Path, node: Any) -> None:
    """Refuse an array with missing chunks; Zarr would fill in the missing images."""
    stored = _guarded(lambda: int(node.nchunks_initialized) * int(node.chunks[0]), path, "Zarr")
    if node.shape[0] > stored:
        found = f"{node.shape[0]}, of which {stored} at most are stored"
        raise InputError.of(path, "the number of images", found, "all of them in the store")


def open_hdf5(path: Path, array: str | None, kind: Kind = "auto") -> Stack:
    """Open a dataset of an HDF5 file (needs the extra ``hdf5``)."""
    h5py = extra("h5py", "hdf5", path)
    regular_file(path)

    def opened() -> Any:
        return _guarded(lambda: h5py.File(path, mode="r"), path, "HDF5")

    with opened() as file:
        if array is None and (images := eman_images(file)):
            return open_eman(path, images, file, opened, kind)
        check = partial(_refuse_outside, h5py, path, file)
        node = _guarded(lambda: _member(path, file, array, check), path, "HDF5")
        if _guarded(lambda: bool(node.is_virtual or node.external), path, "HDF5"):
            raise InputError(f"{path}: the numbers are in other files, expected them in this one")
        name, shape, chunks = node.name, node.shape, node.chunks
        dtype = _guarded(lambda: np.dtype(node.dtype), path, "HDF5")

    def read(part: Any) -> NDArray[Any]:
        regular_file(path)
        with opened() as file:  # open again; otherwise HDF5 would show the old content
            return np.asarray(file[name][part])

    return _chunked(path, _Array(shape, chunks, dtype, read), kind, "HDF5")


def _refuse_outside(h5py: Any, path: Path, file: Any, name: str, depth: int = 0) -> None:
    """Refuse a link to another file anywhere along a name."""
    node, parts = file, [part for part in name.split("/") if part]
    for i, part in enumerate(parts):
        link = node.get(part, getlink=True)
        if isinstance(link, h5py.ExternalLink) or depth > DEEPEST:
            raise InputError(f"{path}: {shown(name)} is a link to another file")
        if isinstance(link, h5py.SoftLink):
            start = "" if link.path.startswith("/") else "/".join(parts[:i])
            _refuse_outside(h5py, path, file, f"{start}/{link.path}", depth + 1)
        if part not in node:
            return
        node = node[part]


@dataclass(frozen=True)
class _Array:
    """An array in chunks: its metadata and a reader for parts of it."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...] | None
    dtype: np.dtype[Any]
    read: Callable[[Any], NDArray[Any]]


def _guarded(read: Callable[[], T], path: Path, what: str) -> T:
    """Call a library; turn any of its errors into one sentence."""
    try:
        return read()
    except InputError:
        raise
    except Exception:
        raise InputError(
            f"{path}: not readable as {what} (it is damaged or of another kind)"
        ) from None


def _refuse_links(path: Path) -> None:
    """Refuse a store with a symbolic link, which could lead out of the store."""
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            inside = Path(folder) / name
            if inside.is_symlink():
                raise InputError(f"{path}: {name} in it is a link, expected a store without links")
            if not inside.is_dir():
                regular_file(inside)


def _codecs(metadata: Any) -> Iterator[str]:
    """Yield the names of all codecs in the metadata of a Zarr array."""
    found = [metadata.get(key) for key in ("filters", "compressor", "codecs")]
    while found:
        entry = found.pop()
        if isinstance(entry, list | tuple):
            found += entry
        elif isinstance(entry, dict):
            name = str(entry.get("id", entry.get("name")))
            yield name.removeprefix("numcodecs.")
            inner = entry.get("configuration")
            if isinstance(inner, dict):
                found += [inner.get("codecs"), inner.get("index_codecs")]
        elif entry is not None:
            yield str(getattr(entry, "codec_id", type(entry).__name__))


class _OmeImage(NamedTuple):
    """Path of an array, letters of its axes of more than one pixel, and angstrom per pixel."""

    name: str
    axes: str
    pixel_size: float | None


def _ome_image(store: Any) -> _OmeImage | None:
    """Find the largest image in the metadata of an OME-Zarr store; None without such metadata."""
    attributes = dict(getattr(store, "attrs", {}))
    scales = attributes.get("ome", attributes).get("multiscales")
    if not scales or hasattr(store, "dtype"):
        return None
    first = scales[0]
    dataset, units = first["datasets"][0], [axis.get("unit", "") for axis in first["axes"]]
    letters = "".join(axis["name"].upper() for axis in first["axes"])
    steps = dataset.get("coordinateTransformations", [])
    scale = next((step["scale"] for step in steps if step["type"] == "scale"), None)
    size = angstrom(scale[letters.index("X")], units[letters.index("X")]) if scale else None
    sides = zip(letters, store[dataset["path"]].shape, strict=True)
    return _OmeImage(dataset["path"], "".join(a for a, n in sides if n > 1 or a in "YX"), size)


def _squeezed(array: _Array) -> _Array:
    """Drop axes of length one, except for the last two, which are those of the picture."""
    last = len(array.shape) - 2
    kept = [i for i, side in enumerate(array.shape) if side > 1 or i >= last]
    chunks = array.chunks or array.shape
    images = len(kept) > 2

    def read(part: Any) -> NDArray[Any]:
        index: list[Any] = [slice(None) if i in kept else 0 for i in range(len(array.shape))]
        if images:
            index[kept[0]] = part
        return array.read(tuple(index))

    sides = tuple(array.shape[i] for i in kept)
    return _Array(sides, tuple(chunks[i] for i in kept), array.dtype, read)


def _member(path: Path, node: Any, array: str | None, check: Callable[[str], None]) -> Any:
    """Find an array in a group; ``check`` may refuse a name."""
    if hasattr(node, "dtype"):
        return node
    if array is not None:
        check(array)
    names = []
    for key in node:
        check(key)
        if hasattr(node[key], "dtype"):
            names.append(key)
    if array is not None and array not in names and array in node:
        names.append(array)
    return node[choose(path, array, names)]


def _chunked(
    path: Path, array: _Array, kind: Kind, what: str, pixel_size: float | None = None
) -> Stack:
    layout = layout_of(tuple(int(side) for side in array.shape), kind, str(path))
    for shape in (array.chunks or (), layout.item):
        check_memory(path, array.dtype.itemsize * int(np.prod(shape, dtype=object)))
    whole = layout.n == 1 and len(array.shape) == len(layout.item)

    def stored(start: int, stop: int) -> NDArray[Any]:
        return _guarded(lambda: array.read(... if whole else slice(start, stop)), path, what)

    return SlicedStack(stored, layout, array.dtype, str(path), pixel_size)


def choose(path: Path, array: str | None, names: list[str]) -> str:
    """Return the name of the requested array; refuse if it is not clear which one."""
    if array is None and len(names) == 1:
        return names[0]
    if array in names and array is not None:
        return array
    listed = ", ".join(names[:8]) + (" ..." if len(names) > 8 else "") or "none"
    if array is None:
        raise InputError(f"{path}: holds the arrays {listed}; name one, as in {path.name}:NAME")
    raise InputError(f"{path}: there is no array '{array}', only {listed}")

"""Sources: a user's files or arrays, opened as a stack with its table of particles."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modpose.data import formats
from modpose.data.agreement import check_agreement
from modpose.data.given import with_given
from modpose.data.identity import IMAGE_COLUMNS, split_names
from modpose.data.index import select_rows
from modpose.data.locate import find_files
from modpose.data.mrc import SUFFIXES as MRC_SUFFIXES
from modpose.data.mrc import is_mrc, open_mrc, read_header
from modpose.data.particles import Particles
from modpose.data.stack import ArrayStack, Kind, RowsStack, Stack, subset
from modpose.data.tables import TABLES, read_particles
from modpose.data.tags import note_unknown
from modpose.errors import InputError
from modpose.files.marker import is_run
from modpose.files.reading import regular_file
from modpose.files.writing import natural_key

if TYPE_CHECKING:
    import torch

logger = logging.getLogger("modpose")

Wedge = str | Path | tuple[float, float] | NDArray[Any]
"""The measured part of volumes: two tilts, a file, or masks; see :mod:`modpose.data.wedges`."""


@dataclass(frozen=True)
class Source:
    """Images and their table.

    Attributes
    ----------
    stack
        The images, one for each row of ``particles``.
    particles
        The table, in the same order.
    path
        Path of the input; None for an array.
    selection
        (N,) rows of the whole input that were kept, from 0; None for all.
    whole
        The table of the whole input, if only some of its rows were kept; else None.
    datadir
        First folder in which the files of the table are searched, or None.
    wedge
        The measured part of the volumes, if given; else None.
    """

    stack: Stack
    particles: Particles
    path: Path | None = None
    selection: NDArray[np.int64] | None = None
    whole: Particles | None = None
    datadir: Path | None = None
    wedge: Wedge | None = None

    @property
    def n(self) -> int:
        """Number of images."""
        return self.stack.n

    @property
    def pixel_size(self) -> float | None:
        """Angstrom per pixel, from the table, else from the stack; None if unknown."""
        of_table = self.particles.pixel_size()
        return self.stack.pixel_size if of_table is None else of_table

    def subset(self, index: NDArray[np.int64]) -> Source:
        """Keep the images at ``index``, in that order, and record their rows."""
        index = np.asarray(index, dtype=np.int64)
        kept = index if self.selection is None else self.selection[index]
        return replace(
            self,
            stack=subset(self.stack, index),
            particles=self.particles.subset(index),
            selection=kept,
            whole=self.all_particles,
        )

    @property
    def all_particles(self) -> Particles:
        """The table of the whole input."""
        return self.particles if self.whole is None else self.whole


def open_source(
    input: str | Path | NDArray[Any] | torch.Tensor | Stack,
    *,
    kind: Kind = "auto",
    datadir: str | Path | None = None,
    index: str | Path | NDArray[Any] | None = None,
    poses: str | Path | None = None,
    ctf: str | Path | None = None,
    wedge: Wedge | None = None,
    partial: bool = False,
) -> Source:
    """Open images with their table.

    Parameters
    ----------
    input
        A path (STAR, .cs, CSV, MRC, NPY, ``stack.npz:name``, TIFF, Zarr, HDF5, a folder of
        pictures or of MRC files), an array, a tensor, or a stack.
    kind
        Meaning of an array's axes.
    datadir
        First folder in which the images of a table are searched.
    index
        Rows to keep, in order: numbers from 0, booleans or uids, as an array or a file (.npy,
        .txt, .csv); or a table of particles (.star, .cs), see :func:`modpose.data.index`.
    poses, ctf
        Files with the poses and the CTF parameters of the images, in place of those of the input;
        rows are joined by identity (:mod:`modpose.data.given`).
    wedge
        The measured part of volumes: ``(smallest, largest)`` tilt in degrees or ``"LOW,HIGH"``,
        masks (an array or a file), or a list of tomograms; see
        :func:`modpose.data.wedges.open_wedges`.
    partial
        Use only the images with a row in ``poses``, ``ctf`` and a table as ``index``.

    Raises
    ------
    InputError
        If the input cannot be used; the message says why.
    """
    folder = None if datadir is None else Path(datadir)
    source = replace(_open_whole(input, kind, folder), datadir=folder, wedge=wedge)
    if wedge is not None and len(source.stack.shape) != 3:
        found = " x ".join(map(str, source.stack.shape))
        expected = "volumes, because a wedge is given"
        raise InputError.of(source.stack.name, "the box", found, expected)
    rows = np.arange(source.n)
    if index is not None:
        rows = select_rows(index, source.particles, partial=partial)
    if poses is not None or ctf is not None:
        known, rows = with_given(
            source.particles,
            shape=source.stack.shape,
            pixel_size=source.pixel_size,
            poses=poses,
            ctf=ctf,
            selected=rows,
            partial=partial,
        )
        source = replace(source, particles=known)
    if index is None and len(rows) == source.n:
        return source
    return source.subset(rows)


def _open_whole(
    input: str | Path | NDArray[Any] | torch.Tensor | Stack, kind: Kind, datadir: Path | None
) -> Source:
    if isinstance(input, Stack):
        return Source(input, _no_table(input))
    if isinstance(input, str | Path):
        path, array = split_array_name(Path(input))
        if path.suffix.lower() in TABLES:
            return _open_table(path, datadir)
        if path.is_dir() and path.suffix.lower() != ".zarr":
            return _open_folder(path, kind)
        stack = open_stack(path, array, kind)
        return Source(stack, _no_table(stack, str(input)), Path(input))
    if "torch" in sys.modules and isinstance(input, sys.modules["torch"].Tensor):
        input = input.detach().cpu().numpy()
    if not isinstance(input, np.ndarray):
        raise InputError.of("the input", "its type", type(input).__name__, "a path or an array")
    stack = ArrayStack(input, kind)
    return Source(stack, _no_table(stack))


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
    known = " ".join(sorted(name[1:] for name in (*TABLES, *MRC_SUFFIXES, *formats.OPENERS)))
    raise InputError.of(path, "the extension", f"'{suffix}'", f"one of {known}")


def _no_table(stack: Stack, file: str | None = None) -> Particles:
    import pandas as pd

    table = pd.DataFrame(index=pd.RangeIndex(stack.n))
    if file is None:
        return Particles(table, name=stack.name)
    return Particles(table, name=file, position=np.arange(stack.n))


def refuse_run(path: Path) -> None:
    """Raise InputError where a folder is a run, whose figures are no data."""
    if is_run(path):
        raise InputError(f"{path}: this is the folder of a run, expected images")


def _open_folder(path: Path, kind: Kind) -> Source:
    import pandas as pd

    refuse_run(path)
    stacks = _stack_files(path)
    pictures = formats.picture_files(path, nested=not stacks)
    position: NDArray[np.int64] | None = None
    if pictures:
        stack: Stack = formats.PictureStack(pictures, str(path))
        files = pictures
    elif stacks:
        parts = [open_stack(file, None, kind) for file in stacks]
        stack = _joined(parts, str(path))
        files = [file for file, part in zip(stacks, parts, strict=True) for _ in range(part.n)]
        position = np.concatenate([np.arange(part.n) for part in parts])
    else:
        expected = "PNG, TIFF, JPEG, MRC, EM, SPIDER or FITS files"
        raise InputError.of(path, "the folder", "without images", expected)
    table = pd.DataFrame({"file": [str(file.relative_to(path)) for file in files]})
    if any(file.parent != path for file in files):
        table["folder"] = [str(file.parent.relative_to(path)) for file in files]
    return Source(stack, Particles(table, name=str(path), position=position), path)


def _stack_files(folder: Path) -> list[Path]:
    """List the MRC, EM, SPIDER and FITS files of a folder, in natural order, without hidden ones.

    Raises
    ------
    InputError
        If there are files of two formats.
    """
    kinds: dict[str, list[Path]] = {}
    for file in folder.iterdir():
        form = "MRC" if is_mrc(file) else formats.IN_FOLDERS.get(file.suffix.lower())
        if form is not None and not file.name.startswith("."):
            kinds.setdefault(form, []).append(file)
    if len(kinds) > 1:
        both = " and ".join(f"{form} files" for form in sorted(kinds)[:2])
        raise InputError.of(folder, "the folder", f"with {both}", "files of one format")
    return sorted(next(iter(kinds.values()), []), key=lambda file: natural_key(file.name))


def _joined(parts: list[Stack], name: str) -> Stack:
    part = np.repeat(np.arange(len(parts)), [p.n for p in parts])
    row = np.concatenate([np.arange(p.n) for p in parts])
    return RowsStack(parts, part, row, name)


# --- tables -----------------------------------------------------------------------------------


def _open_table(path: Path, datadir: Path | None) -> Source:
    particles = read_particles(path)
    stack = RowsStack(*_parts(particles, path, datadir), name=str(path))
    check_agreement(particles, stack)
    note_unknown(particles)
    return Source(stack, particles, path)


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
    numbers, files = split_names(particles.column(column), f"{particles.name}: {column}")
    return files.tolist(), np.where(numbers > 0, numbers - 1, -1)


def _parts(
    particles: Particles, path: Path, datadir: Path | None
) -> tuple[list[Stack], NDArray[np.int64], NDArray[np.int64]]:
    """Open the files of the table: the stacks, and for each row its stack and position."""
    names, rows = image_references(particles)
    found, missing = find_files(names, path, datadir)
    if missing:
        others = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise InputError(
            f"{path}: the image file {missing[0]}{others} cannot be found beside the table, in "
            f"its parent folders or in --datadir ({datadir or 'not given'})"
        )
    files = list(found)
    number = {name: i for i, name in enumerate(files)}
    part = np.array([number[name] for name in names], dtype=np.int64)
    whole = {names[i] for i in np.flatnonzero(rows < 0)}
    parts = [_open_part(found[name], name in whole, path) for name in files]
    return parts, part, np.maximum(rows, 0)


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

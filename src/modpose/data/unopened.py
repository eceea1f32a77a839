"""An input of a user: its table is read, its images are not opened yet."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modpose.data import formats
from modpose.data.agreement import check_agreement
from modpose.data.image_files import open_stack, split_array_name, stack_of_table
from modpose.data.joined_tables import joined_tables
from modpose.data.lists import read_list
from modpose.data.mrc import is_mrc
from modpose.data.particles import Particles
from modpose.data.pictures import folders_of_pictures
from modpose.data.stack import ArrayStack, Kind, RowsStack, Stack, subset
from modpose.data.tables import TABLES, read_particles
from modpose.data.tags import note_unknown
from modpose.errors import InputError
from modpose.files.marker import is_run
from modpose.files.writing import natural_key

logger = logging.getLogger("modpose")

if TYPE_CHECKING:
    import torch

    from modpose.data.tilt_volumes import TiltVolumes

Input = str | Path | Sequence[str | Path]
"""One input, or several that are joined."""


@dataclass(frozen=True)
class Unopened:
    """An input whose images are opened once the wanted rows are known.

    Attributes
    ----------
    particles
        The table, one row per image.
    path
        Path of the input, of several the first; None for an array.
    inputs, others
        Paths that open the same images again; further files of the input.
    whole
        All images, if they came without a table; else None.
    datadir
        First folder in which the files of the table are searched, or None.
    tilts
        The volumes that are made of tilt images; else None.
    """

    particles: Particles
    path: Path | None = None
    inputs: tuple[Path, ...] = ()
    others: tuple[Path, ...] = ()
    whole: Stack | None = None
    datadir: Path | None = None
    tilts: TiltVolumes | None = None

    @property
    def n(self) -> int:
        """Number of images."""
        return self.particles.n

    def stack(self, rows: NDArray[np.int64] | None = None) -> Stack:
        """Open the images of these rows (None: all); files of other rows may be missing."""
        if self.whole is not None:
            return self.whole if rows is None else subset(self.whole, rows)
        assert self.path is not None
        wanted = self.particles if rows is None else self.particles.subset(rows)
        stack = stack_of_table(wanted, self.path, self.datadir)
        check_agreement(wanted, stack)
        note_unknown(wanted)
        return stack


def read_input(
    input: Input | NDArray[Any] | torch.Tensor | Stack,
    kind: Kind = "auto",
    datadir: Path | None = None,
) -> Unopened:
    """Read the list of images of an input; see :func:`modpose.data.source.open_source`."""
    if isinstance(input, Stack):
        return Unopened(_no_table(input), whole=input)
    if isinstance(input, str | Path):
        path = Path(input)
        if path.suffix.lower() == ".txt" and path.is_file():
            return _several(read_list(path, datadir), (path,), kind, datadir)
        return _one(str(input), kind, datadir)
    if isinstance(input, list | tuple) and all(isinstance(one, str | Path) for one in input):
        if not input:
            raise InputError.of("the input", "the number of files", 0, "at least one")
        if len(input) == 1:
            return read_input(input[0], kind, datadir)
        files = [Path(one) for one in input]
        return _several(files, tuple(files), kind, datadir)
    if "torch" in sys.modules and isinstance(input, sys.modules["torch"].Tensor):
        input = input.detach().cpu().numpy()
    if not isinstance(input, np.ndarray):
        raise InputError.of("the input", "its type", type(input).__name__, "paths or an array")
    stack = ArrayStack(input, kind)
    return Unopened(_no_table(stack), whole=stack)


def _one(text: str, kind: Kind, datadir: Path | None) -> Unopened:
    path, array = split_array_name(Path(text))
    if path.suffix.lower() in TABLES:
        return Unopened(read_particles(path, tilts=False), path, (path,), datadir=datadir)
    if path.is_dir() and path.suffix.lower() != ".zarr":
        return _folder(path, kind)
    stack = open_stack(path, array, kind)
    return Unopened(_no_table(stack, text), Path(text), (Path(text),), whole=stack)


def _several(
    files: list[Path], inputs: tuple[Path, ...], kind: Kind, datadir: Path | None
) -> Unopened:
    """Join tables, or files of images."""
    counts = Counter(file.resolve() for file in files)
    twice = next((file for file, count in counts.items() if count > 1), None)
    if twice is not None:
        raise InputError(f"{twice}: it is given twice, expected every input once")
    tables = [file for file in files if file.suffix.lower() in TABLES]
    if not tables:
        parts = [open_stack(*split_array_name(file), kind) for file in files]
        return _joined(files, parts, inputs)
    if len(tables) < len(files):
        stray = next(file for file in files if file not in tables)
        raise InputError(
            f"{stray}: it is given together with the table {tables[0].name}, expected tables only "
            "or files of images only"
        )
    particles = joined_tables([read_particles(file, tilts=False) for file in files], files)
    return Unopened(particles, files[0], inputs, (*files, *inputs), datadir=datadir)


def _joined(
    files: list[Path], parts: list[Stack], inputs: tuple[Path, ...], folder: Path | None = None
) -> Unopened:
    """Join stacks; the table says in which file each image lies."""
    import pandas as pd

    path, counts = inputs[0], [part.n for part in parts]
    position = np.concatenate([np.arange(n) for n in counts])
    stack = RowsStack(parts, np.repeat(np.arange(len(parts)), counts), position, str(path))
    names = [str(file if folder is None else file.relative_to(folder)) for file in files]
    table = pd.DataFrame({"file": np.repeat(names, counts)})
    particles = Particles(table, name=str(path), position=position)
    return Unopened(particles, path, inputs, whole=stack)


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


def _folder(path: Path, kind: Kind) -> Unopened:
    refuse_run(path)
    files = _stack_files(path)
    pictures = formats.picture_files(path, nested=not files)
    if pictures and files:
        both = f"with pictures ({pictures[0].name}) and other images ({files[0].name})"
        raise InputError.of(path, "the folder", both, "files of one format")
    if pictures:
        return _pictures(path, pictures)
    if not files:
        expected = "PNG, TIFF, JPEG, MRC, EM, SPIDER or FITS files"
        raise InputError.of(path, "the folder", "without images", expected)
    return _joined(files, [open_stack(file, None, kind) for file in files], (path,), path)


def _pictures(path: Path, files: list[Path]) -> Unopened:
    import pandas as pd

    table = pd.DataFrame({"file": [str(file.relative_to(path)) for file in files]})
    if any(file.parent != path for file in files):
        table["folder"] = [str(file.parent.relative_to(path)) for file in files]
    elif inner := folders_of_pictures(path):
        more = f"; they hold pictures too ({inner[0].name}, ...)"
        logger.warning(
            "%s: its %d pictures are read, not its sub-folders%s", path, len(files), more
        )
    stack = formats.PictureStack(files, str(path))
    return Unopened(Particles(table, name=str(path)), path, (path,), whole=stack)


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

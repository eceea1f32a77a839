"""The other hand: maps and poses are mirrored together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modpose.data.mrc import is_mrc, open_mrc, write_mrcs
from modpose.data.table_files import files_of_table, notes_of_paths, write_table
from modpose.errors import InputError
from modpose.files.writing import all_or_nothing, check_outputs
from modpose.fourier.fsc import read_map
from modpose.jobs.positions import open_table
from modpose.jobs.symmetry import mirrored_poses

Volume = NDArray[np.float32]


def flip_hand(files: Sequence[Path], folder: Path, *, overwrite: bool = False) -> list[Path]:
    """Mirror maps along z, and give tables the poses that belong to the mirrored maps.

    Parameters
    ----------
    files
        Maps (one a file) and tables, all of the same object.
    folder
        The new files have the same names there.
    overwrite
        Replace files that are there.

    Returns
    -------
    What was written.

    Raises
    ------
    InputError
        Two files have one name, a file is neither map nor table, or a table has no poses in space.
    """
    outs = [folder / path.name for path in files]
    twice = next((path for path in outs if outs.count(path) > 1), None)
    if twice is not None:
        raise InputError(f"{twice}: two files have this name, expected different names")
    written = [each for path in outs for each in files_of_table(path)]
    check_outputs(written, overwrite, files)
    maps = {out: _map(path) for path, out in zip(files, outs, strict=True) if is_mrc(path)}
    tables = {
        out: mirrored_poses(open_table(path))
        for path, out in zip(files, outs, strict=True)
        if out not in maps
    }
    for path, out in zip(files, outs, strict=True):
        for note in notes_of_paths(tables[out], path, out) if out in tables else ():
            tables[out].note(note)
    with all_or_nothing() as place:
        for out, (volume, size) in maps.items():
            write_mrcs(place(out), mirrored(volume)[None], size)
        for out, particles in tables.items():
            write_table(particles, out, place)
    return written


def _map(path: Path) -> tuple[Volume, float | None]:
    """Read a map; a stack of images is none."""
    if path.is_file() and len(open_mrc(path).shape) == 2:
        raise InputError.of(path, "the file", "a stack of images", "one map (a cube in a .mrc)")
    return read_map(path)


def mirrored(volume: Volume) -> Volume:
    """Mirror a volume (D, H, W) along z, about the centre D // 2."""
    flipped: Volume = volume[::-1]
    return flipped if len(volume) % 2 else np.roll(flipped, 1, axis=0)

"""Write new images of a set in shards, so that an interrupted job can continue."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modpose.data.fresh_table import fresh_particles
from modpose.data.mrc import HEADER_BYTES, write_mrcs_parts
from modpose.data.particles import Particles
from modpose.data.poses import given_poses
from modpose.data.posing import with_pose
from modpose.data.record import given_ctf_sum, source_fingerprint
from modpose.data.source import Source
from modpose.errors import InputError
from modpose.files.writing import refuse_to_replace, replace_atomically
from modpose.progress import Progress

Images = NDArray[np.float32]

SETTINGS = "job.json"
"""Says which job a folder is of, and of which images."""
SHARD = 10_000
"""Images in a file."""
BATCH_BYTES = 2**26


@dataclass(frozen=True)
class Shards:
    """Where the new images of a set go.

    Attributes
    ----------
    folder
        Of the files.
    n
        Number of images.
    size
        Images in a file.
    """

    folder: Path
    n: int
    size: int = SHARD

    @property
    def names(self) -> list[str]:
        """Names of the files."""
        return [f"particles_{k:05d}.mrcs" for k in range(-(-self.n // self.size))]

    def of_rows(self) -> tuple[list[str], NDArray[np.int64]]:
        """Say in which file each image is, N names, and where in it, (N,)."""
        which, row = np.divmod(np.arange(self.n), self.size)
        names = self.names
        return [names[k] for k in which.tolist()], row

    def rows(self, k: int) -> NDArray[np.int64]:
        """Images of file number k."""
        return np.arange(k * self.size, min((k + 1) * self.size, self.n))


def table_for(source: Source, table: Path) -> Particles:
    """Return what the table of new images starts from: that of the images, or a fresh one.

    Poses that came in a file of their own are put into it.

    Raises
    ------
    InputError
        A CTF came in a file of its own beside a table, which cannot take it over.
    """
    particles = source.particles
    fresh = particles.format not in ("star", "cs")
    if particles.given_ctf is not None and not fresh:
        raise InputError(
            f"{particles.name}: --ctf is given with a table, expected a stack without one or a "
            "table that holds its CTF"
        )
    made = fresh_particles(source, table) if fresh else particles
    if particles.given_poses is None:
        return made
    rotation, shift = given_poses(source)
    half = particles.given_halves
    return with_pose(made, rotation=rotation, shift=shift, half=half, pixel_size=source.pixel_size)


def begin(
    shards: Shards, source: Source, settings: dict[str, Any], table: Path, overwrite: bool
) -> None:
    """Make the folder and say which job it is of, or go on with one that was interrupted.

    Raises
    ------
    InputError
        The folder holds another job, or a finished one, and ``overwrite`` is false; or it holds
        other things.
    """
    about = settings | {"images": source_fingerprint(source), "n": shards.n, "shard": shards.size}
    ctf = given_ctf_sum(source)
    about = json.loads(json.dumps(about if ctf is None else about | {"CTF": ctf}))
    path = shards.folder / SETTINGS
    there = _read(path) if path.is_file() else None
    refuse_to_replace([table], overwrite)
    if not overwrite:
        if there is not None and there != about:
            changed = next(key for key in {**about, **there} if about.get(key) != there.get(key))
            raise InputError(
                f"{shards.folder}: holds an interrupted job with another {changed}; "
                "--overwrite (overwrite=True) replaces it"
            )
        if there is None and shards.folder.is_dir() and any(shards.folder.glob("*.mrcs")):
            raise InputError(f"{shards.folder}: holds stacks of something else, expected no .mrcs")
    shards.folder.mkdir(parents=True, exist_ok=True)
    if there is not None and (overwrite or there != about):
        _clear(shards.folder, there)
    text = json.dumps(about, indent=2).encode()
    replace_atomically(path, lambda file: file.write(text), overwrite=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (ValueError, OSError):
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{path}: not readable, expected the settings of a job")
    return found


def _clear(folder: Path, about: dict[str, Any]) -> None:
    """Remove the stacks of an earlier job."""
    n, size = (about.get(name) for name in ("n", "shard"))
    if isinstance(n, int) and isinstance(size, int) and size > 0:
        for name in Shards(folder, n, size).names:
            (folder / name).unlink(missing_ok=True)


def fill(
    shards: Shards,
    box: int,
    pixel_size: float | None,
    make: Callable[[NDArray[np.int64]], Images],
    *,
    label: str,
    quiet: bool = False,
) -> None:
    """Write the files that are not there yet.

    Parameters
    ----------
    shards
        Where they go.
    box
        Side of the new images, pixels.
    pixel_size
        Å; None if it is not known.
    make
        Gives the new images (B, box, box) of rows (B,).
    label
        What the progress bar says.
    quiet
        No progress bar.
    """
    step = max(1, BATCH_BYTES // (4 * box * box))
    with Progress(label, shards.n, quiet=quiet) as progress:

        def parts(rows: NDArray[np.int64]) -> Iterator[Images]:
            for first in range(0, len(rows), step):
                some = rows[first : first + step]
                yield make(some)
                progress.advance(len(some), 0.0)

        for k, name in enumerate(shards.names):
            path, rows = shards.folder / name, shards.rows(k)
            bytes_of_all = HEADER_BYTES + 4 * len(rows) * box * box
            if path.is_file() and path.stat().st_size == bytes_of_all:
                progress.advance(len(rows), 0.0)
                continue
            shape = (len(rows), box, box)
            write_mrcs_parts(path, parts(rows), shape, pixel_size, overwrite=True)

"""Particles that are each seen in many images: the tilt series of RELION 5, WarpTools and M.

Each image becomes a row of a new table, with its pose, its CTF (with the dose that came
before it, and a defocus that follows the particle's depth) and the half set of its particle.  The
pose in image f of a particle at pose (R, t) is (A_f R, (A_f t)_xy); A_f is the tilt
(:mod:`modpose.data.tomograms`), and R = R_subtomogram R_particle where the table has both sets of
angles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modpose.data.locate import find_files
from modpose.data.opened import Source, source_of
from modpose.data.optics import PREMULTIPLIED, said_of_all
from modpose.data.particles import Particles
from modpose.data.stack import RowsStack
from modpose.data.star import columns_of, read_star, tilt_stack_reason
from modpose.data.tables import particles_of_star
from modpose.data.tilt_particles import (
    ctf_of_images,
    different,
    optics_of,
    poses_of,
    positions,
    stacks_of,
    visible,
)
from modpose.data.tomograms import FRAMES, TOMOGRAM, Tomogram, read_tomograms
from modpose.data.unopened import read_input
from modpose.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

GROUP = "rlnGroupName"
LISTS = ("rlnTomoParticlesFile", "rlnTomoTomogramsFile")
HALF = "rlnRandomSubset"
MARKS = (LISTS[0], FRAMES, "rlnTomoSubTomosAre2DStacks")
"""One of them is in every table that is recognised as one of tilt series."""


@dataclass(frozen=True)
class TiltSeries:
    """Particles and their tilt images.

    Attributes
    ----------
    images
        One row per image: pixels, pose, CTF, ``rlnGroupName`` (the particle) and
        ``rlnRandomSubset``; all images of a particle are in one half.
    particles
        One row per particle, as the table has it; for tables of M one row per name.
    particle
        (M,) row of ``particles`` that each image shows.
    frame
        (M,) which image of its tilt series it is, from 0 in the order of the table of tilts.
    tilt
        (M, 3, 3) from the tomogram to the image; None for tables of M, whose poses hold it.
    rotation, shift
        (P, 3, 3), and (P, 3) pixels: pose of each particle in its tomogram; None without angles,
        and for tables of M.
    path, tables
        What opens the series again; further tables that were read.
    """

    images: Source
    particles: Particles
    particle: Ints
    frame: Ints
    tilt: Floats | None
    rotation: Floats | None
    shift: Floats | None
    path: Path
    tables: tuple[Path, ...] = ()

    @property
    def n(self) -> int:
        """How many particles."""
        return self.particles.n

    def part(self, rows: Ints) -> TiltSeries:
        """Keep some particles, in rising order, with their images."""
        number = np.full(self.n, -1)
        number[rows] = np.arange(len(rows))
        kept = np.flatnonzero(number[self.particle] >= 0)
        return replace(
            self,
            images=self.images.subset(kept),
            particles=self.particles.subset(rows),
            particle=number[self.particle[kept]],
            frame=self.frame[kept],
            tilt=None if self.tilt is None else self.tilt[kept],
            rotation=None if self.rotation is None else self.rotation[rows],
            shift=None if self.shift is None else self.shift[rows],
        )


def is_tilt_series(path: Path) -> bool:
    """Tell whether a STAR file lists particles of many images, or names such a list."""
    if path.suffix.lower() != ".star" or not path.is_file():
        return False
    text = path.read_bytes()
    if not any(tag.encode() in text for tag in MARKS):
        return False
    blocks = read_star(path)
    listed = any(LISTS[0] in columns_of(block) for block in blocks.values())
    return listed or tilt_stack_reason(blocks) is not None


def opened_tilts(
    input: object, tomograms: str | Path | None, grouped: bool, datadir: str | Path | None
) -> TiltSeries | None:
    """Open an input as tilt series; return None if it is something else.

    Parameters
    ----------
    input
        What the user gave: a path, a list of paths, or images.
    tomograms, grouped
        The list of tomograms; whether images of one rlnGroupName show one particle.  Both say that
        these are tilt series.
    datadir
        Where the stacks are looked for first.

    Raises
    ------
    InputError
        If there are several inputs, one of them of tilt series, or the series cannot be read.
    """
    paths = list(input) if isinstance(input, list | tuple) else [input]
    files = [Path(one) for one in paths if isinstance(one, str | Path)]
    asked = tomograms is not None or grouped
    if not asked and not any(is_tilt_series(file) for file in files):
        return None
    if len(paths) > 1:
        raise InputError.of(str(files[0]), "the number of inputs", len(paths), "1 tilt series")
    if not files:
        raise InputError.of("the input", "its type", type(input).__name__, "a table of tilt series")
    return open_tilt_series(files[0], tomograms, datadir)


def open_tilt_series(
    path: str | Path, tomograms: str | Path | None = None, datadir: str | Path | None = None
) -> TiltSeries:
    """Open tilt series of particles.

    Parameters
    ----------
    path
        An optimisation set, a table of particles whose images are stacks of tilts (RELION 5,
        WarpTools), or a table of tilt images grouped by rlnGroupName (M, Warp).
    tomograms
        The list of tomograms, where ``path`` does not name it.
    datadir
        Where the stacks are looked for first.

    Raises
    ------
    InputError
        If a stack has neither all tilts nor just the visible ones, a tomogram is not listed, or
        the table is of another kind.
    """
    path, folder = Path(path), None if datadir is None else Path(datadir)
    given, blocks = path, read_star(path)
    listed = next((b for b in blocks.values() if LISTS[0] in columns_of(b)), None)
    if listed is not None:
        path, tomograms = _named_files(path, listed, tomograms)
        blocks = read_star(path)
    particles = particles_of_star(blocks, str(path))
    if tilt_stack_reason(blocks) is None:
        return _grouped(path, particles, folder)
    beside = _list_beside(path, tomograms, folder)
    series = _composed(path, particles, read_tomograms(beside), folder)
    return replace(series, path=given, tables=(path, beside))


def _named_files(
    path: Path, listed: Any, tomograms: str | Path | None
) -> tuple[Path, str | Path | None]:
    """Return the two files that an optimisation set names."""
    row = listed if isinstance(listed, dict) else listed.iloc[0]
    names = [str(row[tag]) for tag in LISTS if tag in row]
    found, missing = find_files(names, path, None)
    if missing:
        raise InputError(f"{path}: {missing[0]}, which it names, cannot be found")
    given = tomograms if tomograms is not None else found[names[1]] if len(names) > 1 else None
    return found[names[0]], given


def _list_beside(path: Path, tomograms: str | Path | None, datadir: Path | None) -> Path:
    if tomograms is not None:
        return Path(tomograms)
    near = [path.with_name(path.stem + "_tomograms.star"), path.with_name("tomograms.star")]
    near += [] if datadir is None else [datadir / "tomograms.star"]
    beside = next((file for file in near if file.exists()), None)
    if beside is None:
        raise InputError(
            f"{path}: the list of tomograms is not known, expected the optimisation set, or "
            "--tomograms FILE"
        )
    return beside


# --- stacks of tilts ---------------------------------------------------------------------------


def _composed(
    path: Path, particles: Particles, tomograms: dict[str, Tomogram], datadir: Path | None
) -> TiltSeries:
    """Make the table of images from particles, tomograms and stacks."""
    series = _tomogram_of_each(particles, tomograms, path)
    stacks = stacks_of(path, particles, datadir)
    rotation, shift = poses_of(particles)
    position = positions(particles, series)
    premultiplied = said_of_all(particles, PREMULTIPLIED)
    pixel_size = particles.pixel_size()
    if pixel_size is None:
        raise InputError(f"{path}: the pixel size is missing, expected rlnImagePixelSize")
    rows, poses, ctf, tilts = [], [], [], []
    focused = [tomogram.defocus is not None for tomogram in series]
    if any(focused) and not all(focused):
        raise InputError(f"{path}: some tomograms have a defocus and others none, expected all")
    optics = optics_of(particles, series) if all(focused) else None
    for i, (frames, places) in enumerate(visible(particles, series, stacks)):
        tomogram = series[i]
        turn = tomogram.rotation[frames]
        rows.append(np.stack([np.full(len(frames), i), frames, places], axis=1))
        tilts.append(turn)
        if rotation is not None:
            poses.append((turn @ rotation[i], (turn @ shift[i])[:, :2]))
        if optics is not None:
            depth = tomogram.depth(position[i])[frames]
            ctf.append(ctf_of_images(tomogram, frames, depth, optics[i], pixel_size, premultiplied))
    particle, frame, place = np.concatenate(rows).T
    tilt = np.concatenate(tilts)
    given = None
    if rotation is not None:
        given = (np.concatenate([r for r, _ in poses]), np.concatenate([s for _, s in poses]))
    table = _image_table(particles, particle, place)
    images = Particles(
        table,
        None,
        "star",
        str(path),
        given_poses=given,
        given_ctf=np.concatenate(ctf) if ctf else None,
    )
    parts, part = different(stacks)
    stack = RowsStack(parts, part[particle], place, str(path))
    source = Source(stack, images, path, datadir=datadir)
    return TiltSeries(source, particles, particle, frame, tilt, rotation, shift, path)


def _tomogram_of_each(
    particles: Particles, tomograms: dict[str, Tomogram], path: Path
) -> list[Tomogram]:
    names = [str(name) for name in particles.column(TOMOGRAM)]
    unknown = next((name for name in names if name not in tomograms), None)
    if unknown is not None:
        raise InputError(f"{path}: the tomogram {unknown} is not in the list of tomograms")
    return [tomograms[name] for name in names]


def _image_table(particles: Particles, particle: Ints, place: Ints) -> pd.DataFrame:
    """Make the table of images: which image, of which particle, in which half."""
    import pandas as pd

    files = particles.column("rlnImageName")
    names = [f"{k + 1}@{files[i]}" for i, k in zip(particle, place, strict=True)]
    table = pd.DataFrame({"rlnImageName": names, GROUP: list(_names(particles, particle))})
    halves = particles.column(HALF) if particles.has(HALF) else np.arange(particles.n) % 2 + 1
    table[HALF] = halves[particle]
    return table


def _names(particles: Particles, particle: Ints) -> Iterator[str]:
    tag = "rlnTomoParticleName"
    names = particles.column(tag) if particles.has(tag) else np.arange(1, particles.n + 1)
    return (str(names[i]) for i in particle)


# --- tables of tilt images --------------------------------------------------------------------


def _grouped(path: Path, particles: Particles, datadir: Path | None) -> TiltSeries:
    """Group the rows of a table of tilt images by the name of the particle."""
    import pandas as pd

    if not particles.has(GROUP):
        if particles.has("rlnCtfImage"):
            raise InputError(
                f"{path}: it lists volumes, not tilt series; expected this table itself as the "
                "input, without --tomograms or --tilt-series"
            )
        raise InputError(
            f"{path}: these are no tilt series, expected stacks of tilts ({FRAMES}) or tilt images "
            f"grouped by {GROUP}"
        )
    source = source_of(read_input(path, datadir=datadir))
    particle, names = pd.factorize(source.particles.column(GROUP))
    counts = pd.Series(particle).groupby(particle).cumcount().to_numpy()
    if len(names) == source.n:
        raise InputError(f"{path}: each {GROUP} has one image, expected several per particle")
    first = np.unique(particle, return_index=True)[1]
    table = source.particles.table
    halves = table[HALF].to_numpy()[first] if HALF in table else np.arange(len(names)) % 2 + 1
    images = replace(source.particles, table=table.assign(**{HALF: halves[particle]}))
    return TiltSeries(
        replace(source, particles=images),
        source.particles.subset(first),
        particle.astype(np.int64),
        counts.astype(np.int64),
        None,
        None,
        None,
        path,
    )

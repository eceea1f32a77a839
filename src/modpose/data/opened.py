"""Opened sources: images with their table of particles."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modpose.data.display import html_facts, stack_facts
from modpose.data.given import with_given
from modpose.data.index import select_rows
from modpose.data.particles import Particles
from modpose.data.stack import Kind, Stack, subset
from modpose.data.unopened import Unopened
from modpose.errors import InputError

if TYPE_CHECKING:
    from modpose.data.tilt_posing import WrittenRows
    from modpose.data.tilt_volumes import TiltVolumes

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
        Path of the input, of several the first; None for an array.
    inputs, others
        Paths that open the same images again; further files of the input.
    selection
        (N,) rows of the whole input that were kept, from 0; None for all.
    whole
        The table of the whole input, if only some of its rows were kept; else None.
    datadir
        First folder in which the files of the table are searched, or None.
    wedge
        The measured part of the volumes, if given; else None.
    tilts
        Where the volumes are made of tilt images, those of the whole input; else None.
    """

    stack: Stack
    particles: Particles
    path: Path | None = None
    inputs: tuple[Path, ...] = ()
    others: tuple[Path, ...] = ()
    selection: NDArray[np.int64] | None = None
    whole: Particles | None = None
    datadir: Path | None = None
    wedge: Wedge | None = None
    tilts: TiltVolumes | None = None

    @property
    def n(self) -> int:
        """Number of images."""
        return self.stack.n

    @property
    def places(self) -> str | list[str] | None:
        """Absolute paths that open the images again: None for an array, a list for several."""
        places = [os.fspath(path.absolute()) for path in self.inputs]
        return places if len(places) > 1 else next(iter(places), None)

    @property
    def pixel_size(self) -> float | None:
        """Angstrom per pixel, from the table, else from the stack; None if unknown."""
        of_table = self.particles.pixel_size()
        return self.stack.pixel_size if of_table is None else of_table

    def _repr_html_(self) -> str:
        columns = f"{self.particles.n:,} rows of {self.particles.table.shape[1]} columns"
        facts = {**stack_facts(self.stack), "pixel size": "unknown", "table": columns}
        if self.pixel_size is not None:
            facts["pixel size"] = f"{self.pixel_size:.4g} A"
        return html_facts(str(self.path or "an array in memory"), facts)

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

    def written_tilts(self) -> WrittenRows | None:
        """Return the rows of a table of these particles of tilt series; None for other images."""
        if self.tilts is None:
            return None
        return self.tilts.written(self.selection)

    def written(self) -> Particles:
        """Return the table of these images as a file has it: of M, with a row for each tilt."""
        tilts = self.written_tilts()
        return self.particles if tilts is None else tilts.particles

    def with_poses(self, rotation: NDArray[Any], shift: NDArray[Any]) -> Source:
        """Return the same images with these poses in place of those of their table.

        Parameters
        ----------
        rotation, shift
            (N, 3, 3), and (N, 2) pixels of the images as stored.
        """
        poses = np.asarray(rotation, np.float64), np.asarray(shift, np.float64)
        return replace(self, particles=replace(self.particles, given_poses=poses))

    @property
    def all_particles(self) -> Particles:
        """The table of the whole input."""
        return self.particles if self.whole is None else self.whole


def source_of(
    opened: Unopened,
    *,
    index: str | Path | NDArray[Any] | None = None,
    poses: str | Path | None = None,
    ctf: str | Path | None = None,
    wedge: Wedge | None = None,
    partial: bool = False,
) -> Source:
    """Open the wanted images; arguments as for :func:`modpose.data.source.open_source`."""
    particles = opened.particles
    rows = None if index is None else select_rows(index, particles, partial=partial)
    stack = opened.stack(rows)
    if wedge is not None and len(stack.shape) != 3:
        found = " x ".join(map(str, stack.shape))
        expected = "volumes, because a wedge is given"
        raise InputError.of(stack.name, "the box", found, expected)
    if poses is not None or ctf is not None:
        wanted = np.arange(opened.n) if rows is None else rows
        of_table = particles.subset(wanted).pixel_size()
        particles, kept = with_given(
            particles,
            shape=stack.shape,
            pixel_size=stack.pixel_size if of_table is None else of_table,
            poses=poses,
            ctf=ctf,
            selected=wanted,
            partial=partial,
        )
        if len(kept) < len(wanted):
            rows, stack = kept, opened.stack(kept)
    source = Source(
        stack,
        particles,
        opened.path,
        opened.inputs,
        opened.others,
        datadir=opened.datadir,
        wedge=wedge,
        tilts=opened.tilts,
    )
    if rows is None:
        return source
    return replace(source, particles=particles.subset(rows), selection=rows, whole=particles)


def refuse_axes_of_table(source: Source, kind: Kind) -> None:
    """Refuse axes that are given for a table and are not those of the files that it names."""
    stack, volumes, colour = source.stack, kind == "volumes" or "Z" in kind, "C" in kind
    agrees = volumes == (len(stack.shape) == 3) and (colour or kind == "rgb") == (
        stack.channels > 1
    )
    if kind != "auto" and source.particles.format != "none" and not agrees:
        expected = "auto for a table, whose images have axes of their own"
        raise InputError.of(source.particles.name, "data.kind (--axes)", f"'{kind}'", expected)

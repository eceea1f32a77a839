"""Find objects in files of images, write where they are, and cut them out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from modpose.data.image_files import split_array_name
from modpose.data.mrc import write_mrcs_parts
from modpose.data.particles import Particles
from modpose.data.source import Source, open_source
from modpose.data.star import write_star
from modpose.devices import on_its_device
from modpose.errors import InputError
from modpose.files.writing import all_or_nothing, check_outputs
from modpose.jobs.positions import open_table
from modpose.limits import check_real, check_whole
from modpose.pick import coordinates as tables
from modpose.pick.find import find_objects
from modpose.pick.recut import check_coordinates, cut_again
from modpose.pick.templates import CONTENTS, Templates, templates_of_run

logger = logging.getLogger("modpose")

LARGEST_BOX = 4096


@dataclass(frozen=True)
class Large:
    """One image that is searched.

    Attributes
    ----------
    name
        What tables call it.
    source, index
        Where its pixels are.
    """

    name: str
    source: Source
    index: int

    def read(self) -> NDArray[np.float32]:
        """Read its pixels, (H, W)."""
        pixels: NDArray[np.float32] = self.source.stack.read(np.array([self.index]))[0, 0]
        return pixels


@dataclass(frozen=True)
class Found:
    """What :func:`pick_images` wrote.

    Attributes
    ----------
    objects
        How many are listed.
    left_out
        How many were not cut out, because their box leaves the image.
    written
        The files.
    """

    objects: int
    left_out: int
    written: list[Path]


@on_its_device
def pick_images(
    images: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    radius: float | None = None,
    run: str | Path | None = None,
    coordinates: str | Path | None = None,
    dark: bool = False,
    packed: bool = False,
    false_fraction: float = 0.02,
    threshold: float | None = None,
    separation: float | None = None,
    contents: int = CONTENTS,
    angles: int | None = None,
    scale: float | None = None,
    pixel_size: float | None = None,
    extract: int | None = None,
    overwrite: bool = False,
    device: str | None = None,
) -> Found:
    """Find objects in images, or take known coordinates, and write a table of them.

    Parameters
    ----------
    images
        Files of one image, or of several of one size.
    out
        The table, .star or .csv.
    radius, dark, packed, false_fraction, threshold, separation
        See :func:`modpose.pick.find.find_objects`.
    run, contents, angles, scale
        The folder of a model of single images, in place of a radius; see
        :func:`modpose.pick.templates.templates_of_run`.
    coordinates
        A table with known coordinates, in place of either.  With ``extract``, the new STAR file
        keeps the columns of a STAR file: poses, shifts, CTF, half sets.
    pixel_size
        Angstrom; None takes that of the images.
    extract
        Side of boxes that are cut out around the objects, pixels.  They are written beside
        ``out``, which is then a STAR file of particles, as ``.mrcs``.
    overwrite
        Replace files that are there.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``; None: the CPU.

    Raises
    ------
    InputError
        If something cannot be used; nothing is then written.
    """
    out = Path(out)
    if out.suffix.lower() not in tables.SUFFIXES:
        raise InputError.of(out, "the extension", f"'{out.suffix}'", "star or csv")
    if sum(way is not None for way in (radius, run, coordinates)) != 1:
        raise InputError("pick: expected one of --radius, --run and --coordinates")
    searching = dark or packed or not (threshold is None and separation is None)
    if coordinates is not None and searching:
        raise InputError(
            "pick: --dark, --packed, --threshold and --separation are for a search, expected none "
            "with --coordinates"
        )
    if run is None and not (angles is None and scale is None):
        raise InputError("pick: --angles and --scale are for a model, expected --run with them")
    if pixel_size is not None:
        check_real("--pixel-size", "the size, angstrom,", pixel_size, 0, 1e6, low_counts=False)
    stack = out.with_suffix(".mrcs")
    if extract is not None:
        check_whole("--extract", "the box", extract, 2, LARGEST_BOX)
        if out.suffix.lower() != ".star":
            raise InputError.of(out, "the extension", f"'{out.suffix}'", "star, with --extract")
    paths = [images] if isinstance(images, str | Path) else list(images)
    outputs = [stack, out] if extract is not None else [out]
    given = [split_array_name(Path(path))[0] for path in paths]
    given += [Path(path) for path in (run, coordinates) if path is not None]
    check_outputs(outputs, overwrite, given)
    opened = list(_opened(paths))
    sizes = {large.source.pixel_size for large in opened if large.source.pixel_size}
    if pixel_size is None and len(sizes) > 1:
        raise InputError("pick: the images have several pixel sizes, expected one (--pixel-size)")
    pixel_size = pixel_size or (sizes.pop() if sizes else None)
    known: Particles | None = None
    if coordinates is not None:
        table = _known(tables.read_coordinates(coordinates), opened, str(coordinates))
        if Path(coordinates).suffix.lower() == ".star" and len(table):
            known = open_table(Path(coordinates))
            check_coordinates(known, pixel_size)
    else:
        templates = None
        if run is not None:
            templates = templates_of_run(
                run, contents=contents, angles=angles, pixel_size=pixel_size, scale=scale
            )
        table = _searched(
            opened,
            radius=radius,
            templates=templates,
            dark=dark,
            packed=packed,
            false_fraction=false_fraction,
            threshold=threshold,
            separation=separation,
        )
    if extract is None:
        tables.write_coordinates(out, table, overwrite)
        return Found(len(table), 0, [out])
    whole = _whole_boxes(table, opened, extract)
    if not whole.any():
        found = f"{len(table)} objects, none of them with its box inside the image"
        raise InputError.of("--extract", "what was found", found, "at least one")
    kept = table[whole].reset_index(drop=True)
    with all_or_nothing() as place:
        boxes = _boxes(kept, opened, extract)
        write_mrcs_parts(place(stack), boxes, (len(kept), extract, extract), pixel_size)
        particles = Particles(tables.star_table(kept), None, "star", str(out))
        if known is not None:
            particles = known.subset(np.flatnonzero(whole))
        names = [f"{row + 1:06d}@{stack.name}" for row in range(len(kept))]
        made = cut_again(particles, names, kept["micrograph"].to_numpy(), extract, pixel_size)
        write_star(place(out), made.table, made.optics, form=made.form)
    return Found(len(kept), len(table) - len(kept), outputs)


def _opened(paths: list[str | Path]) -> Iterator[Large]:
    for path in paths:
        source = open_source(path)
        if len(source.stack.shape) != 2 or source.stack.channels != 1:
            found = "in colour" if len(source.stack.shape) == 2 else "a volume"
            raise InputError.of(str(path), "the image", found, "a grey picture")
        for index in range(source.n):
            name = str(path) if source.n == 1 else f"{index + 1:06d}@{path}"
            yield Large(name, source, index)


def _searched(
    opened: list[Large],
    *,
    radius: float | None,
    templates: Templates | None,
    dark: bool,
    packed: bool,
    false_fraction: float,
    threshold: float | None,
    separation: float | None,
) -> pd.DataFrame:
    found = []
    for large in opened:
        picks = find_objects(
            large.read(),
            radius=radius,
            templates=templates,
            dark=dark,
            packed=packed,
            false_fraction=false_fraction,
            threshold=threshold,
            separation=separation,
        )
        found.append(tables.table_of(picks, large.name))
    return pd.concat(found, ignore_index=True)


def _known(table: pd.DataFrame, opened: list[Large], where: str) -> pd.DataFrame:
    """Give each row of known coordinates the name of the image that it lies in."""
    if "micrograph" not in table:
        if len(opened) > 1:
            raise InputError(f"{where}: no column says which image, expected a micrograph name")
        table.insert(0, "micrograph", opened[0].name)
        return table
    files = Counter(PurePosixPath(large.name).name for large in opened)
    known = {PurePosixPath(large.name).name: large.name for large in opened}
    known = {file: name for file, name in known.items() if files[file] == 1}
    known |= {large.name: large.name for large in opened}
    places = {name: known.get(name) for name in table["micrograph"].unique()}
    ends = Counter(PurePosixPath(name).name for name in places)
    for name, place in places.items():
        end = PurePosixPath(name).name
        if place is None and ends[end] == 1 and end in known:
            places[name] = known[end]
            logger.info("%s: %s is taken to be %s, because of its name", where, name, known[end])
        elif place is None:
            raise InputError.of(where, "a micrograph", name, "one of the images given")
    return table.assign(micrograph=table["micrograph"].map(places))


def _corners(table: pd.DataFrame, box: int) -> NDArray[np.float64]:
    """First row and column of the box about each object, whose middle is at box // 2, (N, 2)."""
    corner: NDArray[np.float64] = np.rint(table[["y", "x"]].to_numpy(np.float64)) - box // 2
    return corner


def _whole_boxes(table: pd.DataFrame, opened: list[Large], box: int) -> NDArray[np.bool_]:
    shapes = {large.name: large.source.stack.shape for large in opened}
    corner = _corners(table, box)
    size = np.array([shapes[name] for name in table["micrograph"]]).reshape(-1, 2)
    inside: NDArray[np.bool_] = np.all((corner >= 0) & (corner + box <= size), axis=1)
    return inside


def _boxes(table: pd.DataFrame, opened: list[Large], box: int) -> Iterator[NDArray[np.float32]]:
    """Cut the boxes out, those of one image at a time; rows of an image follow one another."""
    corner = _corners(table, box).astype(np.int64)
    at = {large.name: large for large in opened}
    name = table["micrograph"].to_numpy()
    change = np.flatnonzero(name[1:] != name[:-1]) + 1 if len(name) else np.arange(0)
    for rows in np.split(np.arange(len(name)), change):
        pixels = at[name[rows[0]]].read()
        yield np.stack([pixels[y : y + box, x : x + box] for y, x in corner[rows]])

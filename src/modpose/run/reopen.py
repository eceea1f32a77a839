"""Open the images of a run again: found in any order, refused if they are not the same images."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modpose.config import DataConfig
from modpose.data.dataset import Dataset, dataset_of
from modpose.data.preprocess import geometry
from modpose.data.recognise import check_labels, check_pixels, check_used, places_in
from modpose.data.source import Source, open_source, opened_input, source_of
from modpose.data.stack import Stack
from modpose.data.unopened import Input
from modpose.data.wedges import follow_order
from modpose.errors import InputError
from modpose.run.folder import sha256
from modpose.run.pretrained import first_fingerprint

if TYPE_CHECKING:
    from modpose.data.record import Record
    from modpose.run import Run

logger = logging.getLogger("modpose")

Given = Input | NDArray[Any] | Stack | None


def reopened(run: Run, input: Given = None, datadir: Path | None = None) -> Dataset:
    """Open the images of a run; see :meth:`modpose.run.Run.dataset`."""
    environment = run.environment
    if input is None and environment.get("input") is None:
        raise InputError(
            f"{run.path}: the run was fitted to an array in memory, which is not in the folder"
        )
    where = environment["input"] if input is None else input
    folder = datadir or _path(environment.get("datadir"))
    if folder is not None and datadir is None and not folder.exists():
        folder = None
    record = run.record()
    files = _files(environment, where)
    if record is None:
        source = open_source(
            where,
            kind=run.config.data.kind,
            datadir=folder,
            index=files.get("index"),
            poses=files.get("poses"),
            ctf=files.get("ctf"),
        )
        if first_fingerprint(source) != environment.get("fingerprint"):
            raise InputError(
                f"{source.stack.name}: the images are not those of the run {run.path}, or not in "
                "their order, expected the input of the fit"
            )
    else:
        source = _found_again(run, record, where, folder, files)
        if environment.get("poses_found") is not None:
            source = _with_poses_of(record, source, run.config.data)
    value_range = environment.get("value_range")
    dataset = dataset_of(
        source,
        run.config,
        value_range=None if value_range is None else (value_range[0], value_range[1]),
        affinity=run.known_affinity(),
    )
    if record is not None:
        check_used(record, dataset)
    return dataset


def _found_again(
    run: Run, record: Record, where: Any, folder: Path | None, files: dict[str, Path]
) -> Source:
    """Open the whole input, and take the images of the run from it, in the order of the run."""
    kind, environment = run.config.data.kind, run.environment
    opened = opened_input(
        where, kind, folder, files.get("tomograms"), bool(environment.get("tilt_series"))
    )
    places = places_in(record, opened.particles)
    index = None if np.array_equal(places, np.arange(opened.n)) else places
    source = source_of(opened, index=index, poses=files.get("poses"), ctf=files.get("ctf"))
    shape = (source.stack.shape, source.stack.channels)
    known = (tuple(environment["stored_shape"]), environment["channels"])
    if shape != known:
        raise InputError.of(source.stack.name, "the size of an image", shape[0], f"{known[0]}")
    wedge = run.config.model.wedge
    if not np.array_equal(places, record.rows["row"]) and follow_order(wedge):
        raise InputError(
            f"{source.particles.name}: its rows are in another order than at the fit, but the "
            f"masks in {wedge} name no volumes, expected the order of the fit"
        )
    check_pixels(record, source.stack)
    check_labels(record, source.particles, environment.get("labels"))
    _note_changed_files(environment)
    return source


def _with_poses_of(record: Record, source: Source, config: DataConfig) -> Source:
    """Give images the poses that the fit found for them, or that it has not found yet."""
    rotation, shift = record.used("rotation"), record.used("shift")
    if rotation is None or shift is None:
        raise InputError(f"{source.particles.name}: the run has lost the poses that it found")
    factor = geometry(source.stack.shape, config, source.stack.name).pixel_size_factor
    return source.with_poses(rotation.reshape(-1, 3, 3), factor * shift.astype(np.float64))


def _files(environment: dict[str, Any], where: Any) -> dict[str, Path]:
    """Name the files that were given with the input; if they have moved, look beside the input."""
    files = {}
    for name in ("index", "poses", "ctf", "tomograms"):
        path = _path(environment.get(name))
        if path is not None:
            beside = Path(where).parent / path.name if isinstance(where, str | Path) else path
            files[name] = beside if beside.exists() and not path.exists() else path
    return files


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _note_changed_files(environment: dict[str, Any]) -> None:
    """Log that a list of rows or labels has changed; the run keeps its own copy."""
    for path, known in (environment.get("copied") or {}).items():
        if Path(path).is_file() and sha256(Path(path)) != known:
            logger.info("%s: has changed since the fit; the run keeps what it was then", path)

"""From a user's subtomograms to a folder of class averages, poses and figures."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from modpose import ranks
from modpose.alarms.images import warn_of_wedge
from modpose.data.preprocess import fourier_crop
from modpose.data.record import given_ctf_sum, source_fingerprint
from modpose.data.restore import Restoration
from modpose.data.wedges import Wedge, Wedges, open_wedges, read_wedge
from modpose.devices import computing_on
from modpose.errors import InputError
from modpose.files.locks import writing
from modpose.files.writing import all_or_nothing
from modpose.fourier.coefficients import Coefficients
from modpose.observe.ctf import CtfColumn, ctf_3d
from modpose.parts import Parts, Shard
from modpose.search.alignment import Alignment, AlignSettings
from modpose.search.files import Spread, uncertainties, write_results
from modpose.search.folder import (
    SHARDS,
    begin,
    begin_shard,
    check_folder,
    go_on,
    publish_work,
    remove_work,
    written_files,
)
from modpose.search.page import write_page
from modpose.search.pipeline import Block, Rows, align, check_alignable, read_coefficients
from modpose.search.sizes import check_sizes

if TYPE_CHECKING:
    from modpose.data.particles import Particles
    from modpose.data.source import Source


def align_subtomograms(
    source: Source,
    out: str | Path,
    settings: AlignSettings | None = None,
    *,
    wedge: Wedge | None = None,
    datadir: Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    shard: Shard | None = None,
    device: str | None = None,
    quiet: bool = False,
) -> Alignment:
    """Find classes and poses of subtomograms; write averages and poses into a folder.

    Parameters
    ----------
    source
        The volumes (:func:`modpose.data.source.open_source`).
    out
        Folder to write to: ``class001.mrc``, its halves, ``particles.star``, ``fsc.csv``,
        ``metrics.jsonl`` (one line per round), ``index.html`` and figures.
    settings
        The settings.
    wedge
        The measured part of the volumes, if neither the source nor its table gives it
        (:func:`modpose.data.wedges.open_wedges`).
    datadir
        First folder in which the files of a table are searched.
    overwrite
        Replace an earlier alignment when this one is finished.
    resume
        Continue an interrupted one.
    shard
        Compute one part, and meet the others in files of the folder; number 0 adds up, and writes
        the results at the end.
    device
        Where to compute: ``auto``, ``cpu``, ``cuda`` or ``mps``; by default the CPU.
    quiet
        Show no progress.

    Raises
    ------
    InputError
        If the input or the folder cannot be used.
    Waiting
        If the parts of other shards are not there yet.
    """
    settings = settings or AlignSettings()
    check_volumes(source, settings)
    wedge = source.wedge if wedge is None else wedge
    wedge = None if wedge is None else read_wedge(wedge)
    folder, wanted = Path(out), _wanted(source, settings, wedge)
    check_folder(folder, wanted, source, overwrite, resume, shard)
    side = settings.box or source.stack.shape[0]
    binning = source.stack.shape[0] / side
    wedges = open_wedges(
        source, wedge, shape=(side,) * 3, pixel_size_factor=binning, datadir=datadir
    )
    if wedges is None:
        warn_of_wedge(source)
    place = next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
    read = partial(coefficients_of_source, source, wedges, settings, place)
    with computing_on("--device", device):
        return aligned(
            source, read, folder, settings, wanted, binning, resume=resume, shard=shard, quiet=quiet
        )


def aligned(
    source: Source,
    read: Callable[[], Coefficients],
    folder: Path,
    settings: AlignSettings,
    wanted: dict[str, object],
    binning: float,
    *,
    half: Tensor | None = None,
    posed: Callable[[Alignment, Spread], Particles] | None = None,
    resume: bool = False,
    shard: Shard | None = None,
    quiet: bool = False,
) -> Alignment:
    """Align volumes or tilt series, and write the results into a folder.

    Parameters
    ----------
    source
        One row for each volume or particle.
    read
        Reads their coefficients.
    folder, settings, resume, shard, quiet
        As in :func:`align_subtomograms`.
    wanted
        The settings and the identity of the input, for JSON.
    binning
        Side of a voxel of the averages, in voxels of the input.
    half
        (N,) int64 0 or 1; drawn at random by default.
    posed
        Makes the table of poses; that of volumes by default.
    """
    if shard is not None:
        work = begin_shard(folder, wanted, shard) if shard.number else folder / SHARDS
        with ranks.by_files(Parts(work, shard, wanted)):
            found, spread = _aligned(read(), settings, work, half, binning, quiet)
        if shard.number:
            return found
    else:
        with ranks.joined():
            data = read()
        if not ranks.leads():
            with ranks.joined():
                return _aligned(data, settings, None, half, binning, quiet=True)[0]
        folder.mkdir(parents=True, exist_ok=True)
    with writing(folder):
        if shard is None:
            work = go_on(folder) if resume else begin(folder, wanted)
            with ranks.joined():
                found, spread = _aligned(data, settings, work, half, binning, quiet)
        table = None if posed is None else partial(posed, found)
        with all_or_nothing() as place:
            for earlier in written_files(folder):
                place.remove(earlier)
            publish_work(work, folder, place)
            write_page(folder, source, found, settings, place)
            write_results(folder, source, found, spread, place, table)
        remove_work(work, folder)
    return found


def _aligned(
    data: Coefficients,
    settings: AlignSettings,
    work: Path | None,
    half: Tensor | None,
    binning: float,
    quiet: bool,
) -> tuple[Alignment, Spread]:
    """Align, and find how certain the poses are; all processes do this together."""
    found = align(data, settings, folder=work, half=half, quiet=quiet)
    return found._replace(binning=binning), uncertainties(found, data)


def _wanted(source: Source, settings: AlignSettings, wedge: Wedge | None) -> dict[str, object]:
    """Return the settings and the identity of the volumes, for JSON."""
    measured = [float(tilt) for tilt in wedge] if isinstance(wedge, tuple) else wedge
    if isinstance(measured, np.ndarray):
        masks = np.ascontiguousarray(measured)
        measured = hashlib.sha256(f"{masks.dtype}{masks.shape}".encode() + masks.data).hexdigest()
    return dataclasses.asdict(settings) | {
        "volumes": source.n,
        "fingerprint": source_fingerprint(source),
        "ctf": given_ctf_sum(source),
        "wedge": str(measured.absolute()) if isinstance(measured, Path) else measured,
    }


def check_volumes(source: Source, settings: AlignSettings) -> None:
    """Refuse data that cannot be aligned."""
    stack = source.stack
    shape = "x".join(map(str, stack.shape))
    if len(stack.shape) != 3:
        raise InputError.of(stack.name, "the box", shape, "volumes: subtomograms are cubes")
    if len(set(stack.shape)) != 1:
        raise InputError.of(stack.name, "the box", shape, "a cube")
    check_sizes(source, settings.box, settings.mask_diameter_px, settings.max_shift_px)
    check_alignable(stack.name, "the box", stack.shape[0], source.n, settings.classes)


def coefficients_of_source(
    source: Source, wedges: Wedges | None, settings: AlignSettings, folder: Path | None = None
) -> Coefficients:
    """Read the volumes in the box of the alignment, with their measured frequencies."""
    box = settings.box or source.stack.shape[0]
    sign = -1.0 if settings.invert else 1.0
    everything = torch.ones(1, box, box, box // 2 + 1)
    known = wedges is not None and wedges.transfers
    ctf = None if known else _ctf_of(source, box)
    restoration = Restoration(source, wedges)

    def read(rows: Rows) -> Block:
        volumes = restoration(source.stack.read(rows), rows)
        finite = np.isfinite(volumes).all(axis=(1, 2, 3, 4))
        if not finite.all():
            where = source.stack.where(int(rows[finite.argmin()]))
            raise InputError(f"{where}: it holds values that are not finite, expected numbers")
        if volumes.shape[-1] != box:
            volumes = fourier_crop(volumes, box)
        measured = everything
        if wedges is not None:
            measured = torch.from_numpy(wedges.read(rows[:1] if wedges.shared else rows))
        own = None if ctf is None else ctf(rows)
        return Block(sign * torch.from_numpy(volumes[:, 0]), measured, own)

    return read_coefficients(source.n, box, read, folder)[0]


def _ctf_of(source: Source, box: int) -> Callable[[Rows], Tensor] | None:
    params = source.particles.ctf(source.stack.pixel_size)
    if params is None:
        return None
    params = params.copy()
    params[:, CtfColumn.PIXEL_SIZE] *= source.stack.shape[0] / box
    return lambda rows: ctf_3d(torch.from_numpy(params[rows]).float(), (box,) * 3)

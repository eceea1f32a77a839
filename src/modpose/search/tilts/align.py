"""Classes and poses of particles in tilt series, as ``modpose align`` finds those of volumes."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np

from modpose.data.particles import Particles
from modpose.data.record import source_fingerprint
from modpose.data.source import Source
from modpose.data.tilt_posing import with_tilt_poses
from modpose.data.tilt_series import TiltSeries
from modpose.devices import computing_on
from modpose.parts import Shard
from modpose.search.alignment import Alignment, AlignSettings
from modpose.search.files import Spread, own_columns
from modpose.search.folder import check_folder
from modpose.search.pipeline import check_alignable
from modpose.search.run import aligned
from modpose.search.sizes import check_sizes
from modpose.search.tilts.images import given_halves, side_of_images
from modpose.search.tilts.parts import read_part


def align_tilt_series(
    series: TiltSeries,
    out: str | Path,
    settings: AlignSettings | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
    shard: Shard | None = None,
    device: str | None = None,
    quiet: bool = False,
) -> Alignment:
    """Find classes and poses of particles in tilt series; write averages and poses.

    One rotation and one shift of a particle explain all its images; the likelihood is that of the
    images, each with its CTF and dose.

    Parameters
    ----------
    series
        The particles (:func:`modpose.data.tilt_series.open_tilt_series`).
    out
        Folder, as for :func:`modpose.search.run.align_subtomograms`.
    settings
        The settings.
    overwrite
        Replace an earlier alignment when this one is finished.
    resume
        Continue an interrupted one.
    shard, device
        As for :func:`modpose.search.run.align_subtomograms`.
    quiet
        Show no progress.

    Raises
    ------
    InputError
        If the input or the folder cannot be used.
    """
    settings, folder = settings or AlignSettings(), Path(out)
    side, name = side_of_images(series), series.images.stack.name
    check_sizes(series.images, settings.box, settings.mask_diameter_px, settings.max_shift_px)
    check_alignable(name, "the box", side, series.n, settings.classes)
    box = settings.box or side - side % 2
    wanted = dataclasses.asdict(settings) | {
        "volumes": series.n,
        "fingerprint": source_fingerprint(series.images),
        "wedge": None,
    }
    check_folder(folder, wanted, series.images, overwrite, resume, shard)
    radius = settings.schedule.refine_limit * box
    read = partial(read_part, series, radius, box, invert=settings.invert, quiet=quiet)

    def posed(found: Alignment, spread: Spread) -> Particles:
        rotation, shift = found.assignment.rotation.double(), found.shift_px.double()
        made = with_tilt_poses(
            series,
            rotation.numpy(),
            shift.numpy(),
            found.assignment.class_index.numpy(),
            found.half.numpy(),
        )
        row = np.arange(series.n) if made.n == series.n else series.particle
        own = {name: values[row] for name, values in own_columns(found, spread).items()}
        return dataclasses.replace(made, table=made.table.assign(**own))

    with computing_on("--device", device):
        return aligned(
            _of_particles(series),
            read,
            folder,
            settings,
            wanted,
            side / box,
            half=given_halves(series),
            posed=posed,
            resume=resume,
            shard=shard,
            quiet=quiet,
        )


def _of_particles(series: TiltSeries) -> Source:
    """Return one row per particle: its table, and its first image."""
    first = np.unique(series.particle, return_index=True)[1]
    return dataclasses.replace(series.images.subset(first), particles=series.particles)

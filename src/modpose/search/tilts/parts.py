"""The particles of tilt series that one of several processes reads and holds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from modpose import ranks
from modpose.data.tilt_series import TiltSeries
from modpose.data.tomograms import TOMOGRAM
from modpose.fourier.coefficients import Coefficients
from modpose.search.tilts.background import divided, shared_noise
from modpose.search.tilts.images import read_tilts

NOISE_FROM, OF_EACH = 512, 3
"""Particles from which noise is measured: evenly spread, and the first of each tomogram."""


def read_part(
    series: TiltSeries, radius: float, box: int, *, invert: bool, quiet: bool
) -> Coefficients:
    """Read the whitened coefficients of the particles of this process (:mod:`modpose.ranks`).

    All processes measure the noise of the same particles.

    Parameters
    ----------
    series
        All particles.
    radius
        Cycles a box of the images.
    box
        Side that images are thought to be Fourier-cropped to.
    invert
        Whether particles are dark.
    quiet
        No progress bar.
    """
    sample = _sample(series)
    few = read_tilts(series.part(sample), radius, invert=invert, quiet=quiet)
    data = few.coefficients(radius, box)
    noise, own = shared_noise(data), ranks.part_of(series.n)
    rows = np.arange(own.start, own.stop)
    if not np.array_equal(rows, sample):
        mine = series.part(rows)
        part = read_tilts(mine, radius, invert=invert, quiet=quiet, like=few)
        data = part.coefficients(radius, box)
    data = divided(data, noise)
    if len(rows) == series.n:
        return data
    place = torch.full((series.n,), -1)
    place[own] = torch.arange(len(rows))
    return replace(data, place=place)


def _sample(series: TiltSeries) -> NDArray[np.int64]:
    """Choose the particles whose noise is measured."""
    spread = np.linspace(0, series.n - 1, min(NOISE_FROM, series.n)).astype(np.int64)
    if series.n <= NOISE_FROM or not series.particles.has(TOMOGRAM):
        return np.unique(spread)
    name = np.unique(series.particles.column(TOMOGRAM), return_inverse=True)[1].reshape(-1)
    order = np.argsort(name, kind="stable")
    rank = np.arange(series.n) - np.searchsorted(name[order], name[order])
    return np.unique(np.concatenate([spread, order[rank < OF_EACH]]))

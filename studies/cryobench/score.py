"""The area under the Fourier shell correlation of drawn maps with the true ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.backprojection.halves import reconstruct_halves
from modpose.content_maps import ContentMapSettings, fit_content_maps
from modpose.data.dataset import Dataset
from modpose.errors import InputError
from modpose.evaluate.true_maps import TrueMap, read_true_maps
from modpose.fourier.fsc import fsc
from modpose.outputs.content_maps import MARGIN
from modpose.search.solvent import molecule_mask

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Volume = NDArray[np.float32]

JUDGED = 100
"""Images whose maps are compared, over the states in turn."""
LOW, RESEMBLES = 8, 0.5
"""A map resembles the truth where its first shells correlate by more than this, on average."""
NEIGHBOURS = (1, 5, 15)
"""Widths of the kernel over true states: so many nearest states are averaged."""
KNOWN, COMPONENTS = 0.05, 8
"""Standard deviation of known content, and the largest number of its dimensions."""
FUNCTIONS = (25, 50, 100)
"""Numbers of functions of known content, of which the best is taken; at most one a state."""


@dataclass(frozen=True)
class Areas:
    """Areas of some maps.

    Attributes
    ----------
    each
        Area under the FSC up to Nyquist (at most 0.5) of each judged image.
    low
        Mean correlation of the first shells.
    """

    each: Floats
    low: float

    @property
    def mean(self) -> float:
        """Mean over the judged images."""
        return float(self.each.mean())


class Judge:
    """Compares maps with the truth of a simulated set.

    The true map of an image is that of its state.  The mask is soft, about the true map
    (:func:`modpose.search.solvent.molecule_mask`).

    Parameters
    ----------
    folder
        Of the set.
    state
        (N,) true state of each image.
    """

    def __init__(self, folder: Path, state: Ints) -> None:
        self.true: list[TrueMap] = read_true_maps(folder / "maps")
        self.state = state
        states = len(self.true)
        ranked = [np.flatnonzero(state == k) for k in range(states)]
        turns = [(j % states, j // states) for j in range(JUDGED)]
        if any(len(ranked[k]) <= rank for k, rank in turns):
            raise InputError.of(
                folder, "the images of a state", min(map(len, ranked)), "more, to be judged"
            )
        self.rows: Ints = np.array([ranked[k][rank] for k, rank in turns])
        volumes = torch.from_numpy(np.stack([one.volume for one in self.true])).float()
        ball = volumes.shape[-1] - MARGIN
        self.masks = [molecule_mask(one[None], ball).numpy() for one in volumes]

    def areas(self, maps: Iterable[Volume], rows: Ints | None = None) -> Areas:
        """Score one map for each image of ``rows``; by default of ``self.rows``."""
        rows = self.rows if rows is None else rows
        each, low = [], []
        for row, volume in zip(rows, maps, strict=True):
            k = int(self.state[row])
            curve = fsc(volume, self.true[k].volume, self.masks[k])
            each.append(curve.area() / 2)
            low.append(curve.correlation[:LOW].mean())
        return Areas(np.array(each), float(np.mean(low)))


@dataclass(frozen=True)
class Limits:
    """What the same images allow.

    Attributes
    ----------
    consensus
        The map of all images, by the solver and filter of the sharp maps.
    known
        The same solver with the true states known, and the better number of functions.
    functions
        That number.
    kernel
        Back-projections of the images of the nearest true states, the best number of them.
    neighbours
        That number.
    """

    consensus: Areas
    known: Areas
    functions: int
    kernel: Areas
    neighbours: int

    @property
    def oracle(self) -> float:
        """The better of the two that know the states."""
        return max(self.known.mean, self.kernel.mean)

    def gain(self, area: float) -> float:
        """Return (area - consensus) / (oracle - consensus)."""
        return (area - self.consensus.mean) / (self.oracle - self.consensus.mean)


def limits(judge: Judge, dataset: Dataset, mask: Volume) -> Limits:
    """Compute the consensus and both oracles."""
    volumes = np.stack([one.volume for one in judge.true])
    content = _known_content(volumes)[judge.state]
    std, inside = np.full_like(content, KNOWN), torch.from_numpy(mask)
    one = ContentMapSettings(functions=1, rounds=0)
    mean = fit_content_maps(dataset, content, std, inside, one, quiet=True)
    consensus = judge.areas(mean.volume(content[row]) for row in judge.rows)
    counts = sorted({min(k, len(volumes)) for k in FUNCTIONS})
    known = {k: _known(judge, dataset, content, inside, k) for k in counts}
    best = max(known, key=lambda k: known[k].mean)
    kernel = {k: _kernel(judge, dataset, volumes, k) for k in NEIGHBOURS if k <= len(volumes)}
    width = max(kernel, key=lambda k: kernel[k].mean)
    return Limits(consensus, known[best], best, kernel[width], width)


def _known(judge: Judge, dataset: Dataset, content: Floats, mask: Tensor, count: int) -> Areas:
    """Score the maps of known content (N, k) with so many functions of it."""
    settings, std = ContentMapSettings(count, rounds=0), np.full_like(content, KNOWN)
    made = fit_content_maps(dataset, content, std, mask, settings, quiet=True)
    return judge.areas(made.volume(content[row]) for row in judge.rows)


def _known_content(volumes: Volume) -> Floats:
    """Principal components of the true maps, in units of the first one's deviation: (K, k)."""
    flat = volumes.reshape(len(volumes), -1).astype(float)
    flat -= flat.mean(0)
    u, s, _ = np.linalg.svd(flat, full_matrices=False)
    kept = min(COMPONENTS, len(volumes) - 1)
    scores = u[:, :kept] * s[:kept]
    return np.asarray(scores / scores[:, 0].std())


def _kernel(judge: Judge, dataset: Dataset, volumes: Volume, count: int) -> Areas:
    """Score back-projections of the images of the ``count`` nearest states."""
    flat = volumes.reshape(len(volumes), -1)
    made: dict[int, Volume] = {}
    for k in range(len(volumes)):
        nearest = np.argsort(((flat - flat[k]) ** 2).sum(1))[:count]
        rows = np.flatnonzero(np.isin(judge.state, nearest))
        made[k] = reconstruct_halves(dataset, rows, quiet=True).combined()
    return judge.areas(made[int(judge.state[row])] for row in judge.rows)


def resembles(areas: Areas) -> bool:
    """Whether maps are of the same object as the truth, in one frame and with one sign."""
    return areas.low > RESEMBLES


Draw = Callable[[Ints], Iterable[Volume]]
"""Draws a map for each of some images."""

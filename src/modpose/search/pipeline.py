"""The steps of an alignment: measure noise, search, regroup, refine, find motions.

``modpose align`` and the alignment start of a training both use these steps.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose import ranks
from modpose.errors import InputError
from modpose.files.reading import free_memory
from modpose.fourier.coefficients import (
    Coefficients,
    Common,
    NoiseSpectrum,
    coefficients_of,
    half_sphere,
    joined,
    measure_noise,
    on_disk,
    stored,
)
from modpose.fourier.fsc import resolution_shell
from modpose.fourier.gridded import gridded
from modpose.geometry.grids import soft_sphere
from modpose.progress import Progress
from modpose.search.alignment import LEAST_BOX, Alignment, AlignSettings
from modpose.search.classify import (
    Assignment,
    Schedule,
    State,
    classify,
    generator_of,
    random_start,
)
from modpose.search.folder import METRICS, SEARCHED, STATE, load_state, save_state
from modpose.search.motion import Motions, principal_motions
from modpose.search.refine import refine
from modpose.search.regroup import regrouped

logger = logging.getLogger("modpose")

Rows = NDArray[np.int64]

CHUNK = 64
"""Volumes read per batch."""
NOISE_FROM = 512
"""Number of volumes for measuring the spectrum of the noise."""
PER_CLASS = 8
"""Smallest mean number of volumes per class."""
IN_MEMORY, BYTES_EACH = 0.5, 12
"""Share of the free memory for coefficients, and bytes of one with its transfer."""
LEAST_SHELLS = 3
"""Smallest number of shells for finding motions."""


class Block(NamedTuple):
    """Some volumes, with their wedge and CTF.

    Attributes
    ----------
    volumes
        (B, D, D, D).
    measured
        (B | 1, D, D, D // 2 + 1), see :func:`modpose.fourier.coefficients.coefficients_of`.
    ctf
        The same shape, or None for one.
    """

    volumes: Tensor
    measured: Tensor
    ctf: Tensor | None


def check_alignable(name: str, what: str, side: int, count: int, classes: int) -> None:
    """Refuse a box (named ``what``) or a number of volumes that is too small."""
    if side < LEAST_BOX:
        raise InputError.of(name, f"the side of {what}", side, f"at least {LEAST_BOX} voxels")
    if count < PER_CLASS * classes:
        expected = f"at least {PER_CLASS * classes}, eight for each of {classes} classes"
        raise InputError.of(name, "the number of volumes", count, expected)


def read_coefficients(
    count: int, box: int, read: Callable[[Rows], Block], folder: Path | None = None
) -> tuple[Coefficients, NoiseSpectrum]:
    """Read volumes in chunks and keep their coefficients, whitened by the noise in the corners.

    Each of several processes keeps its own part of them (:mod:`modpose.ranks`).

    Parameters
    ----------
    count
        Number of volumes.
    box
        Side D.
    read
        Reads the volumes at some rows; twice, where coefficients take more than half of the memory.
    folder
        Where coefficients then are, in a file without a name; by default that for temporary files.
    """
    few = np.unique(np.linspace(0, count - 1, min(NOISE_FROM, count)).astype(np.int64))
    noise = measure_noise((read(rows)[:2] for rows in _chunks(few)), box)
    limit = Schedule().refine_limit
    own = ranks.part_of(count)

    def parts() -> Iterator[Coefficients]:
        for rows in _chunks(np.arange(own.start, own.stop)):
            volumes, measured, ctf = read(rows)
            yield coefficients_of(volumes, measured, noise, limit, ctf)

    n = own.stop - own.start
    here = count if ranks.several() else n  # on this machine, at most
    needed = BYTES_EACH * here * len(half_sphere(box, limit)[0])
    held = list(parts()) if needed < IN_MEMORY * free_memory() else None
    common = Common.of(parts() if held is None else held)
    (largest,) = ranks.rows(lambda: (common.largest[None],))
    common = common._replace(largest=largest.amax(0))
    if held is None:
        size = f"{needed / 1e9:,.0f} GB"
        logger.info("the coefficients of the volumes take %s, in a file until the end", size)
        data = stored(parts(), n, common, on_disk(folder))
    else:
        data = joined(held, common)
    if n == count:
        return data, noise
    place = torch.full((count,), -1)
    place[own] = torch.arange(len(data))
    return replace(data, place=place), noise


def _chunks(rows: Rows) -> list[Rows]:
    return [rows[i : i + CHUNK] for i in range(0, len(rows), CHUNK)]


def align(
    data: Coefficients,
    settings: AlignSettings,
    *,
    folder: Path | None = None,
    half: Tensor | None = None,
    start: Assignment | None = None,
    quiet: bool = False,
) -> Alignment:
    """Find classes, poses, averages and motions.

    Parameters
    ----------
    data
        N volumes or tilt series.
    settings
        The settings.  ``box`` and ``invert`` were used when the volumes were read.
    folder
        Folder for the state and one line of metrics after each round, for continuing; the leading
        process writes them.
    half
        (N,) int64 0 or 1, the half of each volume; drawn at random by default.
    start
        Poses and classes that are refined, in place of a search.
    quiet
        No progress bar.

    Raises
    ------
    InputError
        If a class has too few volumes for the motions asked for, or a file in the folder is
        damaged.
    """
    if ranks.place().size > len(data):
        expected = f"at most {len(data)}, the number of volumes"
        raise InputError.of("align", "the number of processes", ranks.place().size, expected)
    mask = soft_sphere(data.box, settings.mask_diameter_px or data.box - 4.0)
    found = _searched_and_refined(data, settings, mask, folder, half, start, quiet)
    if settings.motions:
        found = found._replace(motions=_motions_of(data, found, settings, mask))
    return found


def _searched_and_refined(
    data: Coefficients,
    settings: AlignSettings,
    mask: Tensor,
    folder: Path | None,
    half: Tensor | None,
    start: Assignment | None,
    quiet: bool,
) -> Alignment:
    schedule, seed, reach = settings.schedule, settings.seed, settings.max_shift_px
    total = (schedule.rounds + schedule.refine_rounds) * len(data)
    began = time.perf_counter()
    with Progress("aligning", total, quiet=quiet) as progress:

        def show(state: State, images: int = 0) -> None:
            progress.show(round=state.round, score=float(state.assignment.score.mean()))
            progress.advance(images, time.perf_counter() - began)

        def report(state: State) -> None:
            ranks.enter(f"round{state.round:03d}")
            if folder is not None and ranks.leads():
                save_state(folder / STATE, state)
                _log(folder / METRICS, state, time.perf_counter() - began)
            show(state, len(data))

        low = data
        if data.frequency.ndim == 3:  # tilt series
            low = gridded(data.within(schedule.limits[1]))
        state = _first_state(low, settings, mask, folder, start)
        progress.advance(min(state.round, schedule.rounds) * len(data), 0.0)
        if state.round <= schedule.rounds:
            state = classify(
                low,
                settings.classes,
                mask=mask,
                reach=reach,
                schedule=schedule,
                seed=seed,
                start=state,
                report=report,
            )
            state = regrouped(
                low, state, mask=mask, reach=reach, schedule=schedule, seed=seed, report=show
            )
            if folder is not None and ranks.leads():
                save_state(folder / SEARCHED, state)
        else:
            last = ranks.once(lambda: None if folder is None else load_state(folder / SEARCHED))
            state = last or state
        ranks.enter("refinement")
        state, maps, half = refine(
            data,
            state,
            mask=mask,
            reach=reach,
            schedule=schedule,
            seed=seed,
            half=half,
            report=report,
        )
    return Alignment(state.assignment, maps, half)


def _first_state(
    low: Coefficients,
    settings: AlignSettings,
    mask: Tensor,
    folder: Path | None,
    start: Assignment | None,
) -> State:
    """Return the state in ``folder`` if there is one, else that of ``start``, else a random one."""
    schedule, classes = settings.schedule, settings.classes
    state = ranks.once(lambda: None if folder is None else load_state(folder / STATE))
    if state is not None:
        ranks.enter(f"round{state.round:03d}")
        return state
    if start is None:
        return random_start(low, classes, mask, schedule, settings.seed)
    empty = low.radius.new_zeros(classes, *(low.box,) * 3)  # the refinement makes the averages
    here = start.to(empty.device)
    return State(schedule.rounds + 1, here, empty, empty.new_zeros(classes, 1))


def _motions_of(
    data: Coefficients, found: Alignment, settings: AlignSettings, mask: Tensor
) -> list[Motions]:
    """Find the motions of each class, up to the frequency where its halves agree."""
    here, motions = found.assignment, []
    resolved = resolution_shell(found.maps.fsc).clamp(min=LEAST_SHELLS)
    for number, mean in enumerate(found.maps.combined):
        rows = (here.class_index == number).nonzero().squeeze(1)
        if len(rows) <= settings.motions:
            raise InputError.of(
                "align",
                f"the number of volumes in class {number + 1}",
                len(rows),
                f"more than the {settings.motions} motions asked for: ask for fewer classes or "
                "motions",
            )
        motions.append(
            principal_motions(
                data.rows(rows).within(float(resolved[number]) / data.box),
                here.rotation[rows],
                here.shift[rows],
                mean,
                mask,
                count=settings.motions,
                generator=generator_of(settings.seed, -1 - number),
            )
        )
    return motions


def _log(path: Path, state: State, seconds: float) -> None:
    counts = torch.bincount(state.assignment.class_index, minlength=len(state.volumes))
    line = {
        "round": state.round,
        "score": float(state.assignment.score.mean()),
        "volumes": counts.tolist(),
        "resolution_shell": resolution_shell(state.fsc).tolist(),
        "seconds": round(seconds, 2),
    }
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")

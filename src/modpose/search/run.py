"""From a user's subtomograms to a folder of class averages, poses and figures."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.alarms.images import warn_of_wedge
from modpose.data.preprocess import fourier_crop
from modpose.data.record import source_fingerprint
from modpose.data.restore import Restoration
from modpose.data.wedges import Wedge, Wedges, open_wedges
from modpose.errors import InputError
from modpose.files.locks import writing
from modpose.files.writing import all_or_nothing
from modpose.fourier.coefficients import Coefficients, coefficients_of, joined, measure_noise
from modpose.progress import Progress
from modpose.search.alignment import LEAST_BOX, Alignment, AlignSettings
from modpose.search.average import resolution_shell, soft_sphere
from modpose.search.classify import (
    Schedule,
    State,
    classify,
    generator_of,
    random_start,
)
from modpose.search.folder import (
    METRICS,
    SEARCHED,
    STATE,
    begin,
    check_folder,
    go_on,
    load_state,
    publish_work,
    remove_work,
    save_state,
    written_files,
)
from modpose.search.motion import Motions, principal_motions
from modpose.search.refine import refine
from modpose.search.regroup import regrouped

if TYPE_CHECKING:
    from modpose.data.source import Source

Rows = NDArray[np.int64]

CHUNK = 64
"""Volumes read at a time."""
NOISE_FROM = 512
"""Volumes that the spectrum of the noise is measured on."""
LEAST_SHELLS = 3
"""Motions are sought in so many shells at least."""


def align_subtomograms(
    source: Source,
    out: str | Path,
    settings: AlignSettings | None = None,
    *,
    wedge: Wedge | None = None,
    datadir: Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    quiet: bool = False,
) -> Alignment:
    """Find classes and poses of subtomograms, and leave averages and poses in a folder.

    Parameters
    ----------
    source
        The volumes (:func:`modpose.data.source.open_source`).
    out
        Folder to write to: ``class001.mrc``, its halves, ``particles.star``, ``fsc.csv``,
        ``metrics.jsonl`` (a line a round), ``index.html`` and figures.
    settings
        What is asked for.
    wedge
        What was measured, where the table does not say
        (:func:`modpose.data.wedges.open_wedges`).
    datadir
        Where the files that a table names are looked for first.
    overwrite
        Replace an earlier alignment, once this one is finished.
    resume
        Go on with an interrupted one.
    quiet
        Show no progress.

    Raises
    ------
    InputError
        Where the input or the folder cannot be used.
    """
    from modpose.search.files import write_results
    from modpose.search.page import write_page

    settings = settings or AlignSettings()
    check_volumes(source, settings)
    folder, wanted = Path(out), _wanted(source, settings, wedge)
    check_folder(folder, wanted, source, overwrite, resume)
    side, binning = _side(source, settings)
    wedges = open_wedges(
        source, wedge, shape=(side,) * 3, pixel_size_factor=binning, datadir=datadir
    )
    if wedges is None:
        warn_of_wedge(source)
    data = read_coefficients(source, wedges, settings)
    folder.mkdir(parents=True, exist_ok=True)
    with writing(folder):
        work = go_on(folder) if resume else begin(folder, wanted)
        found = _carried_out(data, work, settings, quiet)._replace(binning=binning)
        if settings.motions:
            found = found._replace(motions=_motions_of(data, found, settings))
        with all_or_nothing() as place:
            for earlier in written_files(folder):
                place.remove(earlier)
            publish_work(work, folder, place)
            write_page(folder, source, found, settings, place)
            write_results(folder, source, found, data, place)
        remove_work(work, folder)
    return found


def _wanted(source: Source, settings: AlignSettings, wedge: Wedge | None) -> dict[str, object]:
    """Say what is asked for, and of which volumes, as JSON has it."""
    measured = [float(tilt) for tilt in wedge] if isinstance(wedge, tuple) else wedge
    return dataclasses.asdict(settings) | {
        "volumes": source.n,
        "fingerprint": source_fingerprint(source),
        "wedge": str(measured.absolute()) if isinstance(measured, Path) else measured,
    }


def check_volumes(source: Source, settings: AlignSettings) -> None:
    """Refuse what cannot be aligned, in a sentence."""
    stack = source.stack
    shape = "x".join(map(str, stack.shape))
    if len(stack.shape) != 3:
        raise InputError.of(stack.name, "the box", shape, "volumes: subtomograms are cubes")
    if len(set(stack.shape)) != 1:
        raise InputError.of(stack.name, "the box", shape, "a cube")
    if stack.shape[0] < LEAST_BOX:
        expected = f"at least {LEAST_BOX} voxels"
        raise InputError.of(stack.name, "the side of the box", stack.shape[0], expected)
    if settings.box is not None and settings.box > stack.shape[0]:
        expected = f"at most {stack.shape[0]}, the side of {stack.name}"
        raise InputError.of("align", "box", settings.box, expected)
    if source.n < 8 * settings.classes:
        raise InputError.of(
            stack.name,
            "the number of volumes",
            source.n,
            f"at least {8 * settings.classes}, eight for each of {settings.classes} classes",
        )


def _side(source: Source, settings: AlignSettings) -> tuple[int, float]:
    """Return the side of the box that is aligned, and how much larger its voxels are."""
    side = settings.box or source.stack.shape[0]
    return side, source.stack.shape[0] / side


def read_coefficients(
    source: Source, wedges: Wedges | None, settings: AlignSettings
) -> Coefficients:
    """Read volumes in chunks and keep their coefficients, whitened by the noise in the corners."""
    box, binning = _side(source, settings)
    sign = -1.0 if settings.invert else 1.0
    everything = torch.ones(1, box, box, box // 2 + 1)
    known = wedges is not None and wedges.transfers
    ctf = None if known else _ctf_of(source, box, binning)
    restoration = Restoration(source, wedges)

    def volumes(rows: Rows) -> Tensor:
        block = torch.from_numpy(restoration(source.stack.read(rows), rows)[:, 0])
        if not block.isfinite().all():
            bad = int((~block.isfinite()).flatten(1).any(1).nonzero()[0])
            where = source.stack.where(int(rows[bad]))
            raise InputError(f"{where}: it holds values that are not finite, expected numbers")
        if binning != 1.0:
            block = torch.from_numpy(fourier_crop(block[:, None].numpy(), box)[:, 0])
        return sign * block

    def mask(rows: Rows) -> Tensor:
        if wedges is None:
            return everything
        return torch.from_numpy(wedges.read(rows[:1] if wedges.shared else rows))

    sample = np.unique(np.linspace(0, source.n - 1, min(NOISE_FROM, source.n)).astype(np.int64))
    noise = measure_noise(((volumes(r), mask(r)) for r in _chunks(sample)), box)
    parts = []
    for rows in _chunks(np.arange(source.n)):
        own = None if ctf is None else ctf(rows)
        limit = Schedule().refine_limit
        parts.append(coefficients_of(volumes(rows), mask(rows), noise, limit, own))
    return joined(parts)


def _ctf_of(source: Source, box: int, binning: float) -> Callable[[Rows], Tensor] | None:
    from modpose.observe.ctf import CtfColumn, ctf_3d

    params = source.particles.ctf(source.stack.pixel_size)
    if params is None:
        return None
    params = params.copy()
    params[:, CtfColumn.PIXEL_SIZE] *= binning
    return lambda rows: ctf_3d(torch.from_numpy(params[rows]).float(), (box,) * 3)


def _chunks(rows: Rows) -> list[Rows]:
    return [rows[i : i + CHUNK] for i in range(0, len(rows), CHUNK)]


# --- rounds -----------------------------------------------------------------------------------


def _carried_out(
    data: Coefficients, folder: Path, settings: AlignSettings, quiet: bool
) -> Alignment:
    schedule = settings.schedule
    mask = _mask(settings, data.box)
    reach = settings.max_shift_px
    total = schedule.rounds + schedule.refine_rounds
    began = time.perf_counter()
    with Progress("aligning", total * len(data), quiet=quiet) as progress:

        def report(state: State) -> None:
            save_state(folder / STATE, state)
            _log(folder / METRICS, state, data, time.perf_counter() - began)
            progress.show(round=state.round, score=float(state.assignment.score.mean()))
            progress.advance(len(data), time.perf_counter() - began)

        def regrouping(state: State) -> None:
            progress.show(round=state.round, score=float(state.assignment.score.mean()))
            progress.advance(0, time.perf_counter() - began)

        state = load_state(folder / STATE)
        if state is None:
            state = random_start(data, settings.classes, mask, schedule, settings.seed)
        progress.advance(min(state.round, schedule.rounds) * len(data), 0.0)
        searched = folder / SEARCHED
        if state.round <= schedule.rounds:
            state = classify(
                data,
                settings.classes,
                mask=mask,
                reach=reach,
                schedule=schedule,
                seed=settings.seed,
                start=state,
                report=report,
            )
            state = regrouped(
                data,
                state,
                mask=mask,
                reach=reach,
                schedule=schedule,
                seed=settings.seed,
                report=regrouping,
            )
            save_state(searched, state)
        state = load_state(searched) or state
        state, maps, half = refine(
            data,
            state,
            mask=mask,
            reach=reach,
            schedule=schedule,
            seed=settings.seed,
            report=report,
        )
    return Alignment(state.assignment, maps, half)


def _motions_of(data: Coefficients, found: Alignment, settings: AlignSettings) -> list[Motions]:
    """Find the motions of each class, as far in frequency as its halves agree."""
    here, mask = found.assignment, _mask(settings, data.box)
    resolved = resolution_shell(found.maps.fsc).clamp(min=LEAST_SHELLS)
    out = []
    for number, mean in enumerate(found.maps.combined):
        rows = (here.class_index == number).nonzero().squeeze(1)
        if len(rows) <= settings.motions:
            raise InputError.of(
                "align",
                f"the number of volumes in class {number + 1}",
                len(rows),
                f"more than the {settings.motions} motions asked for",
            )
        out.append(
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
    return out


def _mask(settings: AlignSettings, box: int) -> Tensor:
    return soft_sphere(box, settings.mask_diameter_px or box - 4.0)


def _log(path: Path, state: State, data: Coefficients, seconds: float) -> None:
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

"""From tilt series without poses to a folder of maps, half maps and poses."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from modpose.data.inputs import files_of_source
from modpose.data.mrc import open_mrc
from modpose.data.posing import SCORE
from modpose.data.record import source_fingerprint
from modpose.data.tilt_posing import tilts_of_images, with_tilt_poses
from modpose.data.tilt_series import TiltSeries
from modpose.devices import computing_on
from modpose.errors import InputError
from modpose.files.writing import check_outputs
from modpose.fourier.coefficients import Coefficients
from modpose.fourier.gridded import gridded
from modpose.geometry.grids import lattice, soft_sphere
from modpose.progress import Progress
from modpose.run.folder import sha256
from modpose.search.abinitio.found import FoundMaps, output_files, write_found
from modpose.search.abinitio.refine import Refined
from modpose.search.abinitio.run import STARTED_FROM, measured
from modpose.search.abinitio.saved import Saved, Unfinished, check_unfinished, unfinished_in
from modpose.search.abinitio.settings import AbInitioSettings
from modpose.search.classify import Assignment, Schedule, State, classify, random_start
from modpose.search.pipeline import PER_CLASS
from modpose.search.refine import refine
from modpose.search.regroup import regrouped
from modpose.search.sizes import check_sizes
from modpose.search.tilts.background import without_background
from modpose.search.tilts.images import given_halves, read_tilts, side_of_images

FROM_MAP = Schedule(
    rounds=4,
    limits=(0.25, 0.3),
    rotations=4608,
    grid_limit=0.25,
    hypotheses=8,
    search_again=False,
)
"""Rounds that start from a map: a fine search at once, which the refinement does not repeat."""
GIVEN_LIMIT = 0.3
"""A map to start from is low-passed here, cycles per pixel; a coarser limit in Å comes first."""


def find_tilt_maps(
    series: TiltSeries,
    out: str | Path | None,
    settings: AbInitioSettings | None = None,
    *,
    start_map: str | Path | None = None,
    invert: bool = False,
    overwrite: bool = False,
    resume: bool = False,
    device: str | None = None,
    quiet: bool = False,
) -> FoundMaps:
    """Find maps, poses and classes of particles in tilt series, and write them to a folder.

    One rotation and one shift of a particle explain all its images; the likelihood is that of the
    images, each with its CTF and dose.  The hand of the maps is that of the specimen.

    Parameters
    ----------
    series
        The particles.
    out
        Folder: ``class001.mrc``, its half maps and mask, ``fsc.csv`` and ``.png``,
        ``particles.star`` with poses, classes and half sets, ``settings.json``.  None: nothing
        is written.
    settings
        What is asked for.
    start_map
        A map to start from, low-passed, in place of random starts.
    invert
        Whether particles are dark.
    overwrite
        Replace files of these names.
    resume
        Go on with an interrupted search in the folder.
    device
        Where to compute: ``auto``, ``cpu``, ``cuda`` or ``mps``; by default the CPU.
    quiet
        No progress bars.

    Raises
    ------
    InputError
        If there are too few particles, their images hold no noise around them, or the folder
        cannot be written to; where settings or images are not those of the search to go on with.
    """
    settings, folder = settings or AbInitioSettings(), None if out is None else Path(out)
    side = check_tilts(series, settings, start_map)
    if folder is not None:
        outputs = output_files(folder, settings.classes, series.images)
        given = [*files_of_source(series.images), *([] if start_map is None else [Path(start_map)])]
        check_outputs(outputs, overwrite or resume, given)
    settings = replace(settings, box=min(settings.box, side - side % 2))
    wanted = asdict(settings) | {
        "invert": invert,
        "start_map": None if start_map is None else sha256(Path(start_map)),
        "fingerprint": source_fingerprint(series.images),
    }
    if folder is not None:
        check_unfinished(folder, wanted, overwrite, resume)
    size = series.images.pixel_size
    maps = None if start_map is None else _given(Path(start_map), settings.box, side, size)
    schedule = Schedule() if start_map is None else FROM_MAP
    radius = schedule.refine_limit * settings.box
    with computing_on("--device", device):
        images = read_tilts(series, radius, invert=invert, quiet=quiet)
        data = without_background(images.coefficients(radius, settings.box))
    with (
        computing_on("--device", device),
        unfinished_in(folder, wanted, resume) as unfinished,
    ):
        state, scores = _searched(data, settings, schedule, maps, unfinished, quiet)
        half = given_halves(series)
        refined, half = _refined(data, state, settings, schedule, half, quiet)
        binning = side / settings.box
        scale = None if size is None else size * binning
        views = torch.from_numpy(tilts_of_images(series)).float()
        views = views @ refined.rotation[torch.from_numpy(series.particle)]
        found = measured(refined, half.numpy(), scores, settings, binning, scale, views)
        found = replace(found, tilted=True)
        if folder is not None:
            posed = with_tilt_poses(series, *found.poses, refined.class_index.numpy(), found.half)
            row = np.arange(series.n) if posed.n == series.n else series.particle
            score = refined.score.numpy().astype(np.float64)[row].round(6)
            posed = replace(posed, table=posed.table.assign(**{SCORE: score}))
            write_found(found, series.images, settings, folder, posed)
    return found


def check_tilts(
    series: TiltSeries, settings: AbInitioSettings, start_map: str | Path | None
) -> int:
    """Refuse what cannot be searched; return the side of the images."""
    stack = series.images.stack
    if settings.symmetry.upper() != "C1":
        raise InputError.of("tilt series", "symmetry", settings.symmetry, "C1")
    if settings.similar:
        expected = "structures that differ: those of tilt series are searched together"
        raise InputError.of("tilt series", "--similar", "given", expected)
    if settings.motions:
        expected = "0: poses of tilt series are found without motions"
        raise InputError.of("tilt series", "motions", settings.motions, expected)
    if start_map is not None and settings.classes > 1:
        expected = "1 with a map to start from, which cannot separate structures"
        raise InputError.of("abinitio", "classes", settings.classes, expected)
    needed = PER_CLASS * settings.classes
    if series.n < needed:
        expected = f"at least {needed}, {PER_CLASS} for each of {settings.classes} structure(s)"
        raise InputError.of(stack.name, "the number of particles", series.n, expected)
    check_sizes(series.images, settings.box_given)
    return side_of_images(series)


def _searched(
    data: Coefficients,
    settings: AbInitioSettings,
    schedule: Schedule,
    maps: Tensor | None,
    unfinished: Unfinished,
    quiet: bool,
) -> tuple[State, list[float]]:
    """Search from random starts, of which the best is kept, or from a map; with the scores."""
    box, reach = settings.box, settings.max_shift * settings.box
    mask = soft_sphere(box, settings.diameter * box)
    low = gridded(data.within(schedule.limits[1]))
    found: list[State] = []
    starts = settings.starts if maps is None else 1
    with Progress("search", starts * schedule.rounds, quiet=quiet, unit="round") as progress:
        for number in range(starts):
            saved = unfinished.step(f"start{number + 1}")
            seed = 1000 * settings.seed + number
            state = _read(saved)
            if state is None and maps is None:
                state = random_start(low, settings.classes, mask, schedule, seed)
            elif state is None:
                assert maps is not None
                state = _from_map(low, maps)
            progress.advance(state.round, 0.0)

            def report(here: State, saved: Saved = saved) -> None:
                if saved.due or here.round == schedule.rounds:
                    _write(saved, here)
                progress.advance(1, 0.0)

            found.append(
                classify(
                    low,
                    settings.classes,
                    mask=mask,
                    reach=reach,
                    schedule=schedule,
                    seed=seed,
                    start=state,
                    report=report,
                )
            )
    scores = [float(state.assignment.score.mean()) for state in found]
    saved = unfinished.step("searched")
    best = _read(saved)
    if best is None:
        best = found[int(np.argmax(scores))]
        best = regrouped(low, best, mask=mask, reach=reach, schedule=schedule, seed=settings.seed)
        _write(saved, best)
    return best, [] if maps is not None else scores


def _write(saved: Saved, state: State) -> None:
    own = {"round": torch.tensor(state.round), "volumes": state.volumes, "fsc": state.fsc}
    saved.write(own | state.assignment._asdict())


def _read(saved: Saved) -> State | None:
    found = saved.read()
    if not found:
        return None
    assignment = Assignment(*(found[name] for name in Assignment._fields))
    return State(int(found["round"]), assignment, found["volumes"], found["fsc"])


def _from_map(data: Coefficients, maps: Tensor) -> State:
    """Begin with a map, in place of rounds at low frequencies."""
    n = len(data)
    nothing = Assignment(
        torch.eye(3).expand(n, 3, 3),
        torch.zeros(n, 3),
        torch.zeros(n, dtype=torch.int64),
        torch.zeros(n),
        torch.ones(n),
    )
    return State(0, nothing, maps, torch.zeros(1, 1))


def _refined(
    data: Coefficients,
    state: State,
    settings: AbInitioSettings,
    schedule: Schedule,
    half: Tensor | None,
    quiet: bool,
) -> tuple[Refined, Tensor]:
    """Refine in halves, with the likelihood of the images."""
    box = settings.box
    with Progress("refine in halves", schedule.refine_rounds, quiet=quiet, unit="round") as shown:
        state, maps, half = refine(
            data,
            state,
            mask=soft_sphere(box, settings.diameter * box),
            reach=settings.max_shift * box,
            schedule=schedule,
            seed=settings.seed,
            half=half,
            report=lambda _: shown.advance(1, 0.0),
        )
    here = state.assignment
    halves = torch.stack([maps.plain_first, maps.plain_second])
    refined = Refined(
        here.rotation,
        here.shift,
        here.class_index,
        here.score,
        halves,
        maps.combined,
        maps.fsc,
        schedule.limits[1] * box,
    )
    return refined, half


def _given(path: Path, box: int, side: int, pixel_size: float | None) -> Tensor:
    """Read a map (1, D, D, D), brought to a box and low-passed."""
    stack = open_mrc(path, "volumes")
    if stack.n != 1 or len(set(stack.shape)) != 1:
        found = " x ".join(map(str, stack.shape))
        raise InputError.of(path, "the map", f"{stack.n} of {found}", "one cube")
    own = stack.shape[0]
    if stack.pixel_size is not None and pixel_size is not None:
        wide, expected = own * stack.pixel_size, side * pixel_size
        if abs(wide - expected) > 0.02 * expected:
            words = f"{expected:.4g} Å, the box of the images"
            raise InputError.of(path, "the map", f"{wide:.4g} Å wide", words)
    volume = torch.from_numpy(np.array(stack.read(np.array([0]))[0, 0], np.float32))
    spectrum = torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(volume)))
    few = min(own, box) - 1 + min(own, box) % 2  # odd: as many frequencies on both sides
    reach = few // 2
    wide_spectrum = torch.zeros((box,) * 3, dtype=spectrum.dtype)
    into, of = (slice(side // 2 - reach, side // 2 + reach + 1) for side in (box, own))
    wide_spectrum[into, into, into] = spectrum[of, of, of]
    cut = GIVEN_LIMIT * box
    if pixel_size is not None:
        cut = min(cut, side * pixel_size / STARTED_FROM)
    radius = lattice((box,) * 3).norm(dim=1).reshape(box, box, box)
    wide_spectrum[radius > cut] = 0
    low: Tensor = torch.fft.fftshift(torch.fft.ifftn(torch.fft.ifftshift(wide_spectrum)).real)
    return low[None]

"""From particle images without poses to a folder of maps, half maps and poses."""

from __future__ import annotations

import logging
import zlib
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.alarms.sample import take_sample
from modpose.backprojection.halves import half_of
from modpose.config import DataConfig
from modpose.data.dataset import Dataset
from modpose.data.inputs import files_of_source
from modpose.data.mrc import open_mrc
from modpose.data.preprocess import fourier_crop
from modpose.data.record import given_ctf_sum, source_fingerprint
from modpose.data.source import Source
from modpose.devices import computing_on
from modpose.errors import InputError
from modpose.files.reading import check_memory
from modpose.files.writing import check_outputs
from modpose.geometry.groups import symmetry_group
from modpose.jobs.resolution import resolution
from modpose.jobs.sharpen import sharpened
from modpose.run.folder import sha256
from modpose.search.abinitio.axes import with_axes
from modpose.search.abinitio.checks import (
    DOUBTFUL,
    check_symmetry_of_map,
    covered_directions,
    memory_needed,
    warn_of_dark_particles,
    warn_of_far_shifts,
    warn_of_few_views,
    warn_of_wrong_ctf,
)
from modpose.search.abinitio.found import FoundMaps, output_files, write_found
from modpose.search.abinitio.frames import in_one_frame
from modpose.search.abinitio.held_out import Verdict, accepted, judge_symmetry
from modpose.search.abinitio.images import SearchImages, read_images
from modpose.search.abinitio.moving import MotionPlan, with_motions
from modpose.search.abinitio.one_view import explained_by_one_average
from modpose.search.abinitio.refine import Refined, at_poses, refine
from modpose.search.abinitio.saved import Unfinished, check_unfinished, unfinished_in
from modpose.search.abinitio.settings import AUTO, AbInitioSettings, RefinePlan, StartPlan
from modpose.search.abinitio.shells import low_passed
from modpose.search.abinitio.similar import Division, similar_states
from modpose.search.abinitio.start import best_start
from modpose.search.abinitio.symmetry import in_frame, symmetrised
from modpose.search.sizes import check_sizes
from modpose.search.solvent import molecule_mask

logger = logging.getLogger("modpose")

LEAST = 100
"""Images per structure below which nothing can be found."""
STATES_ROUNDS = 4
"""Rounds of the refinement of similar states, from the poses of one map."""
SIDE = 64
"""Images are Fourier-cropped to this side, or to one that holds the maps."""
STARTED_FROM = 40.0
"""Å to which a given map is low-passed, at least."""


def find_maps(
    source: Source,
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
    """Find maps and poses of projections of unknown pose, and write them to a folder.

    Parameters
    ----------
    source
        Particle images, with their CTF where the table has it.
    out
        Folder: ``class001.mrc``, its half maps and mask, ``fsc.csv`` and ``.png``,
        ``particles.star`` (or ``.cs``) with poses, classes and half sets, ``settings.json``.
        None writes nothing.
    settings
        What is asked for.
    start_map
        A map to start from, low-passed, in place of random starts.
    invert
        Whether particles are dark.
    overwrite
        Replace files of these names.
    resume
        Go on with an interrupted search in the folder; the result is as without interruption.
    device
        Where to compute: ``auto``, ``cpu``, ``cuda`` or ``mps``; by default the CPU.
    quiet
        No progress bars.

    Raises
    ------
    InputError
        Where there are too few images, they hold no noise around the particles, the symmetry is
        none, or the folder cannot be written to; where settings or images are not those of the
        search to go on with.
    """
    settings = settings or AbInitioSettings()
    has_ctf = _check(source, settings, start_map)
    folder = None if out is None else Path(out)
    if folder is not None:
        outputs = output_files(folder, settings.classes, source)
        given = [*files_of_source(source), *([] if start_map is None else [Path(start_map)])]
        check_outputs(outputs, overwrite or resume, given)
    group = symmetry_group("C1" if settings.symmetry == AUTO else settings.symmetry).float()
    dataset = _dataset(source, settings, invert, has_ctf)
    half = half_of(dataset, np.arange(dataset.n))
    maps = None if start_map is None else _given(Path(start_map), dataset)
    if maps is not None:
        check_symmetry_of_map(maps, group, settings.symmetry, str(start_map))
    wanted = asdict(settings) | {
        "invert": invert,
        "start_map": None if start_map is None else sha256(Path(start_map)),
        "fingerprint": source_fingerprint(source),
        "ctf": given_ctf_sum(source),
        "halves": zlib.crc32(half.tobytes()),
    }
    if not settings.motions:
        del wanted["motions"]  # searches that were begun before there were any can go on
    if folder is not None:
        check_unfinished(folder, wanted, overwrite, resume)
    side = dataset.shape[0]
    settings = replace(settings, box=min(settings.box, side - side % 2))
    plan = RefinePlan(last_radius=settings.box / 2 - 1)
    radius = min(plan.last_radius, side / 2 - 1)
    most = max(settings.begun().classes, settings.classes)
    check_memory(source.stack.name, memory_needed(dataset.n, radius, most))
    if has_ctf:
        warn_of_wrong_ctf(take_sample(dataset), source.stack.name)
    with computing_on("--device", device):
        images = read_images(dataset, radius, quiet)
        warn_of_dark_particles(images, source.stack.name)
        with unfinished_in(folder, wanted, resume) as unfinished:
            search = _Search(images, torch.from_numpy(half), settings, plan, quiet, unfinished)
            refined = search.run(maps, group)
            warn_of_far_shifts(refined.shift, settings.max_shift * side, source.stack.name)
            settings = search.settings
            binning = min(source.stack.shape) / side
            size = None if dataset.pixel_size is None else dataset.pixel_size * side / settings.box
            turns = refined.rotation
            found = measured(refined, half, search.scores, settings, binning, size, turns)
            found = replace(found, symmetry=settings.symmetry, verdicts=search.verdicts)
            if folder is not None:
                write_found(found, source, settings, folder)
    return found


class _Search:
    """The steps of one search, on images that were read.

    Attributes
    ----------
    settings
        What is asked for; in the end with the symmetry that was accepted.
    scores
        Of the random starts.
    verdicts
        On the symmetries that were tried.
    """

    def __init__(
        self,
        images: SearchImages,
        half: Tensor,
        settings: AbInitioSettings,
        plan: RefinePlan,
        quiet: bool,
        unfinished: Unfinished,
    ) -> None:
        self.images, self.half, self.settings, self.plan = images, half, settings, plan
        self.quiet, self.unfinished = quiet, unfinished
        self.scores: list[float] = []
        self.verdicts: list[Verdict] = []

    def run(self, maps: Tensor | None, group: Tensor) -> Refined:
        """Refine maps, given or from random starts, imposing a symmetry (G, 3, 3)."""
        settings, plan = self.settings, self.plan
        asked = settings.begun()
        if maps is None:
            maps = self._begun(asked, group)
        else:
            asked = replace(asked, classes=1)
        if asked.classes > settings.classes:
            plan = replace(plan, rounds=1, searches=(0,))
        step = self.unfinished.step("consensus" if settings.similar else "refinement")
        refined = refine(self.images, maps, self.half, asked, group, plan, self.quiet, step)
        if settings.similar:
            refined = self._states(refined, group)
        if settings.motions:
            refined = self._moving(refined)
        if settings.symmetry == AUTO:
            refined = self._symmetric(refined)
        return refined

    def _begun(self, asked: AbInitioSettings, group: Tensor) -> Tensor:
        """Maps of the best random start."""
        free = symmetry_group("C1").float()
        plan = replace(_start_plan(asked), regroup=not self.settings.motions)
        start, self.scores = best_start(self.images, asked, free, plan, self.quiet, self.unfinished)
        if len(group) == 1:
            if start.covered < DOUBTFUL:
                alike = explained_by_one_average(self.images, asked, start.score)
                warn_of_few_views(start.covered, alike)
            return start.maps
        return _with_symmetry(self.images, start.maps, asked, group, self.quiet)

    def _states(self, refined: Refined, group: Tensor) -> Refined:
        """Divide the images of one map into similar states, and refine these."""
        step = self.unfinished.step("states")
        states = similar_states(self.images, refined, self.settings, step, self.quiet)
        made = refine(
            self.images,
            states.maps,
            self.half,
            self.settings,
            group,
            replace(self.plan, rounds=STATES_ROUNDS, searches=()),
            self.quiet,
            self.unfinished.step("refinement"),
            (refined.rotation, refined.shift, states.class_index),
            Division(self.settings, states.radius),
        )
        made.start_radius = max(made.start_radius, states.radius)
        return made

    def _moving(self, refined: Refined) -> Refined:
        """Take all maps as conformations of one structure, and infer motions beside poses."""
        refined = in_one_frame(refined, self.images.side)
        rotation, shift, several = with_motions(
            self.images,
            refined,
            self.half,
            self.settings,
            MotionPlan(),
            self.quiet,
            self.unfinished,
        )
        posed = rotation, shift, self.half, self.settings, self.plan
        return replace(at_poses(self.images, refined, *posed), several=several)

    def _symmetric(self, refined: Refined) -> Refined:
        """Impose the symmetry that held-out images prefer, if they prefer one."""
        self.verdicts = judge_symmetry(self.images, refined, self.half)
        self.settings = replace(self.settings, symmetry=accepted(self.verdicts))
        if not (self.verdicts and self.verdicts[-1].accepted):
            return refined
        frame = self.verdicts[-1].candidate.frame
        return refine(
            self.images,
            low_passed(in_frame(refined.maps, frame), self.plan.radii[0][0]),
            self.half,
            self.settings,
            symmetry_group(self.settings.symmetry).float(),
            self.plan,
            self.quiet,
            self.unfinished.step("refinement_alike"),
        )


def _with_symmetry(
    images: SearchImages, maps: Tensor, settings: AbInitioSettings, group: Tensor, quiet: bool
) -> Tensor:
    """Turn maps of a random start to the axes of a symmetry; without axes, start again with it."""
    name = settings.symmetry.strip().upper()
    found = [with_axes(one, name, StartPlan().radii[1] - 1) for one in maps]
    frames = [one.frame for one in found if one is not None]
    if len(frames) == len(maps):
        turned = [in_frame(one[None], frame) for one, frame in zip(maps, frames, strict=True)]
        return symmetrised(torch.cat(turned), group)
    logger.warning(
        "a map of these images does not seem to have the symmetry %s; it is imposed all the same",
        name,
    )
    return best_start(images, settings, group, _start_plan(settings), quiet)[0].maps


def _start_plan(asked: AbInitioSettings) -> StartPlan:
    plan = StartPlan()
    return plan if asked.classes == 1 else plan.of_several()


def _check(source: Source, settings: AbInitioSettings, start_map: str | Path | None) -> bool:
    """Refuse what cannot be searched; return whether the images have a CTF."""
    if settings.symmetry == AUTO and settings.classes > 1:
        expected = "1 with --symmetry auto"
        raise InputError.of("abinitio", "classes", settings.classes, expected)
    if start_map is not None and settings.classes > 1 and not settings.similar:
        expected = "1 with a map to start from, which cannot separate structures (but --similar)"
        raise InputError.of("abinitio", "classes", settings.classes, expected)
    needed = LEAST * settings.classes
    if source.n < needed:
        expected = f"at least {needed} for {settings.classes} structure(s)"
        raise InputError.of(source.stack.name, "the number of images", source.n, expected)
    if len(source.stack.shape) != 2:
        found = " x ".join(map(str, source.stack.shape))
        raise InputError.of(source.stack.name, "the box", found, "images; for volumes, use align")
    check_sizes(source, settings.box_given)
    return source.particles.has_ctf(source.stack.pixel_size)


def _dataset(source: Source, settings: AbInitioSettings, invert: bool, has_ctf: bool) -> Dataset:
    whole = min(source.stack.shape)
    side = min(whole - whole % 2, max(SIDE, settings.box + 8))
    square = len(set(source.stack.shape)) == 1
    config = DataConfig(
        crop=None if square else whole,
        box=side,
        invert=invert,
        normalize="background",
        val_fraction=0,
    )
    return Dataset(source, config, seed=settings.seed, ctf=has_ctf)


def _given(path: Path, dataset: Dataset) -> Tensor:
    """Read a map, brought to the pixel size of the images and low-passed."""
    stack = open_mrc(path, "volumes")
    if stack.n != 1 or len(set(stack.shape)) != 1:
        found = " x ".join(map(str, stack.shape))
        raise InputError.of(path, "the map", f"{stack.n} of {found}", "one cube")
    size, own = dataset.pixel_size, stack.pixel_size
    extent = stack.shape[0] if own is None or size is None else stack.shape[0] * own / size
    if abs(extent - dataset.shape[0]) > 0.02 * dataset.shape[0] and own is not None:
        found = f"{stack.shape[0] * own:.4g} Å wide"
        expected = f"{dataset.shape[0] * (size or 1):.4g} Å, the box of the images"
        raise InputError.of(path, "the map", found, expected)
    plan = StartPlan()
    box = min(plan.box, stack.shape[0])
    small = torch.from_numpy(fourier_crop(stack.read(np.array([0])), box)[:, 0])
    cut = min(plan.radii[1], box / 2 - 1)
    if size is not None:
        cut = min(cut, dataset.shape[0] * size / STARTED_FROM)
    return low_passed(small, cut)


def measured(
    refined: Refined,
    half: NDArray[np.int64],
    scores: list[float],
    settings: AbInitioSettings,
    binning: float,
    size: float | None,
    views: Tensor,
) -> FoundMaps:
    """Measure maps of a pixel size in Å, and how images at rotations (M, 3, 3) cover directions."""
    box, group = settings.box, symmetry_group(settings.symmetry).float()
    masks, resolutions, sharp = [], [], []
    for number in range(settings.classes):
        mask = molecule_mask(refined.maps[number : number + 1], settings.diameter * box)
        first, second = (part[number].numpy() for part in refined.halves)
        randomise = bool(first.any() and second.any())
        found = resolution(
            first, second, mask.numpy(), size, randomise=randomise, seed=settings.seed
        )
        masks.append(mask)
        resolutions.append(found)
        sharp.append(sharpened(first, second, mask, found.curve))
    covered = covered_directions(views, group)
    warn_of_few_views(covered)
    return FoundMaps(
        refined, half, torch.stack(masks), resolutions, sharp, scores, binning, size, covered
    )

"""From particle images without poses to a folder of maps, half maps and poses."""

from __future__ import annotations

import json
import logging
import zlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.backprojection.files import draw_curve
from modpose.backprojection.halves import half_of
from modpose.config import DataConfig
from modpose.data.dataset import Dataset
from modpose.data.inputs import files_of_source
from modpose.data.mrc import open_mrc, write_mrcs
from modpose.data.particles import Particles
from modpose.data.posing import with_pose
from modpose.data.preprocess import fourier_crop
from modpose.data.record import source_fingerprint
from modpose.data.source import Source
from modpose.data.table_files import files_of_table, write_table
from modpose.errors import InputError
from modpose.files.locks import writing
from modpose.files.writing import all_or_nothing, check_outputs
from modpose.fourier.fsc import HALF_MAPS
from modpose.geometry.grids import lattice
from modpose.geometry.groups import symmetry_group
from modpose.jobs.resolution import Resolution, resolution
from modpose.jobs.sharpen import Sharpened, sharpened
from modpose.run.folder import sha256
from modpose.search.abinitio.images import read_images
from modpose.search.abinitio.refine import Refined, refine
from modpose.search.abinitio.saved import Unfinished, check_unfinished
from modpose.search.abinitio.settings import AbInitioSettings, RefinePlan, StartPlan
from modpose.search.abinitio.start import best_start
from modpose.search.files import image_names
from modpose.search.solvent import molecule_mask

logger = logging.getLogger("modpose")

LEAST = 100
"""Images per structure below which nothing can be found."""
SIDE = 64
"""Images are Fourier-cropped to this side, or to one that holds the maps."""
STARTED_FROM = 40.0
"""Å to which a given map is low-passed, at least."""
DIRECTIONS = 100
"""Cells of the half sphere of views."""
KINDS = ("", "_sharpened", "_half1", "_half2", "_mask")
"""Files of a map."""
UNEVEN = 0.5
"""Below this share of the cells with images, a warning is printed."""


@dataclass(frozen=True)
class FoundMaps:
    """Maps and poses that were found.

    Attributes
    ----------
    refined
        Poses, half maps and maps.
    half
        (N,) 0 or 1.
    masks
        (C, D, D, D) soft.
    resolutions
        One per map.
    sharpened
        One per map.
    start_scores
        Log-likelihood of each random start, nats per image.
    binning
        Pixels of the input in one of the maps.
    pixel_size
        Å of the maps; None where it is not known.
    covered
        Share of the directions from which there are views.
    """

    refined: Refined
    half: NDArray[np.int64]
    masks: Tensor
    resolutions: list[Resolution]
    sharpened: list[Sharpened]
    start_scores: list[float]
    binning: float
    pixel_size: float | None
    covered: float

    def lines(self) -> list[str]:
        """Say what was found, and what cannot be known."""
        found = []
        if self.start_scores:
            scores = ", ".join(f"{score:.1f}" for score in self.start_scores)
            found.append(f"random starts: {scores} nats per image; the highest is kept")
        counts = torch.bincount(self.refined.class_index, minlength=len(self.masks)).tolist()
        for number, (one, count) in enumerate(zip(self.resolutions, counts, strict=True), 1):
            found.append(f"class {number}: {count:,} images; {self._resolution(one)}")
            found.append(f"class {number}: {self.sharpened[number - 1].sentence()}")
        found.append(f"views cover {100 * self.covered:.0f} % of the directions")
        found.append("the hand of the maps is not determined by images that were not tilted")
        return found

    def _resolution(self, one: Resolution) -> str:
        box, start = one.curve.box, self.refined.start_radius
        shell = box / one.curve.resolution(HALF_MAPS) * (self.pixel_size or 1.0)
        unit = "px" if self.pixel_size is None else "Å"
        began = box * (self.pixel_size or 1.0) / start
        if shell <= start:
            return (
                f"the halves began alike up to {began:.3g} {unit} and agree no further, so no "
                "resolution can be quoted"
            )
        return f"{one.curve.sentence(HALF_MAPS)} (halves began alike up to {began:.3g} {unit})"


def find_maps(
    source: Source,
    out: str | Path,
    settings: AbInitioSettings | None = None,
    *,
    start_map: str | Path | None = None,
    invert: bool = False,
    overwrite: bool = False,
    resume: bool = False,
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
    quiet
        No progress bars.

    Raises
    ------
    InputError
        Where there are too few images, they hold no noise around the particles, the symmetry is
        none, or the folder cannot be written to; where settings or images are not those of the
        search to go on with.
    """
    settings, out = settings or AbInitioSettings(), Path(out)
    has_ctf = _check(source, settings, start_map)
    table = out / ("particles.cs" if source.particles.format == "cs" else "particles.star")
    outputs = _outputs(out, settings.classes, table)
    check_outputs(outputs, overwrite or resume, files_of_source(source))
    group = symmetry_group(settings.symmetry).float()
    dataset = _dataset(source, settings, invert, has_ctf)
    half = half_of(dataset, np.arange(dataset.n))
    maps = None if start_map is None else _given(Path(start_map), dataset)
    wanted = asdict(settings) | {
        "invert": invert,
        "start_map": None if start_map is None else sha256(Path(start_map)),
        "fingerprint": source_fingerprint(source),
        "halves": zlib.crc32(half.tobytes()),
    }
    check_unfinished(out, wanted, overwrite, resume)
    side = dataset.shape[0]
    settings = replace(settings, box=min(settings.box, side - side % 2))
    plan = RefinePlan(last_radius=settings.box / 2 - 1)
    images = read_images(dataset, min(plan.last_radius, side / 2 - 1), quiet)
    scores: list[float] = []
    out.mkdir(parents=True, exist_ok=True)
    with writing(out):
        unfinished = Unfinished(out, wanted, resume)
        if maps is None:
            start, scores = best_start(images, settings, group, StartPlan(), quiet, unfinished)
            maps = start.maps
        refined = refine(
            images,
            maps,
            torch.from_numpy(half),
            settings,
            group,
            plan,
            quiet,
            unfinished.step("refinement"),
        )
        binning = min(source.stack.shape) / side
        found = _measured(refined, half, scores, settings, binning, dataset)
        _write(found, source, settings, out, table, outputs)
        unfinished.remove()
    return found


def _check(source: Source, settings: AbInitioSettings, start_map: str | Path | None) -> bool:
    """Refuse what cannot be searched; return whether the images have a CTF."""
    if start_map is not None and settings.classes > 1:
        expected = "1 with a map to start from, which cannot separate structures"
        raise InputError.of("abinitio", "classes", settings.classes, expected)
    needed = LEAST * settings.classes
    if source.n < needed:
        expected = f"at least {needed} for {settings.classes} structure(s)"
        raise InputError.of(source.stack.name, "the number of images", source.n, expected)
    if len(source.stack.shape) != 2:
        found = " x ".join(map(str, source.stack.shape))
        raise InputError.of(source.stack.name, "the box", found, "images; for volumes, use align")
    has_ctf = source.particles.ctf(source.stack.pixel_size) is not None
    if not has_ctf:
        logger.warning(
            "%s: it gives no CTF, so maps are made without; those of real images will be blurred",
            source.particles.name,
        )
    return has_ctf


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
    radius = lattice((box,) * 3).norm(dim=1).reshape(box, box, box)
    shell = torch.fft.ifftshift(radius)
    cut = min(plan.radii[1], box / 2 - 1)
    if size is not None:
        cut = min(cut, dataset.shape[0] * size / STARTED_FROM)
    spectrum = torch.fft.fftn(small, dim=(1, 2, 3)) * (shell <= cut)
    low: Tensor = torch.fft.ifftn(spectrum, dim=(1, 2, 3)).real
    return low


def _measured(
    refined: Refined,
    half: NDArray[np.int64],
    scores: list[float],
    settings: AbInitioSettings,
    binning: float,
    dataset: Dataset,
) -> FoundMaps:
    box, group = settings.box, symmetry_group(settings.symmetry).float()
    size = None if dataset.pixel_size is None else dataset.pixel_size * dataset.shape[0] / box
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
    covered = covered_directions(refined.rotation, group)
    if covered < UNEVEN:
        logger.warning(
            "views cover %.0f %% of the directions: the maps are smeared along the others",
            100 * covered,
        )
    return FoundMaps(
        refined, half, torch.stack(masks), resolutions, sharp, scores, binning, size, covered
    )


def covered_directions(rotation: Tensor, group: Tensor) -> float:
    """Return the share of a hundred directions that get at least a tenth of the mean share.

    Parameters
    ----------
    rotation
        (N, 3, 3).
    group
        (G, 3, 3) symmetry of the map: each image shows it from so many directions.
    """
    number = torch.arange(2 * DIRECTIONS) + 0.5
    height = 1 - number / DIRECTIONS
    angle = number * torch.pi * (1 + 5**0.5)
    around = (1 - height.square()).clamp(min=0).sqrt()
    sphere = torch.stack([around * angle.cos(), around * angle.sin(), height], 1)
    view = (rotation[:, None, 2:] @ group).flatten(0, 2)
    cell = (view @ sphere.T).argmax(1)
    opposite = (-view @ sphere.T).argmax(1)
    count = torch.bincount(torch.cat([cell, opposite]), minlength=len(sphere))
    return float((count >= 0.1 * count.float().mean()).float().mean())


# --- files --------------------------------------------------------------------------------------


def _outputs(out: Path, classes: int, table: Path) -> list[Path]:
    maps = [out / f"class{k:03d}{kind}.mrc" for k in range(1, classes + 1) for kind in KINDS]
    files = [out / name for name in ("fsc.csv", "fsc.png", "settings.json")]
    return [*maps, *files, *files_of_table(table)]


def posed_table(source: Source, found: FoundMaps, folder: Path) -> Particles:
    """Put poses, classes and half sets into the table of the images.

    Images that came without a RELION or cryoSPARC table get one of RELION's.
    """
    particles, here = source.particles, found.refined
    if particles.format not in ("star", "cs"):
        names = image_names(source, folder)
        particles = Particles(pd.DataFrame({"rlnImageName": names}), None, "star", str(folder))
    posed = with_pose(
        particles,
        rotation=here.rotation.double().numpy(),
        shift=found.binning * here.shift.double().numpy(),
        pixel_size=source.pixel_size,
    )
    if particles.format == "star":
        columns = {
            "rlnClassNumber": here.class_index.numpy() + 1,
            "rlnRandomSubset": found.half + 1,
        }
    else:
        split = found.half.astype(np.uint32)
        columns = {"alignments3D/class": here.class_index.numpy(), "alignments3D/split": split}
    return replace(posed, table=posed.table.assign(**columns))


def _write(
    found: FoundMaps,
    source: Source,
    settings: AbInitioSettings,
    out: Path,
    table: Path,
    outputs: list[Path],
) -> None:
    curves = {}
    frames = []
    with all_or_nothing() as place:
        for number, one in enumerate(found.resolutions):
            parts = (
                found.refined.maps[number],
                torch.from_numpy(found.sharpened[number].volume),
                *found.refined.halves[:, number],
                found.masks[number],
            )
            own = outputs[len(KINDS) * number :][: len(KINDS)]
            for path, volume in zip(own, parts, strict=True):
                write_mrcs(place(path), volume.numpy()[None], found.pixel_size)
            curves[f"class {number + 1}"] = one.curve
            frames.append(pd.DataFrame(one.curve.columns()).assign(class_number=number + 1))
        text = pd.concat(frames).to_csv(index=False)
        place(out / "fsc.csv").write_text(text)
        draw_curve(curves, place(out / "fsc.png"), HALF_MAPS)
        told = asdict(settings) | {
            "start_scores": found.start_scores,
            "pixel_size": found.pixel_size,
            "b_factors": [one.b_factor for one in found.sharpened],
            "b_factors_from": [
                [one.coarsest, one.finest] if one.b_factor else None for one in found.sharpened
            ],
        }
        place(out / "settings.json").write_text(json.dumps(told, indent=2) + "\n")
        write_table(posed_table(source, found, out), table, place)

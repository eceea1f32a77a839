"""From particle images to a folder of 2-D class averages, in-plane poses and classes."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from modpose.alarms.contrast import contrast_alarm
from modpose.alarms.sample import take_sample
from modpose.config import DataConfig
from modpose.data.dataset import Dataset
from modpose.data.inputs import files_of_source
from modpose.data.mrc import write_mrcs
from modpose.data.particles import Particles
from modpose.data.posing import with_pose
from modpose.data.record import given_ctf_sum, source_fingerprint
from modpose.data.source import Source
from modpose.data.star import write_star
from modpose.data.table_files import files_of_table, write_table
from modpose.devices import computing_on
from modpose.errors import InputError
from modpose.files.reading import check_memory
from modpose.files.writing import all_or_nothing, check_outputs
from modpose.fourier.fsc import HALF_MAPS, FscCurve
from modpose.geometry.degrees import wrap_deg
from modpose.search.abinitio.checks import memory_needed, warn_of_wrong_ctf
from modpose.search.abinitio.images import read_images
from modpose.search.abinitio.saved import check_unfinished, unfinished_in
from modpose.search.classes2d.page import draw_classes
from modpose.search.classes2d.rounds import FoundClasses, find_classes
from modpose.search.classes2d.settings import LEAST_BOX, PER_CLASS, Classes2dSettings, Plan
from modpose.search.files import earlier_tables, table_of_images
from modpose.search.sizes import check_sizes

logger = logging.getLogger("modpose")

BYTES = 48
"""Of a coefficient of a class at one angle: of the sums of both halves, and copies of them."""
SURE = 3.0
"""Standard deviations of the gain of noise above its mean, for :attr:`Classes2d.noise_limit`."""
GOOD, JUNK, EMPTY = "good", "junk", "empty"
CAVEAT = "halves not independent"
WRITTEN = ("classes.mrcs", "classes.star", "classes.png", "frc.csv", "settings.json")


@dataclass(frozen=True)
class Classes2d:
    """Classes of images, the best first, then junk, then empty ones.

    Attributes
    ----------
    class_index
        (N,) int64 class of each image, from 0.
    angle_deg
        (N,) in-plane angle that turns the average into the image.
    shift_px
        (N, 2) pixels of the input.
    gain
        (N,) nats that the class explains of the image.
    averages
        (C, D, D) float32.
    table
        A row for each class: ``kind`` (good, junk, empty), ``images``, ``quality``,
        ``resolution`` (of halves that are not independent; Å or pixels), ``gain`` (its mean).
    curves
        Correlation of the halves of each class.
    noise_gain
        Mean and s.d. of the gain of pure noise.
    pixel_size
        Å of the averages; None where it is not known.
    """

    class_index: NDArray[np.int64]
    angle_deg: NDArray[np.float64]
    shift_px: NDArray[np.float64]
    gain: NDArray[np.float64]
    averages: NDArray[np.float32]
    table: pd.DataFrame
    curves: list[FscCurve]
    noise_gain: tuple[float, float]
    pixel_size: float | None

    def lines(self) -> list[str]:
        """Say what was found."""
        unit = "px" if self.pixel_size is None else "Å"
        good = self.table[self.table["kind"] == GOOD]
        found = [
            f"class {number}: {images:,} images, {resolution:.3g} {unit} ({CAVEAT})"
            for number, (images, resolution) in enumerate(
                zip(good["images"], good["resolution"], strict=True), 1
            )
        ]
        for kind, why in ((JUNK, " (their images fit hardly better than noise)"), (EMPTY, "")):
            numbers = [str(n + 1) for n in np.flatnonzero(self.table["kind"] == kind)]
            if numbers:
                found.append(f"{kind}{why}: class {', '.join(numbers)}")
        count, limit = int(self.noise_like.sum()), self.noise_limit
        if count:
            found.append(
                f"{count:,} images fit their class hardly better than noise would "
                f"(modposeScore below {limit:.1f})"
            )
        found.append(
            "classes are not mirrored: views of one object from opposite sides are in two classes"
        )
        return found

    @property
    def noise_limit(self) -> float:
        """Gain, nats, that an image of pure noise hardly ever reaches."""
        mean, spread = self.noise_gain
        return mean + SURE * spread

    @property
    def noise_like(self) -> NDArray[np.bool_]:
        """(N,) whether an image may hold only noise: its gain is below :attr:`noise_limit`."""
        return self.gain < self.noise_limit

    def facts(self) -> dict[str, object]:
        """Name the figures of each class."""
        columns = ["kind", "images", "resolution"]
        return {
            "unit": "px" if self.pixel_size is None else "A",
            "classes": self.table[columns].to_dict(orient="records"),
            "noise_like": int(self.noise_like.sum()),
            "noise_limit": self.noise_limit,
        }


def classify_images(
    source: Source,
    out: str | Path,
    settings: Classes2dSettings | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
    device: str | None = None,
    quiet: bool = False,
) -> Classes2d:
    """Find 2-D classes of particle images; write averages, classes and poses into a folder.

    Parameters
    ----------
    source
        Particle images, with their CTF where the table has it.
    out
        Folder: ``classes.mrcs`` (averages), ``classes.star`` (a row for each), ``classes.png``,
        ``frc.csv``, ``particles.star`` (or ``.cs``) with classes, angles and shifts,
        ``settings.json``.
    settings
        What is asked for.
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
        If there are too few images, their corners hold no noise, the CTF is impossible, or the
        folder cannot be written to; if settings or images are not those of the search to go on
        with.
    """
    settings, out = settings or Classes2dSettings(), Path(out)
    has_ctf = _check(source, settings)
    table = out / ("particles.cs" if source.particles.format == "cs" else "particles.star")
    outputs = [*(out / name for name in WRITTEN), *files_of_table(table), *earlier_tables(out)]
    check_outputs(outputs, overwrite or resume, files_of_source(source))
    wanted = asdict(settings) | {
        "images": source.n,
        "fingerprint": source_fingerprint(source),
        "ctf": given_ctf_sum(source),
    }
    check_unfinished(out, wanted, overwrite, resume)
    dataset = _dataset(source, settings, has_ctf)
    _warn(dataset)
    side = dataset.shape[0]
    check_memory(source.stack.name, memory_of_classes(dataset.n, side, settings.classes))
    with computing_on("--device", device):
        images = read_images(dataset, side / 2, quiet)
    with computing_on("--device", device), unfinished_in(out, wanted, resume) as unfinished:
        found = find_classes(images, settings, Plan(), quiet, unfinished.step("classes"))
        made = _described(found, min(source.stack.shape) / side, dataset.pixel_size)
        _write(made, source, wanted, out, table)
    return made


def _check(source: Source, settings: Classes2dSettings) -> bool:
    """Refuse what cannot be classified; return whether the images have a CTF."""
    stack = source.stack
    if len(stack.shape) != 2:
        found = " x ".join(map(str, stack.shape))
        raise InputError.of(stack.name, "the box", found, "images, to find 2-D classes")
    needed = PER_CLASS * settings.classes
    if source.n < needed:
        expected = f"at least {needed}, ten for each of {settings.classes} classes"
        raise InputError.of(stack.name, "the number of images", source.n, expected)
    if min(stack.shape) < LEAST_BOX:
        found = " x ".join(map(str, stack.shape))
        raise InputError.of(stack.name, "the box", found, f"at least {LEAST_BOX} pixels a side")
    usual = Classes2dSettings.box
    box = None if settings.box == usual else settings.box
    check_sizes(source, box, settings.mask_diameter_px, settings.max_shift_px, usual=usual)
    has_ctf = source.particles.ctf(stack.pixel_size) is not None
    if not has_ctf:
        logger.warning(
            "warning: %s: it gives no CTF, so averages are not corrected for it",
            source.particles.name,
        )
    return has_ctf


def memory_of_classes(count: int, side: int, classes: int) -> int:
    """Bytes that classes of so many images, pixels a side, will need."""
    sums = BYTES * classes * Plan().last_angles * math.ceil(math.pi / 8 * side**2)
    return memory_needed(count, side / 2, 0) + sums


def _warn(dataset: Dataset) -> None:
    """Warn of inverted contrast, and of a CTF that is not that of the images."""
    name, sample = dataset.source.stack.name, take_sample(dataset)
    if contrast_alarm(sample) is not None:
        logger.warning(
            "warning: %s: the particles are darker than their surroundings; if they should be "
            "bright, use --invert",
            name,
        )
    warn_of_wrong_ctf(sample, name)


def _dataset(source: Source, settings: Classes2dSettings, has_ctf: bool) -> Dataset:
    whole = min(source.stack.shape)
    config = DataConfig(
        crop=None if len(set(source.stack.shape)) == 1 else whole,
        box=min(whole - whole % 2, settings.box),
        invert=settings.invert,
        normalize="background",
        val_fraction=0,
    )
    return Dataset(source, config, seed=settings.seed, ctf=has_ctf)


def _described(found: FoundClasses, binning: float, pixel_size: float | None) -> Classes2d:
    """Judge the classes and put the best first."""
    posed, side = found.posed, found.pictures.shape[-1]
    index = posed.class_index.numpy()
    count = np.bincount(index, minlength=len(found.pictures))
    gain = np.bincount(index, posed.gain.numpy(), len(count)) / np.maximum(count, 1)
    curves = [FscCurve(frc[1:].double().numpy(), side, pixel_size) for frc in found.frc]
    noise, spread = found.noise_gain
    kind = np.where(count == 0, EMPTY, np.where(gain < noise + spread, JUNK, GOOD))
    table = pd.DataFrame(
        {
            "kind": kind,
            "images": count,
            "quality": [_quality(curve) for curve in curves],
            "resolution": [curve.resolution(HALF_MAPS) for curve in curves],
            "gain": gain,
        }
    )
    rank = table["kind"].map({GOOD: 0, JUNK: 1, EMPTY: 2})
    order = np.lexsort((-count, -table["quality"], rank))
    place = np.argsort(order)
    return Classes2d(
        place[index],
        wrap_deg(np.rad2deg(posed.angle.double().numpy())),
        binning * posed.shift.double().numpy(),
        posed.gain.double().numpy(),
        found.pictures[order.tolist()].numpy(),
        table.iloc[order].reset_index(drop=True),
        [curves[k] for k in order],
        found.noise_gain,
        pixel_size,
    )


def _quality(curve: FscCurve) -> float:
    """Fourier coefficients that the halves agree on, up to where they first fall below 0.143."""
    shells = np.arange(1, len(curve.correlation) + 1)
    good = np.cumprod(curve.correlation >= HALF_MAPS)
    return float((np.pi * shells * curve.correlation * good).sum())


# --- files --------------------------------------------------------------------------------------


def classified_table(source: Source, found: Classes2d, folder: Path) -> Particles:
    """Put classes and poses into the table of the images."""
    particles = table_of_images(source, folder)
    posed = with_pose(
        particles,
        angle_deg=found.angle_deg,
        shift=found.shift_px,
        pixel_size=source.pixel_size,
    )
    columns: dict[str, NDArray[Any]]
    if particles.format == "star":
        columns = {"rlnClassNumber": found.class_index + 1, "modposeScore": found.gain.round(6)}
    else:
        columns = {"alignments2D/class": found.class_index.astype(np.uint32)}
    return replace(posed, table=posed.table.assign(**columns))


def class_table(found: Classes2d) -> pd.DataFrame:
    """Return the table of classes for STAR."""
    known, count = found.pixel_size is not None, found.table["images"]
    columns: dict[str, Any] = {
        "rlnReferenceImage": [f"{k + 1:06d}@classes.mrcs" for k in range(len(count))],
        "rlnClassNumber": np.arange(1, len(count) + 1),
        "rlnClassDistribution": count / count.sum(),
        "modposeClassKind": found.table["kind"],
        "modposeClassImages": count,
        "modposeClassQuality": found.table["quality"].round(3),
        "modposeClassScore": found.table["gain"].round(3),
    }
    name = "rlnEstimatedResolution" if known else "modposeClassResolutionPx"
    finite = found.table["resolution"].replace(np.inf, 999.0)
    return pd.DataFrame(columns | {name: finite.round(3)})


def _write(
    found: Classes2d, source: Source, wanted: dict[str, object], out: Path, table: Path
) -> None:
    frames = [
        pd.DataFrame(curve.columns()).assign(class_number=number)
        for number, curve in enumerate(found.curves, 1)
    ]
    told = wanted | {"noise_score": found.noise_gain}
    with all_or_nothing() as place:
        for earlier in earlier_tables(out):
            place.remove(earlier)
        write_mrcs(place(out / "classes.mrcs"), found.averages, found.pixel_size)
        write_star(place(out / "classes.star"), class_table(found))
        draw_classes(found, place(out / "classes.png"))
        pd.concat(frames).to_csv(place(out / "frc.csv"), index=False)
        place(out / "settings.json").write_text(json.dumps(told, indent=2) + "\n")
        write_table(classified_table(source, found, out), table, place)

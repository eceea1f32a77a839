"""Maps and poses that were found, and the files of them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.backprojection.files import draw_curve
from modpose.data.mrc import write_mrcs
from modpose.data.particles import Particles
from modpose.data.posing import with_pose
from modpose.data.source import Source
from modpose.data.table_files import files_of_table, write_table
from modpose.files.writing import all_or_nothing
from modpose.fourier.fsc import HALF_MAPS
from modpose.jobs.resolution import Resolution
from modpose.jobs.sharpen import Sharpened
from modpose.search.abinitio.checks import UNEVEN
from modpose.search.abinitio.held_out import Verdict
from modpose.search.abinitio.refine import Refined
from modpose.search.abinitio.settings import AbInitioSettings
from modpose.search.files import earlier_tables, table_of_images

KINDS = ("", "_sharpened", "_half1", "_half2", "_mask")
"""Files of a map."""


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
    tilted
        Whether rows are particles that are each seen in several tilts.
    symmetry
        Point group of the maps.
    verdicts
        What held-out images say of the groups that were tested.
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
    tilted: bool = False
    symmetry: str = "C1"
    verdicts: Sequence[Verdict] = ()

    def lines(self) -> list[str]:
        """Say what was found, and what cannot be known."""
        found, what = [], "particle" if self.tilted else "image"
        if self.start_scores:
            scores = ", ".join(f"{score:.1f}" for score in self.start_scores)
            several = len(self.start_scores) > 1
            kept = "; the highest is kept" if several else ""
            found.append(f"random start{'s' * several}: {scores} nats per {what}{kept}")
        found += [one.sentence() for one in self.verdicts]
        counts = torch.bincount(self.refined.class_index, minlength=len(self.masks)).tolist()
        for number, (one, count) in enumerate(zip(self.resolutions, counts, strict=True), 1):
            found.append(f"class {number}: {count:,} {what}s; {self._resolution(one)}")
            found.append(f"class {number}: {self.sharpened[number - 1].sentence()}")
        most = "at most " if self.covered < UNEVEN else ""
        found.append(f"views cover {most}{100 * self.covered:.0f} % of the directions")
        if not self.tilted:
            found.append("the hand of the maps is not determined by images that were not tilted")
        return found

    def facts(self) -> dict[str, object]:
        """Name the figures of :meth:`lines`; a resolution is None where none can be quoted."""
        counts = torch.bincount(self.refined.class_index, minlength=len(self.masks)).tolist()
        found = [self._quotable(one) for one in self.resolutions]
        return {
            "symmetry": self.symmetry,
            "start_scores": self.start_scores,
            "views_covered": self.covered,
            "unit": "px" if self.pixel_size is None else "A",
            "classes": [
                {"images": images, "resolution": resolution}
                for images, resolution in zip(counts, found, strict=True)
            ],
            "lines": self.lines(),
        }

    @property
    def poses(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(N, 3, 3) rotations, and (N, 2) or (N, 3) shifts in pixels of the input."""
        rotation, shift = self.refined.rotation.double(), self.refined.shift.double()
        return rotation.numpy(), self.binning * shift.numpy()

    def _quotable(self, one: Resolution) -> float | None:
        """Return the resolution; None if the halves agree no further than where they began."""
        found = one.curve.resolution(HALF_MAPS)
        shell = one.curve.box / found * (self.pixel_size or 1.0)
        return None if shell <= self.refined.start_radius else found

    def _resolution(self, one: Resolution) -> str:
        unit = "px" if self.pixel_size is None else "Å"
        began = one.curve.box * (self.pixel_size or 1.0) / self.refined.start_radius
        if self._quotable(one) is None:
            return (
                f"the halves began alike up to {began:.3g} {unit} and agree no further, so no "
                "resolution can be quoted"
            )
        return f"{one.curve.sentence(HALF_MAPS)} (halves began alike up to {began:.3g} {unit})"


def output_files(out: Path, classes: int, source: Source) -> list[Path]:
    """Name the files of so many maps, those of the first map first; then those that they replace.

    These are maps and tables of an earlier search in the folder.
    """
    maps = [out / f"class{k:03d}{kind}.mrc" for k in range(1, classes + 1) for kind in KINDS]
    files = [out / name for name in ("fsc.csv", "fsc.png", "settings.json")]
    return [*maps, *files, *files_of_table(_table(out, source)), *earlier_files(out)]


def earlier_files(out: Path) -> list[Path]:
    """Name the maps and tables of an earlier search: of more classes, or of another input."""
    tables = earlier_tables(out)
    maps = out.glob("class*.mrc") if tables else ()
    return [*tables, *(path for path in maps if re.fullmatch(WRITTEN, path.name))]


WRITTEN = rf"class\d{{3,}}({'|'.join(KINDS)})\.mrc"
"""Names of the files of maps."""


def _table(out: Path, source: Source) -> Path:
    return out / ("particles.cs" if source.particles.format == "cs" else "particles.star")


def posed_table(source: Source, found: FoundMaps, folder: Path) -> Particles:
    """Put poses, classes and half sets into the table of the images."""
    particles, here = table_of_images(source, folder), found.refined
    rotation, shift = found.poses
    posed = with_pose(particles, rotation=rotation, shift=shift, pixel_size=source.pixel_size)
    if particles.format == "star":
        columns = {
            "rlnClassNumber": here.class_index.numpy() + 1,
            "rlnRandomSubset": found.half + 1,
        }
    else:
        split = found.half.astype(np.uint32)
        columns = {"alignments3D/class": here.class_index.numpy(), "alignments3D/split": split}
    return replace(posed, table=posed.table.assign(**columns))


def write_found(
    found: FoundMaps,
    source: Source,
    settings: AbInitioSettings,
    out: Path,
    posed: Particles | None = None,
) -> None:
    """Write maps, curves, poses and settings into a folder, all or none.

    The table of poses is ``posed``, or that of the images.
    """
    outputs = output_files(out, len(found.masks), source)
    curves = {}
    frames = []
    with all_or_nothing() as place:
        for earlier in earlier_files(out):
            place.remove(earlier)
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
            "symmetry_tests": [one.sentence() for one in found.verdicts],
            "pixel_size": found.pixel_size,
            "b_factors": [one.b_factor for one in found.sharpened],
            "b_factors_from": [
                [one.coarsest, one.finest] if one.b_factor else None for one in found.sharpened
            ],
        }
        place(out / "settings.json").write_text(json.dumps(told, indent=2) + "\n")
        table = posed_table(source, found, out) if posed is None else posed
        write_table(table, _table(out, source), place)

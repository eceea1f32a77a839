"""Prepare a stack once: correct phases, crop, bin, normalise; writes a new table and new images.

A microscope moves the signal of frequency 1/d by λ Δf / d.  So phases are flipped, or images
multiplied by their CTF, in the box as it was recorded, and only then is the box cropped.  A box
that is too small to hold the moved signal is refused.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from modpose.config import DataConfig
from modpose.data import preprocess as steps
from modpose.data.agreement import TOLERANCE
from modpose.data.fresh_table import has_image_names
from modpose.data.inputs import files_of_source
from modpose.data.optics import ctf_state
from modpose.data.renamed import with_images
from modpose.data.source import Source
from modpose.data.table_files import files_of_table, write_table
from modpose.errors import InputError
from modpose.files.writing import all_or_nothing, check_outputs
from modpose.geometry.windows import disc
from modpose.jobs import shards
from modpose.limits import check_real, check_whole
from modpose.observe.ctf import CtfColumn, CtfState, ctf_2d, electron_wavelength

Images = NDArray[np.float32]

ALWAYS = slice(0, CtfColumn.B_FACTOR + 1)
LARGEST_BOX = 65_536
STATES = {"flip": CtfState.FLIPPED, "multiply": CtfState.PREMULTIPLIED}


@dataclass(frozen=True)
class Preparation:
    """Requested steps for each image, in this order.

    Attributes
    ----------
    ctf
        ``flip``: change the sign where the CTF is negative; ``multiply``: by the CTF.
    crop
        Central pixels to keep.
    box
        Side to bin to, by Fourier cropping.
    invert
        Multiply by -1.
    normalise
        Zero mean and unit s.d. outside the particle.
    diameter
        Of the particle, Å: the background is what lies outside, and the box must hold it with what
        the microscope moved.  None: the background is what lies outside the largest circle.
    resolution
        Å that the pixels must resolve, and whose signal the box must hold; None: twice the new
        pixel size.
    """

    ctf: Literal["flip", "multiply"] | None = None
    crop: int | None = None
    box: int | None = None
    invert: bool = False
    normalise: bool = False
    diameter: float | None = None
    resolution: float | None = None


def prepare(
    source: Source,
    out: str | Path,
    preparation: Preparation,
    *,
    shard: int = shards.SHARD,
    overwrite: bool = False,
    quiet: bool = False,
) -> Path:
    """Write prepared images in shards, and their table last.

    An interrupted job goes on where it was when it is started again with the same settings.

    Parameters
    ----------
    source
        Images (N, H, H) and their table.
    out
        Folder for ``particles_00000.mrcs``, ... and ``particles.star`` or ``particles.cs``.
    preparation
        What is done.
    shard
        Images in a file.
    overwrite
        Replace what an earlier job wrote.
    quiet
        No progress bar.

    Returns
    -------
    The table.

    Raises
    ------
    InputError
        The images are not grey and square, a size does not fit, the CTF is not known or was
        corrected for already, or a box is too small for what the microscope moved.
    """
    folder = Path(out)
    job = _Job(source, preparation)
    if shard < 1:
        raise InputError.of("preprocess", "--shard", shard, "at least 1")
    place = shards.Shards(folder, source.n, shard)
    files, rows = place.of_rows()
    table = folder / ("particles.cs" if source.particles.format == "cs" else "particles.star")
    written = with_images(
        shards.table_for(source, table),
        files,
        rows,
        job.side,
        pixels_grew=job.grew,
        state=job.state,
        inverted=preparation.invert,
    )
    outputs = [*(folder / name for name in place.names), *files_of_table(table)]
    check_outputs(outputs, True, files_of_source(source))
    shards.begin(place, source, asdict(preparation), table, overwrite)
    shards.fill(place, job.side, job.pixel_size, job, label="preprocess", quiet=quiet)
    with all_or_nothing() as staging:
        write_table(written, table, staging)
    return table


class _Job:
    """Checks a preparation against the images, then prepares them in batches."""

    def __init__(self, source: Source, preparation: Preparation) -> None:
        self.source, self.preparation = source, preparation
        stack, name = source.stack, source.stack.name
        if len(stack.shape) != 2 or stack.channels != 1 or len(set(stack.shape)) != 1:
            found = " x ".join(map(str, stack.shape))
            raise InputError.of(name, "the box", found, "grey images with a square box")
        if not has_image_names(source):
            raise InputError(f"{name}: the images have no names, expected a STAR, a .cs or a stack")
        _check(preparation)
        if not any(asdict(preparation)[k] for k in ("ctf", "crop", "box", "invert", "normalise")):
            raise InputError("preprocess: nothing is requested, expected --crop or --box, say")
        self.config = DataConfig(
            crop=preparation.crop, box=preparation.box, invert=preparation.invert
        )
        sizes = steps.geometry(stack.shape, self.config, name)
        self.side, self.grew = sizes.shape[0], sizes.pixel_size_factor
        stored = source.pixel_size
        self.pixel_size = None if stored is None else stored * self.grew
        self.params = _ctf(source, preparation.ctf)
        self.state = STATES[preparation.ctf] if preparation.ctf else CtfState.RECORDED
        self._check_lengths()
        if preparation.ctf is not None or preparation.crop is not None:
            self._check_box(stack.shape[0])
        self.outside = self._outside() if preparation.normalise else None

    def _check_lengths(self) -> None:
        """Refuse a particle that the box does not hold, and a resolution that pixels do not."""
        wanted, name = self.preparation, self.source.stack.name
        for option, length in (("diameter", wanted.diameter), ("resolution", wanted.resolution)):
            if length is not None and self.pixel_size is None:
                raise InputError(f"{name}: there is no pixel size, expected one for --{option}")
        if self.pixel_size is None:
            return
        width, finest = self.side * self.pixel_size, 2 * self.pixel_size
        if wanted.diameter is not None and wanted.diameter > (1 + TOLERANCE) * width:
            found = f"{wanted.diameter:g} Å"
            raise InputError.of(name, "--diameter", found, f"at most the new box, {width:.4g} Å")
        if wanted.resolution is not None and wanted.resolution < (1 - TOLERANCE) * finest:
            found = f"{wanted.resolution:g} Å"
            expected = f"at least two of the new pixels, {finest:.4g} Å"
            raise InputError.of(name, "--resolution", found, expected)

    def _check_box(self, stored: int) -> None:
        """Refuse a box that is too small for the signal spread by the defocus."""
        known = self.source.particles
        params = self.params
        state = ctf_state(known)
        if params is None and (state is None or not state.any()):
            params = known.ctf(self.source.stack.pixel_size)
        size = self.source.pixel_size
        if params is None or size is None:
            return
        finest = self.preparation.resolution or 2 * size * self.grew
        moved = delocalisation(params, finest)
        needed = 2 * moved + (self.preparation.diameter or 0.0)
        crop = self.preparation.crop
        box, what = (
            (stored, "the box") if self.preparation.ctf or crop is None else (crop, "--crop")
        )
        if box * size < needed:
            deepest = float(np.abs(params[:, 1:3]).max())
            right = good_side(needed / size)
            raise InputError(
                f"{self.source.stack.name}: {what} is {box} px ({box * size:.0f} Å), but a defocus "
                f"of {deepest:.0f} Å moves signal at {finest:.2g} Å by {moved:.0f} Å, expected "
                f"{right} px (or a coarser --resolution)"
            )

    def _outside(self) -> NDArray[np.bool_]:
        fraction = 1.0
        if self.preparation.diameter is not None and self.pixel_size is not None:
            fraction = min(1.0, self.preparation.diameter / (self.pixel_size * self.side))
        return ~disc((self.side, self.side), fraction)

    def __call__(self, rows: NDArray[np.int64]) -> Images:
        """Prepare the images at ``rows``, (B, side, side)."""
        images = self.source.stack.read(rows)
        if not np.isfinite(images).all():
            bad = int(rows[~np.isfinite(images).all(axis=(1, 2, 3))][0])
            where = self.source.stack.where(bad)
            raise InputError(f"{where}: the image holds a value that is NaN or infinite")
        if self.params is not None:
            images = self._corrected(images, self.params[rows])
        images = steps.resize(images, self.config)
        if self.outside is not None:
            images, std = steps.standardize(images, self.outside)
            if (std == 0).any():
                where = self.source.stack.where(int(rows[np.flatnonzero(std == 0)[0]]))
                raise InputError(f"{where}: its background is constant, expected noise")
        return np.ascontiguousarray(images[:, 0], np.float32)

    def _corrected(self, images: Images, params: NDArray[np.float32]) -> Images:
        box = images.shape[-1]
        factor = ctf_2d(torch.from_numpy(params), (box, box))
        if self.state == CtfState.FLIPPED:
            factor = torch.where(factor < 0, -1.0, 1.0)
        spectrum = torch.fft.rfft2(torch.from_numpy(images)) * factor[:, None]
        return np.asarray(torch.fft.irfft2(spectrum, s=(box, box)).numpy())


def _check(preparation: Preparation) -> None:
    """Refuse impossible numbers."""
    for name in ("crop", "box"):
        if (size := getattr(preparation, name)) is not None:
            check_whole("preprocess", f"--{name}", size, 2, LARGEST_BOX)
    for name in ("diameter", "resolution"):
        if (length := getattr(preparation, name)) is not None:
            check_real("preprocess", f"--{name}", length, 0, 1e6, low_counts=False)


def _ctf(source: Source, wanted: str | None) -> NDArray[np.float32] | None:
    """Return the CTF (N, 9) to correct by; None if nothing is to be corrected."""
    if wanted is None:
        return None
    particles = source.particles
    params = particles.ctf(source.stack.pixel_size)
    if params is None:
        raise InputError(f"{particles.name}: there is no CTF, expected one for --{wanted}")
    if params.shape[1] > CtfColumn.STATE and params[:, CtfColumn.STATE].any():
        raise InputError(
            f"{particles.name}: phases were flipped or images multiplied by their CTF already, "
            "expected images as they were recorded"
        )
    scale = params[:, CtfColumn.SCALE] if params.shape[1] > CtfColumn.SCALE else 1.0
    if np.any(np.asarray(scale) != 1):
        raise InputError(f"{particles.name}: rlnCtfScalefactor is not 1, expected 1 for --{wanted}")
    return np.ascontiguousarray(params[:, ALWAYS])


def delocalisation(params: NDArray[np.float32], resolution: float) -> float:
    """Return by how many Å the microscope moves signal of a resolution (Å): the largest λ Δf / d.

    Parameters
    ----------
    params
        (N, 9) or more, columns as in :class:`CtfColumn`.
    resolution
        d, Å.
    """
    voltage = torch.from_numpy(params[:, CtfColumn.VOLTAGE].astype(np.float64))
    defocus = np.abs(params[:, [CtfColumn.DEFOCUS_U, CtfColumn.DEFOCUS_V]]).max(axis=1)
    return float((electron_wavelength(voltage).numpy() * defocus).max() / resolution)


def good_side(least: float) -> int:
    """Return the smallest even side from ``least`` on that has no other factors than 2, 3, 5."""
    side = int(np.ceil(least / 2)) * 2
    while True:
        rest = side
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return side
        side += 2

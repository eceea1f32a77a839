"""Two half maps from images with given poses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.backprojection.slices import SliceSums
from modpose.config import DataConfig
from modpose.data.dataset import Dataset
from modpose.data.identity import particles_of_rows
from modpose.data.particles import Particles
from modpose.data.repeated_rows import warn_of_repeated_rows
from modpose.data.source import Source
from modpose.devices import on_its_device
from modpose.errors import InputError
from modpose.fourier.fsc import FscCurve, fsc
from modpose.geometry.pose import Pose
from modpose.geometry.views import directions_of
from modpose.geometry.windows import soft_window
from modpose.progress import Progress

Change = Callable[[Tensor, Pose], tuple[Tensor, Pose]]
Volume = NDArray[np.float32]

BATCH_PIXELS = 2**18
"""Pixels inserted per batch."""
WINDOW = (0.85, 0.95)
"""Start and end of the soft edge of the window on images, fractions of half the box."""
MASK = (0.7, 0.85)
"""The same for the ball in which half maps are compared."""
LARGEST_BOX = 128
ONE_VIEW_DEG = 5.0
"""Views that are usually within this angle of one direction are one view."""


@dataclass(frozen=True)
class HalfMaps:
    """Maps from two halves of the images.

    Attributes
    ----------
    first, second
        (D, H, W) maps; summed along z they are upright signals, before the CTF.
    curve
        Their Fourier shell correlation inside a soft ball.
    pixel_size
        Å; None if it is not known.
    """

    first: Volume
    second: Volume
    curve: FscCurve
    pixel_size: float | None

    def combined(self) -> Volume:
        """Return the mean, every shell weighted by 2 FSC / (1 + FSC).

        Rosenthal & Henderson 2003, equation 18 (the square root is left out: it is a Wiener
        filter of the map itself).
        """
        mean = 0.5 * (self.first + self.second)
        worth = np.clip(self.curve.correlation, 0.0, 1.0)
        worth = 2 * worth / (1 + worth)
        box = len(mean)
        axes = np.meshgrid(
            np.fft.fftfreq(box), np.fft.fftfreq(box), np.fft.rfftfreq(box), indexing="ij"
        )
        radius = box * np.sqrt(sum(axis**2 for axis in axes))
        shells = np.arange(1, len(worth) + 1)
        weight = np.interp(radius, shells, worth, right=0.0)
        filtered = np.fft.irfftn(np.fft.rfftn(mean) * weight, s=mean.shape, axes=(0, 1, 2))
        return np.asarray(filtered, np.float32)


def open_posed(source: Source, box: int | None = None, invert: bool = False) -> Dataset:
    """Open images with given poses, and with their CTF where there is one.

    Parameters
    ----------
    source
        The images and their table.
    box
        Side to Fourier-crop to, pixels; None: an even one of at most 128.
    invert
        Make dark particles bright.
    """
    side = min(source.stack.shape)
    size = box if box is not None else min(LARGEST_BOX, side - side % 2)
    square = len(set(source.stack.shape)) == 1
    warn_of_repeated_rows(source.particles, source.pixel_size)
    return Dataset(
        source,
        DataConfig(crop=None if square else side, box=size, invert=invert, val_fraction=0),
        seed=0,
        ctf=True,
        poses=True,
    )


@on_its_device
def reconstruct_halves(
    dataset: Dataset,
    rows: NDArray[np.int64] | None = None,
    change: Change | None = None,
    quiet: bool = False,
    *,
    device: str | None = None,
) -> HalfMaps:
    """Back-project the two halves of a set.

    The halves are those of the table of the poses (rlnRandomSubset, alignments3D/split), else
    every other image.

    Parameters
    ----------
    dataset
        Images with given poses (``Dataset(..., poses=True)``), and with their CTF where there is
        one; square boxes of an even side.
    rows
        Which images; None: all.
    change
        Applied to images and poses on their way.
    quiet
        No progress bar.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``; None: the CPU.

    Raises
    ------
    InputError
        If these are not square images with 3-D poses.
    """
    check_projections(dataset)
    box = dataset.shape[0]
    rows = np.arange(dataset.n) if rows is None else np.asarray(rows, np.int64)
    window = torch.from_numpy(soft_window((box, box), *WINDOW))
    half = half_of(dataset, rows)
    volumes = []
    with Progress("backproject", len(rows), quiet=quiet) as progress:
        for number in (0, 1):
            volume = SliceSums(box)
            size = max(1, BATCH_PIXELS // box**2)
            for batch in dataset.batches(rows[half == number], size):
                assert batch.pose is not None
                images = without_background(batch.image[:, 0], window)
                pose = batch.pose
                if change is not None:
                    images, pose = change(images, pose)
                volume.add(images, pose, batch.ctf)
                progress.advance(len(batch), 0.0)
            volumes.append(volume.map())
    curve = fsc(volumes[0], volumes[1], soft_window((box,) * 3, *MASK), dataset.pixel_size)
    return HalfMaps(volumes[0], volumes[1], curve, dataset.pixel_size)


def check_projections(dataset: Dataset) -> None:
    """Raise InputError unless these are square images with poses in 3-D."""
    name = dataset.source.stack.name
    shape = dataset.shape
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] % 2 or dataset.channels != 1:
        found = " x ".join(map(str, shape))
        expected = "grey images with a square box of an even side (see --box)"
        raise InputError.of(name, "the box", found, expected)
    if dataset.rotation is None:
        raise InputError(f"{name}: the poses were not read, expected Dataset(..., poses=True)")
    check_views(dataset)
    if dataset.n < 4:
        raise InputError.of(name, "the number of images", dataset.n, "at least 4, two per half")


def check_views(dataset: Dataset) -> None:
    """Refuse given poses of which all show the object from one direction."""
    if dataset.rotation is None or dataset.n < 2:
        return
    seen = directions_of(dataset.rotation)
    if np.linalg.eigvalsh(seen.T @ seen / len(seen))[-1] > np.cos(np.deg2rad(ONE_VIEW_DEG)) ** 2:
        raise InputError(
            f"{dataset.source.particles.name}: all images show the object from one direction, as "
            "after 2-D classification, expected rotations in 3-D from a refinement (modpose "
            "abinitio finds some)"
        )


def half_of(dataset: Dataset, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the half, 0 or 1, of each of the images at ``rows``.

    All rows of one image (in a symmetry-expanded set) belong to one half, also where the table
    puts them into both.
    """
    particles = dataset.source.particles
    given = particles.half_sets()
    if given is not None:
        half = _of_particles(given, particles)[rows]
        if min(half.sum(), len(half) - half.sum()) >= max(2, len(half) // 10):
            return half
        particles.note("nearly all images are in one half set, so every other image is taken")
    particle = np.unique(particles_of_rows(particles)[rows], return_inverse=True)[1]
    return np.asarray(particle.reshape(-1) % 2, np.int64)


def _of_particles(half: NDArray[np.int64], particles: Particles) -> NDArray[np.int64]:
    """Give all rows of a particle the half of its first row."""
    particle = particles_of_rows(particles)
    first = np.unique(particle, return_index=True)[1]
    one = half[first][particle]
    if moved := np.count_nonzero(one != half):
        particles.note(
            f"{moved} rows name an image that the other half set has too, so they are taken to the "
            "half of its first row; their poses were not found in independent halves"
        )
    return one


def without_background(images: Tensor, window: Tensor) -> Tensor:
    """Subtract the mean outside the window from each image (B, H, W), then apply the window."""
    outside = 1 - window
    level = (images * outside).sum((1, 2)) / outside.sum()
    return (images - level[:, None, None]) * window

"""Tilt series as Fourier coefficients of a particle: planes of one transform.

Image f of a particle at pose (R, t) shows its central slice along A_f R, moved by (A_f t)_xy.  At
k in its plane this is F(R^T q) exp(-2 pi i q.t) with q = A_f^T (k, 0).  So all images of a particle
together are coefficients of one posed object at the frequencies q: one rotation and one shift
explain them all, and the likelihood is that of the images.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from modpose.config import DataConfig
from modpose.data.dataset import Dataset
from modpose.data.tilt_posing import poses_of_images, tilts_of_images
from modpose.data.tilt_series import HALF, TiltSeries
from modpose.data.tomograms import TOMOGRAM
from modpose.errors import InputError
from modpose.files.reading import check_memory
from modpose.fourier.coefficients import Coefficients
from modpose.search.abinitio.checks import memory_needed
from modpose.search.abinitio.images import SearchImages, read_images

LEVEL_FROM = 0.5
"""The level of the noise of an image is measured beyond this fraction of the highest frequency."""
COPIES = 3
"""Memory of images, of the same sorted by particle, and of their frequencies, over the first."""


@dataclass(frozen=True)
class TiltImages:
    """P particles, each in up to T images.

    Attributes
    ----------
    images
        All images, one row each.
    row
        (P, T) row of each image of a particle; -1 where it has fewer.
    tilt
        (P, T, 3, 3) from the frame of the particle's pose to that of the image.
    level
        (P, T) variance of the noise of an image, relative to that of all; 1 where it has fewer.
    known
        That variance by tomogram and tilt.
    """

    images: SearchImages
    row: Tensor
    tilt: Tensor
    level: Tensor
    known: dict[tuple[str, int], float]

    def __len__(self) -> int:
        return len(self.row)

    def coefficients(self, radius: float, box: int) -> Coefficients:
        """Whitened coefficients of all particles up to a radius, in a smaller box.

        Parameters
        ----------
        radius
            Cycles a box of the images.
        box
            Side that images are thought to be Fourier-cropped to; shifts are in its pixels.
        """
        flat = self.images.coefficients(slice(None), radius, box)
        count, (particles, tilts) = flat.width, self.row.shape
        check_memory("tilt series", 24 * particles * tilts * count)
        seen = (self.row >= 0) / self.level.sqrt()
        row = self.row.clamp(min=0).flatten()

        def of_particles(values: Tensor) -> Tensor:
            sorted_ = values[row].view(particles, tilts, count) * seen[..., None]
            return sorted_.transpose(1, 2).reshape(particles, count * tilts)

        frequency = torch.einsum("kj,ptji->pkti", flat.frequency, self.tilt)
        return Coefficients(
            frequency.reshape(particles, count * tilts, 3),
            of_particles(flat.value),
            of_particles(flat.transfer),
            box,
        )


def read_tilts(
    series: TiltSeries,
    radius: float,
    *,
    invert: bool = False,
    quiet: bool = False,
    like: TiltImages | None = None,
) -> TiltImages:
    """Read the images of tilt series up to a frequency.

    Parameters
    ----------
    series
        The particles.
    radius
        Cycles a box.
    invert
        Whether particles are dark.
    quiet
        No progress bar.
    like
        Images of the same tilt series whose noise was measured; these have as many tilts and the
        same noise.

    Raises
    ------
    InputError
        If images are not square, hold no noise around the particle, or have no CTF while others
        have.
    """
    source = series.images
    has_ctf = source.particles.ctf(source.stack.pixel_size) is not None
    config = DataConfig(invert=invert, normalize="none", val_fraction=0)
    check_memory(source.stack.name, COPIES * memory_needed(source.n, radius, 0))
    images = read_images(Dataset(source, config, seed=0, ctf=has_ctf), radius, quiet)
    tilts = int(series.frame.max()) + 1 if like is None else like.row.shape[1]
    place = np.full((series.n, tilts), -1, np.int64)
    if len({*zip(series.particle.tolist(), series.frame.tolist(), strict=True)}) < source.n:
        raise InputError(f"{source.particles.name}: an image of a particle is listed twice")
    place[series.particle, series.frame] = np.arange(source.n)
    tilt = torch.from_numpy(tilts_of_images(series)).float()
    row = torch.from_numpy(place)
    images, group = _unshifted(images, series), _groups(series)
    if like is None:
        known = _levels(images, group)
    else:
        images, known = images.with_noise(like.images.noise), like.known
    level = torch.tensor([known.get(name, 1.0) for name in group])[row.clamp(min=0)]
    return TiltImages(
        images,
        row,
        tilt[row.clamp(min=0)],
        torch.where(row >= 0, level, torch.ones(())),
        known,
    )


def side_of_images(series: TiltSeries) -> int:
    """Return the side of the images, pixels; warn where they have no CTF.

    Raises
    ------
    InputError
        If they are not square.
    """
    stack = series.images.stack
    if len(stack.shape) != 2 or len(set(stack.shape)) != 1:
        found = " x ".join(map(str, stack.shape))
        raise InputError.of(stack.name, "the box", found, "square images")
    series.images.particles.has_ctf(stack.pixel_size)
    return stack.shape[0]


def given_halves(series: TiltSeries) -> Tensor | None:
    """Return the half, 0 or 1, of each particle (P,) in the table; None where it has none."""
    if not series.particles.has(HALF):
        return None
    second = series.particles.numbers(HALF) == 2
    return torch.from_numpy(second.astype(np.int64)) if 0 < second.sum() < series.n else None


def _unshifted(images: SearchImages, series: TiltSeries) -> SearchImages:
    """Take off the shifts that a table of M gives for single images."""
    if series.tilt is not None:
        return images
    shift = torch.from_numpy(poses_of_images(series)[1]).float()
    angle = 2 * torch.pi * (shift @ (images.k / images.side).T)
    return replace(images, value=images.value * torch.polar(torch.ones_like(angle), angle))


def _groups(series: TiltSeries) -> list[tuple[str, int]]:
    """Name the tomogram and the tilt of each image (M,)."""
    names = [""] * series.n
    if series.particles.has(TOMOGRAM):
        names = [str(name) for name in series.particles.column(TOMOGRAM)]
    places = zip(series.particle.tolist(), series.frame.tolist(), strict=True)
    return [(names[particle], frame) for particle, frame in places]


def _levels(images: SearchImages, group: list[tuple[str, int]]) -> dict[tuple[str, int], float]:
    """Measure the noise of the images (M,) of each tilt of each tomogram, relative to all."""
    number = {name: k for k, name in enumerate(dict.fromkeys(group))}
    index = torch.tensor([number[name] for name in group])
    high = images.radius > LEVEL_FROM * images.radius[-1]
    power = (images.value[:, high].abs().square() / images.noise[images.shell[high]]).mean(1)
    level = torch.zeros(len(number)).index_add_(0, index, power)
    level = (level / torch.bincount(index)).clamp(min=1e-6)
    return dict(zip(number, level.tolist(), strict=True))

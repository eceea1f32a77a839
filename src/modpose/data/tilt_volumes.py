"""Particles of tilt series as volumes with weights, made when they are read.

Image f of a particle is y = c S_f F + noise: the central slice S_f of the particle's transform F,
times the CTF and dose c.  Back-projecting c y gives sum c^2 F + noise of variance sum c^2 near each
frequency, where the sums are over the slices that pass there.  These sums W are the weights of the
volume.  :class:`modpose.data.wedges.Wedges` takes both as it takes what RELION 4 writes: the volume
is divided by the root of W, which makes its noise white, and the model's signal is multiplied by
it.  Before, images are divided by the spectrum of their noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.data.restore import Restoration
from modpose.data.stack import Stack
from modpose.data.tilt_posing import (
    WrittenRows,
    poses_of_images,
    tilts_of_images,
    written_rows,
)
from modpose.data.tilt_series import TiltSeries
from modpose.data.unopened import Unopened
from modpose.errors import InputError
from modpose.geometry.grids import lattice
from modpose.geometry.pose import sample_images
from modpose.geometry.windows import soft_window
from modpose.observe.ctf import ctf_2d

KEPT_BYTES = 2**29
"""Volumes and weights are kept in memory up to this size; further ones are made again."""
SAMPLED = 512
"""Images, spread over the set, whose noise is measured."""
CORNER = 0.97
"""Noise is measured beyond this fraction of half the box."""
FINER = 2
"""Images are interpolated on a grid finer by this."""


def of_tilt_series(series: TiltSeries) -> Unopened:
    """Return the particles of tilt series as an input of volumes, one row a particle.

    Raises
    ------
    InputError
        If images are not square, or a table of tilt images has no angles.
    """
    volumes = TiltVolumes(series)
    images = series.images
    poses = None
    if series.tilt is None:
        first = np.unique(series.particle, return_index=True)[1]
        poses = poses_of_images(series)[0][first], np.zeros((series.n, 3))
    elif series.rotation is not None and series.shift is not None:
        poses = series.rotation, series.shift
    particles = replace(series.particles, given_poses=poses)
    return Unopened(
        particles,
        images.path,
        (series.path,),
        series.tables,
        whole=volumes,
        datadir=images.datadir,
        tilts=volumes,
    )


class TiltVolumes(Stack):
    """Back-projections of the images of each particle, (D, D, D).

    Parameters
    ----------
    series
        The particles.

    Attributes
    ----------
    series
        The same.
    weights
        The sums of squared CTF, (D, D, D // 2 + 1) in FFT order, as a stack.
    """

    def __init__(self, series: TiltSeries) -> None:
        stack = series.images.stack
        if len(set(stack.shape)) != 1 or stack.channels != 1:
            found = " x ".join(map(str, stack.shape))
            raise InputError.of(stack.name, "the box", found, "square grey images")
        side = stack.shape[0]
        self.series, self.n, self.shape, self.channels = series, series.n, (side,) * 3, 1
        self.name, self.pixel_size = stack.name, series.images.pixel_size
        self.dtype = np.dtype(np.float32)
        self.weights: Stack = _Weights(self)
        self._rows = np.split(
            np.argsort(series.particle, kind="stable"),
            np.cumsum(np.bincount(series.particle, minlength=series.n))[:-1],
        )
        self._ctf = series.images.particles.ctf(stack.pixel_size)
        self._restored = Restoration(series.images)
        self._tilt = tilts_of_images(series)
        self._shift = None if series.tilt is not None else poses_of_images(series)[1]
        self._noise: Tensor | None = None
        self._kept: dict[int, Sums] = {}

    def written(self, chosen: NDArray[np.int64] | None) -> WrittenRows:
        """Return the rows of a table of the chosen particles; see :func:`written_rows`."""
        return written_rows(self.series, chosen)

    def where(self, row: int) -> str:
        """Return the name of one particle for messages."""
        return f"{self.name}, particle {row + 1}"

    def files(self) -> Iterator[Path]:
        """Yield the files of the images."""
        return self.series.images.stack.files()

    def sizes(self) -> NDArray[np.int64]:
        """Return the bytes of the file of each particle's first image, (N,)."""
        return self.series.images.stack.sizes()[[rows[0] for rows in self._rows]]

    def _read_into(self, rows: NDArray[np.int64], out: NDArray[np.float32]) -> None:
        for place, row in enumerate(rows):
            out[place, 0] = self.sums(int(row))[0]

    def sums(self, row: int) -> Sums:
        """Return the volume (D, D, D) and the weights (D, D, D // 2 + 1) of a particle."""
        found = self._kept.get(row)
        if found is None:
            found = self._made(self._rows[row])
            size = found[0].nbytes + found[1].nbytes
            if len(self._kept) < KEPT_BYTES // size:
                self._kept[row] = found
        return found

    def _made(self, rows: NDArray[np.int64]) -> Sums:
        if self._noise is None:
            self._noise = self._measured()
        side, tilt = self.shape[0], torch.from_numpy(self._tilt[rows]).float()
        shell = _shells(side)
        transfer = self._noise.rsqrt()[shell].expand(len(rows), -1, -1).clone()
        if side % 2 == 0:  # Nyquist's frequency has one sign only
            transfer[:, 0], transfer[:, :, 0] = 0.0, 0.0
        spectrum = _transform(self._images(rows)) * transfer
        if self._ctf is not None:
            found = ctf_2d(torch.from_numpy(self._ctf[rows]), (side, side), rfft=False)
            transfer = transfer * torch.fft.fftshift(found, dim=(1, 2))
            spectrum = spectrum * torch.fft.fftshift(found, dim=(1, 2))
        if self._shift is not None:
            back = torch.from_numpy(self._shift[rows]).float()
            angle = 2 * torch.pi / side * (back @ lattice((side, side)).T).view(-1, side, side)
            spectrum = spectrum * torch.polar(torch.ones_like(angle), angle)
        return (
            back_projected(spectrum, tilt).numpy(),
            slices_summed(transfer.square(), tilt).numpy(),
        )

    def _images(self, rows: NDArray[np.int64]) -> Tensor:
        """Read images (T, D, D), with the earlier processing undone and a background of zero."""
        stack = self.series.images.stack
        images = stack.read(rows)
        bad = ~np.isfinite(images).all((1, 2, 3))
        if bad.any():
            where = stack.where(int(rows[bad.argmax()]))
            raise InputError(f"{where}: the image holds a value that is NaN or infinite")
        if self._restored:
            images = self._restored(images, rows)
        window = _corners(images.shape[-1])
        level = (images[:, 0] * window).sum((1, 2)) / window.sum()
        return torch.from_numpy(images[:, 0] - level[:, None, None])

    def _measured(self) -> Tensor:
        """Measure the noise outside the particles: its variance by shell, relative to the mean."""
        side, n = self.shape[0], self.series.images.n
        rows = np.unique(np.linspace(0, n - 1, min(n, SAMPLED)).round().astype(np.int64))
        shell = _shells(side)
        power = torch.zeros(side, side)
        for part in np.array_split(rows, max(1, len(rows) // 64)):
            corners = self._images(part) * torch.from_numpy(_corners(side))
            power += _transform(corners).abs().square().sum(0)
        total = torch.zeros(int(shell.max()) + 1).index_add_(0, shell.flatten(), power.flatten())
        mean = total / torch.bincount(shell.flatten())
        mean[0] = mean[1]
        level = mean[1 : side // 2].mean()
        if not level > 0:  # no noise at all
            return torch.ones_like(mean)
        return (mean / level).clamp(min=LEAST_NOISE)


LEAST_NOISE = 1e-3
"""Shells with less noise than this, relative to the mean, count as if they had as much."""
Sums = tuple[NDArray[np.float32], NDArray[np.float32]]
"""A volume, and its weights."""


class _Weights(Stack):
    """The weights of the volumes."""

    def __init__(self, volumes: TiltVolumes) -> None:
        side = volumes.shape[0]
        self._volumes, self.n, self.name = volumes, volumes.n, volumes.name
        self.shape, self.channels = (side, side, side // 2 + 1), 1
        self.pixel_size, self.dtype = volumes.pixel_size, volumes.dtype

    def where(self, row: int) -> str:
        return self._volumes.where(row)

    def _read_into(self, rows: NDArray[np.int64], out: NDArray[np.float32]) -> None:
        for place, row in enumerate(rows):
            out[place, 0] = self._volumes.sums(int(row))[1]


def back_projected(spectrum: Tensor, tilt: Tensor) -> Tensor:
    """Sum images, each constant along its own direction of view.

    Parameters
    ----------
    spectrum
        (T, D, D) transforms of the images; frequency zero, and the centres of the images, are at
        D // 2.
    tilt
        (T, 3, 3) from the volume to the frame of each image.

    Returns
    -------
    Tensor
        (D, D, D), over the root of D: white noise keeps its variance on each slice.
    """
    side, fine = spectrum.shape[1], FINER * spectrum.shape[1]
    k = torch.arange(side) - side // 2
    blur = torch.sinc(k / fine).square()  # of linear interpolation
    wide = spectrum.new_zeros(len(spectrum), fine, fine)
    wide[:, (k % fine)[:, None], k % fine] = spectrum / (blur[:, None] * blur)
    images = torch.fft.fftshift(torch.fft.ifft2(wide).real, dim=(1, 2)) * FINER**2
    x = lattice((side,) * 3).to(images)
    total = x.new_zeros(len(x))
    for image, turn in zip(images, tilt, strict=True):
        total += sample_images(image[None, None], FINER * (x @ turn[:2].T)[None])[0, :, 0]
    summed: Tensor = total.reshape(side, side, side) / side**0.5
    return summed


def slices_summed(weight: Tensor, tilt: Tensor) -> Tensor:
    """Sum weights at the frequencies of a volume: slices, one step of its lattice thick.

    Parameters
    ----------
    weight
        (T, D, D) of the frequencies of each image; frequency zero at D // 2.
    tilt
        As for :func:`back_projected`.

    Returns
    -------
    Tensor
        (D, D, D // 2 + 1), as ``rfftn`` has them.
    """
    side = weight.shape[1]
    k = torch.fft.fftfreq(side) * side
    z, y, x = torch.meshgrid(k, k, torch.arange(side // 2 + 1.0), indexing="ij")
    frequency = torch.stack([x, y, z], -1).reshape(-1, 3)
    total = weight.new_zeros(len(frequency))
    for one, turn in zip(weight, tilt, strict=True):
        place = frequency @ turn.T
        near = place[:, 2].abs() < 1
        seen = sample_images(one[None, None], place[None, near, :2])[0, :, 0]
        total[near] += seen * (1 - place[near, 2].abs())
    return total.view(x.shape)


def _transform(images: Tensor) -> Tensor:
    """Transform images (T, D, D); the origin and frequency zero are at D // 2."""
    found = torch.fft.fft2(torch.fft.ifftshift(images, dim=(1, 2)))
    moved: Tensor = torch.fft.fftshift(found, dim=(1, 2))
    return moved


def _shells(side: int) -> Tensor:
    """(D, D) number of the shell of each frequency of an image; frequency zero at D // 2."""
    radius: Tensor = lattice((side, side)).norm(dim=1)
    return radius.round().long().view(side, side)


def _corners(side: int) -> NDArray[np.float32]:
    """(D, D) window on the corners of an image."""
    return 1 - soft_window((side, side), CORNER, CORNER + 0.1)

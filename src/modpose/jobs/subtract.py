"""Subtract from each image the projection of a map outside a mask."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.data.fresh_table import has_image_names
from modpose.data.inputs import files_of_source
from modpose.data.optics import aberrations, image_sign
from modpose.data.poses import given_poses
from modpose.data.renamed import with_images
from modpose.data.restore import refuse_aberrations
from modpose.data.source import Source
from modpose.data.table_files import files_of_table, write_table
from modpose.devices import near, on_its_device
from modpose.errors import InputError
from modpose.files.writing import all_or_nothing, check_outputs
from modpose.fourier.fsc import read_map
from modpose.fourier.reference import make_references, sample, turned
from modpose.jobs import shards
from modpose.limits import check_real
from modpose.observe.aberrations import take_off
from modpose.observe.ctf import ctf_2d, noise_gain

Images = NDArray[np.float32]
Volume = NDArray[np.float32]

FITTED = 500
"""Images that the scale of the map is fitted to, spread over the set."""
BATCH = 64


@on_its_device
def subtract(
    source: Source,
    map_file: Path,
    mask_file: Path,
    out: str | Path,
    *,
    scale: float | None = None,
    shard: int = shards.SHARD,
    overwrite: bool = False,
    quiet: bool = False,
    device: str | None = None,
) -> tuple[Path, float]:
    """Write images from which the projection of a map outside a mask has been taken.

    Each image has its own pose, CTF, and phases of odd aberrations; what was done to the images
    (flipped phases, multiplication by the CTF) is done to the projection, too.

    Parameters
    ----------
    source
        Square images of an even side, with poses in space.
    map_file
        What the images show, in their box and pixel size.
    mask_file
        1 where the signal is to stay, 0 where it is to go, with a soft edge.
    out
        Folder for ``particles_00000.mrcs``, ... and the table.
    scale
        Grey values of the images over those of the projected map; None: fitted to the set.
    shard, overwrite, quiet
        As in :func:`modpose.jobs.prepare.prepare`; an interrupted job goes on in the same way.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``; None: the CPU.

    Returns
    -------
    table, scale
        The table, and the scale that was used.

    Raises
    ------
    InputError
        Boxes or pixel sizes differ, there are no poses, or the images do not show the map (the
        fitted scale is not positive).
    """
    folder, side = Path(out), _side(source)
    volume = _map(map_file, source)
    mask = _map(mask_file, source)
    if mask.min() < -1e-3 or mask.max() > 1 + 1e-3:
        found = f"from {mask.min():.3g} to {mask.max():.3g}"
        raise InputError.of(mask_file, "the mask", found, "values from 0 to 1")
    if scale is not None:
        check_real("subtract", "--scale", scale, -1e12, 1e12)
    if shard < 1:
        raise InputError.of("subtract", "--shard", shard, "at least 1")
    place = shards.Shards(folder, source.n, shard)
    table = folder / ("particles.cs" if source.particles.format == "cs" else "particles.star")
    outputs = [*(folder / name for name in place.names), *files_of_table(table)]
    inputs = [map_file, mask_file, *files_of_source(source)]
    check_outputs(outputs, True, inputs)
    written = with_images(shards.table_for(source, table), *place.of_rows(), side)
    used = _fitted_scale(source, volume) if scale is None else scale
    settings = {
        "map": _digest(map_file),
        "mask": _digest(mask_file),
        "scale": None if scale is None else float(scale),
        "set of poses": hashlib.sha256(
            np.concatenate(given_poses(source), None).tobytes()
        ).hexdigest(),
    }
    outside = Predictor(source, volume * (1 - mask))
    shards.begin(place, source, settings, table, overwrite)

    def make(rows: NDArray[np.int64]) -> Images:
        images = source.stack.read(rows)[:, 0]
        for first in range(0, len(rows), BATCH):
            part = slice(first, first + BATCH)
            images[part] -= used * outside(rows[part])
        return images

    shards.fill(place, side, source.pixel_size, make, label="subtract", quiet=quiet)
    with all_or_nothing() as staging:
        write_table(written, table, staging)
    return table, used


class Predictor:
    """Draws the projection of a map for each image of a set, filtered as the images were recorded.

    It computes on the device for computing.

    Parameters
    ----------
    source
        Images with poses in space.
    volume
        (D, D, D), in their box.
    """

    def __init__(self, source: Source, volume: Volume) -> None:
        self.source, self.box = source, len(volume)
        particles = source.particles
        self.device = near(torch.empty(0))
        self.rotation, self.shift = (self._there(x).float() for x in given_poses(source))
        self.params = particles.ctf(source.stack.pixel_size)
        self.sign = image_sign(particles)
        self.odd = aberrations(particles).odd
        refuse_aberrations(source, source.stack.shape, source.pixel_size)
        self.sizes = particles.sizes_or(source.stack.pixel_size)
        n = self.box
        limit = 0.5 - 1 / (2 * n)  # the finer lattice ends a step later
        fine = torch.from_numpy(np.ascontiguousarray(volume))[None]
        self.references = make_references(fine, limit)
        ky, kx = torch.meshgrid(torch.fft.fftfreq(n), torch.fft.rfftfreq(n), indexing="ij")
        inside = (torch.hypot(kx, ky) <= limit).flatten()
        self.kept = torch.nonzero(inside).squeeze(1).to(self.device)
        k = torch.stack([kx.flatten(), ky.flatten(), torch.zeros(n * (n // 2 + 1))], 1)[inside]
        self.k = k.to(self.device)

    def _there(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def __call__(self, rows: NDArray[np.int64]) -> Images:
        """Return (B, D, D) pictures for the images at ``rows``."""
        n, at = self.box, self._there(rows)
        which = torch.zeros(len(rows), dtype=torch.int64, device=self.device)
        values = sample(self.references, which, turned(self.k, self.rotation[at])) * n**1.5
        phase = -2 * math.pi * (self.shift[at] @ self.k[:, :2].T)
        values = values * torch.polar(torch.ones_like(phase), phase)
        plane = values.new_zeros(len(rows), n * (n // 2 + 1))
        plane[:, self.kept] = values
        plane = plane.reshape(len(rows), n, -1)
        if self.params is not None:
            params = self._there(self.params[rows])
            plane = plane * ctf_2d(params, (n, n)) * noise_gain(params, (n, n))
        pictures = torch.fft.irfft2(plane, s=(n, n))
        pictures = torch.fft.fftshift(pictures, dim=(-2, -1)).cpu()
        if self.odd is not None and self.sizes is not None:
            odd, sizes = torch.from_numpy(self.odd[rows]), torch.from_numpy(self.sizes[rows])
            pictures = take_off(pictures[:, None], -odd, sizes)[:, 0]
        found = np.asarray(pictures.numpy(), np.float32)
        return found if self.sign is None else found * self.sign[rows, None, None].astype("f4")


def _side(source: Source) -> int:
    shape, name = source.stack.shape, source.stack.name
    even = len(shape) == 2 and shape[0] == shape[1] and not shape[0] % 2
    if not even or source.stack.channels != 1:
        found = " x ".join(map(str, shape))
        raise InputError.of(name, "the box", found, "grey images with a square box of an even side")
    if not has_image_names(source):
        raise InputError(f"{name}: the images have no names, expected a STAR, a .cs or a stack")
    return shape[0]


def _map(path: Path, source: Source) -> Volume:
    volume, size = read_map(path)
    side = source.stack.shape[0]
    if volume.shape != (side,) * 3:
        found = " x ".join(map(str, volume.shape))
        raise InputError.of(path, "the box", found, f"{side} x {side} x {side}, that of the images")
    known = source.pixel_size
    if size is not None and known is not None and abs(size - known) > 0.01 * known:
        raise InputError.of(
            path, "the pixel size", f"{size:.4g} Å", f"{known:.4g} Å, of the images"
        )
    return volume


def _fitted_scale(source: Source, volume: Volume) -> float:
    """Fit grey values of the images by the projected map, means left out."""
    predictor = Predictor(source, volume)
    rows = np.unique(np.linspace(0, source.n - 1, min(source.n, FITTED)).astype(np.int64))
    both = own = 0.0
    for first in range(0, len(rows), BATCH):
        part = rows[first : first + BATCH]
        images, drawn = source.stack.read(part)[:, 0], predictor(part)
        drawn = drawn - drawn.mean((1, 2), keepdims=True)
        both += float((images * drawn).sum(dtype=np.float64))
        own += float(np.square(drawn).sum(dtype=np.float64))
    if not own:
        raise InputError(f"{source.stack.name}: the map is constant, expected what the images show")
    if not both > 0:
        raise InputError(
            f"{source.stack.name}: the images are dark where the map is bright (scale "
            f"{both / own:.3g}), expected the same contrast, or --scale"
        )
    return both / own


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

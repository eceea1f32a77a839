"""Masks of missing wedges that are stored as volumes: opened, checked, resampled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modpose.data.image_files import open_stack
from modpose.data.locate import find_files
from modpose.data.mrc import is_mrc, open_mrc
from modpose.data.opened import Source
from modpose.data.particles import Particles
from modpose.data.stack import RowsStack, Stack
from modpose.errors import InputError

CTF_IMAGE = "rlnCtfImage"


def open_masks(wedge: str | Path | NDArray[Any]) -> Stack:
    """Open one mask, or one per volume: a file (MRC, NPY, Zarr) or an array."""
    if isinstance(wedge, str | Path):
        path = Path(wedge)
        if not path.exists():
            raise InputError(f"{path}: no such file of wedge masks")
        if is_mrc(path):
            return open_mrc(path, "volumes")
        stack = open_stack(path)
        if len(stack.shape) == 3:
            return stack
        wedge = stack.read(np.arange(stack.n))[:, 0]  # one (D, H, W) looks like D images
    if wedge.ndim not in (3, 4):
        raise InputError.of("wedge", "the shape of the mask", wedge.shape, "(D, D, D)")
    items = wedge.reshape(-1, *wedge.shape[-3:])
    return _PlainVolumes(items)


class _PlainVolumes(Stack):
    """Volumes of any shape in memory (halves of a Fourier transform are no cubes)."""

    def __init__(self, items: NDArray[Any]) -> None:
        self._items = items
        self.n, self.shape, self.channels = len(items), items.shape[1:], 1
        self.pixel_size, self.name, self.dtype = None, "wedge", items.dtype

    def _read_into(self, rows: NDArray[np.int64], out: NDArray[np.float32]) -> None:
        out[:, 0] = self._items[rows]


def ctf_images(particles: Particles, table: Path | None, datadir: Path | None) -> Stack:
    """Open the files of rlnCtfImage, one volume per particle, or one for all."""
    names = [str(name) for name in particles.column(CTF_IMAGE)]
    found, missing = find_files(names, table or Path(particles.name), datadir)
    if missing:
        raise InputError(
            f"{particles.name}: the file {missing[0]} of {CTF_IMAGE} cannot be found beside the "
            "table, in its parent folders or in --datadir"
        )
    files = list(found)
    parts = [open_mrc(found[name], "volumes") for name in files]
    number = {name: i for i, name in enumerate(files)}
    if len(files) == 1:
        return parts[0]
    part = np.array([number[name] for name in names], np.int64)
    return RowsStack(parts, part, np.zeros(len(part), np.int64), particles.name)


def check_masks(weights: Stack, source: Source) -> None:
    """Refuse masks that do not fit the volumes in size or number."""
    box = source.stack.shape
    half = (*box[:2], box[2] // 2 + 1)
    doubled = (2 * half[0], *half[1:])
    if weights.shape not in (box, half, doubled):
        found = " x ".join(map(str, weights.shape))
        raise InputError.of(
            weights.name,
            "the size of the wedge mask",
            found,
            f"{' x '.join(map(str, box))} as the volumes, or {' x '.join(map(str, half))}",
        )
    if weights.n not in (1, source.n):
        raise InputError.of(
            weights.name, "the number of wedge masks", weights.n, f"1 or {source.n}, one per volume"
        )


def whole(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Convert centred weights, or half an FFT, to the order of a whole FFT."""
    if weights.shape[2] == weights.shape[1]:
        return np.fft.ifftshift(weights)
    import torch

    from modpose.observe.wedge import whole_mask

    return whole_mask(torch.from_numpy(weights)[None], weights.shape[1])[0].numpy()


def resampled(
    mask: NDArray[np.float32], shape: tuple[int, ...], factor: float
) -> NDArray[np.float32]:
    """Sample a whole mask at its nearest frequencies for volumes with another box."""
    index = []
    for axis, side in enumerate(shape):
        frequency = np.fft.fftfreq(side) / factor
        frequency = frequency[: side // 2 + 1] if axis == 2 else frequency
        index.append(np.rint(frequency * mask.shape[axis]).astype(np.int64) % mask.shape[axis])
    return np.ascontiguousarray(mask[np.ix_(*index)])

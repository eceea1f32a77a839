"""Posed images on a half lattice, block by block: only a block is in memory."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.backprojection.halves import half_of
from modpose.config import SpectralConfig
from modpose.content_maps.lattice import HalfLattice, PlacedImages
from modpose.content_maps.poses import corrected
from modpose.data.dataset import Dataset
from modpose.data.identity import particles_of_rows
from modpose.devices import HOST
from modpose.fourier.projection import Projection
from modpose.progress import Progress
from modpose.search.projections import ImageReader, PosedImages, power_spectrum

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

POINTS_AT_ONCE = 1 << 16
"""Coefficients that are on the lattice at a time."""
SHELLS_KEPT, LEAST_SHELLS = 0.7, 8
"""Part of the shells that is kept where memory does not take all; and shells that are few."""
GROUP_COLUMNS = ("rlnOpticsGroup", "ctf/exp_group_id")
"""Columns of RELION and cryoSPARC that give the optics group."""
OWN_NOISE = 200
"""Images of an optics group from which the noise is its own; smaller groups share one."""


class Block(NamedTuple):
    """Some images: their rows in the table, at their given poses, and on the lattice."""

    rows: Ints
    images: PosedImages
    placed: PlacedImages


class ImagesOnLattice:
    """The images of a set, whitened, with the contrast of each.

    Parameters
    ----------
    dataset
        Images with given poses.
    contrast
        (N,) factor on the signal of each image; None: all one.
    symmetry
        (G, 3, 3) rotations that leave every map as it is; None: the identity alone.
    refine_poses
        Keep a correction of each pose, at first none.
    device
        Where the lattice is, and what is on it.

    Attributes
    ----------
    box
        Side of the maps, pixels.
    group
        (N,) number of the noise of each image.
    variance
        (groups, shells) of the noise.
    quarter
        (N,) from 0 to 3.
    pose
        (N, 5) corrections of the poses; None: there are none.
    """

    def __init__(
        self,
        dataset: Dataset,
        contrast: Floats | None,
        symmetry: Tensor | None = None,
        refine_poses: bool = False,
        device: torch.device = HOST,
    ) -> None:
        self.dataset = dataset
        self.symmetry = torch.eye(3)[None] if symmetry is None else symmetry
        self.pose = torch.zeros(dataset.n, 5) if refine_poses else None
        every = np.ones(dataset.n) if contrast is None else contrast
        self.contrast = torch.from_numpy(np.asarray(every, np.float32))
        self.box, self.device = dataset.shape[0], device
        self.reader = ImageReader(Projection(SpectralConfig(), self.box), self.box / 2 - 0.5)
        self.quarter = quarters_of(dataset)
        self.group = noise_groups(dataset)
        self.variance = torch.ones(0)

    @cached_property
    def lattice(self) -> HalfLattice:
        """Where they are: large, so it is made when it is first needed."""
        return HalfLattice(self.box, self.reader.limit, self.device)

    def within(self, shell: int) -> ImagesOnLattice:
        """Return the same images without the coefficients beyond a shell, in a box for these.

        Poses are shared.
        """
        found = copy(self)
        vars(found).pop("lattice", None)
        found.reader = ImageReader(self.reader.projection, shell + 0.5).within(shell)
        found.box = found.reader.box
        return found

    def coarser(self) -> ImagesOnLattice | None:
        """Return the same images with fewer shells, whose sums take a third of the memory.

        None, if these are few already.
        """
        last = int(self.reader.shell.max())
        return None if last < LEAST_SHELLS else self.within(round(SHELLS_KEPT * last))

    @property
    def in_box(self) -> Tensor:
        """Factors (5,) of corrections of poses: their shifts are then in pixels of the box."""
        pixels = self.box / self.dataset.shape[0]
        return torch.tensor([1.0, 1.0, 1.0, pixels, pixels])

    def measure(self, rows: Ints, progress: Progress) -> None:
        """Take the power of the images at ``rows`` for their noise."""
        groups = [rows[self.group[rows] == g] for g in range(int(self.group.max()) + 1)]
        every = [power_spectrum(self.dataset, own, self.reader, progress) for own in groups]
        self.variance = torch.stack(every)

    def correct(self, left: Tensor, rows: Ints) -> None:
        """Correct the noise by the power (groups, shells), summed over ``rows``, that is left."""
        in_shell = torch.bincount(self.reader.shell, minlength=left.shape[1])
        images = torch.from_numpy(np.bincount(self.group[rows], minlength=len(left)))
        ratio = left / (images[:, None] * in_shell).clamp(min=1)
        last = int(in_shell.nonzero().max())
        ratio[:, 0], ratio[:, last + 1 :] = ratio[:, 1], ratio[:, last : last + 1]
        self.variance = self.variance * ratio.clamp(max=1)  # noise is at most all of the power

    def some(self, count: int, seed: int) -> Ints:
        """Choose random rows, ``count`` in all, of each group about equally many."""
        rng, groups = np.random.default_rng(seed), int(self.group.max()) + 1
        chosen = []
        for g in range(groups):
            own = np.flatnonzero(self.group == g)
            chosen.append(rng.choice(own, min(max(count // groups, 1), len(own)), replace=False))
        return np.sort(np.concatenate(chosen))

    def blocks(self, rows: Ints) -> Iterator[Block]:
        """Read the images at ``rows``; they are on the lattice at their corrected poses."""
        at_once = max(1, POINTS_AT_ONCE // len(self.reader.frequency) // len(self.symmetry))
        for batch in self.dataset.batches(rows, at_once):
            mine = batch.index.numpy()
            images = self.reader.images(batch, self.variance[self.group[mine]])
            transfer = images.data.transfer * self.contrast[batch.index][:, None]
            images = replace(images, data=replace(images.data, transfer=transfer))
            images = images.to(self.device)
            yield Block(mine, images, self.lattice.place(self._moved(mine, images)))

    def views(self, block: Block) -> PlacedImages:
        """Place images at each of the poses that the symmetry makes equal."""
        if len(self.symmetry) == 1:
            return block.placed
        moved = self._moved(block.rows, block.images)
        return self.lattice.place(moved.repeated(self.symmetry))

    def _moved(self, rows: Ints, images: PosedImages) -> PosedImages:
        if self.pose is None:
            return images
        return corrected(images, (self.pose[rows] * self.in_box).to(self.device))


def noise_groups(dataset: Dataset) -> Ints:
    """Return the number (N,) of the noise of each image: its optics group, if that is large."""
    particles = dataset.source.particles
    column = next((c for c in GROUP_COLUMNS if particles is not None and particles.has(c)), None)
    if particles is None or column is None:
        return np.zeros(dataset.n, np.int64)
    _, group, size = np.unique(
        particles.column(column).astype(str), return_inverse=True, return_counts=True
    )
    large = size >= OWN_NOISE
    own = np.where(large, np.cumsum(large) - 1, large.sum())
    found: Ints = np.unique(own[group.reshape(-1)], return_inverse=True)[1].reshape(-1)
    return found


def quarters_of(dataset: Dataset) -> Ints:
    """Return the quarter, 0 to 3, of each image: 0 and 1 are in the first half of the table.

    All rows of one particle are in one quarter.
    """
    half = half_of(dataset, np.arange(dataset.n))
    particle = particles_of_rows(dataset.source.particles)
    quarter = 2 * half
    for number in (0, 1):
        mine = half == number
        place = np.unique(particle[mine], return_inverse=True)[1].reshape(-1)
        quarter[mine] += place % 2
    return quarter

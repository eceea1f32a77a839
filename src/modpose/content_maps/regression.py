"""Maps from images of known content: sums, priors, solutions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.content_maps.basis import ContentBasis
from modpose.content_maps.boxes import in_box
from modpose.content_maps.cells import Cells, cells_for
from modpose.content_maps.equations import Equations, MaskBox
from modpose.content_maps.focus import Focus
from modpose.content_maps.images import ImagesOnLattice
from modpose.content_maps.lattice import points
from modpose.content_maps.settings import COUNTS
from modpose.content_maps.spectra import (
    Prior,
    amplitude_prior,
    consensus_spectrum,
    loose_spectra,
    spectra,
)
from modpose.content_maps.sums import CellSums
from modpose.memory import return_freed_memory
from modpose.progress import Progress

Floats = NDArray[np.float64]

FOR_PRIOR, FOR_CONTENT = 6, 8
"""Largest number of steps of the solution that a prior is estimated from, and of maps that content
is inferred from.  With half of the steps content gets stuck."""
ROUGH, FOR_HALVES, FOR_MAPS = 3, 5, 12
"""The same for maps that are kept: of quarters, of halves, and of all images.  They gain little
from more."""
BYTES = 7 << 28
"""Most that the kernels of one part of the images, and the sums of its maps, may take where the
number of maps is chosen."""


class Priors(NamedTuple):
    """What is expected of maps from two parts of the images.

    The parts share the spectra, a number for each shell and map, and not the amplitudes.

    Attributes
    ----------
    every, own
        The prior of maps from all images, and that of each part.
    rough
        (J, b, b, b) of each part: the maps that these were estimated from.
    consensus
        (shells,) spectrum of the mean.
    """

    every: Prior
    own: list[Prior]
    rough: list[Tensor]
    consensus: Tensor


class Regression:
    """Regression of images on functions of their content, by parts of the images.

    Parameters
    ----------
    images
        At their poses.
    mask
        (D, D, D) where the molecule may be.
    focus
        Where maps may depend on content; None: everywhere.
    nuisances
        Number of maps, the last, that are nothing but a nuisance.
    seed
        Of random choices.
    """

    def __init__(
        self, images: ImagesOnLattice, mask: Tensor, focus: Focus | None, nuisances: int, seed: int
    ) -> None:
        self.mask, self.focus, self.nuisances, self.seed = mask, focus, nuisances, seed
        self.look_at(images)

    def look_at(self, images: ImagesOnLattice) -> None:
        """Compute with these images from now on, in their box."""
        mask = in_box(self.mask, images.box)
        self.images, self.box = images, MaskBox(mask, images.reader.limit)
        return_freed_memory()

    def most(self) -> int:
        """Return the largest number of functions whose maps fit into memory, with all shells."""
        cell = 4 * len(self.box.seen)
        sums = 8 * points(self.images.box, self.images.reader.limit)
        maps = {count: count + self.nuisances for count in COUNTS}
        fitting = [k for k, j in maps.items() if cell * cells_for(j) + sums * j <= BYTES]
        return max(fitting, default=1)

    def cells(self, basis: ContentBasis, contents: list[Floats], nuisance: Tensor) -> Cells:
        """Group images of like content.

        With two contents, the first is that of the coefficients of even number of each image, the
        second that of the others.
        """
        known = [np.concatenate([basis(z), nuisance], 1) for z in contents]
        width = float(np.std(contents[0] / basis.scale)) or 1.0
        places = [np.concatenate([z / basis.scale / width, nuisance], 1) for z in contents]
        return Cells.of(places, known, self.seed)

    def sums(self, cells: Cells, part: int, parts: int, progress: Progress) -> Equations:
        """Sum up one of so many parts of the images: all, halves or quarters."""
        images, step = self.images, len(cells.labels)
        sums = CellSums(images.lattice, self.box, cells.values.to(self.mask))
        mine = np.flatnonzero(images.quarter * parts // 4 == part)
        order = [mine[np.argsort(label[mine], kind="stable")] for label in cells.labels]
        for low in range(0, len(cells), sums.at_once):
            for first, (rows, label) in enumerate(zip(order, cells.labels, strict=True)):
                begin, end = np.searchsorted(label[rows], (low, low + sums.at_once))
                for block in images.blocks(rows[begin:end]):
                    seen = images.views(block).part(slice(first, None, step))
                    sums.add(seen, label[block.rows].repeat(len(images.symmetry)))
                    progress.advance(len(block.rows), 0.0)
        return sums.equations()

    def half_maps(self, cells: Cells, half: int, progress: Progress) -> tuple[Equations, Tensor]:
        """Sum up a half of the images, and solve for its maps.

        The prior of a half is that which its own quarters agree on.  A prior of both halves would
        make noise strong in the same places and shells of both, where it agrees by chance.
        """
        first, second = (self.sums(cells, 2 * half + one, 4, progress) for one in range(2))
        prior = self.priors([first, second], ROUGH).every
        both = first.add(second)
        del second
        return both, both.solve(*prior, FOR_HALVES)

    def priors(self, parts: list[Equations], steps: int) -> Priors:
        """Find the priors of maps from two parts of the images."""
        consensus = consensus_spectrum(parts)
        maps = [self.rough(part, consensus, steps) for part in parts]
        spectrum = self.spectrum(maps, [part.precision() for part in parts], consensus)
        every, *own = (self.prior(one, spectrum) for one in (0.5 * (maps[0] + maps[1]), *maps))
        return Priors(every, own, maps, consensus)

    def rough(
        self, part: Equations, consensus: Tensor, steps: int, start: Tensor | None = None
    ) -> Tensor:
        """Solve for maps from which a prior is estimated, from the spectrum of the mean."""
        loose = loose_spectra(consensus, len(part))
        return part.solve(loose, self._regions(len(part)), steps, start)

    def spectrum(self, maps: list[Tensor], precision: list[Tensor], consensus: Tensor) -> Tensor:
        """Return the spectra (J, shells) that rough maps of two parts agree on."""
        return spectra(maps, precision, consensus, self._regions(len(maps[0])), self.box)

    def prior(self, maps: Tensor, spectrum: Tensor) -> Prior:
        """Find the prior of maps from rough ones and their spectra."""
        count, groups = len(maps), self._groups(len(maps))
        return amplitude_prior(maps, spectrum, self.box, self._regions(count), groups)

    def _groups(self, count: int) -> tuple[int, int, int]:
        return 1, count - self.nuisances - 1, self.nuisances

    def _regions(self, count: int) -> Tensor:
        """Where each map may be, (J, b, b, b)."""
        mask = inside = self.box.mask
        if self.focus is not None:
            region = in_box(self.focus.region.float(), self.box.box)
            inside = self.box.cut(region).to(mask) * mask
        kinds = torch.stack([mask, inside, mask - inside])
        groups = torch.tensor(self._groups(count), device=self.mask.device)
        return kinds.repeat_interleave(groups, 0)

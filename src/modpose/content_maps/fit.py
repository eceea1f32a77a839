"""Content maps from posed images: sums, prior, solution; content once more; sums and solution.

Content is inferred again, in turn with the maps, so that an image never sees itself: from maps of
quarters (:mod:`modpose.content_maps.rounds`), then of halves
(:mod:`modpose.content_maps.alternation`).

Maps are a regression of the images on functions of the content that is inferred of them, and not on
its posterior: the map at a content is then the mean of what images with this inferred content show.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.backprojection.halves import check_projections
from modpose.content_maps.alternation import Alternation
from modpose.content_maps.bands import Band
from modpose.content_maps.basis import ContentBasis, check_content
from modpose.content_maps.equations import Equations
from modpose.content_maps.focus import Focus
from modpose.content_maps.images import ImagesOnLattice
from modpose.content_maps.inference import Inferred
from modpose.content_maps.poses import Corrections
from modpose.content_maps.regression import FOR_HALVES, FOR_MAPS, Regression
from modpose.content_maps.rounds import FROM_QUARTERS, Rounds
from modpose.content_maps.settings import ContentMapSettings
from modpose.content_maps.solution import ContentMaps
from modpose.data.dataset import Dataset
from modpose.devices import near
from modpose.errors import InputError
from modpose.geometry.groups import point_group, symmetric
from modpose.memory import keep_freed_memory
from modpose.progress import Progress
from modpose.search.solvent import check_mask

Floats = NDArray[np.float64]

KEPT = 1 << 27
"""Bytes of the largest block of memory that is kept for the next step."""
JUDGED = 1000
"""Images that choose the number of functions, and measure the noise."""


def fit_content_maps(
    dataset: Dataset,
    z: Floats,
    std: Floats,
    mask: Tensor,
    settings: ContentMapSettings | None = None,
    *,
    contrast: Floats | None = None,
    focus: Focus | None = None,
    quiet: bool = False,
) -> ContentMaps:
    """Compute sharp maps of every content.

    Parameters
    ----------
    dataset
        Images with given poses, and with their CTF if they have one; square boxes, an even side.
    z, std
        (N, k) content of the images, and its posterior standard deviation.
    mask
        (D, D, D) from 0 to 1: where the molecule may be, in the box of the images.
    settings
        Options.
    contrast
        (N,) factor on the signal of each image; None: all one.
    focus
        Where maps may depend on content, and how much of each motion elsewhere an image has;
        None: everywhere.  Not with a symmetry.
    quiet
        No progress bar.

    Raises
    ------
    InputError
        If the images are not posed projections, content does not vary, the mask does not fit, or a
        symmetry is imposed beside a focus.
    """
    settings = settings or ContentMapSettings()
    if focus is not None and settings.symmetry.upper() != "C1":
        raise InputError(
            f"content maps: symmetry {settings.symmetry} beside a focus, expected one of the two "
            "(modpose expand repeats the images, so that the focus can be one unit)"
        )
    keep_freed_memory(KEPT)
    check_projections(dataset)
    check_mask(mask, dataset.shape[0])
    check_content(z, settings.most(len(z)))
    return _Fitting(dataset, z, std, mask, settings, contrast, focus).run(quiet)


class _Fitting:
    """The work of one fit."""

    def __init__(
        self,
        dataset: Dataset,
        z: Floats,
        std: Floats,
        mask: Tensor,
        settings: ContentMapSettings,
        contrast: Floats | None,
        focus: Focus | None,
    ) -> None:
        group = torch.from_numpy(point_group(settings.symmetry)).float()
        device = near(mask)
        self.images = ImagesOnLattice(
            dataset, contrast, group, settings.refine_poses, device=device
        )
        self.settings, self.focus = settings, focus
        none = torch.zeros(dataset.n, 0)
        nuisance = none if focus is None else torch.from_numpy(focus.nuisance).float()
        corrections = Corrections.none(dataset.n) if settings.refine_poses else None
        self.first = Inferred(z, std, np.median(std, 0), [z, z], nuisance, corrections)
        self.some = self.images.some(JUDGED, settings.seed)
        inside = symmetric(mask.float(), group).to(device)
        self.regression = Regression(self.images, inside, focus, nuisance.shape[1], settings.seed)
        self.rounds = Rounds(self.regression, settings, self.first, self.some)

    def run(self, quiet: bool) -> ContentMaps:
        rounds, n = self.settings.rounds, self.images.dataset.n
        passes = 6 + 2 * rounds + 3 * min(rounds, FROM_QUARTERS) if rounds else 0
        images = passes * n + (passes + 1) * len(self.some)
        with Progress("content", images, quiet=quiet) as progress:
            self.images.measure(self.some, progress)
            power = self.images.variance
            found = self._content(progress)
            progress.finish()  # fewer rounds than may be
        self.rounds.look_at(self.images)
        # in units of the images' power: what maps lack would count as noise
        self.images.variance = power
        return self._maps(*found, quiet)

    def _content(self, progress: Progress) -> tuple[ContentBasis, Inferred, Inferred]:
        """Infer content; its functions, itself, and that which quarters tell of their half."""
        n = self.images.dataset.n
        if not self.settings.rounds:
            return self.rounds.basis(self.first, self.settings.most(n)), self.first, self.first
        last = self.rounds.settled(self.settings.most(n), progress)
        basis, content = last.basis, last.content
        if len(basis) == 1:  # nothing moves, and what was inferred is noise
            first = self.first
            return self.rounds.basis(first, 1), first, first
        if content.z is not self.first.z:
            least, most = len(basis), self.rounds.fitting(self.settings.widest(n))
            alternation = Alternation(
                self.regression, self.rounds.inference, self.settings, self.some
            )
            content, count = alternation.run(content, least, most, progress)
            basis = self.rounds.basis(content, self.settings.functions or count)
        return basis, content, last.content

    def _maps(
        self, basis: ContentBasis, content: Inferred, own: Inferred, quiet: bool
    ) -> ContentMaps:
        """Compute maps with all shells; where these have too few functions, more with fewer shells.

        Parameters
        ----------
        basis
            Functions of content.
        content
            From which the maps of all images come.
        own
            For the maps of halves: content that only their own images tell.
        quiet
            No progress bars.
        """
        regression, images = self.regression, self.images
        bands = [self._band(basis.first(regression.most()), content, own, quiet)]
        while len(bands[-1].maps) < len(basis) and (coarser := images.coarser()) is not None:
            images = coarser
            self.rounds.look_at(images)
            most = regression.most()
            if most > len(bands[-1].maps):
                bands.append(self._band(basis.first(most), content, own, quiet))
        values, pose = basis(content.z), self.images.pose
        return ContentMaps(
            basis=basis,
            bands=tuple(bands),
            moment=values.T @ values,
            z=content.z,
            std=content.std,
            half=self.images.quarter // 2,
            pixel_size=self.images.dataset.pixel_size,
            focus=None if self.focus is None else self.focus.region.numpy(),
            pose=None if pose is None else pose.numpy(),
        )

    def _band(self, basis: ContentBasis, content: Inferred, own: Inferred, quiet: bool) -> Band:
        """Compute the maps of halves, from content that only their own images tell; then of all.

        The prior of the maps of all images comes from their content too, if its maps predict images
        better than those of ``own``.  For the maps of halves, content of each coefficient is told
        by others, for otherwise noise would agree with the maps that content was inferred from, in
        both halves.
        """
        regression, better = self.regression, content is not own
        crossed = [own.z] if all(z is own.z for z in own.crossed) else own.crossed
        again = better or len(crossed) > 1
        passes = len(crossed) + again
        label = f"maps, {regression.images.box} pixels"
        with Progress(label, passes * self.images.dataset.n, quiet=quiet) as progress:
            cells = regression.cells(basis, crossed, own.nuisance)
            halves, half_maps = [], []
            for half in range(2):
                sums, found = regression.half_maps(cells, half, progress)
                half_maps.append(found)
                if not better:
                    halves.append(sums)
                del sums
            if better:
                halves = self._halves(basis, content, progress)
            prior = regression.priors(halves, FOR_HALVES).every
            if again and not better:
                halves.clear()
                halves = self._halves(basis, content, progress)
            both, count = halves[0].add(halves.pop()), len(basis)
            maps = both.solve(*prior, FOR_MAPS)[:count]
        noise = 1 / both.precision()[0]
        noise[0], noise[-1] = noise[1], noise[-2]
        first, second = (maps[:count].cpu().numpy() for maps in half_maps)
        return Band(
            mask=regression.box.whole(regression.box.mask[None])[0].cpu().numpy(),
            maps=maps.cpu().numpy(),
            halves=(first, second),
            noise=noise.cpu().numpy(),
            limit=regression.images.reader.limit,
        )

    def _halves(
        self, basis: ContentBasis, content: Inferred, progress: Progress
    ) -> list[Equations]:
        """Sum up both halves of the images."""
        cells = self.regression.cells(basis, [content.z], content.nuisance)
        return [self.regression.sums(cells, half, 2, progress) for half in range(2)]

"""Content maps from posed images: sums, prior, solution; content once more; sums and solution.

The images are in quarters: two in each half.  Content of a quarter is inferred again from the maps
of the other quarter of its half, so that an image never sees itself, nor the other half.

Maps are a regression of the images on functions of the content that is inferred of them, and not on
its posterior: the map at a content is then the mean of what images with this inferred content show.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.backprojection.halves import check_projections
from modpose.content_maps.basis import ContentBasis, check_content
from modpose.content_maps.cells import Cells, groups_of
from modpose.content_maps.choice import fewest, last_telling
from modpose.content_maps.equations import Equations, MaskBox
from modpose.content_maps.focus import Focus
from modpose.content_maps.images import ImagesOnLattice
from modpose.content_maps.inference import Compared, Inference, Inferred
from modpose.content_maps.poses import Corrections
from modpose.content_maps.posterior import Landmarks
from modpose.content_maps.settings import COUNTS, FIRST, ContentMapSettings
from modpose.content_maps.solution import ContentMaps
from modpose.content_maps.spectra import (
    Prior,
    amplitude_prior,
    consensus_spectrum,
    spectra,
)
from modpose.content_maps.sums import CellSums
from modpose.data.dataset import Dataset
from modpose.devices import near
from modpose.errors import InputError
from modpose.geometry.groups import point_group, symmetric
from modpose.memory import keep_freed_memory
from modpose.progress import Progress
from modpose.search.solvent import check_mask

Floats = NDArray[np.float64]

JUDGED = 1000
"""Images that choose the number of functions, and measure the noise."""
CLEARLY = 2.0
"""Content is inferred once more where it helped by more than so many standard errors."""
LITTLE = 0.1
"""And by more than this part of what helped most."""
LOOKED_AT = 3 / 8
"""Shells from which the first content is judged, over the side of the box."""
ROUGH, ITERATIONS, SETTLED = 6, 10, 20
"""Largest number of steps of the solution that content is inferred from, that halves are compared
by, and of the last one."""


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
    keep_freed_memory()
    check_projections(dataset)
    check_mask(mask, dataset.shape[0])
    check_content(z, settings.most(len(z)))
    fitting = _Fitting(dataset, z, std, mask, settings, contrast, focus)
    rounds, some = settings.rounds, min(JUDGED, dataset.n)
    passes = 5 + 3 * rounds if rounds else 1
    images = passes * dataset.n + (2 + 3 * rounds if rounds else 1) * some
    with Progress("content maps", images, quiet=quiet) as progress:
        return fitting.run(progress)


class _Stage(NamedTuple):
    """Content, functions of it, their maps from quarters of the images.

    ``needed`` is the last shell that content needs, ``last`` the last that the maps have.
    """

    content: Inferred
    basis: ContentBasis
    compared: Compared
    needed: int
    last: int


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
        self.device = near(mask)
        self.images = ImagesOnLattice(
            dataset, contrast, group, settings.refine_poses, device=self.device
        )
        self.settings, self.focus = settings, focus
        self.mask = symmetric(mask.float(), group).to(self.device)
        self.box = MaskBox(self.mask, self.images.reader.limit)
        none = torch.zeros(dataset.n, 0)
        nuisance = none if focus is None else torch.from_numpy(focus.nuisance).float()
        corrections = Corrections.none(dataset.n) if settings.refine_poses else None
        self.first = Inferred(z, std, np.median(std, 0), [z, z], nuisance, corrections)
        self.nuisances = nuisance.shape[1]
        self.some = self.images.some(JUDGED, settings.seed)
        self.inference = Inference(self.images, self.box, self.nuisances)
        self.corrected = False

    def run(self, progress: Progress) -> ContentMaps:
        self.images.measure(self.some, progress)
        most, again = self.settings.most(self.images.dataset.n), self.settings.rounds > 0
        if not again:
            basis = self._basis(self.first, most)
            quarters = self._sums(basis, [self.first.z], self.first.nuisance, 4, progress)
            halves, maps = self._half_maps(quarters)
            prior, _ = self._priors(halves, ITERATIONS)
            return self._solved(self.first, basis, prior, maps, Equations.join(halves))
        every, power = self.images, self.images.variance
        last = self._settled(self.first, most, progress)
        if len(last.basis) == 1:  # nothing moves, and what was inferred is noise
            last = last._replace(content=self.first, basis=self._basis(self.first, 1))
        self._look_at(every)
        noise, content, basis = self.images.variance, last.content, last.basis
        # in units of the images' power: what maps lack would count as noise
        self.images.variance = power
        # otherwise noise would agree with the maps that content was inferred from, in both halves
        crossed = content.crossed if len(basis) > 1 else [content.z]
        quarters = self._sums(basis, crossed, content.nuisance, 4, progress)
        halves, maps = self._half_maps(quarters)
        prior, _ = self._priors(halves, ITERATIONS)
        if len(basis) > 1:
            halves.clear()
            if content.z is not self.first.z:
                self.images.variance = noise
                others = last.compared._replace(maps=[maps[1], maps[1], maps[0], maps[0]])
                # poses stay: those of a half are never corrected by maps of the other
                content = self.inference.content(others, progress)
                self.images.variance = power
            halves = self._sums(basis, [content.z], content.nuisance, 1, progress)
        return self._solved(content, basis, prior, maps, Equations.join(halves))

    def _look_at(self, images: ImagesOnLattice) -> None:
        """Compute with these images from now on."""
        self.images, self.box = images, MaskBox(self.mask, images.reader.limit)
        self.inference.images, self.inference.box = images, self.box

    def _move(self, content: Inferred) -> None:
        """Place images at the poses that a content was inferred at."""
        if self.images.pose is not None and content.corrections is not None:
            self.images.pose.copy_(content.corrections.pose)

    def _settled(self, content: Inferred, most: int, progress: Progress) -> _Stage:
        """Infer content again, as often as its maps predict images better; choose functions.

        Only from the shells that tell content; from all where that does not help, or where all
        that were looked at tell it.
        """
        first, every = self.settings.functions or min(most, FIRST), self.images
        some = every.within(round(LOOKED_AT * every.lattice.box))
        self._look_at(some)
        before = self._stage(content, first, progress)
        every.variance = some.variance
        narrow = before.needed < before.last
        self._look_at(every.within(before.needed) if narrow else every)
        best = 0.0
        for _ in range(self.settings.rounds):
            count = len(before.basis)
            if count == 1:
                break
            wider = min((more for more in COUNTS if count < more < most), default=most)
            step = self.settings.functions or wider
            content = self._inferred(before.compared.maps, before.content.corrections, progress)
            now = self._stage(content, step, progress)
            gain = self._gain(now, before, progress)
            if gain.mean() <= 0:
                self._move(before.content)
                if best or not narrow:
                    return self._with_crossed(before, progress)
                narrow = False
                self._look_at(every)
                continue
            before, best = now, max(best, float(gain.mean()))
            if gain.mean() < max(CLEARLY * float(gain.std()) / len(gain) ** 0.5, LITTLE * best):
                break
        return self._with_crossed(before, progress)

    def _with_crossed(self, stage: _Stage, progress: Progress) -> _Stage:
        """Let the first content know what coefficients tell of the others of their image."""
        if stage.content.z is not self.first.z or len(stage.basis) == 1:
            return stage
        crossed = self.inference.content(stage.compared, progress).crossed
        return stage._replace(content=stage.content._replace(crossed=crossed))

    def _inferred(
        self, maps: list[Tensor], corrections: Corrections | None, progress: Progress
    ) -> Inferred:
        """Infer content again, as amounts of the maps: it may have more dimensions than before.

        The amounts of single images are noisy, and lie about those that many images have: content
        is the posterior between the centres of groups of images.
        """
        mean, std = self.inference.amounts(maps, progress)
        centres, values = groups_of(mean, std, self.settings.landmarks, self.settings.seed)
        landmarks = Landmarks.of(torch.from_numpy(values).float().to(self.device))
        found = self.inference.content(Compared(centres, landmarks, maps), progress, corrections)
        return found._replace(unit=np.ones(centres.shape[1]))

    def _gain(self, now: _Stage, before: _Stage, progress: Progress) -> Tensor:
        """How much better maps predict unseen coefficients than those before, in their shells."""
        new, old = (
            self.inference.judged(
                one.compared.maps,
                one.compared.landmarks.values,
                (len(one.basis),),
                self.some,
                progress,
            )[0].double()
            for one in (now, before)
        )
        return (new - old)[..., : before.last + 1].sum((1, 2))

    def _basis(self, content: Inferred, most: int) -> ContentBasis:
        """Find at most so many functions of content."""
        return ContentBasis.fit(content.z, content.unit, most, self.settings.seed)

    def _sums(
        self,
        basis: ContentBasis,
        contents: list[Floats],
        nuisance: Tensor,
        parts: int,
        progress: Progress,
    ) -> list[Equations]:
        """Sum up the images in so many parts: all, halves or quarters.

        With two contents, the first is that of the coefficients of even number of each image, the
        second that of the others.
        """
        images, step = self.images, len(contents)
        known = [np.concatenate([basis(z), nuisance], 1) for z in contents]
        width = float(np.std(contents[0] / basis.scale)) or 1.0
        places = [np.concatenate([z / basis.scale / width, nuisance], 1) for z in contents]
        cells = Cells.of(places, known, self.settings.seed)
        values = cells.values.to(self.device)
        found = []
        for part in range(parts):
            sums = CellSums(images.lattice, self.box, values)
            mine = np.flatnonzero(images.quarter * parts // 4 == part)
            for first, label in enumerate(cells.labels):
                for block in images.blocks(mine[np.argsort(label[mine], kind="stable")]):
                    seen = images.views(block).part(slice(first, None, step))
                    sums.add(seen, label[block.rows].repeat(len(images.symmetry)))
                    progress.advance(len(block.rows), 0.0)
            found.append(sums.equations())
        return found

    def _stage(self, content: Inferred, most: int, progress: Progress) -> _Stage:
        """Choose the number of functions, and measure the noise that their maps leave."""
        self._move(content)
        basis = self._basis(content, most)
        parts = self._sums(basis, [content.z], content.nuisance, 4, progress)
        halves = [Equations.join(parts[:2]), Equations.join(parts[2:])]
        _, own = self._priors(halves, ITERATIONS)
        halves.clear()
        maps = [part.solve(*own[number // 2], ROUGH) for number, part in enumerate(parts)]
        centres = basis.centres(self.settings.landmarks, self.settings.seed)
        values = torch.from_numpy(basis(centres)).float().to(self.device)
        parts.clear()
        most = len(basis)
        counts = (*(count for count in COUNTS if count < most), most)
        score, left = self.inference.judged(maps, values, counts, self.some, progress)
        if not self.corrected:  # again and again, what maps lack would grow
            self.images.correct(left, self.some)
            self.corrected = True
        count = most if self.settings.functions else fewest(score.sum(2), counts)
        kept = [torch.cat([one[:count], one[most:]]) for one in maps]
        compared = Compared(centres, Landmarks.of(values[:, :count]), kept)
        needed = last_telling(score[:, counts.index(count)] - score[:, 0])
        last = int(self.images.reader.shell.max())
        return _Stage(content, basis.first(count), compared, needed, last)

    # --- solutions ----------------------------------------------------------------------------

    def _half_maps(self, quarters: list[Equations]) -> tuple[list[Equations], list[Tensor]]:
        """Join quarters to halves, and solve for the maps of each; ``quarters`` is emptied.

        The prior of a half is that which its own quarters agree on.  A prior of both halves would
        make noise strong in the same places and shells of both, where it agrees by chance.
        """
        halves, maps = [], []
        while quarters:
            pair = [quarters.pop(0), quarters.pop(0)]
            prior, _ = self._priors(pair, ROUGH)
            halves.append(Equations.join(pair))
            maps.append(halves[-1].solve(*prior, ITERATIONS))
        return halves, maps

    def _priors(self, parts: list[Equations], steps: int) -> tuple[Prior, list[Prior]]:
        """Find the prior of maps from all of two parts of the images, and that of each part.

        The parts share the spectra, a number for each shell and map, and not the amplitudes.
        """
        nuisances = self.nuisances
        groups = 1, len(parts[0]) - nuisances - 1, nuisances
        regions = self._regions(groups)
        spectrum, maps = spectra(parts, consensus_spectrum(parts), regions, steps)
        every, *own = (
            amplitude_prior(one, spectrum, self.box, regions, groups)
            for one in (0.5 * (maps[0] + maps[1]), *maps)
        )
        return every, own

    def _regions(self, groups: tuple[int, int, int]) -> Tensor:
        """Where each map may be, (J, b, b, b)."""
        mask = inside = self.box.mask
        if self.focus is not None:
            inside = self.box.cut(self.focus.region.float()).to(mask) * mask
        kinds = torch.stack([mask, inside, mask - inside])
        return kinds.repeat_interleave(torch.tensor(groups, device=self.device), 0)

    def _solved(
        self,
        content: Inferred,
        basis: ContentBasis,
        prior: Prior,
        half_maps: list[Tensor],
        both: Equations,
    ) -> ContentMaps:
        """Solve for the maps of all images; those of halves are known."""
        count, values = len(basis), basis(content.z)
        maps = both.solve(*prior, SETTLED)[:count]
        noise = 1 / both.precision()[0]
        noise[0], noise[-1] = noise[1], noise[-2]
        focus = None if self.focus is None else self.focus.region.numpy()
        pose = self.images.pose
        return ContentMaps(
            basis=basis,
            mask=self.box.whole(self.box.mask[None])[0].cpu().numpy(),
            maps=maps.cpu().numpy(),
            halves=(half_maps[0][:count].cpu().numpy(), half_maps[1][:count].cpu().numpy()),
            noise=noise.cpu().numpy(),
            moment=values.T @ values,
            limit=self.images.reader.limit,
            z=content.z,
            std=content.std,
            half=self.images.quarter // 2,
            pixel_size=self.images.dataset.pixel_size,
            focus=focus,
            pose=None if pose is None else pose.numpy(),
        )

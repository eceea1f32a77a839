"""Maps and content in turn, from quarters of the images.

In a quarter, content is inferred from the maps of the other quarter of its half.  So an image never
sees itself, nor the other half, and maps of halves can be compared.  The content of the last maps
need not know this limit (:mod:`modpose.content_maps.alternation`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.content_maps.basis import ContentBasis
from modpose.content_maps.boxes import resampled
from modpose.content_maps.cells import groups_of
from modpose.content_maps.choice import fewest, last_telling
from modpose.content_maps.equations import MaskBox
from modpose.content_maps.images import ImagesOnLattice
from modpose.content_maps.inference import Compared, Inference, Inferred, varies
from modpose.content_maps.poses import Corrections
from modpose.content_maps.posterior import Landmarks
from modpose.content_maps.regression import FOR_CONTENT, FOR_PRIOR, Regression
from modpose.content_maps.settings import COUNTS, FIRST, MOST_FROM_QUARTERS, ContentMapSettings
from modpose.progress import Progress

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CLEARLY, LITTLE = 2.0, 0.3
"""Content is inferred once more from quarters where it helped by more than so many standard errors,
and by more than this part of what helped most."""
FROM_QUARTERS = 2
"""Largest number of rounds with maps of quarters."""
MARGIN = 2
"""Shells beyond those that content needs in which maps are solved for too: the last are poor."""
LOOKED_AT = (1 / 4, 3 / 8)
"""Shells from which the first content is judged, over the side of the box: the more, where all of
the fewer tell it."""


class Stage(NamedTuple):
    """Content, functions of it, their maps from parts of the images.

    ``needed`` is the last shell that content needs, ``last`` the last that the maps have, and
    ``box`` where they are.
    """

    content: Inferred
    basis: ContentBasis
    compared: Compared
    needed: int
    last: int
    box: MaskBox

    def fewer(self, count: int) -> Stage:
        """Keep the first functions, and all nuisances."""
        known, most = self.compared, len(self.basis)
        if count == most:
            return self
        maps = [torch.cat([one[:count], one[most:]]) for one in known.maps]
        kept = Compared(known.centres, Landmarks.of(known.landmarks.values[:, :count]), maps)
        return self._replace(basis=self.basis.first(count), compared=kept)


class Rounds:
    """Infers content again from maps of the content before.

    Parameters
    ----------
    regression
        Of the images.
    settings
        Options.
    first
        The content to begin with.
    some
        Images that choose the number of functions, and measure the noise.
    """

    def __init__(
        self, regression: Regression, settings: ContentMapSettings, first: Inferred, some: Ints
    ) -> None:
        self.regression, self.settings, self.first, self.some = regression, settings, first, some
        self.inference = Inference(regression.images, regression.nuisances)
        self.corrected = False

    def look_at(self, images: ImagesOnLattice) -> None:
        """Compute with these images from now on."""
        self.regression.look_at(images)
        self.inference.images = images

    def settled(self, most: int, progress: Progress) -> Stage:
        """Infer content again, as often as its maps predict images better; choose functions.

        Only from the shells that tell content; from all where that does not help, or where all
        that were looked at tell it.
        """
        every = self._within_memory(min(most, FIRST))
        before = self._first(most, progress)
        every.variance = self.regression.images.variance
        last = before.needed + MARGIN
        narrow = before.needed < before.last and last < int(every.reader.shell.max())
        self.look_at(every.within(last) if narrow else every)
        best = 0.0
        for _ in range(min(self.settings.rounds, FROM_QUARTERS)):
            if len(before.basis) == 1:
                break
            told = self._widened(before, progress)
            content = self._inferred(before, *told, before.content.corrections, progress)
            now = self.stage(content, self.fitting(most), progress)
            gain = self.gain(self.score(now, progress), self.score(before, progress), before.last)
            if gain.mean() <= 0:
                self._move(before.content)
                if best or not narrow:
                    return self._with_crossed(before, progress)
                narrow = False
                self.look_at(every)
                continue
            before, best = now, max(best, float(gain.mean()))
            error = float(gain.std()) / len(gain) ** 0.5
            if gain.mean() < max(CLEARLY * error, LITTLE * best):
                break
        return self._with_crossed(before, progress)

    def _within_memory(self, count: int) -> ImagesOnLattice:
        """Look at the images with as many shells as take so many functions, and return these."""
        images = self.regression.images
        while self.regression.most() < count and (coarser := images.coarser()) is not None:
            images = coarser
            self.look_at(images)
        return images

    def _first(self, most: int, progress: Progress) -> Stage:
        """Judge the first content, from the fewest shells that tell it."""
        every = self.regression.images
        for part in LOOKED_AT:
            self.look_at(every.within(round(part * every.box)))
            self.corrected = False
            found = self.stage(self.first, self.fitting(min(most, FIRST)), progress)
            if found.needed < found.last:
                break
        return found

    def fitting(self, most: int) -> int:
        """Return a number of functions, this one or that which is set, that fits into memory."""
        return min(self.settings.functions or most, self.regression.most())

    def _move(self, content: Inferred) -> None:
        """Place images at the poses that a content was inferred at."""
        pose = self.regression.images.pose
        if pose is not None and content.corrections is not None:
            pose.copy_(content.corrections.pose)

    def _with_crossed(self, stage: Stage, progress: Progress) -> Stage:
        """Let the first content know what coefficients tell of the others of their image."""
        if stage.content.z is not self.first.z or len(stage.basis) == 1:
            return stage
        crossed = self.inference.content(self._here(stage), progress).crossed
        return stage._replace(content=stage.content._replace(crossed=crossed))

    def _widened(self, before: Stage, progress: Progress) -> tuple[Compared, Floats]:
        """Let content have as many dimensions as maps beside the mean.

        It could not leave those that it has.  So it is told first as amounts of the maps, which are
        noisy in single images; the posterior is between the centres of groups of images.

        Returns
        -------
        compared, unit
            What images are compared with, and the usual error of each dimension.
        """
        compared, unit = self._here(before), before.content.unit
        width = min(len(before.basis), MOST_FROM_QUARTERS) - 1
        if before.content.z is self.first.z or before.content.z.shape[1] < width:
            mean, std = self.inference.amounts(compared.maps, progress)
            centres, values = groups_of(mean, std, self.settings.landmarks, self.settings.seed)
            landmarks = Landmarks.of(torch.from_numpy(values).float().to(self.regression.mask))
            compared = Compared(centres, landmarks, compared.maps)
            unit = np.ones(centres.shape[1])
        return compared, unit

    def _inferred(
        self,
        before: Stage,
        compared: Compared,
        unit: Floats,
        corrections: Corrections | None,
        progress: Progress,
    ) -> Inferred:
        """Infer content again: the posterior between contents that many images have.

        Where images tell nothing, all get the same content; then it stays as it was.
        """
        found = self.inference.content(compared, progress, corrections)._replace(unit=unit)
        return found if varies(found.z, unit) else before.content

    def score(self, stage: Stage, progress: Progress) -> Tensor:
        """What the maps of a stage predict of unseen coefficients, (images, shells)."""
        return self._judged(stage, (len(stage.basis),), progress)[:, 0]

    def _judged(self, stage: Stage, counts: tuple[int, ...], progress: Progress) -> Tensor:
        maps, values = self._here(stage).maps, stage.compared.landmarks.values
        return self.inference.judged(maps, values, counts, self.some, progress)[0].double()

    def gain(self, now: Tensor, before: Tensor, last: int) -> Tensor:
        """How much higher scores (images, shells) are than before, up to a shell; (images,)."""
        return (now - before)[:, : last + 1].sum(1)

    def _here(self, stage: Stage) -> Compared:
        """What a stage compares images with, in the box of the images that are looked at."""
        then, box = stage.box, self.regression.box
        if then is box:
            return stage.compared
        maps = [box.cut(resampled(then.whole(one), box.box)) for one in stage.compared.maps]
        return stage.compared._replace(maps=maps)

    def basis(self, content: Inferred, most: int) -> ContentBasis:
        """Find at most so many functions of content."""
        return ContentBasis.fit(content.z, content.unit, most, self.settings.seed)

    def stage(self, content: Inferred, most: int, progress: Progress) -> Stage:
        """Choose the number of functions, and measure the noise that their maps leave."""
        regression = self.regression
        self._move(content)
        basis = self.basis(content, most)
        cells = regression.cells(basis, [content.z], content.nuisance)
        parts = [regression.sums(cells, part, 4, progress) for part in range(4)]
        for first, second in (parts[:2], parts[2:]):
            first.add(second)
        own = regression.priors(parts[::2], FOR_PRIOR).own
        for first, second in (parts[:2], parts[2:]):
            first.remove(second)
        maps = [part.solve(*own[number // 2], FOR_CONTENT) for number, part in enumerate(parts)]
        parts.clear()
        found = self._made(content, basis, maps)
        most = len(basis)
        counts = (*(count for count in COUNTS if count < most), most)
        values = found.compared.landmarks.values
        score, left = self.inference.judged(maps, values, counts, self.some, progress)
        if not self.corrected:  # again and again, what maps lack would grow
            regression.images.correct(left, self.some)
            self.corrected = True
        count = most if self.settings.functions else fewest(score.sum(2), counts)
        needed = last_telling(score[:, counts.index(count)] - score[:, 0])
        return found._replace(needed=needed).fewer(count)

    def _made(self, content: Inferred, basis: ContentBasis, maps: list[Tensor]) -> Stage:
        """Lay out a stage with these maps; all shells count as needed."""
        settings, regression = self.settings, self.regression
        centres = basis.centres(settings.landmarks, settings.seed)
        values = torch.from_numpy(basis(centres)).float().to(regression.mask)
        last = int(regression.images.reader.shell.max())
        compared = Compared(centres, Landmarks.of(values), maps)
        return Stage(content, basis, compared, last, last, regression.box)

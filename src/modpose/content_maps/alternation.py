"""Maps and content of the two halves of the images, in turn.

Content of one half comes from maps of the other, which show more than those of quarters; so no
image sees itself.  Each step takes what is newest: maps of the first half, content of the second,
maps of the second, content of the first.  Maps begin with those of the round before, as amounts of
the new functions of content, so that the steps of the solver add up over the rounds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.content_maps.basis import ContentBasis
from modpose.content_maps.cells import Cells
from modpose.content_maps.choice import fewest
from modpose.content_maps.equations import Equations
from modpose.content_maps.inference import Compared, Inference, Inferred, varies
from modpose.content_maps.posterior import Landmarks
from modpose.content_maps.regression import FOR_CONTENT, FOR_PRIOR, Regression
from modpose.content_maps.settings import COUNTS, ContentMapSettings
from modpose.progress import Progress

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LITTLE = 0.05
"""Rounds end where maps are better by less than this part of what helped most."""


class Half(NamedTuple):
    """Maps of half of the images.

    Attributes
    ----------
    values
        (N, J) functions of the content of all images that the maps are amounts of.
    rough, maps
        (J + M, b, b, b) that the prior was estimated from, and those of largest posterior.
    compared
        What the images of the other half are compared with.
    """

    values: Tensor
    rough: Tensor
    maps: Tensor
    compared: Compared

    def fewer(self, count: int) -> Half:
        """Keep the first functions, and all nuisances."""
        most = self.values.shape[1]
        rough, maps = (torch.cat([x[:count], x[most:]]) for x in (self.rough, self.maps))
        landmarks = Landmarks.of(self.compared.landmarks.values[:, :count])
        compared = Compared(self.compared.centres, landmarks, [maps] * 4)
        return Half(self.values[:, :count], rough, maps, compared)

    def at(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the maps as amounts of other functions (N, K), orthonormal at the images."""
        change = values.T @ self.values / len(values)
        change, known = change.to(self.maps), change.shape[1]

        def changed(maps: Tensor) -> Tensor:
            first = torch.tensordot(change, maps[:known], 1)
            return torch.cat([first, maps[known:]])

        return changed(self.rough), changed(self.maps)


class Functions(NamedTuple):
    """Functions of content.

    Attributes
    ----------
    basis
        The functions.
    centres
        (L, k) contents between which an image may lie.
    values, at_centres
        (N, J) and (L, J), of the images and of these.
    """

    basis: ContentBasis
    centres: Floats
    values: Tensor
    at_centres: Tensor

    def half(self, rough: Tensor, maps: Tensor) -> Half:
        """Return maps that are amounts of these."""
        landmarks = Landmarks.of(self.at_centres.to(maps))
        return Half(self.values, rough, maps, Compared(self.centres, landmarks, [maps] * 4))


class Alternation:
    """Improves content and maps of the two halves in turn.

    Parameters
    ----------
    regression
        Of the images.
    inference
        Of content from maps.
    settings
        Options.
    some
        Images by which maps are judged.
    """

    def __init__(
        self, regression: Regression, inference: Inference, settings: ContentMapSettings, some: Ints
    ) -> None:
        self.regression, self.inference, self.settings = regression, inference, settings
        half = inference.images.quarter // 2
        self.rows = [np.flatnonzero(half == number) for number in range(2)]
        self.some = [some[half[some] == number] for number in range(2)]

    def run(
        self, content: Inferred, least: int, most: int, progress: Progress
    ) -> tuple[Inferred, int]:
        """Infer content as often as its maps predict images better, from the best of them.

        Parameters
        ----------
        content
            To begin with; its axes and its unit stay.
        least, most
            Bounds of the number of functions, unless it is set.
        progress
            The progress bar.

        Returns
        -------
        content, count
            And the number of functions that its maps have.
        """
        halves, consensus = self._begun(content, most, progress)
        halves, score = self._chosen(halves, least, progress)
        count, best, kept = halves[0].values.shape[1], 0.0, content
        for number in range(2):
            content = self._told(content, halves[number], self.rows[1 - number], progress)
        for _ in range(self.settings.rounds):
            for number in range(2):
                functions = self._functions(content, count)
                halves[number] = self._again(
                    content, functions, halves, number, consensus, progress
                )
                content = self._told(content, halves[number], self.rows[1 - number], progress)
            better = self._judged(halves, None, progress)[:, 0]
            gain = self.gain(better, score)
            if gain > 0:
                kept, score, best = content, better, max(best, gain)
            if gain <= LITTLE * best:
                break
        if best > 0:
            kept = self._from_three_quarters(kept, count, halves, consensus, progress)
        return kept, count

    def gain(self, now: Tensor, before: Tensor) -> float:
        """Return how much higher scores (images, shells) are than before, for a usual image."""
        return float((now - before).sum(1).mean())

    def _functions(self, content: Inferred, most: int) -> Functions:
        basis = ContentBasis.fit(content.z, content.unit, most, self.settings.seed)
        centres = basis.centres(self.settings.landmarks, self.settings.seed)
        known = (torch.from_numpy(basis(z)).float() for z in (content.z, centres))
        return Functions(basis, centres, *known)

    def _cells(self, content: Inferred, functions: Functions) -> Cells:
        return self.regression.cells(functions.basis, [content.z], content.nuisance)

    def _begun(self, content: Inferred, most: int, progress: Progress) -> tuple[list[Half], Tensor]:
        """Solve for maps of both halves from nothing; return them and the mean's spectrum."""
        regression, functions = self.regression, self._functions(content, most)
        cells = self._cells(content, functions)
        halves = [regression.sums(cells, number, 2, progress) for number in range(2)]
        prior = regression.priors(halves, FOR_PRIOR)
        found = [
            functions.half(rough, half.solve(*own, FOR_CONTENT))
            for half, own, rough in zip(halves, prior.own, prior.rough, strict=True)
        ]
        return found, prior.consensus

    def _again(
        self,
        content: Inferred,
        functions: Functions,
        halves: list[Half],
        number: int,
        consensus: Tensor,
        progress: Progress,
    ) -> Half:
        """Solve for maps of one half, from those that it has."""
        regression = self.regression
        equations = regression.sums(self._cells(content, functions), number, 2, progress)
        starts = [half.at(functions.values) for half in halves]
        rough, maps = starts[number]
        rough = regression.rough(equations, consensus, FOR_PRIOR, rough)
        # the images of the other half give as much
        precision = [equations.precision()] * 2
        spectrum = regression.spectrum([rough, starts[1 - number][0]], precision, consensus)
        prior = regression.prior(rough, spectrum)
        return functions.half(rough, equations.solve(*prior, FOR_CONTENT, maps))

    def _from_three_quarters(
        self,
        content: Inferred,
        count: int,
        halves: list[Half],
        consensus: Tensor,
        progress: Progress,
    ) -> Inferred:
        """Infer content of each quarter from maps of all others, which show more than a half."""
        regression, functions = self.regression, self._functions(content, count)
        cells = self._cells(content, functions)
        every, *others = (regression.sums(cells, number, 4, progress) for number in range(4))
        rough, maps = zip(*(half.at(functions.values) for half in halves), strict=True)
        precision = [one.add(two).precision() for one, two in ((every, others[0]), others[1:])]
        every.add(others[1])
        others[1].remove(others[2])
        spectrum = regression.spectrum(list(rough), precision, consensus)
        prior = regression.prior(0.5 * (rough[0] + rough[1]), spectrum)

        def told(number: int, rest: Equations, found: Inferred) -> Inferred:
            start = maps[1 - number // 2]  # of the half that this quarter is not in
            solved = rest.solve(*prior, FOR_CONTENT, start)
            rows = np.flatnonzero(regression.images.quarter == number)
            return self._told(found, functions.half(rough[0], solved), rows, progress)

        found = content
        for number, quarter in enumerate(others, 1):
            found = told(number, every.remove(quarter), found)
            every.add(quarter)
        del every
        return told(0, others[0].add(others[1]).add(others[2]), found)

    def _told(self, content: Inferred, half: Half, rows: Ints, progress: Progress) -> Inferred:
        """Infer content of some images from maps of others.

        Where images tell nothing, all get the same content; then it stays as it was.
        """
        if not len(rows):
            return content
        z, std, nuisance = self.inference.content_of(rows, half.compared, progress)
        if not varies(z, content.unit):
            return content
        found = content._replace(
            z=content.z.copy(), std=content.std.copy(), nuisance=content.nuisance.clone()
        )
        found.z[rows], found.std[rows], found.nuisance[rows] = z, std, nuisance
        return found

    def _chosen(
        self, halves: list[Half], least: int, progress: Progress
    ) -> tuple[list[Half], Tensor]:
        """Choose the number of functions; return the maps of these, and their score."""
        most = halves[0].values.shape[1]
        counts = (*(count for count in COUNTS if min(least, most) <= count < most), most)
        score = self._judged(halves, counts, progress)
        count = most if self.settings.functions else fewest(score.sum(2), counts)
        return [half.fewer(count) for half in halves], score[:, counts.index(count)]

    def _judged(
        self, halves: list[Half], counts: tuple[int, ...] | None, progress: Progress
    ) -> Tensor:
        """What maps predict of unseen coefficients of the other half, (images, counts, shells)."""
        found = []
        for half, rows in zip(halves, reversed(self.some), strict=True):
            if not len(rows):
                continue
            maps, values = half.compared.maps, half.compared.landmarks.values
            given = counts or (values.shape[1],)
            found.append(self.inference.judged(maps, values, given, rows, progress)[0].double())
        return torch.cat(found)

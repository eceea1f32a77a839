"""Content maps from posed images: sums, prior, solution; content once more; sums and solution.

The images are in quarters: two in each half.  Content of a quarter is inferred again from the maps
of the other quarter of its half, so that an image never sees itself, nor the other half.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.backprojection.halves import check_projections, half_of
from modpose.config import SpectralConfig
from modpose.content_maps.basis import ContentBasis
from modpose.content_maps.equations import (
    Equations,
    MaskBox,
    Products,
    gram_of,
    pair_numbers,
    pairs,
)
from modpose.content_maps.lattice import HalfLattice, PlacedImages
from modpose.content_maps.posterior import Landmarks, Likelihood, gains, likelihood, posterior
from modpose.content_maps.solution import ContentMaps
from modpose.content_maps.spectra import (
    ITERATIONS,
    Prior,
    amplitude_prior,
    consensus_spectrum,
    spectra,
)
from modpose.data.dataset import Dataset
from modpose.data.identity import particles_of_rows
from modpose.fourier.projection import Projection
from modpose.memory import keep_freed_memory
from modpose.progress import Progress
from modpose.search.projections import ImageReader, power_spectrum
from modpose.search.solvent import check_mask

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

POINTS_AT_ONCE = 1 << 18
"""Coefficients that are on the lattice at a time."""
COUNTS = (1, 2, 3, 5, 9, 13, 17, 25)
"""Numbers of functions that are compared."""
IMAGES_EACH = 16
"""Smallest number of images for each function."""
JUDGED = 1000
"""Images that choose the number of functions, and measure the noise."""
ROUGH, SETTLED = 6, 12
"""Largest number of steps of the solution that content is inferred from, and of the last one."""


@dataclass(frozen=True)
class ContentMapSettings:
    """Settings of :func:`fit_content_maps`.

    Attributes
    ----------
    functions
        Number of functions of content; None: chosen by what the maps predict of other images.
    landmarks
        Contents between which the posterior of an image is spread.
    rounds
        How many times content is inferred again from the maps, at most: fewer where the maps of
        inferred content predict images that they have not seen no better than those before.
    seed
        Of random choices.
    """

    functions: int | None = None
    landmarks: int = 200
    rounds: int = 2
    seed: int = 0


class Amounts(NamedTuple):
    """How much of each map some images hold: (B, J) functions, (B, R) products of them."""

    functions: Tensor
    products: Tensor


def fit_content_maps(
    dataset: Dataset,
    z: Floats,
    std: Floats,
    mask: Tensor,
    settings: ContentMapSettings | None = None,
    *,
    contrast: Floats | None = None,
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
    quiet
        No progress bar.

    Raises
    ------
    InputError
        If the images are not posed projections, content does not vary, or the mask does not fit.
    """
    settings = settings or ContentMapSettings()
    keep_freed_memory()
    check_projections(dataset)
    check_mask(mask, dataset.shape[0])
    fitting = _Fitting(dataset, z, mask, settings, contrast)
    images = (1 + settings.rounds) * dataset.n + 2 * min(JUDGED, dataset.n)
    with Progress("content maps", images, quiet=quiet) as progress:
        return fitting.run(std, progress)


class Inferred(NamedTuple):
    """Content (N, k), its standard deviation, and (J, J) sums of expected products of functions."""

    z: Floats
    std: Floats
    moment: Tensor


class _Fitting:
    """The work of one fit."""

    def __init__(
        self,
        dataset: Dataset,
        z: Floats,
        mask: Tensor,
        settings: ContentMapSettings,
        contrast: Floats | None,
    ) -> None:
        self.dataset, self.z, self.settings = dataset, z, settings
        every = np.ones(dataset.n) if contrast is None else contrast
        self.contrast = torch.from_numpy(np.asarray(every, np.float32))
        box = dataset.shape[0]
        self.reader = ImageReader(Projection(SpectralConfig(), box), box / 2 - 0.5)
        self.lattice = HalfLattice(box, self.reader.limit)
        self.box = MaskBox(mask.float(), self.reader.limit)
        self.quarter = quarters_of(dataset)
        rng = np.random.default_rng(settings.seed)
        self.some = np.sort(rng.choice(dataset.n, min(JUDGED, dataset.n), replace=False))
        self.variance = torch.ones(0)

    def run(self, std: Floats, progress: Progress) -> ContentMaps:
        self.variance = power_spectrum(self.dataset, self.some, self.reader, progress)
        most = self.settings.functions or _most(self.dataset.n)
        basis = ContentBasis.fit(self.z, std, most, self.settings.seed)
        values = torch.from_numpy(basis(self.z)).float()
        i, j = pairs(len(basis))
        products = Products.of(gram_of(values.double().numpy()))

        def given(rows: Ints, _: PlacedImages, __: int) -> Amounts:
            mine = values[rows]
            return Amounts(mine, products.within(mine[:, i] * mine[:, j]))

        parts = self._sums(len(basis), products, given, progress)
        if not self.settings.rounds:
            return self._solved(basis, parts, Inferred(self.z, std, values.T @ values))
        tables = self._tables(parts)
        centres = basis.centres(self.settings.landmarks, self.settings.seed)
        at_centres = torch.from_numpy(basis(centres)).float()
        count = self._judged(tables, at_centres, progress)
        basis = basis.first(count)
        tables = [table[:, : 2 * len(basis)].contiguous() for table in tables]
        landmarks = Landmarks.of(at_centres[:, :count])
        for number in range(self.settings.rounds):
            if number:
                sharper = self._tables(parts)
                if self._evidence(sharper, landmarks) <= self._evidence(tables, landmarks):
                    break
                tables = sharper
            parts.clear()
            parts, inferred = self._refined(centres, landmarks, tables, progress)
        return self._solved(basis, parts, inferred)

    def _tables(self, parts: list[Equations]) -> list[Tensor]:
        """Tables of the maps of each quarter."""
        prior = self._prior(parts)
        maps = [part.solve(*prior, ROUGH) for part in parts]
        return [self.lattice.table(self.box.whole(one)) for one in maps]

    def _evidence(self, tables: list[Tensor], landmarks: Landmarks) -> float:
        """Log-likelihood of some images under the maps of the other quarter of their half."""
        total = 0.0
        for quarter in range(4):
            for _, placed in self._placed(self.some[self.quarter[self.some] == quarter]):
                seen = likelihood(self.lattice, placed, tables[quarter ^ 1])
                total += float(seen.of(landmarks).logsumexp(1).double().sum())
        return total

    def _refined(
        self, centres: Floats, landmarks: Landmarks, tables: list[Tensor], progress: Progress
    ) -> tuple[list[Equations], Inferred]:
        """Infer content from the maps of the other quarter of each half, and sum up again."""
        count = landmarks.values.shape[1]
        products = Products.of(gram_of(landmarks.values.double().numpy()))
        at_landmarks = products.within(landmarks.products)
        z, std = np.empty_like(self.z), np.empty_like(self.z)
        moment = torch.zeros(landmarks.products.shape[1])

        def inferred(rows: Ints, placed: PlacedImages, quarter: int) -> Amounts:
            seen = likelihood(self.lattice, placed, tables[quarter ^ 1])
            probability = posterior(seen, landmarks)
            share = probability.double().numpy()
            z[rows] = share @ centres
            std[rows] = np.sqrt(np.maximum(share @ centres**2 - z[rows] ** 2, 0))
            moment.add_(probability.sum(0) @ landmarks.products)
            return Amounts(probability @ landmarks.values, probability @ at_landmarks)

        parts = self._sums(count, products, inferred, progress)
        return parts, Inferred(z, std, moment[pair_numbers(count)])

    # --- sums ---------------------------------------------------------------------------------

    def _placed(self, rows: Ints) -> Iterator[tuple[Ints, PlacedImages]]:
        at_once = max(1, POINTS_AT_ONCE // len(self.reader.frequency))
        for batch in self.dataset.batches(rows, at_once):
            images = self.reader.images(batch, self.variance)
            placed = self.lattice.place(images)
            transfer = placed.transfer * self.contrast[batch.index][:, None]
            yield batch.index.numpy(), replace(placed, transfer=transfer)

    def _sums(
        self,
        maps: int,
        products: Products,
        amounts: Callable[[Ints, PlacedImages, int], Amounts],
        progress: Progress,
    ) -> list[Equations]:
        """Sum up the images of each quarter."""
        parts = []
        for quarter in range(4):
            sums = self.lattice.zeros(maps, len(products))
            for rows, placed in self._placed(np.flatnonzero(self.quarter == quarter)):
                self.lattice.add(sums, placed, *amounts(rows, placed, quarter))
                progress.advance(len(rows), 0.0)
            parts.append(Equations.of(sums, self.lattice, self.box, maps, products))
        return parts

    # --- solutions ----------------------------------------------------------------------------

    def _prior(self, parts: list[Equations]) -> Prior:
        halves = Equations.join(parts[:2]), Equations.join(parts[2:])
        spectrum, maps = spectra(halves, consensus_spectrum(halves))
        return amplitude_prior(maps, spectrum, self.box)

    def _solved(
        self, basis: ContentBasis, parts: list[Equations], inferred: Inferred
    ) -> ContentMaps:
        prior = self._prior(parts)
        halves = [Equations.join(parts[:2]), Equations.join(parts[2:])]
        parts.clear()
        half_maps = [half.solve(*prior, ITERATIONS) for half in halves]
        both = Equations.join(halves)
        maps = both.solve(*prior, SETTLED)
        noise = 1 / both.precision()[0]
        noise[0], noise[-1] = noise[1], noise[-2]
        return ContentMaps(
            basis=basis,
            mask=self.box.whole(self.box.mask[None])[0].numpy(),
            maps=maps.numpy(),
            halves=(half_maps[0].numpy(), half_maps[1].numpy()),
            noise=noise.numpy(),
            moment=inferred.moment.double().numpy(),
            limit=self.reader.limit,
            z=inferred.z,
            std=inferred.std,
            half=self.quarter // 2,
            pixel_size=self.dataset.pixel_size,
        )

    # --- how many functions -------------------------------------------------------------------

    def _judged(self, tables: list[Tensor], values: Tensor, progress: Progress) -> int:
        """Choose how many functions, and measure the noise that they leave.

        Content of an image is inferred from every other of its coefficients; the rest judges.
        """
        most = values.shape[1]
        counts = (*(count for count in COUNTS if count < most), most)
        found, left = [], torch.zeros(len(self.variance))
        for quarter in range(4):
            rows = self.some[self.quarter[self.some] == quarter]
            table = tables[quarter ^ 1]
            for _, placed in self._placed(rows):
                halves = [
                    likelihood(self.lattice, placed, table, slice(start, None, 2))
                    for start in (0, 1)
                ]
                found.append(gains(halves[0], halves[1], values, counts))
                every = Likelihood(*(a + b for a, b in zip(*halves, strict=True)))
                amount = posterior(every, Landmarks.of(values)) @ values
                models = self.lattice.read(placed, table)
                rest = placed.value - (amount[:, None].to(models) @ models)[:, 0]
                left.index_add_(0, self.reader.shell, rest.abs().square().sum(0))
                progress.advance(len(placed), 0.0)
        number = torch.bincount(self.reader.shell, minlength=len(left)) * len(self.some)
        ratio = left / number.clamp(min=1)
        last = int(number.nonzero().max())
        ratio[0], ratio[last + 1 :] = ratio[1], ratio[last]
        self.variance = self.variance * ratio
        return most if self.settings.functions else _fewest(torch.cat(found), counts)


def _fewest(gain: Tensor, counts: tuple[int, ...]) -> int:
    """Choose the fewest functions whose gain (N, counts) is within one error of the best."""
    best = int(gain.mean(0).argmax())
    less = gain[:, best, None] - gain
    error = less.std(0) / len(gain) ** 0.5
    return counts[int((less.mean(0) <= error).nonzero().min())]


def _most(images: int) -> int:
    """Return the largest number of functions to try for so many images."""
    return max(count for count in COUNTS if count == 1 or count * IMAGES_EACH <= images)


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

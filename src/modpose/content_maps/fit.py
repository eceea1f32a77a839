"""Content maps from posed images: sums, prior, solution; content once more; sums and solution.

The images are in quarters: two in each half.  Content of a quarter is inferred again from the maps
of the other quarter of its half, so that an image never sees itself, nor the other half.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.backprojection.halves import check_projections
from modpose.content_maps.basis import ContentBasis
from modpose.content_maps.equations import Equations, MaskBox, Products, gram_of, pairs
from modpose.content_maps.focus import Focus
from modpose.content_maps.images import Block, ImagesOnLattice
from modpose.content_maps.lattice import PlacedImages
from modpose.content_maps.poses import FIRST_SPREAD, corrected, improved, spread_of
from modpose.content_maps.posterior import (
    Expected,
    Landmarks,
    Likelihood,
    Marginal,
    gains,
    likelihood,
    posterior,
)
from modpose.content_maps.settings import ContentMapSettings
from modpose.content_maps.solution import ContentMaps
from modpose.content_maps.spectra import (
    ITERATIONS,
    Prior,
    amplitude_prior,
    consensus_spectrum,
    spectra,
)
from modpose.data.dataset import Dataset
from modpose.memory import keep_freed_memory
from modpose.progress import Progress
from modpose.search.solvent import check_mask

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

COUNTS = (1, 2, 3, 5, 9, 13, 17, 25)
"""Numbers of functions that are compared."""
IMAGES_EACH = 16
"""Smallest number of images for each function."""
JUDGED = 1000
"""Images that choose the number of functions, and measure the noise."""
POSE_STEPS = 2
"""Steps of the correction of a pose, each time that content is inferred."""
ROUGH, SETTLED = 6, 12
"""Largest number of steps of the solution that content is inferred from, and of the last one."""


class Amounts(NamedTuple):
    """How much of each map some images hold: (B, J) functions, (B, R) products of them.

    ``placed`` is where these images are on the lattice.
    """

    functions: Tensor
    products: Tensor
    placed: PlacedImages


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
        None: everywhere.
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
    fitting = _Fitting(dataset, z, mask, settings, contrast, focus)
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
        focus: Focus | None,
    ) -> None:
        self.images, self.z, self.settings = ImagesOnLattice(dataset, contrast), z, settings
        self.lattice, self.quarter = self.images.lattice, self.images.quarter
        self.box = MaskBox(mask.float(), self.images.reader.limit)
        self.focus = focus
        none = torch.zeros(dataset.n, 0)
        self.nuisance = none if focus is None else torch.from_numpy(focus.nuisance).float()
        self.some = self.images.some(JUDGED, settings.seed)
        self.pose = torch.zeros(dataset.n, 5) if settings.refine_poses else None
        turn, shift = FIRST_SPREAD
        self.spread = torch.tensor([turn] * 3 + [shift] * 2)

    def run(self, std: Floats, progress: Progress) -> ContentMaps:
        self.images.measure(self.some, progress)
        most = self.settings.functions or _most(len(self.z))
        basis = ContentBasis.fit(self.z, std, most, self.settings.seed)
        known = self._known(basis)
        i, j = pairs(known.shape[1])
        products = Products.of(gram_of(known.double().numpy()))

        def given(block: Block, _: int) -> Amounts:
            mine = known[block.rows]
            return Amounts(mine, products.within(mine[:, i] * mine[:, j]), block.placed)

        parts = self._sums(known.shape[1], products, given, progress)
        if not self.settings.rounds:
            own = known[:, : len(basis)]
            return self._solved(basis, parts, Inferred(self.z, std, own.T @ own))
        maps = self._quarter_maps(parts)
        centres = basis.centres(self.settings.landmarks, self.settings.seed)
        at_centres = torch.from_numpy(basis(centres)).float()
        count = self._judged(maps, at_centres, progress)
        maps = [torch.cat([one[:count], one[len(basis) :]]) for one in maps]
        basis = basis.first(count)
        landmarks = Landmarks.of(at_centres[:, :count])
        for number in range(self.settings.rounds):
            if number:
                sharper = self._quarter_maps(parts)
                if self._evidence(sharper, landmarks) <= self._evidence(maps, landmarks):
                    break
                maps = sharper
            parts.clear()
            parts, inferred = self._refined(basis, centres, landmarks, maps, progress)
        return self._solved(basis, parts, inferred)

    def _known(self, basis: ContentBasis) -> Tensor:
        """Functions of content of the images, and their nuisances."""
        return torch.cat([torch.from_numpy(basis(self.z)).float(), self.nuisance], 1)

    def _quarter_maps(self, parts: list[Equations]) -> list[Tensor]:
        """Maps (J, b, b, b) of each quarter."""
        prior = self._prior(parts)
        return [part.solve(*prior, ROUGH) for part in parts]

    def _table(self, maps: list[Tensor], quarter: int) -> Tensor:
        """Table of the maps that images of a quarter are compared with."""
        return self.lattice.table(self.box.whole(maps[quarter ^ 1]))

    def _evidence(self, maps: list[Tensor], landmarks: Landmarks) -> float:
        """Log-likelihood of some images under the maps of the other quarter of their half."""
        total = 0.0
        for quarter in range(4):
            table = self._table(maps, quarter)
            for block in self._blocks(self.some[self.quarter[self.some] == quarter]):
                seen = self._marginal(likelihood(self.lattice, block.placed, table)).likelihood
                total += float(seen.of(landmarks).logsumexp(1).double().sum())
        return total

    def _marginal(self, seen: Likelihood) -> Marginal:
        return Marginal.of(seen, self.nuisance.shape[1])

    def _refined(
        self,
        basis: ContentBasis,
        centres: Floats,
        landmarks: Landmarks,
        maps: list[Tensor],
        progress: Progress,
    ) -> tuple[list[Equations], Inferred]:
        """Infer content from the maps of the other quarter of each half, and sum up again."""
        known = self._known(basis)
        count = known.shape[1]
        products = Products.of(gram_of(known.double().numpy()))
        i, j = pairs(count)
        z, std = np.empty_like(self.z), np.empty_like(self.z)
        moment = torch.zeros(len(basis), len(basis))
        tables: dict[int, Tensor] = {}
        variance = torch.zeros(len(z), 5)

        def inferred(block: Block, quarter: int) -> Amounts:
            if quarter not in tables:
                tables.clear()
                tables[quarter] = self._table(maps, quarter)
            table = tables[quarter]
            rows, placed = block.rows, block.placed
            probability, content, every = self._expected(placed, table, landmarks)
            if self.pose is not None:
                pose, amount = self.pose[rows], every.amount
                for _ in range(POSE_STEPS):
                    pose, variance[rows] = improved(
                        self.lattice, block.images, table, amount, pose, self.spread
                    )
                self.pose[rows] = pose
                placed = self.lattice.place(corrected(block.images, pose))
                probability, content, every = self._expected(placed, table, landmarks)
            share = probability.double().numpy()
            z[rows] = share @ centres
            std[rows] = np.sqrt(np.maximum(share @ centres**2 - z[rows] ** 2, 0))
            moment.add_(content.second.sum(0))
            return Amounts(every.amount, products.within(every.second[:, i, j]), placed)

        parts = self._sums(count, products, inferred, progress)
        if self.pose is not None:
            self.spread = torch.minimum(self.spread, spread_of(self.pose, variance))
        return parts, Inferred(z, std, moment)

    def _expected(
        self, placed: PlacedImages, table: Tensor, landmarks: Landmarks
    ) -> tuple[Tensor, Expected, Expected]:
        """Probability of each landmark, and expected amounts: of content, and of all maps."""
        seen = self._marginal(likelihood(self.lattice, placed, table))
        probability = posterior(seen.likelihood, landmarks)
        content = Expected.of(probability, landmarks)
        return probability, content, seen.joined(content)

    # --- sums ---------------------------------------------------------------------------------

    def _blocks(self, rows: Ints) -> Iterator[Block]:
        """Read images at their corrected poses."""
        for block in self.images.blocks(rows):
            if self.pose is None:
                yield block
            else:
                moved = corrected(block.images, self.pose[block.rows])
                yield block._replace(placed=self.lattice.place(moved))

    def _sums(
        self,
        maps: int,
        products: Products,
        amounts: Callable[[Block, int], Amounts],
        progress: Progress,
    ) -> list[Equations]:
        """Sum up the images of each quarter."""
        parts = []
        for quarter in range(4):
            sums = self.lattice.zeros(maps, len(products))
            for block in self._blocks(np.flatnonzero(self.quarter == quarter)):
                held = amounts(block, quarter)
                self.lattice.add(sums, held.placed, held.functions, held.products)
                progress.advance(len(block.rows), 0.0)
            parts.append(Equations.of(sums, self.lattice, self.box, maps, products))
        return parts

    # --- solutions ----------------------------------------------------------------------------

    def _prior(self, parts: list[Equations]) -> Prior:
        halves = Equations.join(parts[:2]), Equations.join(parts[2:])
        count, nuisances = len(parts[0]), self.nuisance.shape[1]
        groups = 1, count - nuisances - 1, nuisances
        regions = self._regions(groups)
        spectrum, maps = spectra(halves, consensus_spectrum(halves), regions)
        return amplitude_prior(maps, spectrum, self.box, regions, groups)

    def _regions(self, groups: tuple[int, int, int]) -> Tensor:
        """Where each map may be, (J, b, b, b)."""
        mask = inside = self.box.mask
        if self.focus is not None:
            inside = self.box.cut(self.focus.region.float()) * mask
        kinds = torch.stack([mask, inside, mask - inside])
        return kinds.repeat_interleave(torch.tensor(groups), 0)

    def _solved(
        self, basis: ContentBasis, parts: list[Equations], inferred: Inferred
    ) -> ContentMaps:
        prior = self._prior(parts)
        halves = [Equations.join(parts[:2]), Equations.join(parts[2:])]
        parts.clear()
        count = len(basis)
        half_maps = [half.solve(*prior, ITERATIONS)[:count] for half in halves]
        both = Equations.join(halves)
        maps = both.solve(*prior, SETTLED)[:count]
        noise = 1 / both.precision()[0]
        noise[0], noise[-1] = noise[1], noise[-2]
        focus = None if self.focus is None else self.focus.region.numpy()
        return ContentMaps(
            basis=basis,
            mask=self.box.whole(self.box.mask[None])[0].numpy(),
            maps=maps.numpy(),
            halves=(half_maps[0].numpy(), half_maps[1].numpy()),
            noise=noise.numpy(),
            moment=inferred.moment.double().numpy(),
            limit=self.images.reader.limit,
            z=inferred.z,
            std=inferred.std,
            half=self.quarter // 2,
            pixel_size=self.images.dataset.pixel_size,
            focus=focus,
            pose=None if self.pose is None else self.pose.numpy(),
        )

    # --- how many functions -------------------------------------------------------------------

    def _judged(self, maps: list[Tensor], values: Tensor, progress: Progress) -> int:
        """Choose how many functions, and measure the noise that they leave.

        Content of an image is inferred from every other of its coefficients; the rest judges.
        """
        most = values.shape[1]
        counts = (*(count for count in COUNTS if count < most), most)
        found, left = [], torch.zeros_like(self.images.variance)
        group, shell = torch.from_numpy(self.images.group), self.images.reader.shell
        for quarter in range(4):
            table = self._table(maps, quarter)
            for block in self._blocks(self.some[self.quarter[self.some] == quarter]):
                placed = block.placed
                halves = [
                    likelihood(self.lattice, placed, table, slice(start, None, 2))
                    for start in (0, 1)
                ]
                told = [self._marginal(half).likelihood for half in halves]
                found.append(gains(told[0], told[1], values, counts))
                every = self._marginal(Likelihood(*(a + b for a, b in zip(*halves, strict=True))))
                landmarks = Landmarks.of(values)
                content = Expected.of(posterior(every.likelihood, landmarks), landmarks)
                models = self.lattice.read(placed, table)
                amount = every.joined(content).amount
                rest = placed.value - (amount[:, None].to(models) @ models)[:, 0]
                by_shell = torch.zeros(len(placed), left.shape[1])
                by_shell.index_add_(1, shell, rest.abs().square())
                left.index_add_(0, group[block.rows], by_shell)
                progress.advance(len(placed), 0.0)
        self.images.correct(left, self.some)
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

"""Content maps from posed images: sums, prior, solution; content once more; sums and solution.

The images are in quarters: two in each half.  Content of a quarter is inferred again from the maps
of the other quarter of its half, so that an image never sees itself, nor the other half.

Maps are a regression of the images on functions of the content that is inferred of them, and not on
its posterior: the map at a content is then the mean of what images with this inferred content show.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.backprojection.halves import check_projections
from modpose.content_maps.basis import ContentBasis, check_content
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
    fewest,
    gains,
    likelihood,
    posterior,
)
from modpose.content_maps.settings import COUNTS, ContentMapSettings
from modpose.content_maps.solution import ContentMaps
from modpose.content_maps.spectra import (
    ITERATIONS,
    Prior,
    amplitude_prior,
    consensus_spectrum,
    spectra,
)
from modpose.data.dataset import Dataset
from modpose.devices import near
from modpose.errors import InputError
from modpose.geometry.groups import point_group, symmetric
from modpose.memory import keep_freed_memory
from modpose.progress import Progress
from modpose.search.solvent import check_mask

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

JUDGED = 1000
"""Images that choose the number of functions, and measure the noise."""
POSE_STEPS = 2
"""Steps of the correction of a pose, each time that content is inferred."""
ROUGH, SETTLED = 6, 20
"""Largest number of steps of the solution that content is inferred from, and of the last one."""


class Compared(NamedTuple):
    """What images are compared with.

    Attributes
    ----------
    centres
        (L, k) contents between which an image may lie.
    landmarks
        Functions of these.
    maps
        (J, b, b, b) of each quarter; nuisances last.
    """

    centres: Floats
    landmarks: Landmarks
    maps: list[Tensor]


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
    fitting = _Fitting(dataset, z, mask, settings, contrast, focus)
    rounds, some = settings.rounds, min(JUDGED, dataset.n)
    passes = 3 + 2 * rounds if rounds else 1
    images = passes * dataset.n + (2 + rounds if rounds else 1) * some
    with Progress("content maps", images, quiet=quiet) as progress:
        return fitting.run(std, progress)


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
        self.group = torch.from_numpy(point_group(settings.symmetry)).float()
        self.device = near(mask)
        self.images = ImagesOnLattice(dataset, contrast, len(self.group), self.device)
        self.z, self.settings = z, settings
        self.lattice, self.quarter = self.images.lattice, self.images.quarter
        whole = symmetric(mask.float(), self.group).to(self.device)
        self.box = MaskBox(whole, self.images.reader.limit)
        self.focus = focus
        none = torch.zeros(dataset.n, 0)
        self.nuisance = none if focus is None else torch.from_numpy(focus.nuisance).float()
        self.some = self.images.some(JUDGED, settings.seed)
        self.pose = torch.zeros(dataset.n, 5) if settings.refine_poses else None
        turn, shift = FIRST_SPREAD
        self.spread = torch.tensor([turn] * 3 + [shift] * 2)
        self.corrected = False
        self.crossed = [z, z]

    def run(self, std: Floats, progress: Progress) -> ContentMaps:
        self.images.measure(self.some, progress)
        before, rounds, power = None, self.settings.rounds, self.images.variance
        most = self.settings.most(len(self.z))
        for number in range(rounds + 1):
            basis, parts = self._summed(std, most, progress)
            if not rounds:
                break
            basis, now = self._chosen(basis, parts, progress)
            if number == rounds or len(basis) == 1:
                break
            if before is not None and self._evidence(now) <= self._evidence(before):
                break
            parts.clear()
            most = min((count for count in COUNTS if len(basis) < count < most), default=most)
            std, before = self._inferred(now, progress), now
        if rounds:  # in units of the images' power: what maps lack would count as noise
            self.images.variance = power
        return self._solved(basis, parts, std, progress)

    def _summed(
        self, std: Floats, most: int, progress: Progress
    ) -> tuple[ContentBasis, list[Equations]]:
        """Find at most so many functions of content, and sum up the images of each quarter."""
        basis = ContentBasis.fit(self.z, std, most, self.settings.seed)
        return basis, self._sums(basis, [self.z], progress)

    def _sums(
        self, basis: ContentBasis, contents: list[Floats], progress: Progress
    ) -> list[Equations]:
        """Sum up the images of each quarter.

        With two contents, the first is that of the coefficients of even number of each image, the
        second that of the others.
        """
        known = [
            torch.cat([torch.from_numpy(basis(z)).float(), self.nuisance], 1) for z in contents
        ]
        count, step = known[0].shape[1], len(known)
        products = Products.of(gram_of(torch.cat(known).double().numpy()))
        i, j = pairs(count)
        parts = []
        for quarter in range(4):
            sums = self.lattice.zeros(count, len(products))
            for block in self._blocks(np.flatnonzero(self.quarter == quarter)):
                views = self._views(block)
                for first, every in enumerate(known):
                    mine = every[block.rows].repeat_interleave(len(self.group), 0)
                    second = products.within(mine[:, i] * mine[:, j])
                    seen = views.part(slice(first, None, step))
                    self.lattice.add(sums, seen, mine.to(self.device), second.to(self.device))
                progress.advance(len(block.rows), 0.0)
            parts.append(Equations.of(sums, self.lattice, self.box, count, products))
        return parts

    def _chosen(
        self, basis: ContentBasis, parts: list[Equations], progress: Progress
    ) -> tuple[ContentBasis, Compared]:
        """Choose the number of functions; return what images are then compared with."""
        maps = self._quarter_maps(parts)
        centres = basis.centres(self.settings.landmarks, self.settings.seed)
        values = torch.from_numpy(basis(centres)).float().to(self.device)
        count = self._judged(maps, values, progress)
        kept = [torch.cat([one[:count], one[len(basis) :]]) for one in maps]
        return basis.first(count), Compared(centres, Landmarks.of(values[:, :count]), kept)

    def _quarter_maps(self, parts: list[Equations]) -> list[Tensor]:
        """Maps (J, b, b, b) of each quarter."""
        prior = self._prior(parts)
        return [part.solve(*prior, ROUGH) for part in parts]

    def _table(self, maps: list[Tensor], quarter: int) -> Tensor:
        """Table of the maps that images of a quarter are compared with."""
        return self.lattice.table(self.box.whole(maps[quarter ^ 1]))

    def _evidence(self, now: Compared) -> float:
        """Log-likelihood of some images under the maps of the other quarter of their half."""
        total = 0.0
        for quarter in range(4):
            table = self._table(now.maps, quarter)
            for block in self._blocks(self.some[self.quarter[self.some] == quarter]):
                seen = self._marginal(likelihood(self.lattice, block.placed, table)).likelihood
                total += float(seen.of(now.landmarks).logsumexp(1).cpu().double().sum())
        return total

    def _marginal(self, seen: Likelihood) -> Marginal:
        return Marginal.of(seen, self.nuisance.shape[1])

    def _inferred(self, now: Compared, progress: Progress) -> Floats:
        """Infer content from the maps of the other quarter of each half; return its deviation.

        Nuisances are inferred too, and corrections of poses, if these are asked for.
        """
        z, std = np.empty((len(self.z), now.centres.shape[1])), np.empty_like(self.z)
        crossed = [np.empty_like(z), np.empty_like(z)]
        nuisance, variance = torch.empty_like(self.nuisance), torch.zeros(len(z), 5)
        for quarter in range(4):
            table = self._table(now.maps, quarter)
            for block in self._blocks(np.flatnonzero(self.quarter == quarter)):
                rows, placed = block.rows, block.placed
                probability, every, parts = self._expected(placed, table, now.landmarks)
                if self.pose is not None:
                    pose, amount = self.pose[rows].to(self.device), every.amount
                    spread = self.spread.to(self.device)
                    for _ in range(POSE_STEPS):
                        pose, left = improved(
                            self.lattice, block.images, table, amount, pose, spread
                        )
                    self.pose[rows], variance[rows] = pose.cpu(), left.cpu()
                    placed = self.lattice.place(corrected(block.images, pose))
                    probability, every, parts = self._expected(placed, table, now.landmarks)
                for number, part in enumerate(parts):
                    crossed[1 - number][rows] = part.cpu().double().numpy() @ now.centres
                share = probability.cpu().double().numpy()
                z[rows] = share @ now.centres
                square = share @ now.centres**2 - z[rows] ** 2
                std[rows] = np.sqrt(np.maximum(square, 0))
                nuisance[rows] = every.amount[:, now.landmarks.values.shape[1] :].cpu()
                progress.advance(len(rows), 0.0)
        if self.pose is not None:
            self.spread = torch.minimum(self.spread, spread_of(self.pose, variance))
        self.z, self.nuisance, self.crossed = z, nuisance, crossed
        return std

    def _expected(
        self, placed: PlacedImages, table: Tensor, landmarks: Landmarks
    ) -> tuple[Tensor, Expected, list[Tensor]]:
        """Probability of each landmark, expected amounts of all maps, probability from parts.

        The parts are the coefficients of even and of odd number.
        """
        parts = self._parts(placed, table)
        seen = self._marginal(parts[0].plus(parts[1]))
        probability = posterior(seen.likelihood, landmarks)
        every = seen.joined(Expected.of(probability, landmarks))
        return (
            probability,
            every,
            [posterior(self._marginal(part).likelihood, landmarks) for part in parts],
        )

    def _parts(self, placed: PlacedImages, table: Tensor) -> list[Likelihood]:
        """What the coefficients of even number, and the others, tell of all maps."""
        return [likelihood(self.lattice, placed, table, slice(first, None, 2)) for first in (0, 1)]

    # --- images -------------------------------------------------------------------------------

    def _blocks(self, rows: Ints) -> Iterator[Block]:
        """Read images at their corrected poses."""
        for block in self.images.blocks(rows):
            if self.pose is None:
                yield block
            else:
                moved = corrected(block.images, self.pose[block.rows].to(self.device))
                yield block._replace(placed=self.lattice.place(moved))

    def _views(self, block: Block) -> PlacedImages:
        """Place images at each of the poses that the symmetry makes equal."""
        if len(self.group) == 1:
            return block.placed
        images = block.images
        pose = None if self.pose is None else self.pose[block.rows].to(self.device)
        moved = images if pose is None else corrected(images, pose)
        return self.lattice.place(moved.repeated(self.group))

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
            inside = self.box.cut(self.focus.region.float()).to(mask) * mask
        kinds = torch.stack([mask, inside, mask - inside])
        return kinds.repeat_interleave(torch.tensor(groups, device=self.device), 0)

    def _solved(
        self, basis: ContentBasis, parts: list[Equations], std: Floats, progress: Progress
    ) -> ContentMaps:
        """Solve for the maps, and for those of halves.

        In a half, the content of a coefficient is inferred from other coefficients of its image.
        Otherwise noise would agree with the maps that content was inferred from, in both halves.
        """
        again = self.settings.rounds > 0
        if again:
            parts.clear()
            parts += self._sums(basis, self.crossed if len(basis) > 1 else [self.z], progress)
        prior = self._prior(parts)
        halves = [Equations.join(parts[:2]), Equations.join(parts[2:])]
        parts.clear()
        count, values = len(basis), basis(self.z)
        half_maps = [half.solve(*prior, ITERATIONS)[:count] for half in halves]
        if again and len(basis) > 1:
            halves.clear()
            halves += self._sums(basis, [self.z], progress)
        both = Equations.join(halves)
        halves.clear()
        maps = both.solve(*prior, SETTLED)[:count]
        noise = 1 / both.precision()[0]
        noise[0], noise[-1] = noise[1], noise[-2]
        focus = None if self.focus is None else self.focus.region.numpy()
        return ContentMaps(
            basis=basis,
            mask=self.box.whole(self.box.mask[None])[0].cpu().numpy(),
            maps=maps.cpu().numpy(),
            halves=(half_maps[0].cpu().numpy(), half_maps[1].cpu().numpy()),
            noise=noise.cpu().numpy(),
            moment=values.T @ values,
            limit=self.images.reader.limit,
            z=self.z,
            std=std,
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
        group, shell = torch.from_numpy(self.images.group), self.images.reader.shell.to(self.device)
        for quarter in range(4):
            table = self._table(maps, quarter)
            for block in self._blocks(self.some[self.quarter[self.some] == quarter]):
                placed = block.placed
                halves = self._parts(placed, table)
                told = [self._marginal(half).likelihood for half in halves]
                found.append(gains(told[0], told[1], values, counts).cpu())
                every = self._marginal(halves[0].plus(halves[1]))
                landmarks = Landmarks.of(values)
                content = Expected.of(posterior(every.likelihood, landmarks), landmarks)
                models = self.lattice.read(placed, table)
                amount = every.joined(content).amount
                rest = placed.value - (amount[:, None].to(models) @ models)[:, 0]
                by_shell = values.new_zeros(len(placed), left.shape[1])
                by_shell.index_add_(1, shell, rest.abs().square())
                left.index_add_(0, group[block.rows], by_shell.cpu())
                progress.advance(len(placed), 0.0)
        if not self.corrected:  # again and again, what maps lack would grow
            self.images.correct(left, self.some)
            self.corrected = True
        return most if self.settings.functions else fewest(torch.cat(found), counts)

"""Content of images from maps that have not seen them, and how well these maps predict images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.content_maps.images import Block, ImagesOnLattice
from modpose.content_maps.lattice import PlacedImages
from modpose.content_maps.poses import Corrections, corrected, improved
from modpose.content_maps.posterior import (
    Landmarks,
    Likelihood,
    Marginal,
    gaussian_amounts,
    likelihood,
    mixed,
    posterior,
)
from modpose.progress import Progress

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEAST_SPREAD = 1e-6
"""Content varies where its spread is more than this, in its unit."""
POSE_STEPS = 2
"""Steps of the correction of a pose, each time that content is inferred."""


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


class Inferred(NamedTuple):
    """Content of all images.

    Attributes
    ----------
    z, std
        (N, k) posterior mean and standard deviation; contents between the centres count.
    unit
        (k,) usual error of each dimension, before content is known to lie near that of others.
    crossed
        (N, k) twice: for the coefficients of even number of each image, told by the others; and the
        reverse.
    nuisance
        (N, M) expected amounts.
    corrections
        Of the poses that this content was inferred at; None: poses are not corrected.
    """

    z: Floats
    std: Floats
    unit: Floats
    crossed: list[Floats]
    nuisance: Tensor
    corrections: Corrections | None = None


class Inference:
    """Compares each image with the maps of the other quarter of its half.

    Parameters
    ----------
    images
        The images, at their poses.
    nuisances
        Number of maps, the last, that are nothing but a nuisance.
    """

    def __init__(self, images: ImagesOnLattice, nuisances: int) -> None:
        self.images, self.nuisances = images, nuisances

    def judged(
        self,
        maps: list[Tensor],
        values: Tensor,
        counts: tuple[int, ...],
        rows: Ints,
        progress: Progress,
    ) -> tuple[Tensor, Tensor]:
        """Judge the first ``counts`` maps by what they predict of the images at ``rows``.

        Content of an image is inferred from every other of its coefficients; the rest judges, and
        the reverse.

        Returns
        -------
        score, left
            (rows, counts, shells) log-likelihood of the coefficients, told by the others of their
            image, up to a constant; (groups, shells) power that all maps leave with all
            coefficients, summed over the images.
        """
        found, images = [], self.images
        left = torch.zeros_like(images.variance)
        group, shells = torch.from_numpy(images.group), left.shape[1]
        landmarks = [Landmarks.of(values[:, :count]) for count in counts]
        for block, table in self._compared(maps, rows):
            placed = block.placed
            models = images.lattice.read(placed, table)
            parts = self._parts(models, placed)
            seen = self._marginal(parts[0].plus(parts[1]))
            rest = placed.value - mixed(models, self._amount(seen, landmarks[-1]))
            power = self._by_shell(rest, slice(None), shells)
            left.index_add_(0, group[block.rows], power.cpu())
            score = values.new_zeros(len(placed), len(counts), shells)
            for part, other in ((0, 1), (1, 0)):
                odd = slice(other, None, 2)
                seen, held = self._marginal(parts[part]), models[:, odd].contiguous()
                value = placed.value[:, odd]
                for number, known in enumerate(landmarks):
                    rest = value - mixed(held, self._amount(seen, known))
                    score[:, number] -= self._by_shell(rest, odd, shells)
            found.append(score.cpu())
            progress.advance(len(placed), 0.0)
        return torch.cat(found), left

    def _amount(self, seen: Marginal, landmarks: Landmarks) -> Tensor:
        """Amounts (B, J) of all maps, if content has no more functions than landmarks have."""
        count, others = landmarks.values.shape[1], seen.likelihood.slope.shape[1]
        first = seen.first(count)
        found = first.joined(posterior(first.likelihood, landmarks) @ landmarks.values)
        unused = found.new_zeros(len(found), others - count)
        return torch.cat([found[:, :count], unused, found[:, count:]], 1)

    def _by_shell(self, rest: Tensor, of: slice, shells: int) -> Tensor:
        """Power (B, shells) of some coefficients (B, K)."""
        power = rest.abs().square()
        shell = self.images.reader.shell[of].to(power.device)
        return power.new_zeros(len(rest), shells).index_add_(1, shell, power)

    def amounts(self, maps: list[Tensor], progress: Progress) -> tuple[Floats, Floats]:
        """Infer how much of each map beside the first an image has, for all images.

        Before the image is seen these amounts are independent, N(0, 1).

        Returns
        -------
        mean, std
            (N, J - 1) of the posterior.
        """
        n, count = self.images.dataset.n, len(maps[0]) - 1 - self.nuisances
        mean, std = np.empty((n, count)), np.empty((n, count))
        for block, table in self._compared(maps, np.arange(n)):
            parts = self._parts(self.images.lattice.read(block.placed, table), block.placed)
            found = gaussian_amounts(self._marginal(parts[0].plus(parts[1])).likelihood)
            mean[block.rows], std[block.rows] = (one.cpu().numpy() for one in found)
            progress.advance(len(block.rows), 0.0)
        return mean, std

    def content(
        self, now: Compared, progress: Progress, corrections: Corrections | None = None
    ) -> Inferred:
        """Infer content of all images, and improve the corrections of their poses, if given."""
        images, n, count = self.images, self.images.dataset.n, now.landmarks.values.shape[1]
        z, std, *crossed = (np.empty((n, now.centres.shape[1])) for _ in range(4))
        spread = _Spread(now.centres)
        nuisance = torch.empty(n, self.nuisances)
        found = None if corrections is None else corrections.pose.clone()
        variance = torch.zeros(n, 5)
        for block, table in self._compared(now.maps, np.arange(n)):
            rows, placed = block.rows, block.placed
            probability, amount, parts = self._expected(placed, table, now.landmarks)
            if corrections is not None and found is not None:
                unit = images.in_box
                pose, usual = (
                    (one * unit).to(table.device) for one in (found[rows], corrections.spread)
                )
                for _ in range(POSE_STEPS):
                    pose, left = improved(images.lattice, block.images, table, amount, pose, usual)
                found[rows], variance[rows] = pose.cpu() / unit, left.cpu() / unit.square()
                placed = images.lattice.place(corrected(block.images, pose))
                probability, amount, parts = self._expected(placed, table, now.landmarks)
            for number, part in enumerate(parts):
                crossed[1 - number][rows] = part.cpu().double().numpy() @ now.centres
            z[rows], std[rows] = spread.of(probability)
            nuisance[rows] = amount[:, count:].cpu()
            progress.advance(len(rows), 0.0)
        if corrections is not None and found is not None:
            corrections = corrections.improved(found, variance)
        return Inferred(z, std, np.median(std, 0), crossed, nuisance, corrections)

    def content_of(
        self, rows: Ints, now: Compared, progress: Progress
    ) -> tuple[Floats, Floats, Tensor]:
        """Infer content of some images, and nothing else.

        Returns
        -------
        z, std, nuisance
            As those of :class:`Inferred`, in the order of the rows.
        """
        z, std = (np.empty((self.images.dataset.n, now.centres.shape[1])) for _ in range(2))
        nuisance = torch.empty(len(z), self.nuisances)
        spread, count = _Spread(now.centres), now.landmarks.values.shape[1]
        for block, table in self._compared(now.maps, rows):
            models = self.images.lattice.read(block.placed, table)
            seen = self._marginal(likelihood(models, block.placed.value))
            probability = posterior(seen.likelihood, now.landmarks)
            z[block.rows], std[block.rows] = spread.of(probability)
            amount = seen.joined(probability @ now.landmarks.values)
            nuisance[block.rows] = amount[:, count:].cpu()
            progress.advance(len(block.rows), 0.0)
        return z[rows], std[rows], nuisance[rows]

    def _compared(self, maps: list[Tensor], rows: Ints) -> Iterator[tuple[Block, Tensor]]:
        """Read images, each block with the table of the maps that it is compared with."""
        quarter, used = self.images.quarter[rows], None
        for number in range(4):
            if maps[number ^ 1] is not used:  # two quarters may be compared with the same
                used = maps[number ^ 1]
                table = self.images.lattice.table(used)
            for block in self.images.blocks(rows[quarter == number]):
                yield block, table

    def _marginal(self, seen: Likelihood) -> Marginal:
        return Marginal.of(seen, self.nuisances)

    def _expected(
        self, placed: PlacedImages, table: Tensor, landmarks: Landmarks
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Probability of each landmark, expected amounts of all maps, probability from parts.

        The parts are the coefficients of even and of odd number.
        """
        parts = self._parts(self.images.lattice.read(placed, table), placed)
        seen = self._marginal(parts[0].plus(parts[1]))
        probability = posterior(seen.likelihood, landmarks)
        amount = seen.joined(probability @ landmarks.values)
        alone = [posterior(self._marginal(part).likelihood, landmarks) for part in parts]
        return probability, amount, alone

    def _parts(self, models: Tensor, placed: PlacedImages) -> list[Likelihood]:
        """What the coefficients of even number, and the others, tell of all maps."""
        return [likelihood(models[:, first::2], placed.value[:, first::2]) for first in (0, 1)]


class _Spread:
    """Mean and deviation of content over centres (L, k) that have some probability."""

    def __init__(self, centres: Floats) -> None:
        self._centres, self._square = centres, centres**2
        self._between = variance_between(centres)

    def of(self, probability: Tensor) -> tuple[Floats, Floats]:
        """Return both (B, k), for (B, L)."""
        share = probability.cpu().double().numpy()
        mean: Floats = share @ self._centres
        variance = np.maximum(share @ self._square - mean**2, 0) + share @ self._between
        return mean, np.sqrt(variance)


def varies(z: Floats, unit: Floats) -> bool:
    """Tell whether content (N, k) of images differs by more than rounding, in its unit (k,)."""
    return bool((z.std(0) > LEAST_SPREAD * np.maximum(unit, LEAST_SPREAD)).any())


def variance_between(centres: Floats) -> Floats:
    """Variance (L, k) of contents that lie evenly about each centre, half-way to the nearest."""
    from scipy.spatial import cKDTree

    if len(centres) == 1:
        return np.zeros_like(centres)
    _, near = cKDTree(centres).query(centres, [2])
    found: Floats = (centres - centres[np.ravel(near)]) ** 2 / 12
    return found

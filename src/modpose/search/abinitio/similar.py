"""Similar states of one structure: told apart at the poses of one consensus map.

From a random start, every class takes images of all similar states.  Here one map and its poses are
found first.  Principal motions at these poses order the images; clusters of their content are
first classes.  Then each image goes to the class whose map explains it best, a few times over.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modpose.content.clustering import cluster
from modpose.fourier.coefficients import Coefficients, phases, smallest_box
from modpose.fourier.fsc import resolution_shell
from modpose.fourier.insertion import averages, half_averages, insert_slices
from modpose.fourier.reference import make_references, sample, turned
from modpose.geometry.grids import soft_sphere
from modpose.progress import Progress
from modpose.search.abinitio.images import SearchImages
from modpose.search.abinitio.refine import Refined
from modpose.search.abinitio.saved import Saved
from modpose.search.abinitio.settings import AbInitioSettings
from modpose.search.motion import principal_motions

LEAST_RADIUS, MOST_RADIUS = 9.0, 14.0
"""Cycles a box that states are told apart by, within what the consensus resolves."""
ITERATIONS = 12
"""Of the principal motions."""
TRIES = 4
"""Starts of the motions; the division with the highest likelihood is kept."""
ROUNDS = 8
"""Rounds of averages and new classes."""
AT_ONCE = 1000
MOST = 20_000
"""Images whose motions are found; the others only get a class."""


@dataclass(frozen=True)
class States:
    """States at the poses of one map.

    Attributes
    ----------
    class_index
        (N,) int64.
    maps
        (C, D, D, D) of both halves.
    score
        Mean log-likelihood of the images with their own map, nats.
    """

    class_index: Tensor
    maps: Tensor
    score: float


def similar_states(
    images: SearchImages,
    found: Refined,
    settings: AbInitioSettings,
    saved: Saved,
    quiet: bool = False,
) -> States:
    """Divide images into similar states at given poses.

    Parameters
    ----------
    images
        N images.
    found
        One map, and the poses of the images.
    settings
        What is asked for; ``classes`` is the number of states.
    saved
        Where to save the states, and to take them from.
    quiet
        No progress bar.
    """
    before = saved.read()
    if before:
        return States(before["class_index"], before["maps"], float(before["score"]))
    if found.noise is not None:
        images = images.with_noise(found.noise)
    radius = float(resolution_shell(found.fsc)[0].clamp(LEAST_RADIUS, MOST_RADIUS))
    box = smallest_box(radius, images.side)
    data = images.coefficients(slice(None), radius, box)
    flat = torch.cat([found.shift * (box / images.side), torch.zeros(len(images), 1)], 1)
    work = _States(data, found.rotation, flat, settings, box)
    with Progress("similar states", TRIES * (1 + ROUNDS), quiet=quiet, unit="round") as progress:
        tries = [work.divided(number, progress) for number in range(TRIES)]
    best = max(tries, key=lambda states: states.score)
    score = torch.tensor(best.score, dtype=torch.float64)
    saved.write({"class_index": best.class_index, "maps": best.maps, "score": score})
    return best


class _States:
    """Images at poses that do not change."""

    def __init__(
        self,
        data: Coefficients,
        rotation: Tensor,
        shift: Tensor,
        settings: AbInitioSettings,
        box: int,
    ) -> None:
        self.data, self.rotation, self.shift = data, rotation, shift
        self.count, self.seed, self.box = settings.classes, settings.seed, box
        self.mask = soft_sphere(box, settings.diameter * box)
        self.parity = torch.arange(len(data)) % 2

    def divided(self, number: int, progress: Progress) -> States:
        """Divide the images, beginning with clusters along motions from a start of that number."""
        generator = torch.Generator().manual_seed(TRIES * self.seed + number)
        rows = torch.randperm(len(self.data), generator=generator)[:MOST]
        part, rotation, shift = self.data.rows(rows), self.rotation[rows], self.shift[rows]
        zero = torch.zeros(len(rows), dtype=torch.int64)
        mean = averages(insert_slices(part, zero, 1, rotation, shift), self.box, self.mask)[0]
        found = principal_motions(
            part,
            rotation,
            shift,
            mean,
            self.mask,
            count=self.count - 1,  # as many directions as C states span
            generator=generator,
            iterations=ITERATIONS,
        )
        index = torch.full((len(self.data),), -1)
        index[rows] = torch.from_numpy(cluster(found.z.numpy(), self.count, "kmeans", self.seed))
        progress.advance(1, 0.0)
        for _ in range(ROUNDS):
            maps = self._maps(index)
            score = self._scores(maps)
            index = score.argmax(1)
            progress.advance(1, 0.0)
        return States(index, self._maps(index), float(score.amax(1).mean()))

    def _maps(self, index: Tensor) -> Tensor:
        slot = torch.where(index < 0, index, 2 * index + self.parity)
        sums = insert_slices(self.data, slot, 2 * self.count, self.rotation, self.shift)
        even = torch.arange(0, 2 * self.count, 2)
        return half_averages(sums.slots(even), sums.slots(even + 1), self.box, self.mask)[0]

    def _scores(self, maps: Tensor) -> Tensor:
        """Log-likelihood (N, C) of each image with each map, nats, up to a constant."""
        references = make_references(maps, float(self.data.radius[-1]))
        parts = []
        for rows in torch.split(torch.arange(len(self.data)), AT_ONCE):
            part = self.data.rows(rows)
            frequency = turned(part.frequency, self.rotation[rows])
            moved = part.transfer * phases(part.frequency, self.shift[rows])
            each = []
            for number in range(self.count):
                model = sample(references, torch.full((len(rows),), number), frequency) * moved
                each.append(
                    2 * (model.conj() * part.value).real.sum(1) - model.abs().square().sum(1)
                )
            parts.append(torch.stack(each, 1))
        return torch.cat(parts)

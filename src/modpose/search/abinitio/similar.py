"""Similar states of one structure: told apart at the poses of one consensus map.

From a random start, every class takes images of all similar states.  Here one map and its poses are
found first.  Principal motions at these poses order the images; clusters of their content are
first classes.  Then each image goes to the class whose map explains it best, a few times over.

Maps of these classes are the mean of all images and, for each class, the part of its difference
from the mean that its two halves agree on, by frequency and by place: noise where states are alike
does not tell them apart.  The weight of a place falls faster than a Wiener weight, because states
differ at few places.

While these classes are refined, an image is compared with maps that other images made: its own
noise would speak for the class that it is in.  It climbs to its best pose in each class: the pose
that it has is the best one in its class only.  Poses and half maps stay apart by halves, but
classes come from images of both, so resolution is quoted only beyond the frequencies used here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn.functional import pad

from modpose.content.clustering import cluster
from modpose.fourier.coefficients import phases, smallest_box
from modpose.fourier.fsc import fsc_of_classes, resolution_shell
from modpose.fourier.insertion import FourierSums, averages, half_averages, insert_slices
from modpose.fourier.reference import make_references, sample, turned
from modpose.geometry.grids import soft_sphere
from modpose.progress import Progress
from modpose.search.abinitio.images import SearchImages
from modpose.search.abinitio.refine import Refined
from modpose.search.abinitio.saved import Saved
from modpose.search.abinitio.settings import AbInitioSettings
from modpose.search.abinitio.shells import weighted_by_shell
from modpose.search.motion import principal_motions
from modpose.search.so3_climb import climb

LEAST_RADIUS, MOST_RADIUS = 9.0, 13.0
"""Cycles a box that states are told apart by, within what the consensus resolves."""
ITERATIONS = 12
"""Of the principal motions."""
TRIES = 4
"""Starts of the motions; the division with the highest likelihood is kept."""
ROUNDS = 8
"""Rounds of averages and new classes."""
AGAIN = 2
"""Such rounds at the poses of each round of the refinement."""
PARTS = 10
"""Each of so many parts of the images is compared with averages of the others."""
STEPS = 2
"""Steps of Gauss-Newton from the pose of an image to its best one in each class."""
BLUR = 1.0
"""Standard deviation, voxels, of the Gaussian that agreement is averaged over."""
SHARPNESS = 3
"""Power of the weight of a place.  States differ at few places: elsewhere, even a small weight lets
in noise from most of the volume."""
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
    radius
        Highest frequency that they are told apart by, cycles a box.
    """

    class_index: Tensor
    maps: Tensor
    score: float
    radius: float


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
    radius = float(resolution_shell(found.fsc)[0].clamp(LEAST_RADIUS, MOST_RADIUS))
    before = saved.read()
    if before:
        return States(before["class_index"], before["maps"], float(before["score"]), radius)
    if found.noise is not None:
        images = images.with_noise(found.noise)
    work = _States(images, found.rotation, found.shift, settings, radius)
    with Progress("similar states", TRIES * (1 + ROUNDS), quiet=quiet, unit="round") as progress:
        tries = [work.divided(number, progress) for number in range(TRIES)]
    best = max(tries, key=lambda states: states.score)
    score = torch.tensor(best.score, dtype=torch.float64)
    saved.write({"class_index": best.class_index, "maps": best.maps, "score": score})
    return best


@dataclass(frozen=True)
class Division:
    """Gives images new classes at new poses, beginning with the classes that they have.

    Attributes
    ----------
    settings
        What is asked for.
    radius
        Highest frequency, cycles a box.
    """

    settings: AbInitioSettings
    radius: float

    def __call__(
        self, images: SearchImages, rotation: Tensor, shift: Tensor, class_index: Tensor
    ) -> Tensor:
        """Return the classes (N,)."""
        work = _States(images, rotation, shift, self.settings, self.radius)
        for _ in range(AGAIN):
            class_index = work.scores_of_others(class_index).argmax(1)
        return class_index


class _States:
    """Images at poses that do not change."""

    def __init__(
        self,
        images: SearchImages,
        rotation: Tensor,
        shift: Tensor,
        settings: AbInitioSettings,
        radius: float,
    ) -> None:
        self.box = smallest_box(radius, images.side)
        self.data = images.coefficients(slice(None), radius, self.box)
        self.rotation, self.radius = rotation, radius
        self.shift = pad(shift * (self.box / images.side), (0, 1))
        self.count, self.seed = settings.classes, settings.seed
        self.mask = soft_sphere(self.box, settings.diameter * self.box)
        self.parity = torch.arange(len(images)) % 2

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
            score = self.scores(self.maps(index))
            index = score.argmax(1)
            progress.advance(1, 0.0)
        return States(index, self.maps(index), float(score.amax(1).mean()), self.radius)

    def maps(self, index: Tensor) -> Tensor:
        """Average the classes: the mean of all, and the difference from it that halves agree on."""
        slot = torch.where(index < 0, index, 2 * index + self.parity)
        sums = insert_slices(self.data, slot, 2 * self.count, self.rotation, self.shift)
        even = torch.arange(0, 2 * self.count, 2)
        first, second = sums.slots(even), sums.slots(even + 1)
        mean = half_averages(_together(first), _together(second), self.box, self.mask)[0]
        parts = (averages(part, self.box, self.mask) for part in (first, second, first + second))
        return mean + agreed(*(part - part.mean(0) for part in parts))

    def scores_of_others(self, index: Tensor) -> Tensor:
        """Log-likelihood (N, C) of each image at its best pose in classes of the other images."""
        score = torch.zeros(len(index), self.count)
        for number in range(PARTS):
            rows = torch.arange(number, len(index), PARTS)
            others = index.index_fill(0, rows, -1)
            score[rows] = self._climbed(rows, self.maps(others))
        return score

    def _climbed(self, rows: Tensor, maps: Tensor) -> Tensor:
        """Log-likelihood (B, C) of some images at the best pose near theirs with each map."""
        references = make_references(maps, float(self.data.radius[-1]), slopes=True)
        owner = torch.arange(len(rows)).repeat_interleave(self.count)
        which = torch.arange(self.count).repeat(len(rows))
        at = self.rotation[rows][owner], self.shift[rows][owner]
        data = self.data.rows(rows)
        top = climb(data, references, owner, which, *at, steps=STEPS, normalised=False)
        return top.score.view(-1, self.count)

    def scores(self, maps: Tensor) -> Tensor:
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


def agreed(first: Tensor, second: Tensor, both: Tensor) -> Tensor:
    """Keep what two halves agree on, by frequency and by place.

    Parameters
    ----------
    first, second, both
        (C, D, D, D) differences of classes from the mean: of each half, and of all images.
    """
    weight = _wiener(fsc_of_classes(first, second).mean(0))
    one, other, whole = (weighted_by_shell(part, weight) for part in (first, second, both))
    shared, own = (one * other).mean(0), (one.square() + other.square()).mean(0) / 2
    blurred = [torch.from_numpy(gaussian_filter(part.numpy(), BLUR)) for part in (shared, own)]
    return whole * _wiener(blurred[0] / blurred[1].clamp(min=1e-12)) ** SHARPNESS


def _wiener(correlation: Tensor) -> Tensor:
    """Weight of the sum of two halves of this correlation."""
    correlation = correlation.clamp(0, 1)
    return 2 * correlation / (1 + correlation)


def _together(sums: FourierSums) -> FourierSums:
    """Add up all slots."""
    value, weight = sums.value.sum(0, keepdim=True), sums.weight.sum(0, keepdim=True)
    return FourierSums(value, weight, sums.padded)

"""Better poses of images whose poses were found: images are compared with their conformations.

A search knows a structure that moves as a mean and a few motions.  A model that is fitted at the
poses found knows the curve on which the conformations lie.  So a model is fitted for a short time,
each image is compared at all rotations with maps of several contents, and its poses climb.

The two half sets have models of their own, so their poses stay independent.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from modpose.backprojection.halves import half_of
from modpose.config import Config
from modpose.content.clustering import cluster
from modpose.data.dataset import Dataset, dataset_of
from modpose.data.preprocess import fourier_crop, geometry
from modpose.devices import computing_on
from modpose.fourier.coefficients import phases
from modpose.fourier.reference import make_references
from modpose.geometry.grids import bright_centre
from modpose.geometry.groups import so3_grid
from modpose.geometry.rotations import haar_rotations
from modpose.model.imaging import CentralSlices
from modpose.model.vae import Vae
from modpose.progress import Progress
from modpose.search.abinitio.images import disc
from modpose.search.abinitio.refine import NEAR
from modpose.search.abinitio.rounds import FINENESS
from modpose.search.abinitio.saved import Saved
from modpose.search.abinitio.scores import best_poses
from modpose.search.projections import IMAGES_AT_ONCE, ImageReader, PosedImages
from modpose.search.so3_climb import climb
from modpose.train.session import infer, start, train_model

logger = logging.getLogger("modpose")


@dataclass(frozen=True)
class PosePlan:
    """How found poses are improved; frequencies are cycles a box."""

    rounds: int = 3
    seen: int = 6_000
    """Images that the model of a half learns from in a round; one that it sees again counts again.
    """
    searched: int = 8
    """Contents whose maps are compared with an image at all rotations."""
    climbed: int = 24
    """Contents whose maps are compared with an image while its pose climbs."""
    near: int = 6
    """How many of these: the nearest to the content of the image."""
    near_found: int = 3
    """The same for a pose that the search found: the nearest to the map that it was found with."""
    rotations: int = 4608
    search_radius: float = 9.0
    radius: float = 13.0
    """Highest frequency while a pose climbs."""
    hypotheses: int = 3
    """Poses that the search finds for an image."""
    apart_deg: float = 15.0
    """Least angle between these."""
    steps: int = 3
    """Steps of Gauss-Newton."""


def with_better_poses(
    dataset: Dataset, config: Config, plan: PosePlan, quiet: bool, saved: Saved | None = None
) -> Dataset:
    """Improve found poses with the conformations that a model learns at them.

    Parameters
    ----------
    dataset
        N projections with poses.
    config
        The run's configuration; its model has principal motions.
    plan
        Rounds.
    quiet
        No progress bar.
    saved
        Where to save the poses after each half set of a round, and to go on from.

    Returns
    -------
    Dataset
        The same images with other poses.
    """
    half, saved = half_of(dataset, np.arange(dataset.n)), saved or Saved()
    before = saved.read()
    done = int(before.get("done", 0))
    rotation = before.get("rotation", torch.zeros(dataset.n, 3, 3))
    shift = before.get("shift", torch.zeros(dataset.n, 2))
    if done > 1:
        dataset = posed_again(dataset, config, rotation, shift)
    for step in range(done, 2 * plan.rounds):
        number, one = divmod(step, 2)
        logger.info(
            "poses and conformations in turn: round %d of %d, half set %d",
            number + 1,
            plan.rounds,
            one + 1,
        )
        rows = np.flatnonzero(half == one)
        own = dataset_of(dataset.source.subset(rows), config, value_range=dataset.value_range)
        generator = torch.Generator().manual_seed(1000 * config.seed + step)
        rotation[rows], shift[rows] = _better_poses(own, config, plan, generator, quiet)
        saved.write({"rotation": rotation, "shift": shift, "done": torch.tensor(step + 1)})
        if one == 1:
            dataset = posed_again(dataset, config, rotation, shift)
    return dataset


def _better_poses(
    dataset: Dataset, config: Config, plan: PosePlan, generator: torch.Generator, quiet: bool
) -> tuple[Tensor, Tensor]:
    """Fit a model to one half set, and return better rotations and shifts of its images."""
    batches = -(-len(dataset.train) // config.train.batch_size)
    epochs = -(-plan.seen // (batches * config.train.batch_size))
    train = config.train.model_copy(update={"epochs": min(epochs, config.train.epochs)})
    short = config.model_copy(update={"train": train})
    learner, rows = start(dataset, short, max_minutes=None, quiet=quiet)
    train_model(learner, dataset, short, run=None, rows=rows, max_minutes=None, quiet=quiet)
    found = infer(learner, dataset, config, None, quiet=True)
    turn = haar_rotations(1, generator)
    work = _Comparison(learner.vae.cpu(), np.asarray(found.z, np.float32), plan, turn)
    with computing_on("train.accelerator", config.train.accelerator):
        return work.poses(dataset, quiet)


def posed_again(dataset: Dataset, config: Config, rotation: Tensor, shift: Tensor) -> Dataset:
    """Return the same images with poses (N, 3, 3) and (N, 2) pixels of the box of the model."""
    source = dataset.source
    factor = geometry(source.stack.shape, config.data, source.stack.name).pixel_size_factor
    posed = source.with_poses(rotation.numpy(), factor * shift.numpy().astype(np.float64))
    return dataset_of(posed, config, value_range=dataset.value_range, affinity=dataset.affinity)


class _Comparison:
    """Images compared with maps of several contents.

    Parameters
    ----------
    vae
        The model, on the CPU.
    z
        (N, k) content of the images.
    plan
        Settings.
    turn
        (1, 3, 3) rotation of the grid.
    """

    def __init__(self, vae: Vae, z: NDArray[np.float32], plan: PosePlan, turn: Tensor) -> None:
        self.plan = plan
        projection = cast(CentralSlices, vae.imaging).projection
        self.reader = ImageReader(projection, min(plan.radius, projection.box / 2 - 0.5))
        self.variance = projection.log_variance.detach().exp()
        self.scale = self.reader.box / projection.box
        centres, coarse = _centres(z, plan.climbed), _centres(z, plan.searched)
        self.maps, rough = (_maps(vae, some, self.reader.box) for some in (centres, coarse))
        self.middle = bright_centre(self.maps)
        self.coarse, self.coarse_middle = _centred(rough)
        self.own = torch.cdist(torch.from_numpy(z), centres).argsort(1)[:, : plan.near]
        self.fine = torch.cdist(coarse, centres).argsort(1)[:, : plan.near_found]
        self.grid = turn @ so3_grid(plan.rotations // 2).float()
        step = FINENESS * projection.box / plan.search_radius
        self.shifts = disc(NEAR * step, step) * self.scale

    def poses(self, dataset: Dataset, quiet: bool) -> tuple[Tensor, Tensor]:
        """Best rotations (N, 3, 3), and shifts (N, 2) pixels, of the images."""
        rotation, shift = torch.empty(dataset.n, 3, 3), torch.empty(dataset.n, 2)
        rows = np.arange(dataset.n)
        with Progress("poses of conformations", dataset.n, quiet=quiet) as progress:
            for batch in dataset.batches(rows, IMAGES_AT_ONCE):
                posed = self.reader.images(batch, self.variance)
                rotation[batch.index], moved = self._best(posed, self.own[batch.index])
                shift[batch.index] = moved[:, :2] / self.scale
                progress.advance(len(batch), 0.0)
        return rotation, shift

    def _best(self, posed: PosedImages, own: Tensor) -> tuple[Tensor, Tensor]:
        """Best rotation (B, 3, 3) and shift (B, 3) of images, some maps (B, M) for the pose now."""
        rotation, shift, which = self._searched(posed, own[:, 0])
        tried = own.shape[1]
        before = posed.rotation[:, None].expand(-1, tried, -1, -1)
        rotation = torch.cat([before, rotation], 1)
        shift = torch.cat([posed.shift[:, None].expand(-1, tried, -1), shift], 1)
        which = torch.cat([own, which], 1)
        count, tried = which.shape
        top = climb(
            posed.data,
            make_references(self.maps, float(posed.data.radius[-1]), slopes=True),
            torch.arange(count).repeat_interleave(tried),
            which.flatten(),
            rotation.flatten(0, 1),
            shift.flatten(0, 1),
            steps=self.plan.steps,
        )
        best = top.rows(torch.arange(count) * tried + top.score.view(count, tried).argmax(1))
        return best.rotation, best.shift

    def _searched(self, posed: PosedImages, now: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotations (B, H, 3, 3), shifts (B, H, 3) and maps (B, H) to climb from.

        Poses keep the molecule's centre of mass where it is in the image, or near; ``now`` (B,) is
        the map that says where.  Its place in the map changes with the conformation, so the shift
        of the right pose may be far from that of a wrong one.
        """
        plan, data = self.plan, posed.data
        middle = posed.shift + _seen(posed.rotation, self.middle[now])
        low = data.within(plan.search_radius / data.box)
        low = replace(low, value=low.value * phases(low.frequency, -middle))
        asked = plan.hypotheses, plan.apart_deg
        found = best_poses(low, self.coarse, self.grid, self.shifts, *asked, any_map=True)
        which = self.fine[found.class_index].flatten(1)
        times = self.fine.shape[1]
        shift = middle[:, None] + pad(found.shift, (0, 1))
        shift = shift - _seen(found.rotation, self.coarse_middle[found.class_index])
        rotation = found.rotation.repeat_interleave(times, 1)
        return rotation, shift.repeat_interleave(times, 1), which


def _centred(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Move maps by whole voxels, so that their centres of mass are in the middle.

    Returns
    -------
    maps, middle
        (K, b, b, b), and (K, 3) where the middle of each was, voxels.
    """
    middle = bright_centre(maps).round()
    moves = (-middle.flip(1)).int().tolist()
    moved = [one.roll(move, (0, 1, 2)) for one, move in zip(maps, moves, strict=True)]
    return torch.stack(moved), middle


def _seen(rotation: Tensor, point: Tensor) -> Tensor:
    """Where points (..., 3) of an object at rotations (..., 3, 3) are in the image, (..., 3)."""
    return pad((rotation @ point[..., None])[..., :2, 0], (0, 1))


def _centres(z: NDArray[np.float32], count: int) -> Tensor:
    """Centres (K, k) of clusters of content (N, k)."""
    count = min(count, len(np.unique(z, axis=0)))
    label = cluster(z, count, "kmeans")
    return torch.from_numpy(np.stack([z[label == number].mean(0) for number in range(count)]))


def _maps(vae: Vae, z: Tensor, box: int) -> Tensor:
    """Draw maps (K, b, b, b) of content (K, k) in a smaller box."""
    every = (vae.decode(one[None])[0, ..., 0].numpy()[None, None] for one in z)
    return torch.from_numpy(np.concatenate([fourier_crop(one, box)[:, 0] for one in every]))

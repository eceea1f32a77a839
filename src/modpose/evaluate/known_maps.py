"""The best possible classification of states: by the exact posterior over the true maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from modpose.config import SpectralConfig
from modpose.evaluate.metrics import ari, spearman
from modpose.fourier.projection import Projection
from modpose.progress import Progress
from modpose.search.placed import PlacedBlocks, table_of
from modpose.search.projections import (
    IMAGES_AT_ONCE,
    ImageReader,
    joined_images,
    power_spectrum,
)

if TYPE_CHECKING:
    import pandas as pd

    from modpose.data.dataset import Dataset
    from modpose.evaluate.true_maps import TrueMap


@dataclass(frozen=True)
class KnownMapScores:
    """Scores of classification with the true maps; no model is expected to do better.

    Attributes
    ----------
    motion
        |Spearman rank correlation| of the expected hinge angle with the true one, class by class
        as in :class:`modpose.evaluate.conformations.ConformationScores`; None if nothing moves.
    classes
        Adjusted Rand index of the most probable class; None with one class.
    """

    motion: float | None
    classes: float | None


def score_known_maps(
    dataset: Dataset, truth: pd.DataFrame, maps: Sequence[TrueMap], quiet: bool = False
) -> KnownMapScores:
    """Classify images by their likelihood given each true map.

    Parameters
    ----------
    dataset
        Images with given poses (:func:`modpose.backprojection.halves.open_posed`), in the unit of
        the maps.
    truth
        (N rows) ``class`` and ``hinge_deg``, as far as they are there.
    maps
        All true maps, equally probable.
    quiet
        No progress bar.
    """
    posterior = torch.softmax(_log_likelihood(dataset, maps, quiet), dim=1).numpy()
    label = np.array([one.label for one in maps])
    hinge = np.array([one.hinge_deg for one in maps])
    true_class = truth["class"].to_numpy() if "class" in truth else np.zeros(len(truth), int)
    motion = None
    if "hinge_deg" in truth and np.ptp(hinge) > 0:
        true_hinge = truth["hinge_deg"].to_numpy()
        expected = posterior @ hinge
        found = []
        for k in np.unique(true_class):
            mine = true_class == k
            found.append(mine.mean() * abs(spearman(expected[mine], true_hinge[mine])))
        motion = float(np.sum(found))
    classes = None
    if len(np.unique(true_class)) > 1:
        kinds = np.unique(label)
        share = np.stack([posterior[:, label == k].sum(1) for k in kinds], axis=1)
        classes = ari(true_class, kinds[share.argmax(1)])
    return KnownMapScores(motion, classes)


def _log_likelihood(dataset: Dataset, maps: Sequence[TrueMap], quiet: bool) -> Tensor:
    """Log p(image | map), (N, maps), up to a constant of each image."""
    box = dataset.shape[0]
    reader, rows = ImageReader(Projection(SpectralConfig(), box), box / 2), np.arange(dataset.n)
    volumes = torch.from_numpy(np.stack([one.volume for one in maps])).float()
    with Progress("known maps", 2 * dataset.n, quiet=quiet) as progress:
        variance = power_spectrum(dataset, rows, reader, progress)
        batches = dataset.batches(rows, IMAGES_AT_ONCE)
        images = joined_images(reader.images(batch, variance) for batch in batches)
        table = table_of(volumes, reader.limit)
        left = []
        for _, _, placed in PlacedBlocks(images.data, images.rotation, images.shift):
            power = (placed.value[:, None] - placed.predictions(table)).abs().square()
            shells = torch.zeros(*power.shape[:2], len(variance))
            left.append(shells.index_add_(2, reader.shell, power))
        progress.advance(dataset.n, 0.0)
    power = torch.cat(left)  # (N, maps, shells)
    best = power[torch.arange(len(power)), power.sum(2).argmin(1)].mean(0)
    noise = best / torch.bincount(reader.shell, minlength=len(best)).clamp(min=1)
    return -(power / noise.clamp(min=1e-12)).sum(2)

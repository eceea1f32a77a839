"""The bound of held-out images after an epoch."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from modpose.config import Config
from modpose.data.batches import Batch
from modpose.data.dataset import Dataset
from modpose.model.terms.affinity import AffinityTerm
from modpose.train.epoch import Totals, means, random_numbers
from modpose.train.learner import Learner

VALIDATION_STREAM = 1 << 31
VALIDATED, LEAST = 4_000, 500
"""Numbers of held-out images whose bound is computed after each epoch: at most, and at least."""
COMPARED = 1000
"""Largest number of validation images for the affinity term."""


@torch.no_grad()
def validate(
    learner: Learner, dataset: Dataset, config: Config, most: int = VALIDATED
) -> dict[str, float]:
    """Single-sample ELBO of validation images, the same with the same noise every epoch.

    Of many images at most ``most`` are used: an epoch that was cut short must end shortly.
    """
    if not len(dataset.val):
        return {}
    learner.vae.eval()
    generator = random_numbers(learner.placement.device, config.seed, VALIDATION_STREAM)
    totals, rows = Totals(), _evenly(dataset.val, min(VALIDATED, max(LEAST, most)))
    for batch in dataset.batches(rows, learner.vae.whole_batch):
        totals.add(learner.objective(batch.to(learner.placement.device), generator))
    metrics = means(totals.numbers(), len(rows)) | _validate_affinity(learner, dataset, config)
    return {f"val_{name}": value for name, value in metrics.items()}


def _validate_affinity(learner: Learner, dataset: Dataset, config: Config) -> dict[str, float]:
    """Affinity term of the validation images, for batches of the training's size."""
    terms = [term for term in learner.vae.terms if isinstance(term, AffinityTerm)]
    if not terms:
        return {}
    few = _evenly(dataset.val, COMPARED)
    batches, contents = [], []
    for batch in dataset.batches(few, learner.vae.whole_batch):
        ready = batch.to(learner.placement.device)
        with learner.placement.autocast():
            contents.append(learner.vae.posterior(ready).content_mean())
        batches.append(ready)
    together = Batch(
        index=torch.cat([batch.index for batch in batches]),
        image=contents[0].new_zeros(len(few), 0),
        label=torch.cat([batch.label for batch in batches if batch.label is not None]),
    )
    size = min(config.train.chunk or config.train.batch_size, len(dataset.train))
    return {"affinity": float(terms[0].expected(torch.cat(contents), together, size))}


def _evenly(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Choose at most this number of rows, evenly spread."""
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(np.int64)]

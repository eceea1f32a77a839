"""Which of several poses of an image to take: the one with which the model explains it best."""

from __future__ import annotations

import torch
from torch import Tensor

from modpose.data.batches import Batch
from modpose.data.dataset import Dataset
from modpose.train.learner import Learner


@torch.no_grad()
def take_best_poses(learner: Learner, dataset: Dataset) -> None:
    """Compare the poses that were kept for an image by the bound at its most probable content."""
    kept = learner.vae.kept
    if kept is None:
        return
    rows = (kept.number > 1).nonzero().squeeze(1).cpu().numpy()
    learner.vae.eval()
    for batch in dataset.batches(rows, learner.vae.whole_batch):
        ready = batch.to(learner.placement.device)
        last = kept.number[ready.index] - 1
        found = []
        for number in range(kept.rotation.shape[1]):
            kept.chosen[ready.index] = last.clamp(max=number)
            found.append(_bound(learner, ready))
        kept.chosen[ready.index] = torch.stack(found).argmax(0).minimum(last)


def _bound(learner: Learner, batch: Batch) -> Tensor:
    """Log-likelihood at the most probable content, less the divergence of content, (B,) nats."""
    with learner.placement.autocast():
        posterior = learner.vae.posterior(batch)
        nats = learner.vae.log_likelihood(batch, posterior.best())[:, 0]
        return (nats - posterior.kl(exact=True).content).float()

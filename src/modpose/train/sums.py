"""Training without images, where a few sums of each are all that a model learns from it."""

from __future__ import annotations

import time
from typing import cast

import numpy as np
import torch
from torch import Tensor

from modpose import ranks
from modpose.data.dataset import Dataset, cut
from modpose.fourier.amplitudes import AmplitudeSums
from modpose.model.fields.principal import PrincipalField
from modpose.model.imaging import PrincipalSlices
from modpose.progress import Progress
from modpose.train.learner import Learner


def what_is_seen(learner: Learner, dataset: Dataset, quiet: bool) -> Dataset:
    """Return the set that a learner is trained on: its sums where they suffice, else its images.

    They are computed once, from all images; the time counts as training.
    """
    if not learner.vae.imaging.sums_suffice:
        return dataset
    if learner.sums is None:
        began = time.perf_counter()
        learner.sums = _sums(learner, dataset, quiet)
        learner.state.seconds += time.perf_counter() - began
    return dataset.with_sums(learner.sums)


@torch.no_grad()
def _sums(learner: Learner, dataset: Dataset, quiet: bool) -> Tensor:
    """Compute (N, Q), shared by all processes."""
    vae, device = learner.vae, learner.placement.device
    imaging, field = cast(PrincipalSlices, vae.imaging), cast(PrincipalField, vae.field)
    vae.eval()

    def own() -> tuple[Tensor]:
        parts = ranks.share(cut(np.arange(dataset.n), vae.whole_batch))
        found = torch.zeros(dataset.n, AmplitudeSums.width(len(field.volumes)))
        with Progress("sums", sum(map(len, parts)), quiet=quiet) as progress:
            for batch in dataset.each(parts):
                sums = imaging.amplitude_sums(vae, batch.to(device))
                found[batch.index] = sums.packed().cpu()
                progress.advance(len(batch), 0.0)
        return (found,)

    (every,) = ranks.total(own)
    return every

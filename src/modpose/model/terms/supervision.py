"""The term by which an encoder learns poses that a search found before training."""

from __future__ import annotations

import torch
from torch import Tensor

from modpose.data.batches import Batch
from modpose.model.posterior import Posterior
from modpose.model.terms import Read, Term


class PoseSupervisionTerm(Term):
    """Minus the log density of known poses under the encoder."""

    name = "pose_supervision"

    def weight(self, step: int) -> float:
        """Return 1: the term is in nats, like the bound."""
        return 1.0

    def loss(
        self, batch: Batch, posterior: Posterior, read: Read, generator: torch.Generator | None
    ) -> Tensor:
        """Return minus the encoder's log density of the known poses, (B,) nats."""
        assert posterior.known_pose_log_prob is not None, "the encoder was told no poses"
        return -posterior.known_pose_log_prob

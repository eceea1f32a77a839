"""Terms that are trained in addition to the bound, each with a name and a weight."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from modpose.data.batches import Batch
from modpose.model.posterior import Posterior

Read = Callable[[Batch], Posterior]
"""Function from images to the encoder's posterior."""


class Term(nn.Module, ABC):
    """Base of terms: a loss per image that is not part of the bound.

    Attributes
    ----------
    name
        Name of its mean in the metrics.
    """

    name: str

    @abstractmethod
    def weight(self, step: int) -> float:
        """Weight of the term relative to the bound at a training step, nats per unit."""

    @abstractmethod
    def loss(
        self, batch: Batch, posterior: Posterior, read: Read, generator: torch.Generator | None
    ) -> Tensor:
        """Return the loss of B images, (B,), given the encoder's posterior."""

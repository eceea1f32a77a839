"""What is trained beside the bound: terms with a name and a weight."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from modpose.data.batches import Batch
from modpose.model.posterior import Posterior

Read = Callable[[Batch], Posterior]
"""From images to what the encoder believes of them."""


class Term(nn.Module, ABC):
    """Base of terms: a loss by image, which is no part of the bound.

    Attributes
    ----------
    name
        Under which its mean stands in the metrics.
    """

    name: str

    @abstractmethod
    def weight(self, step: int) -> float:
        """Nats of the bound that a unit of the term is worth at a training step."""

    @abstractmethod
    def loss(
        self, batch: Batch, posterior: Posterior, read: Read, generator: torch.Generator | None
    ) -> Tensor:
        """Return the loss of B images, (B,), given what the encoder believes of them."""

"""Published training steps as a textbook would write them, independent of modpose.

Nothing clever, and nothing of modpose is imported, so that its numbers and its times have
something to be compared with.
"""

from __future__ import annotations

import abc

import torch
from torch import Tensor, nn


class Textbook(nn.Module, abc.ABC):
    """A published model and its training step."""

    @abc.abstractmethod
    def objective(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return what training climbs, nats per image: (B,)."""


def adam(model: Textbook, lr: float) -> torch.optim.Adam:
    """Return the optimiser of both papers."""
    return torch.optim.Adam(model.parameters(), lr=lr)


def train_step(
    model: Textbook, optimizer: torch.optim.Optimizer, images: Tensor, generator: torch.Generator
) -> float:
    """Take one step on a minibatch; return the mean objective before it, nats per image."""
    objective = model.objective(images, generator).mean()
    optimizer.zero_grad()
    torch.autograd.backward(-objective)
    optimizer.step()
    return objective.item()

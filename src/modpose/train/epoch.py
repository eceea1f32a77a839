"""One epoch of training: its random numbers, and sums of the objective's parts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modpose import ranks
from modpose.model.objective import Objective

AUGMENT_STREAM = 1 << 32


class Epoch:
    """What one epoch of training has done, and its random numbers.

    The first chunk of each batch draws from generators that run through the epoch, and every other
    chunk from its own; so numbers do not depend on which process computes a chunk.

    Parameters
    ----------
    device
        Where the model is.
    seed, number
        Of the training, and of the epoch.
    begun
        What :meth:`so_far` returned when a checkpoint was saved within this epoch.
    """

    def __init__(
        self, device: torch.device, seed: int, number: int, begun: dict[str, Any] | None
    ) -> None:
        self.device, self.seed, self.epoch = device, seed, number
        self.first = self._generators((self.epoch,), (AUGMENT_STREAM + self.epoch,))
        self.totals = Totals()
        self.batches = self.images = 0
        if begun is not None:
            self._go_on(begun)

    def _generators(
        self, noise: tuple[int, ...], moves: tuple[int, ...]
    ) -> tuple[torch.Generator, torch.Generator]:
        host = torch.device("cpu")
        on_device = random_numbers(self.device, self.seed, *noise)
        return on_device, random_numbers(host, self.seed, *moves)

    def generators(self, chunk: int) -> tuple[torch.Generator, torch.Generator]:
        """Return those of the model's noise and of the moves of a chunk's images."""
        if chunk == 0:
            return self.first
        streams = ((self.epoch, which, self.batches, chunk) for which in (0, 1))
        return self._generators(*streams)

    def _go_on(self, begun: dict[str, Any]) -> None:
        for generator, name in zip(self.first, ("generator", "moves"), strict=True):
            generator.set_state(begun[name])
        self.batches, self.images = begun["batches"], begun["count"]
        if ranks.leads():
            self.totals.sums = dict(begun["sums"])

    def so_far(self) -> dict[str, Any]:
        """Return what a checkpoint within the epoch keeps."""
        noise, moves = self.first
        return {
            "batches": self.batches,
            "count": self.images,
            "sums": self.totals.of_all(),
            "generator": noise.get_state(),
            "moves": moves.get_state(),
        }


class Totals:
    """Sums of the parts of the ELBO and of the other terms, over an epoch."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor | float] = {}

    def add(self, objective: Objective) -> None:
        """Count one batch; the sums stay on its device, which would have to be waited for."""
        parts = objective.elbo._asdict() | dict(objective.terms)
        if objective.first_pass is not None:
            parts["first_pass"] = objective.first_pass.value()
        for name, part in parts.items():
            exact = torch.float32 if part.device.type == "mps" else torch.float64  # has no doubles
            self.sums[name] = self.sums.get(name, 0.0) + part.detach().to(exact).sum()

    def numbers(self) -> dict[str, float]:
        """Return the sums over the images of this process."""
        return {name: float(total) for name, total in self.sums.items()}

    def of_all(self) -> dict[str, float]:
        """Return the sums over the images of all processes."""
        parts = ranks.gathered(self.numbers())
        names = dict.fromkeys(name for part in parts for name in part)
        return {name: math.fsum(part.get(name, 0.0) for part in parts) for name in names}


def means(sums: dict[str, float], count: int) -> dict[str, float]:
    """Return nats per image, and the mean of each term."""
    mean = {name: total / count for name, total in sums.items()}
    return {"elbo": mean["recon"] - mean["kl_pose"] - mean["kl_content"]} | mean


def random_numbers(device: torch.device, seed: int, *stream: int) -> torch.Generator:
    """Return a generator of this seed and stream."""
    mixed = np.random.SeedSequence([seed, *stream]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(mixed >> np.uint64(1)))

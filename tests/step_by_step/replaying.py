"""Take recorded steps with a recipe of ours, in our own training loop."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from modpose.config import Config
from modpose.data.batches import Batch
from modpose.model.vae import Vae
from modpose.progress import Progress
from modpose.train.learner import set_up
from modpose.train.loop import run_epochs
from tools.record_steps.recording import STEPS, GivenNoise

HERE = Path(__file__).parent
AGREE = 1e-4
"""Relative.  Each step adds rounding of 6e-8 of the numbers that it changes, in both programs;
200 steps that add up, and a tenfold growth of what differs, stay below it."""


class Recorded:
    """What the authors' program was given, and the losses that it had."""

    def __init__(self, program: str) -> None:
        with np.load(HERE / f"{program}.npz", allow_pickle=False) as arrays:
            self.arrays: dict[str, NDArray[Any]] = dict(arrays)

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(self.arrays[name])

    @property
    def images(self) -> Tensor:
        return self["images"]

    @property
    def loss(self) -> NDArray[np.float64]:
        return self.arrays["loss"]


class OneBatchAnEpoch:
    """Stands for a data set: each epoch is the batch of one recorded step."""

    val = np.arange(0)

    def __init__(self, recorded: Recorded, batch: Callable[[Tensor], Batch]) -> None:
        self.rows, self.batch = iter(recorded.arrays["rows"]), batch
        self.train = np.arange(recorded.arrays["rows"].shape[1])

    def each(self, parts: Sequence[NDArray[np.int64]]) -> Iterator[Batch]:
        assert len(parts) == 1
        yield self.batch(torch.from_numpy(next(self.rows).astype(np.int64)))


def pictures(images: Tensor) -> Callable[[Tensor], Batch]:
    """Batches of images (N, *shape) with one channel."""
    return lambda rows: Batch(index=rows, image=images[rows].unsqueeze(1))


def replay(
    vae: Vae,
    config: Config,
    recorded: Recorded,
    batch: Callable[[Tensor], Batch],
    noise: Sequence[NDArray[np.float32]],
    *,
    epsilon: float = 1.0,
    steps: int = STEPS,
) -> list[dict[str, float]]:
    """Train for the recorded steps, or the first of them; return what our loop reports of each.

    ``noise`` holds, for each draw of a step, (STEPS, ...) numbers.  ``epsilon`` multiplies that of
    the optimisers, for programs whose loss is ours divided by it.
    """
    metrics: list[dict[str, float]] = []
    learner = set_up(vae, config)
    for optimizer in learner.optimizers:
        for group in optimizer.param_groups:
            group["eps"] *= epsilon
    drawn = iter([part[step] for step in range(STEPS) for part in noise])
    with GivenNoise(drawn):
        run_epochs(
            learner,
            OneBatchAnEpoch(recorded, batch),  # type: ignore[arg-type]
            config,
            epochs=steps,
            max_minutes=None,
            progress=Progress("", STEPS, quiet=True),
            record=metrics.append,
        )
    return metrics


def load(module: nn.Module, values: dict[str, Tensor]) -> None:
    """Write weights by name; every parameter and buffer of the module must be given."""
    module.load_state_dict({name: value.clone() for name, value in values.items()})


class Rescaled(nn.Module):
    """A last layer whose numbers are read in other units."""

    def __init__(self, layer: nn.Module, scale: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.layer, self.scale, self.offset = layer, scale, offset

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.scale + self.offset


def apart(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """Largest relative difference of two losses at the same step, as many as ours has."""
    theirs = theirs[: len(ours)]
    return float(np.max(np.abs(ours - theirs) / np.abs(theirs)))

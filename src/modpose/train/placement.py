"""Device and precision of the training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from modpose.config import TrainConfig
from modpose.errors import InputError


@dataclass(frozen=True)
class Placement:
    """A device and the precision of products of matrices on it.

    Attributes
    ----------
    device
        Device of the model and its batches.
    precision
        ``bf16-mixed``: products of matrices in bfloat16, sums and everything else in float32.
    """

    device: torch.device
    precision: Literal["32-true", "bf16-mixed"] = "32-true"

    @classmethod
    def of(cls, train: TrainConfig) -> Placement:
        """Choose the device of ``train.accelerator``.

        Raises
        ------
        InputError
            If this machine has no such device.
        """
        return cls(torch.device(_device(train.accelerator)), train.precision)

    def autocast(self) -> torch.autocast:
        """Return a context in which the model computes with this precision."""
        mixed = self.precision == "bf16-mixed"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=mixed)


def _device(accelerator: str) -> str:
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if accelerator == "auto":
        return next(name for name, here in there.items() if here)
    if not there[accelerator]:
        raise InputError(
            f"train.accelerator: this machine has no device '{accelerator}' that can be used, "
            "expected 'cpu', or 'auto' for what is there"
        )
    return accelerator

"""Device and precision of the training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from modpose.config import TrainConfig
from modpose.devices import own_device


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
        device = own_device("--device (train.accelerator)", train.accelerator)
        return cls(device, train.precision)

    def __str__(self) -> str:
        """Name both, for the user."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else ""
        why = {
            "32-true": "the default; bf16-mixed is faster where the processor has units for it",
            "bf16-mixed": "products of matrices are rounded to three digits",
        }
        where = f"device {self.device}{name and f' ({name})'}"
        return f"{where}, precision {self.precision} ({why[self.precision]})"

    def autocast(self) -> torch.autocast:
        """Return a context in which the model computes with this precision."""
        mixed = self.precision == "bf16-mixed"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=mixed)

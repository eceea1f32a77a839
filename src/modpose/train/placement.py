"""Device and precision of the training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from modpose import ranks
from modpose.config import TrainConfig
from modpose.errors import InputError, shown


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
        where = "--device (train.accelerator)"
        device = usable_device(where, train.accelerator)
        if device.type == "cuda" and ranks.place().size > 1:  # one for each process of a machine
            device = usable_device("--devices", f"cuda:{ranks.place().local}")
            torch.cuda.set_device(device)
        return cls(device, train.precision)

    def __str__(self) -> str:
        """Name both, for the user."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else ""
        return f"device {self.device}{name and f' ({name})'}, precision {self.precision}"

    def autocast(self) -> torch.autocast:
        """Return a context in which the model computes with this precision."""
        mixed = self.precision == "bf16-mixed"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=mixed)


def usable_device(where: str, name: str | torch.device) -> torch.device:
    """Return a device of this machine.

    Parameters
    ----------
    where
        The option, for the message.
    name
        As torch names it, such as ``cuda:1``; ``auto``: a GPU if there is one, else the CPU.

    Raises
    ------
    InputError
        If this machine has no such device.
    """
    there = {
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
        "cpu": 1,
    }
    if name == "auto":
        return torch.device(next(kind for kind, count in there.items() if count))
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError.of(where, "the device", shown(str(name)), "cpu, cuda or mps") from None
    if (device.index or 0) >= there.get(device.type, 1):
        raise InputError(
            f"{where}: this machine has no device '{device}' that can be used, "
            "expected 'cpu', or 'auto' for what is there"
        )
    return device

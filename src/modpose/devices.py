"""Where to compute, for computations whose data stay in the memory of the host.

Search, averages and maps keep images and poses on the host, or in files.  Within
:func:`computing_on`, what they compute goes to a device block by block, and results come back.  A
tensor that is on another device already, as in a training, is computed with where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from modpose import ranks
from modpose.errors import InputError, shown

P = ParamSpec("P")
T = TypeVar("T")

HOST = torch.device("cpu")
MORE = 32
"""How many times as many numbers a device takes at once as the host, whose cache is small."""
_chosen: torch.device | None = None


@contextmanager
def computing_on(where: str, name: str | torch.device | None) -> Iterator[None]:
    """Compute on a device within this context; one GPU for each process of a machine.

    Parameters
    ----------
    where
        The option, for the message.
    name
        As of :func:`usable_device`; None changes nothing.

    Raises
    ------
    InputError
        If this machine has no such device.
    """
    global _chosen
    before, _chosen = _chosen, _chosen if name is None else own_device(where, name)
    try:
        yield
    finally:
        _chosen = before


def on_its_device(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function compute on the device of its argument ``device``, given by keyword."""

    @wraps(function)
    def computed(*args: P.args, **kwargs: P.kwargs) -> T:
        named = kwargs.get("device")
        with computing_on("--device", None if named is None else str(named)):
            return function(*args, **kwargs)

    return computed


def chosen() -> torch.device | None:
    """Return the device of :func:`computing_on`; None outside of it."""
    return _chosen


def near(tensor: Tensor) -> torch.device:
    """Return where to compute with a tensor: where it is or, of the host, the chosen device."""
    return tensor.device if _chosen is None or tensor.device != HOST else _chosen


def at_once(numbers: int, device: torch.device) -> int:
    """Return how many numbers a device takes at once, where the host takes these."""
    return numbers if device == HOST else MORE * numbers


def own_device(where: str, name: str | torch.device) -> torch.device:
    """Return the device of this process: as :func:`usable_device`, but of several GPUs its own."""
    device = usable_device(where, name)
    if device.type == "cuda" and ranks.place().size > 1:
        device = usable_device("--devices", f"cuda:{ranks.place().local}")
        torch.cuda.set_device(device)
    return device


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

"""What was computed from a tensor, kept for a second use of the same tensor."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Kept:
    """Keeps the last result of each of some functions of tensors, by name.

    Encoder and decoder of a step need the same of a batch: its coefficients, its CTF, the maps at
    its frequencies.  A result is used again for the same tensors alone, unchanged, and never where
    gradients flow.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[tuple[tuple[Tensor, int], ...], Tensor]] = {}

    def __call__(self, name: str, given: tuple[Tensor, ...], make: Callable[[], Tensor]) -> Tensor:
        """Return what ``make`` returns, or what it returned for the same ``given`` tensors."""
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given):
            return make()
        last = self._last.get(name)
        if last is not None and len(last[0]) == len(given):
            pairs = zip(last[0], given, strict=True)
            if all(one is other and v == other._version for (one, v), other in pairs):
                return last[1]
        made = make()
        if not made.requires_grad:
            self._last[name] = tuple((tensor, tensor._version) for tensor in given), made
        return made

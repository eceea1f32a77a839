"""Refuse models that are too large for memory while they are made, before memory is full."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from modpose.errors import InputError
from modpose.limits import physical_memory


@contextmanager
def bounded_memory(where: str) -> Iterator[None]:
    """Refuse to make tensors that together take over half of the memory of this machine.

    New tensors are counted before anything is written to them.

    Raises
    ------
    InputError
        Names ``where`` and how much would be needed.
    """
    with _Budget(physical_memory() // 2, where):
        yield


class _Budget(TorchFunctionMode):
    """Counts the bytes of new tensors.

    A mode of torch's dispatcher would do it too, but imports torch's compiler, which takes seconds.
    """

    def __init__(self, most: int, where: str) -> None:
        super().__init__()
        self.most, self.where, self.used = most, where, 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run one operation of torch, and count the new tensors that it makes."""
        made_anew = not any(isinstance(arg, torch.Tensor) for arg in args)
        try:
            out = func(*args, **(kwargs or {}))
        except RuntimeError as error:
            if "alloc" in str(error):
                raise self._too_large() from None
            raise
        if made_anew and isinstance(out, torch.Tensor):
            self.used += out.nbytes
            if self.used > self.most:
                raise self._too_large()
        return out

    def _too_large(self) -> InputError:
        gigabytes = self.most / 2**30
        return InputError.of(
            self.where,
            "the model",
            f"larger than {gigabytes:.0f} GB, half of this machine's memory",
            "fewer or narrower layers (model.encoder, model.field), or a smaller box",
        )

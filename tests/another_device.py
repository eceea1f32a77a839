"""A device that no machine has, with tensors that hold values: what runs on it runs on a GPU.

A tensor that was moved to ``DEVICE`` says that it is there.  Its values are in a tensor of the CPU
that only :class:`AnotherDevice` sees, which computes with it.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = "meta"
ANYWHERE = ("_to_copy", "copy_", "index", "index_put_", "_index_put_impl_")
"""Operations on tensors of two devices that a GPU can do."""
HEAVY = (
    "mm",
    "bmm",
    "_embedding_bag",
    "_embedding_bag_forward_only",
    "_fft_r2c",
    "_fft_c2r",
    "_fft_c2c",
    "index_add_",
    "polar",
)
"""Operations that take the time of a search."""

AT_ONCE: dict[str, Any] = {"_conj": torch.conj_physical, "_neg_view": torch.neg}
"""What torch does later by itself, but not with tensors that a mode has taken apart."""


class There(Tensor):
    """A tensor of another device."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> There:
        made: There = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(DEVICE),
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:  # pragma: no cover
        raise AssertionError(f"{func} without the device")


class _Numbers(TorchFunctionMode):
    """Makes a tensor of numbers on the CPU before it moves; ``meta`` itself would lose them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(kwargs or {})
        if func is torch.tensor and given.get("device") is not None:
            return torch.tensor(*args, **{**given, "device": None}).to(given["device"])
        if func is Tensor.new_tensor:
            return torch.tensor(args[1], dtype=args[0].dtype).to(args[0].device)
        return func(*args, **given)


class AnotherDevice(TorchDispatchMode):
    """Computes with tensors of the other device, and refuses to mix them with those of the CPU.

    Attributes
    ----------
    here, there
        How many numbers heavy operations have read on the CPU, and there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.here: Counter[str] = Counter()
        self.there: Counter[str] = Counter()
        self._numbers = _Numbers()

    def __enter__(self) -> AnotherDevice:
        self._numbers.__enter__()
        entered: AnotherDevice = super().__enter__()
        return entered

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._numbers.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given, name = dict(kwargs or {}), func.overloadpacket.__name__
        found = [part for part in tree_leaves((args, given)) if isinstance(part, Tensor)]
        own = [part for part in found if isinstance(part, There)]
        devices = {part.device for part in found if part.dim()}
        if name not in ANYWHERE and len(devices) > 1:
            raise AssertionError(f"{func} of tensors on {devices}")
        to = given.get("device")
        goes = bool(own) if to is None else torch.device(to).type == DEVICE
        if name == "copy_":
            goes = isinstance(args[0], There)
        if name in HEAVY:
            (self.there if goes else self.here)[name] += sum(part.numel() for part in found)
        if not own and not goes:
            return func(*args, **given)
        if to is not None:
            given["device"] = torch.device("cpu")
        held = tree_map(lambda part: part.held if isinstance(part, There) else part, (args, given))
        result = AT_ONCE.get(name, func)(*held[0], **held[1])
        if not goes or name == "_local_scalar_dense":
            return result
        same = {id(part.held): part for part in own}

        def wrapped(part: Any) -> Any:
            if not isinstance(part, Tensor):
                return part
            return same[id(part)] if id(part) in same else There(part)

        return tree_map(wrapped, result)

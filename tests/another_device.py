"""A device that no machine has, with tensors that hold values: what runs on it runs on a GPU.

A tensor that was moved to ``DEVICE`` says that it is there.  Its values are in a tensor of the CPU
that only :class:`AnotherDevice` sees, which computes with it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import pytest
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
READS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal")
"""Operations whose result the host has to wait for."""

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


class SameNumbers(TorchFunctionMode):
    """Draws the random numbers of a generator on the CPU, whichever device they are for."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(kwargs or {})
        if given.get("generator") is None:
            return func(*args, **given)
        first = next((part for part in args if isinstance(part, Tensor)), None)
        home = given.pop("device", None) or (None if first is None else first.device)
        here = [part.cpu() if isinstance(part, Tensor) else part for part in args]
        drawn = func(*here, **given)
        if first is not None and func.__name__.endswith("_"):
            return first.copy_(drawn)
        return drawn if home is None else drawn.to(home)


class _OfCpu:
    """Makes generators of the CPU, whatever device is asked for."""

    def __new__(cls, device: Any = None) -> Any:
        return _Generator()


_Generator = torch.Generator


@contextmanager
def given_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Name the device of the variable ``MODPOSE_TEST_DEVICE``, or the one that is made up.

    Random numbers are those of the CPU, so that results can be compared with it.
    """
    name = os.environ.get("MODPOSE_TEST_DEVICE", DEVICE)
    with ExitStack() as modes:
        if name == DEVICE:
            monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
            modes.enter_context(AnotherDevice())
        else:
            monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
        monkeypatch.setattr(torch, "Generator", _OfCpu)
        modes.enter_context(SameNumbers())
        yield name


class AnotherDevice(TorchDispatchMode):
    """Computes with tensors of the other device, and refuses to mix them with those of the CPU.

    Attributes
    ----------
    here, there
        How many numbers heavy operations have read on the CPU, and there.
    waits
        How often the CPU has waited for numbers of the device, by operation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.here: Counter[str] = Counter()
        self.there: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
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
        moves = name in ("_to_copy", "copy_") and not goes
        masks = name == "index" and any(part.dtype == torch.bool for part in found[1:])
        if own and (name in READS or moves or masks):
            self.waits[name] += 1
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

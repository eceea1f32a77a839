"""What the recorders share; runs in the Python of the authors' program (NumPy and torch alone)."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

STEPS, BATCH, IMAGES = 200, 6, 24
Floats = NDArray[np.float32]


class GivenNoise(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Random numbers of torch come from a list, in its order, whatever asks for them.

    Parameters
    ----------
    noise
        Arrays, one a draw, of the shapes that are requested or others of as many numbers.
    """

    def __init__(self, noise: Iterator[Floats]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.noise = noise

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Answer draws; let everything else be computed."""
        name = func.name().removeprefix("aten::").partition(".")[0]
        if name in ("normal_", "exponential_"):
            return args[0].copy_(self._next(args[0]))
        if name == "randn_like":
            return self._next(args[0])
        if name == "normal":
            return args[0] + args[1] * self._next(args[0])
        assert not name.startswith("rand"), f"{name} is drawn without being recorded"
        return func(*args, **(kwargs or {}))

    def _next(self, like: Tensor) -> Tensor:
        return torch.from_numpy(next(self.noise)).reshape(like.shape).to(like.dtype)


def smooth_images(count: int, side: int, seed: int) -> Floats:
    """Blobs, two an image, between 0 and 4; (count, side, side)."""
    random = np.random.RandomState(seed)
    axis = np.arange(side) - (side - 1) / 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    images = np.zeros((count, side, side))
    for width in (0.12 * side, 0.2 * side):
        place = random.uniform(-0.25 * side, 0.25 * side, (count, 2, 1, 1))
        images += np.exp(-((x - place[:, 0]) ** 2 + (y - place[:, 1]) ** 2) / (2 * width**2))
    scaled: Floats = (4 * images / images.max()).astype(np.float32)
    return scaled


def rows_of_batches(count: int, seed: int) -> NDArray[np.int16]:
    """Images of each step, (STEPS, BATCH), different ones within a batch."""
    random = np.random.RandomState(seed)
    rows = [random.permutation(count)[:BATCH] for _ in range(STEPS)]
    return np.array(rows, dtype=np.int16)


def normal_noise(shape: Sequence[int], seed: int) -> Floats:
    """Standard normal numbers (STEPS, BATCH, *shape); NumPy promises them not to change."""
    drawn = np.random.RandomState(seed).standard_normal((STEPS, BATCH, *shape))
    return drawn.astype(np.float32)


def exponential_noise(shape: Sequence[int], seed: int) -> Floats:
    """Standard exponential numbers (STEPS, BATCH, *shape)."""
    drawn = np.random.RandomState(seed).standard_exponential((STEPS, BATCH, *shape))
    return drawn.astype(np.float32)


def stand_in(*names: str) -> None:
    """Let modules that are imported by the program, and not needed here, be empty."""
    for name in names:
        try:
            __import__(name)
        except ImportError:
            sys.modules[name] = types.ModuleType(name)


def weights(**modules: nn.Module) -> dict[str, Floats]:
    """Copy every parameter and buffer, by ``module/name``."""
    return {
        f"{prefix}/{name}": value.detach().numpy().copy()
        for prefix, module in modules.items()
        for name, value in module.state_dict().items()
        if value.dtype == torch.float32
    }


def record(
    out: str,
    arrays: Mapping[str, Any],
    step: Callable[[int], Sequence[float]],
    names: Sequence[str],
) -> None:
    """Take the steps and write ``arrays`` and the numbers of each, by name, (STEPS,) each."""
    torch.set_num_threads(1)
    numbers = np.array([step(number) for number in range(STEPS)])
    assert np.isfinite(numbers).all()
    kept = dict(zip(names, numbers.T, strict=True))
    np.savez_compressed(out, allow_pickle=False, **arrays, **kept)
    print(f"{out}: {Path(out).stat().st_size / 1e3:.1f} kB", *(f"{v:.5g}" for v in numbers[-1]))

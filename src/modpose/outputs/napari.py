"""A reader for napari: particle images, and their poses as arrows.

napari finds it by ``modpose/napari.yaml``; it imports nothing of napari.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modpose.data import preprocess
from modpose.data.source import open_source
from modpose.errors import InputError
from modpose.files.marker import is_run
from modpose.infer.latents import rotations_of_table
from modpose.run import Run

if TYPE_CHECKING:
    from modpose.data.stack import Stack

Layer = tuple[Any, dict[str, Any], str]
"""What napari calls layer data: an array, settings, and the kind of layer."""
LENGTH = 0.25
"""Length of an arrow, in sides of the box."""


@dataclass(frozen=True)
class LazyStack:
    """Images as an array (N, H, W) or (N, D, H, W) that reads what is asked for.

    Attributes
    ----------
    stack
        Grey images.
    """

    stack: Stack

    dtype = np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of images, and their sides."""
        return (self.stack.n, *self.stack.shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.stack.n

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        first, *rest = key if isinstance(key, tuple) else (key,)
        rows = np.arange(self.stack.n)[first]
        images = self.stack.read(np.atleast_1d(rows))[:, 0]
        chosen = (slice(None), *rest) if np.ndim(rows) else (0, *rest)
        return np.asarray(images[chosen])


def reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[Layer]] | None:
    """Offer to open a file or the folder of a run; None for anything else."""
    one = path if isinstance(path, str) else path[0]
    if not isinstance(path, str) and len(path) != 1:
        return None
    if Path(one).is_dir() and not is_run(Path(one)):
        return None
    return lambda _: layers(one)


def layers(path: str | Path) -> list[Layer]:
    """Open particle images, or a run, for napari.

    Parameters
    ----------
    path
        A STAR, ``.cs`` or ``.csg``, a stack, or the folder of a run.

    Returns
    -------
    A layer of the images as they are stored, and, where poses are known, a layer of arrows: from
    the centre of each object, along its first axis, with the columns of the table as features.

    Raises
    ------
    InputError
        If the images cannot be opened, or are coloured.
    """
    features, pose = None, None
    if is_run(Path(path)):
        run = Run.open(path)
        features = run.latents()
        source = run.dataset().source
        stack = source.stack
        sizes = preprocess.geometry(stack.shape, run.config.data, stack.name)
        names = [f"shift_{axis}" for axis in "xyz" if f"shift_{axis}" in features]
        if names:
            pose = (
                rotations_of_table(features),
                features[names].to_numpy() * sizes.pixel_size_factor,
            )
    else:
        source = open_source(path)
        if source.particles.table.shape[1]:
            features = source.particles.table
        pose = source.particles.poses(source.pixel_size)
    if source.stack.channels != 1:
        raise InputError.of(path, "the images", "coloured", "grey ones")
    name, size = Path(path).name, source.pixel_size or 1.0
    scale = [1.0, *[size] * len(source.stack.shape)]
    found: list[Layer] = [(LazyStack(source.stack), {"name": name, "scale": scale}, "image")]
    if pose is not None:
        about = {"name": f"{name}, poses", "scale": scale, "features": features}
        found.append((_arrows(*pose, source.stack.shape), about, "vectors"))
    return found


def _arrows(
    rotation: NDArray[np.floating], shift: NDArray[np.floating], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Start and direction of an arrow each, (N, 2, axes), in the order image, [z,] y, x."""
    n, axes = len(rotation), len(shape)
    middle = np.array([side // 2 for side in shape])
    arrows = np.zeros((n, 2, 1 + axes), np.float32)
    arrows[:, 0, 0] = np.arange(n)
    arrows[:, 0, 1:] = middle + shift[:, axes - 1 :: -1]
    arrows[:, 1, 1:] = LENGTH * shape[-1] * rotation[:, axes - 1 :: -1, 0]
    return arrows

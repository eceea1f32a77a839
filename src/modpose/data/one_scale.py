"""Images of several boxes or pixel sizes in one table: refused, with the command that helps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from modpose.data.particles import Particles
from modpose.data.stack import Stack
from modpose.errors import InputError

SAME = 0.01
"""Pixel sizes that differ by a smaller fraction are the same."""


def check_one_scale(particles: Particles, parts: Sequence[Stack], part: NDArray[np.int64]) -> None:
    """Refuse images of several pixel sizes, or of several boxes whose pixel sizes are known.

    Parameters
    ----------
    particles
        The table, N rows.
    parts
        The files of images.
    part
        (N,) file of each row.

    Raises
    ------
    InputError
        It names two kinds of images, and how the second is binned to the coarsest pixel size.
    """
    sizes = particles.pixel_sizes()
    if sizes is None or not sizes.size or any(len(set(p.shape)) != 1 for p in parts):
        return
    boxes = np.array([p.shape[0] for p in parts])[part]
    if boxes.min() == boxes.max() and sizes.max() <= (1 + SAME) * sizes.min():
        return
    kinds = _kinds(boxes, sizes)
    if len(kinds) == 1:
        return
    coarsest = max(size for _, size in kinds)
    common = 2 * int(min(box * size for box, size in kinds) / coarsest / 2 + 1e-6)
    box, size = next(kind for kind in kinds if kind[1] == coarsest)
    fine = next(kind for kind in kinds if kind != (box, size))
    crops = [min(n, round(common * coarsest / a)) for n, a in ((box, size), fine)]
    first = f"{box} pixels of {size:.4g} A"
    raise InputError(
        f"{particles.name}: there are images of {first} and of {fine[0]} of {fine[1]:.4g} A, "
        f"expected one; run modpose preprocess on each (--index ROWS --box {common}, --crop "
        f"{crops[0]} and {crops[1]}) and fit the results together"
    )


def _kinds(boxes: NDArray[np.int64], sizes: NDArray[np.float64]) -> list[tuple[int, float]]:
    """List the different boxes with their pixel sizes."""
    kinds: list[tuple[int, float]] = []
    for box, size in sorted({(int(b), float(s)) for b, s in zip(boxes, sizes, strict=True)}):
        if not any(box == b and abs(size - s) <= SAME * s for b, s in kinds):
            kinds.append((box, size))
    return kinds

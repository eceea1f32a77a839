"""Search and averages of several processes: each works on a part of the volumes.

All processes hold all volumes and poses (:mod:`modpose.ranks`).  A process without others works on
everything.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from modpose import ranks
from modpose.fourier.coefficients import Coefficients
from modpose.fourier.insertion import FourierSums, insert_slices
from modpose.fourier.reference import References
from modpose.search.so3_climb import PosedVolumes, climb
from modpose.search.so3_search import PoseHypotheses

Rows = TypeVar("Rows", PoseHypotheses, PosedVolumes)


def row_by_row(count: int, compute: Callable[[slice], Rows]) -> Rows:
    """Compute each row in one process; all of them get every row.

    Parameters
    ----------
    count
        Number of rows.
    compute
        Gives those of a slice.
    """
    if ranks.place().size > count:
        return compute(slice(0, count))
    own = ranks.part_of(count)
    parts = ranks.gathered(compute(own))
    if len(parts) == 1:
        return parts[0]
    return type(parts[0])(*(torch.cat(column) for column in zip(*parts, strict=True)))


def climb_all(
    volumes: Coefficients,
    references: References,
    owner: Tensor,
    which: Tensor,
    rotation: Tensor,
    shift: Tensor,
    *,
    steps: int,
    reach: float = math.inf,
) -> PosedVolumes:
    """Optimise poses; arguments as of :func:`modpose.search.so3_climb.climb`."""

    def compute(rows: slice) -> PosedVolumes:
        start = (owner[rows], which[rows], rotation[rows], shift[rows])
        return climb(volumes, references, *start, steps=steps, reach=reach)

    return row_by_row(len(owner), compute)


def sums_of_all(
    volumes: Coefficients, slot: Tensor, slots: int, rotation: Tensor, shift: Tensor
) -> FourierSums:
    """Add up posed volumes; arguments as of :func:`modpose.fourier.insertion.insert_slices`."""
    own = torch.full_like(slot, -1)
    rows = ranks.part_of(len(slot))
    own[rows] = slot[rows]
    sums = insert_slices(volumes, own, slots, rotation, shift)
    ranks.sum(torch.view_as_real(sums.value))
    ranks.sum(sums.weight)
    return sums

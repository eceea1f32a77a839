"""Search and averages of several processes: each works on a part of the volumes.

Each holds its own volumes only (:func:`modpose.search.pipeline.read_coefficients`), or all of them,
and all poses.  A process without others works on everything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from modpose import ranks
from modpose.fourier.coefficients import Coefficients
from modpose.fourier.insertion import OVERSAMPLING, FourierSums, insert_slices
from modpose.fourier.reference import References
from modpose.search.so3_climb import climb

Columns = tuple[Tensor, ...]


def own_part(data: Coefficients) -> tuple[Tensor, Coefficients]:
    """Return the rows (n,) that this process computes, and their coefficients."""
    if data.place is None:
        rows = ranks.part_of(len(data))
        return torch.arange(rows.start, rows.stop), data.rows(rows)
    return (data.place >= 0).nonzero().squeeze(1), replace(data, place=None)


def row_by_row(data: Coefficients, compute: Callable[[Tensor, Coefficients], Columns]) -> Columns:
    """Compute each row in one process; all of them get every row.

    Parameters
    ----------
    data
        N volumes.
    compute
        Gives columns (n, ...) of some rows (n,) and their coefficients.
    """

    def own() -> Columns:
        rows, here = own_part(data)
        return (rows, *compute(rows, here))

    rows, *columns = ranks.rows(own)
    order = rows.argsort()
    return tuple(column[order] for column in columns)


def information_of(
    data: Coefficients, references: References, which: Tensor, rotation: Tensor, shift: Tensor
) -> Tensor:
    """Fisher information (N, 6, 6) of poses (:class:`modpose.search.so3_climb.PosedVolumes`).

    ``which`` (N,) is the reference of each volume.
    """

    def compute(rows: Tensor, here: Coefficients) -> Columns:
        at = (torch.arange(len(rows)), which[rows], rotation[rows], shift[rows])
        return (climb(here, references, *at, steps=0).information,)

    return row_by_row(data, compute)[0]


def sums_of_all(
    volumes: Coefficients, slot: Tensor, slots: int, rotation: Tensor, shift: Tensor
) -> FourierSums:
    """Add up posed volumes; arguments as of :func:`modpose.fourier.insertion.insert_slices`."""

    def own() -> Columns:
        rows, here = own_part(volumes)
        sums = insert_slices(here, slot[rows], slots, rotation[rows], shift[rows])
        return torch.view_as_real(sums.value), sums.weight

    value, weight = ranks.total(own)
    return FourierSums(torch.view_as_complex(value), weight, OVERSAMPLING * volumes.box)

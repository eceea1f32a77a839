"""Sums of the processes of one machine, in memory that they share.

A sum by sockets copies every number several times through the kernel.  Here each process copies its
numbers into a row of the memory, adds up its share of all rows, and copies the sums back.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

FOLDER = Path("/dev/shm")
"""Where Linux keeps files in memory."""
ROW = 1 << 23
"""Bytes of a row.  More are added up in parts."""
LEAST = 1 << 16
"""Bytes from which this pays."""


def make_file(processes: int) -> str:
    """Make the file of the memory; the empty string where there is no room for it."""
    path = ""
    try:
        handle, path = tempfile.mkstemp(prefix="modpose-", dir=FOLDER)
        with os.fdopen(handle, "wb"):
            os.posix_fallocate(handle, 0, (processes + 1) * ROW)  # writing never finds it full
    except (OSError, AttributeError):
        Path(path).unlink(missing_ok=True) if path else None
        return ""
    return path


def open_file(path: str, processes: int) -> Tensor | None:
    """Return the rows of the memory, one for each process and one of sums; None if not there."""
    if not path or not Path(path).is_file():  # that of another machine
        return None
    rows = processes + 1
    try:
        whole = torch.from_file(path, shared=True, size=rows * ROW, dtype=torch.uint8)
    except RuntimeError:  # it may not be opened
        return None
    return whole.view(rows, ROW)


def add_up(tensors: Sequence[Tensor], rows: Tensor, rank: int, meet: Callable[[], None]) -> None:
    """Add up tensors of the same shapes over all processes, in place.

    Parameters
    ----------
    tensors
        Contiguous, of one type, in the memory of the host.
    rows
        Of :func:`open_file`.
    rank
        The row of this process.
    meet
        Waits until all processes have called it.
    """
    *given, total = rows.view(tensors[0].dtype)
    for pieces in _loads(tensors, total.numel()):
        lengths = [len(piece) for piece in pieces]
        n, size = sum(lengths), len(given)
        torch.cat(pieces, out=given[rank][:n])
        meet()
        share = slice(rank * n // size, (rank + 1) * n // size)
        torch.add(given[0][share], given[1][share], out=total[share])
        for row in given[2:]:
            total[share] += row[share]
        meet()
        for piece, found in zip(pieces, torch.split(total[:n], lengths), strict=True):
            piece.copy_(found)


def _loads(tensors: Sequence[Tensor], room: int) -> Iterator[list[Tensor]]:
    """Cut tensors into pieces, and yield those that fill a row together."""
    pieces, left = [], room
    for tensor in tensors:
        flat = tensor.view(-1)
        while len(flat):
            piece, flat = flat[:left], flat[left:]
            pieces.append(piece)
            left -= len(piece)
            if not left:
                yield pieces
                pieces, left = [], room
    if pieces:
        yield pieces

"""Several processes that compute one result: on one machine or many, by ``torch.distributed``.

``modpose fit --devices N`` starts the processes of one machine (:mod:`modpose.processes`);
``torchrun`` and ``srun`` start those of many.  Each process has a rank, 0 to N - 1; that of rank 0
leads: it reads the options, prints, and writes files.

Within :func:`joined` the processes run the same code.  Each computes its :func:`share`, and
:func:`sum`, :func:`once` and :func:`gathered` join the results.  Elsewhere, and in a process that
has no others, these functions return what they are given.  :func:`rows` and :func:`total` also join
the results of processes that run at other times, within :func:`by_files`.
"""

from __future__ import annotations

import builtins
import io
import os
import pickle
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor
from torch import distributed as dist

from modpose import shared_memory
from modpose.errors import InputError, TrainingError
from modpose.parts import Columns, Parts, added, joined_rows

T = TypeVar("T")

PATIENCE = timedelta(days=30)
"""Longest time that a process waits for the others: the leader may search for poses first."""
MOST = 4096
"""Largest number of processes."""


class Place(NamedTuple):
    """Rank of this process, number of processes, and its number on its machine."""

    rank: int
    size: int
    local: int


ALONE = Place(0, 1, 0)
_TIMES = count()
_engine: Any = dist  # what torch does not declare
_parts: Parts | None = None
_rows: Tensor | None = None
"""Memory that all processes share, if they run on one machine."""


def place() -> Place:
    """Read the place of this process from the variables of ``torchrun`` or ``srun``."""
    known = os.environ
    if _parts is not None:
        return Place(max(0, _parts.shard.number - 1), _parts.shard.of, 0)
    if "RANK" in known and "WORLD_SIZE" in known:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    elif "SLURM_STEP_NUM_TASKS" in known:  # set for the tasks of srun, not for a batch script
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
    else:
        return ALONE
    try:
        found = Place(*(int(known.get(name, "0")) for name in names))
    except ValueError:
        found = Place(-1, 0, 0)
    if not 0 <= found.rank < found.size <= MOST or found.local < 0:
        text = ", ".join(f"{name}={known.get(name)}" for name in names)
        raise InputError.of("the environment", "the place of the process", text, "whole numbers")
    return found


def leads() -> bool:
    """Return whether this process reads the options and writes the files."""
    return place().rank == 0 if _parts is None else _parts.shard.number == 0


@contextmanager
def by_files(parts: Parts | None) -> Iterator[None]:
    """Within this context, meet the other processes in files instead.

    Raises
    ------
    InputError
        If this process is one of several that run together.
    """
    global _parts
    if parts is not None and place().size > 1:
        raise InputError("--shard: not with --devices, --nodes, torchrun or srun")
    _parts = parts
    try:
        yield
    finally:
        _parts = None


def enter(stage: str) -> None:
    """Begin a stage of a computation :func:`by_files`, from which a process may start."""
    if _parts is not None:
        _parts.enter(stage)


@contextmanager
def joined() -> Iterator[None]:
    """Connect the processes within this context; all of them have to enter it.

    Inside another one it changes nothing.

    Raises
    ------
    TrainingError
        If another process ends before this one.
    """
    global _rows
    here = place()
    if here.size == 1 or several() or _parts is not None:
        yield
        return
    _find_leader()
    gpu = torch.cuda.is_available() and dist.is_nccl_available()
    with _connected():
        found = _engine.rendezvous("env://", here.rank, here.size, timeout=PATIENCE)
        store, *_ = next(found)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if gpu else "gloo",
            store=_engine.PrefixStore(f"joined-{next(_TIMES)}", store),
            rank=here.rank,
            world_size=here.size,
            timeout=PATIENCE,
        )
    try:
        _rows = None if gpu else _shared_rows(here.size)
        yield
    finally:
        _rows = None
        dist.destroy_process_group()


def several() -> bool:
    """Return whether this process computes one result with others, inside :func:`joined`."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def share(items: Sequence[T]) -> Sequence[T]:
    """Return the items that this process computes: every N-th one."""
    rank, size = _seat()
    return items[rank::size] if size > 1 else items


def part_of(count: int) -> slice:
    """Return the rows that this process computes: one stretch of them, equally long in each."""
    if _parts is not None and not _parts.shard.number:
        return slice(0, 1)  # the process that adds up computes none
    rank, size = _seat()
    return slice(rank * count // size, (rank + 1) * count // size)


def sum(tensor: Tensor) -> Tensor:
    """Add up a tensor of the same shape over all processes; changed in place, and returned.

    A sparse one is not changed; each process may have other rows, and gets all.
    """
    if not several():
        return tensor
    if tensor.is_sparse:
        own = tensor.coalesce()
        parts = gathered((own.indices(), own.values()))
        index = torch.cat([index for index, _ in parts], dim=1)
        values = torch.cat([values for _, values in parts])
        whole = torch.sparse_coo_tensor(index, values, tensor.shape, check_invariants=False)
        return whole.coalesce().to(tensor.device)
    sum_together([tensor])
    return tensor


def sum_together(tensors: Sequence[Tensor]) -> None:
    """Add up dense tensors of one type and device over all processes, in place."""
    if not several():
        return
    whole = [tensor.contiguous() for tensor in tensors]
    with _connected():
        if _rows is not None and builtins.sum(t.nbytes for t in whole) >= shared_memory.LEAST:
            shared_memory.add_up(whole, _rows, dist.get_rank(), dist.barrier)
        elif len(whole) == 1:
            dist.all_reduce(whole[0])
        else:
            joint = torch.cat([tensor.view(-1) for tensor in whole])
            dist.all_reduce(joint)
            whole = list(torch.split(joint, [tensor.numel() for tensor in whole]))
    for tensor, found in zip(tensors, whole, strict=True):
        if found is not tensor:
            tensor.copy_(found.view_as(tensor))


def once(make: Callable[[], T]) -> T:
    """Return what ``make`` returns in the leading process; the others do not call it."""
    if not several():
        return make()
    sent = [_packed(make()) if leads() else b""]
    with _connected():
        dist.broadcast_object_list(sent)
    return cast(T, _unpacked(sent[0]))


def gathered(part: T) -> list[T]:
    """Return what each process gives, in the order of ranks, in all processes."""
    if not several():
        return [part]
    parts: list[bytes] = [b""] * dist.get_world_size()
    with _connected():
        dist.all_gather_object(parts, _packed(part))
    return [cast(T, _unpacked(one)) for one in parts]


def rows(make: Callable[[], Columns]) -> Columns:
    """Concatenate the rows (n, ...) that each process makes."""
    if _parts is not None:
        return _parts.meet(make, joined_rows)
    return joined_rows(gathered(make()))


def total(make: Callable[[], Columns]) -> Columns:
    """Add up the tensors that each process makes; all have the same shapes."""
    if _parts is not None:
        return _parts.meet(make, added)
    return tuple(sum(part) for part in make())


def _seat() -> tuple[int, int]:
    """Return which part of a joint computation is that of this process, and of how many."""
    if several():
        return dist.get_rank(), dist.get_world_size()
    return place()[:2] if _parts is not None else (0, 1)


def _shared_rows(size: int) -> Tensor | None:
    """Open memory that all processes share; None if one of them runs on another machine."""
    made = shared_memory.make_file(size) if leads() else ""
    try:
        rows = shared_memory.open_file(once(lambda: made), size)
        everywhere = all(gathered(rows is not None))
    finally:
        if made:
            Path(made).unlink()  # the memory stays until the last process ends
    return rows if everywhere else None


@contextmanager
def _connected() -> Iterator[None]:
    """Say in a sentence that a process has lost the others."""
    try:
        yield
    except RuntimeError:
        here = place()
        raise TrainingError(
            f"process {here.rank + 1} of {here.size} has lost the others: one of them has ended"
        ) from None


def _find_leader() -> None:
    """Set the address of the leading process, where ``srun`` has not done so."""
    if "MASTER_ADDR" not in os.environ:
        nodes = os.environ.get("SLURM_STEP_NODELIST", "127.0.0.1")
        first = re.match(r"([^,\[]+)(?:\[(\d+))?", nodes)
        os.environ["MASTER_ADDR"] = "".join(part or "" for part in first.groups()) if first else ""
    if "MASTER_PORT" not in os.environ:
        job, step = (int(os.environ.get(name, "0")) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
        os.environ["MASTER_PORT"] = str(20_000 + (31 * job + step) % 20_000)


def _packed(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, pickle_protocol=pickle.HIGHEST_PROTOCOL)
    return file.getvalue()


def _unpacked(content: bytes) -> object:
    """Unpack data of another process of this run; tensors are moved to the CPU.

    The data never come from a file.  They hold classes of modpose, which safe loading refuses.
    """
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=False)

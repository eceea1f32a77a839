"""What an image costs at several box sizes, how that grows, and the share of the machine's limit.

    python -m benchmarks.cost
    python -m benchmarks.cost --box 32 64 --recipe modpose-posed
    python -m benchmarks.cost --recipe modpose --precision bf16-mixed

For each recipe and box: milliseconds of processor time for an image in a step of training, and for
encoding one; a power law through them; and the shares that training reaches of the machine's
limits: operations of its matrix products and convolutions in a second, over those of a large
float32 matrix product; and bytes that all its operations read and write in a second, over those of
a large copy, in the same process.  Of a table the rows that are looked up are counted.  What lies
in a cache counts too, so the second share may exceed one.  A search of volumes for poses is
measured alike.  Times are of one thread, so that what else the machine does hardly counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from benchmarks import gpu, machine
from modpose.config import parse_config
from modpose.fourier.coefficients import map_coefficients
from modpose.fourier.reference import make_references
from modpose.geometry.groups import grid_spacing, so3_grid
from modpose.memory import keep_freed_memory
from modpose.model.build import build_vae
from modpose.recipes import recipe_config
from modpose.search.classify import SHIFT_STEP, Schedule
from modpose.search.settings import AlignSettings
from modpose.search.so3_search import search, shift_grid

HOST = torch.device("cpu")
SIDE = 1024
COPIED = 1 << 26
VOLUMES = 32
BATCHES = {"modpose": 50, "modpose-posed": 32}
"""Images of a step."""
TABLES = ("_embedding_bag", "_embedding_bag_forward_only", "index", "index_select", "gather")
"""Operations that read some rows of their first tensor."""
HEADER = (
    "recipe",
    "box",
    "train, ms",
    "encode, ms",
    "of products",
    "of memory",
    "an epoch of ten million, days",
)
TEN_MILLION = 1e7


def seconds(work: Callable[[], object], least: float) -> float:
    """Processor seconds of one call, the least of some."""
    work()
    found: list[float] = []
    while len(found) < 2 or sum(found) < least:
        begun = time.process_time()
        work()
        found.append(time.process_time() - begun)
    return min(found)


class Amount(NamedTuple):
    """Operations of matrix products and convolutions, and bytes; or both in a second."""

    operations: float
    bytes: float


def limit() -> Amount:
    """Operations a second of a large matrix product, and bytes of a large copy."""
    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    large, other = torch.zeros(COPIED), torch.zeros(COPIED)
    copied = 2 * large.nbytes / seconds(lambda: other.copy_(large), 0.5)
    return Amount(2 * SIDE**3 / seconds(lambda: a @ b, 0.5), copied)


def moved(func: Any, args: Sequence[Any], kwargs: Any, found: object) -> int:
    """Bytes that an operation reads and writes."""
    kept = [part.alias_info for part in func._schema.returns]
    name = func.overloadpacket.__name__
    if "empty" in name or any(alias is not None and not alias.is_write for alias in kept):
        return 0  # nothing is written, or a view is made
    given = [part for part in tree_leaves((args, kwargs)) if isinstance(part, torch.Tensor)]
    written = sum(part.nbytes for part in tree_leaves(found) if isinstance(part, torch.Tensor))
    if name not in TABLES:
        return written + sum(part.nbytes for part in given)
    table, rest = given[0], sum(part.nbytes for part in given[1:])
    read = given[1].numel() * table[0].nbytes if "embedding" in name else written
    return written + rest + read


class Counted(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations of matrix products and convolutions, and all bytes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total, self.bytes = 0, 0

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Do it, and count it."""
        found = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.total += int(count(*args, **(kwargs or {}), out_val=found))
        self.bytes += moved(func, args, kwargs, found)
        return found


def amount(work: Callable[[], object]) -> Amount:
    """What a call computes and moves."""
    with Counted() as counter:
        work()
    return Amount(counter.total, counter.bytes)


def law(box: Sequence[int], cost: Sequence[float]) -> str:
    """Describe the power law of least squares."""
    power, constant = np.polyfit(np.log(np.asarray(box) / 64), np.log(cost), 1)
    return f"{np.exp(constant):.2g} ms x (box / 64)^{power:.2f}"


def encoder(family: gpu.Family) -> Callable[[], object]:
    """Return the encoding of a batch, without search."""
    config = parse_config(recipe_config(family.recipe) | {"seed": 0}, family.recipe)
    vae = build_vae(config, shape=family.shape, channels=1, n_images=family.batch).eval()
    batch = gpu.batch_of(family, HOST)

    def encode() -> None:
        with torch.no_grad():
            vae.posterior(gpu.copied(batch)).best()

    return encode


def searcher() -> Callable[[], object]:
    """Return the search of modpose align, with its settings, for some volumes and two classes."""
    schedule, settings = Schedule(), AlignSettings()
    volumes = torch.randn(VOLUMES, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    data = map_coefficients(volumes, schedule.grid_limit)
    references = make_references(volumes[:2], data.limit)
    grid = so3_grid(schedule.rotations).float()
    shifts = shift_grid(settings.max_shift_px, SHIFT_STEP / data.limit)
    apart = 1.5 * grid_spacing(schedule.rotations)
    return lambda: search(data, references, grid, shifts, top=2, apart=apart)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description=__doc__)
    parser.add_argument("--box", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--recipe", nargs="+", choices=BATCHES, default=list(BATCHES))
    parser.add_argument(
        "--precision", choices=("32-true", "bf16-mixed"), default="32-true", help="of training"
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="least time for a figure")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    keep_freed_memory()
    print(machine.sentence(1), flush=True)
    most = limit()
    limits = f"{most.operations / 1e9:.0f} billion operations, {most.bytes / 1e9:.0f} GB a second"
    print(f"limits: {limits}\n{' | '.join(HEADER)}", flush=True)
    families = {family.recipe: family for family in gpu.FAMILIES}
    for recipe in options.recipe:
        costs: list[tuple[float, float]] = []
        for box in options.box:
            count = BATCHES[recipe]
            family = replace(families[recipe], shape=(box, box), batch=count)
            step, encode = gpu.stepper(family, HOST, options.precision), encoder(family)
            taken = seconds(step, options.seconds)
            done = amount(step)
            share = [part / taken / full for part, full in zip(done, most, strict=True)]
            cost = 1e3 * taken / count, 1e3 * seconds(encode, options.seconds) / count
            costs.append(cost)
            days = TEN_MILLION * cost[0] / 1e3 / 86400
            reached = f"{share[0]:.0%} | {share[1]:.0%}"
            print(
                f"{recipe} | {box} | {cost[0]:.3g} | {cost[1]:.3g} | {reached} | {days:.2g}",
                flush=True,
            )
        if len(costs) > 1:
            train, read = zip(*costs, strict=True)
            print(f"{recipe}: train {law(options.box, train)}, encode {law(options.box, read)}")
    find = searcher()
    taken = seconds(find, options.seconds)
    part, each = amount(find).operations / taken / most.operations, 1e3 * taken / VOLUMES
    print(f"search: {each:.0f} ms for a volume and two classes, {part:.0%} of products")


if __name__ == "__main__":
    main()

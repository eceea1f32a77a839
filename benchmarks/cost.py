"""What an image costs at several box sizes, how that grows, and the share of the machine's limit.

    python -m benchmarks.cost
    python -m benchmarks.cost --box 32 64 --recipe modpose-posed

For each recipe and box: milliseconds of processor time for an image in a step of training, and for
encoding one; a power law through them; and the share that training reaches of the machine's limit:
operations of its matrix products and convolutions in a second, over those of a large float32 matrix
product in the same process.  A search of volumes for poses is measured alike.  Times are of one
thread, so that what else the machine does hardly counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
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
VOLUMES = 32
BATCHES = {"modpose": 50, "modpose-posed": 64}
HEADER = (
    "recipe",
    "box",
    "train, ms",
    "encode, ms",
    "share of the limit",
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


def limit() -> float:
    """Operations a second of a large matrix product."""
    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    return 2 * SIDE**3 / seconds(lambda: a @ b, 0.5)


class Operations(TorchDispatchMode):
    """Counts the operations of matrix products and convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Do it, and count it."""
        found = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.total += int(count(*args, **(kwargs or {}), out_val=found))
        return found


def operations(work: Callable[[], object]) -> int:
    """Operations of the matrix products and convolutions of a call."""
    with Operations() as counter:
        work()
    return counter.total


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
    parser.add_argument("--seconds", type=float, default=1.0, help="least time for a figure")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    keep_freed_memory()
    print(machine.sentence(1), flush=True)
    most = limit()
    print(f"limit: {most / 1e9:.0f} billion operations a second\n{' | '.join(HEADER)}", flush=True)
    families = {family.recipe: family for family in gpu.FAMILIES}
    for recipe in options.recipe:
        costs: list[tuple[float, float]] = []
        for box in options.box:
            count = max(4, BATCHES[recipe] * 64 // max(box, 64))
            family = replace(families[recipe], shape=(box, box), batch=count)
            step, encode = gpu.stepper(family, HOST), encoder(family)
            taken = seconds(step, options.seconds)
            share = operations(step) / taken / most
            cost = 1e3 * taken / count, 1e3 * seconds(encode, options.seconds) / count
            costs.append(cost)
            days = TEN_MILLION * cost[0] / 1e3 / 86400
            print(
                f"{recipe} | {box} | {cost[0]:.3g} | {cost[1]:.3g} | {share:.0%} | {days:.2g}",
                flush=True,
            )
        if len(costs) > 1:
            train, read = zip(*costs, strict=True)
            print(f"{recipe}: train {law(options.box, train)}, encode {law(options.box, read)}")
    find = searcher()
    taken = seconds(find, options.seconds)
    share, each = operations(find) / taken / most, 1e3 * taken / VOLUMES
    print(f"search: {each:.0f} ms for a volume and two classes, {share:.0%} of the limit")


if __name__ == "__main__":
    main()

"""One training step: the textbook's against modpose's, on this machine, in one run.

    python -m benchmarks.step --system target-vae

Every contestant has a process of its own, so that none profits from another's memory; they take
turns, one step each, so that all meet the same weather.  With one thread, times are those of the
processor, so that what else the machine does hardly counts.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from unittest import mock

import torch
from torch import Tensor

from benchmarks import digits, machine, textbook
from benchmarks.parity import parity, parity_lines
from benchmarks.race import SO3Normal, race, table
from benchmarks.systems import (
    SPATIAL,
    SYSTEMS,
    Size,
    System,
    learner_step,
    make_learner,
    step_config,
)
from modpose.memory import keep_freed_memory


@dataclass(frozen=True)
class Contestant:
    """One way to take a step.

    Attributes
    ----------
    name
        Of its line in the table.
    recipe
        Of modpose; None is the textbook.
    precision
        As ``train.precision``.
    reuses_memory
        Whether :func:`modpose.memory.keep_freed_memory` is called.
    """

    name: str
    recipe: str | None
    precision: str = "32-true"
    reuses_memory: bool = True


def contestants(system: System, *, bf16: bool, other_allocator: bool) -> list[Contestant]:
    """Return the textbook, exact mode, and the recipes; on request with the other allocator."""
    half = Contestant("exact, bf16-mixed", system.exact, precision="bf16-mixed")
    found = [
        Contestant("textbook", None, reuses_memory=False),
        Contestant("exact, float32", system.exact),
        *([half] if bf16 else []),
        *(Contestant(f"recipe {recipe}", recipe) for recipe in system.recipes),
    ]
    if other_allocator:
        found += [
            Contestant("textbook, freed memory kept", None),
            Contestant("exact, default allocator", system.exact, reuses_memory=False),
            *(
                Contestant(f"{recipe}, default allocator", recipe, reuses_memory=False)
                for recipe in system.recipes
            ),
        ]
    return found


def make_step(system: System, contestant: Contestant, size: Size) -> SO3Normal:
    """Make a contestant in the process that it is called in."""
    generator = torch.Generator().manual_seed(0)
    work: Callable[[], object]
    if contestant.recipe is None:
        if contestant.reuses_memory:
            keep_freed_memory()
        images = _images(system, system.step_batch if size.batch is None else size.batch)
        model = system.make_textbook(size.hidden)
        optimizer = textbook.adam(model, system.lr)
        work = partial(textbook.train_step, model, optimizer, images, generator)
        return SO3Normal(work, len(images))
    config = step_config(system, contestant.recipe, size, contestant.precision)
    images = _images(system, config.train.batch_size)
    with ExitStack() as stack:
        if not contestant.reuses_memory:
            stack.enter_context(mock.patch("modpose.train.learner.keep_freed_memory"))
        learner = make_learner(system, config)
    learner.vae.train()
    return SO3Normal(partial(learner_step, learner, config, images, generator), len(images))


def _images(system: System, count: int) -> Tensor:
    return torch.from_numpy(digits.posed_digits(None, count, 1, posing=system.posing)[0])


def conclusions(system: System, taken: dict[str, list[float]]) -> str:
    """Say in words what the table means on this machine."""
    middle = {name: statistics.median(values) for name, values in taken.items()}
    exact, half = middle["exact, float32"], middle.get("exact, bf16-mixed", math.inf)
    best = middle["textbook"] / min(exact, half)
    unit = "has a bf16 matrix unit" if machine.has_bf16_unit() else "has no bf16 matrix unit"
    if half < exact:
        advice = f"bf16 is {exact / half:.1f}x as fast as float32: set train.precision=bf16-mixed"
    elif math.isfinite(half):
        advice = f"bf16 is {half / exact:.1f}x slower than float32: leave train.precision alone"
    else:
        advice = "bf16 was not timed"
    gains = ", ".join(
        f"recipe {recipe} {middle['textbook'] / middle[f'recipe {recipe}']:.1f}x"
        for recipe in system.recipes
    )
    return (
        f"This processor {unit}; {advice}.\n"
        f"Exact mode, every pixel, is {best:.1f}x the textbook's step here; {gains}."
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__)
    parser.add_argument("--system", choices=SYSTEMS, default=SPATIAL.name)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument(
        "--batch-size",
        type=int,
        help="images in a step of the textbook and of exact mode; the papers' 100 take 8.5 GB "
        "for TARGET-VAE, whose default is smaller",
    )
    parser.add_argument("--hidden", type=int, help="units per layer, for all contestants")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--parity-steps", type=int, default=40, help="training before the check")
    parser.add_argument(
        "--skip-bf16",
        action="store_true",
        help="leave bfloat16 out, which is slow where the processor has no unit for it",
    )
    parser.add_argument(
        "--default-allocator",
        action="store_true",
        help="show too what each costs with the C library's allocator as it is, and the "
        "textbook with freed memory kept",
    )
    options = parser.parse_args(arguments)
    system = SYSTEMS[options.system]
    torch.set_num_threads(options.threads)
    print(machine.sentence(options.threads), flush=True)
    size = Size(options.hidden, options.batch_size)
    taken = race(
        {
            each.name: partial(make_step, system, each, size)
            for each in contestants(
                system, bf16=not options.skip_bf16, other_allocator=options.default_allocator
            )
        },
        repetitions=options.repetitions,
        warm_up=options.warm_up,
        threads=options.threads,
    )
    print(f"\n{table(taken, 'textbook', f'{system.name}, a step')}")
    print(f"\n{conclusions(system, taken)}", flush=True)
    gaps = parity(system, size, options.parity_steps, bf16=not options.skip_bf16)
    print(parity_lines(gaps), flush=True)
    if not all(gap.holds() for gap in gaps.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

"""One training step on projections of given pose: the textbook's against modpose's.

    python -m benchmarks.slices --box 64

Contestants take turns as in :mod:`benchmarks.step`; with one thread, times are those of the
processor.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks import machine
from benchmarks.race import SO3Normal, race, table
from benchmarks.systems import step_optimizers
from benchmarks.textbook.cryodrgn import CryoDrgn, Posed
from modpose.config import merge, parse_config
from modpose.data.batches import Batch
from modpose.geometry.pose import Pose
from modpose.geometry.rotations import haar_rotations
from modpose.model.build import build_vae
from modpose.observe.ctf import ctf_2d
from modpose.recipes import recipe_config
from modpose.train.learner import set_up

CTF = [4.0, 12000.0, 11000.0, 30.0, 300.0, 2.7, 0.1, 0.0, 0.0]


def make_batch(box: int, size: int) -> Batch:
    """Noise in random poses."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(size, 1, box, box, generator=generator)
    pose = Pose(haar_rotations(size, generator=generator), torch.randn(size, 2))
    return Batch(torch.arange(size), images, torch.tensor(CTF).expand(size, 9), pose)


def textbook_turn(box: int, size: int) -> SO3Normal:
    """Return the textbook's step."""
    batch = make_batch(box, size)
    assert batch.pose is not None and batch.ctf is not None
    transfer = ctf_2d(batch.ctf, (box, box))
    posed = Posed(batch.image[:, 0], *batch.pose, transfer)
    model, generator = CryoDrgn(box), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        model.loss(posed, generator).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return SO3Normal(step, size)


def modpose_turn(recipe: str, box: int, size: int, precision: str) -> SO3Normal:
    """Return the step of modpose's training loop."""
    options: dict[str, Any] = {"train": {"precision": precision}, "model": {"z_dim": 8}}
    if recipe == "modpose-posed":
        options["model"] |= {"z_dim": 6}  # as many as it has motions
    config = parse_config(merge(recipe_config(recipe), options), recipe)
    learner = set_up(build_vae(config, shape=(box, box), channels=1, n_images=size), config)
    batch, generator = make_batch(box, size), torch.Generator().manual_seed(0)
    return SO3Normal(partial(step_optimizers, learner, batch, generator), size)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--box", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--skip-bf16", action="store_true")
    options = parser.parse_args(arguments)
    print(machine.sentence(options.threads))
    for box in options.box:
        size = options.batch_size
        contestants: dict[str, Callable[[], SO3Normal]] = {
            "textbook": partial(textbook_turn, box, size),
            "cryodrgn, float32": partial(modpose_turn, "cryodrgn", box, size, "32-true"),
            "modpose-posed, float32": partial(modpose_turn, "modpose-posed", box, size, "32-true"),
        }
        if not options.skip_bf16:
            half = partial(modpose_turn, "cryodrgn", box, size, "bf16-mixed")
            contestants["cryodrgn, bf16-mixed"] = half
        taken = race(
            contestants, repetitions=options.repetitions, warm_up=1, threads=options.threads
        )
        print(table(taken, "textbook", f"a step on {box} x {box}, batch {size}"))


if __name__ == "__main__":
    main()

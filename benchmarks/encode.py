"""How many images per second are encoded to content and pose: no search, no decoding for a bound.

    python -m benchmarks.encode

With one thread, with two threads, and with two processes of one thread each.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import torch

from benchmarks import digits, machine
from benchmarks.systems import TARGET, Size, as_batch, recipe_options
from modpose.config import parse_config
from modpose.memory import keep_freed_memory
from modpose.model.build import build_vae
from modpose.model.vae import Vae

BATCH = 100


class Rate(NamedTuple):
    """Images a second, on the wall's clock and by the processor time that they took."""

    wall: float
    processor: float


class Task(NamedTuple):
    """What one process encodes.

    Attributes
    ----------
    recipe
        Whose untrained model; what it costs does not depend on the training.
    images
        How many.
    threads
        Of the processor.
    """

    recipe: str
    images: int
    threads: int


def make_vae(recipe: str) -> Vae:
    """Return an untrained model for the digits of the TARGET-VAE paper."""
    config = parse_config(recipe_options(TARGET, recipe, Size()), recipe)
    return build_vae(config, shape=TARGET.shape, channels=1, n_images=1).eval()


@torch.no_grad()
def encode(task: Task) -> tuple[float, float]:
    """Encode images to z, angle and shift; seconds on the wall's clock, and of the processor."""
    torch.set_num_threads(task.threads)
    keep_freed_memory()
    vae = make_vae(task.recipe)
    few = torch.from_numpy(digits.posed_digits(None, BATCH, 1, posing=TARGET.posing)[0])
    batch = as_batch(few)
    vae.posterior(batch).best()  # the first takes longer
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(task.images // BATCH):
        best = vae.posterior(batch).best()
    assert torch.isfinite(best.z).all() and torch.isfinite(best.shift).all()
    return time.perf_counter() - wall, time.process_time() - processor


def threads_rate(recipe: str, images: int, threads: int) -> Rate:
    """Encode in one process with so many threads."""
    with ProcessPoolExecutor(1, mp_context=machine.fresh_processes()) as pool:
        wall, processor = pool.submit(encode, Task(recipe, images, threads)).result()
    return Rate(images / wall, threads * images / processor)


def processes_rate(recipe: str, images: int, count: int) -> Rate:
    """Encode half of the images (or another part) in each of so many processes at once."""
    task = Task(recipe, images // count, 1)
    with ProcessPoolExecutor(count, mp_context=machine.fresh_processes()) as pool:
        taken = list(pool.map(encode, [task] * count))
    done = count * task.images
    return Rate(
        done / max(wall for wall, _ in taken),
        sum(task.images / processor for _, processor in taken),
    )


WAYS: dict[str, Callable[[str, int], Rate]] = {
    "one thread": lambda recipe, images: threads_rate(recipe, images, 1),
    "two threads": lambda recipe, images: threads_rate(recipe, images, 2),
    "two processes": lambda recipe, images: processes_rate(recipe, images, 2),
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encode", description=__doc__)
    parser.add_argument("--images", type=int, default=2000, help="a multiple of 200")
    parser.add_argument("--recipe", action="append", help="may be repeated; default: modpose")
    options = parser.parse_args(arguments)
    print(machine.sentence(), flush=True)
    side = TARGET.posing.box
    print(
        f"\n{f'encoding {side}x{side}, images a second':40} {'by the wall':>12} "
        f"{'by processor time':>18}"
    )
    for recipe in options.recipe or ["modpose"]:
        for way, measure in WAYS.items():
            rate = measure(recipe, options.images)
            print(f"{f'{recipe}, {way}':40} {rate.wall:12.0f} {rate.processor:18.0f}", flush=True)


if __name__ == "__main__":
    main()

"""What it costs to read images from the disk while a model trains on them.

    python -m benchmarks.reading
    python -m benchmarks.reading --gigabytes 4 --box 128 --steps 100

Steps of training on a stack of random numbers, in random order: first after the operating system
was told to forget the file (a cold cache), then again on the same images (a warm one).  Printed are
the images per second of processor time, the share of the clock for which training waits for a
batch, and the speed of reading alone.  On a busy machine, the share that waits says most.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks import machine
from modpose.config import merge, parse_config
from modpose.data.batches import Batch
from modpose.data.dataset import Dataset, cut, dataset_of
from modpose.data.mrc import write_mrcs_parts
from modpose.data.source import open_source
from modpose.model.build import build_vae
from modpose.model.objective import Estimate
from modpose.recipes import recipe_config
from modpose.train.learner import set_up

AT_ONCE = 1000
HEADER = ("cache", "images/CPU s", "waits", "reading alone, images/s", "MB/s")


def write_stack(path: Path, count: int, box: int) -> None:
    """Write random images."""
    numbers = np.random.default_rng(0)
    parts = (
        numbers.standard_normal((min(AT_ONCE, count - first), box, box), np.float32)
        for first in range(0, count, AT_ONCE)
    )
    write_mrcs_parts(path, parts, (count, box, box), 1.0)


def forget(path: Path) -> None:
    """Drop the file from the cache of the operating system."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def trained(dataset: Dataset, parts: list[np.ndarray], recipe: str) -> tuple[float, float]:
    """Train on these batches; images per second of processor time, and share of waiting."""
    config = parse_config(merge(recipe_config(recipe), {"train": {"accelerator": "cpu"}}), recipe)
    vae = build_vae(config, shape=dataset.shape, channels=1, n_images=dataset.n)
    learner = set_up(vae, config)
    learner.vae.train()
    generator = torch.Generator().manual_seed(0)
    how, waited = Estimate(pixels=config.train.pixels), 0.0
    begun, used = time.perf_counter(), time.process_time()
    batches: Iterator[Batch] = dataset.each(parts)
    for _ in parts:
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        loss = -learner.objective(batch, generator, how).value().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in learner.optimizers:
            optimizer.step()
            optimizer.zero_grad()
    images = sum(map(len, parts))
    taken = time.perf_counter() - begun
    return images / (time.process_time() - used), waited / taken


def read(dataset: Dataset, parts: list[np.ndarray]) -> float:
    """Read these batches; images per second of the clock."""
    begun = time.perf_counter()
    count = sum(len(batch) for batch in dataset.each(parts))
    return count / (time.perf_counter() - begun)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reading", description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--recipe", default="modpose")
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(machine.sentence(1), flush=True)
    count = int(options.gigabytes * 1e9 / (4 * options.box**2))
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        path = Path(name) / "random.mrcs"
        write_stack(path, count, options.box)
        config = parse_config(recipe_config(options.recipe), options.recipe)
        dataset = dataset_of(open_source(path), config)
        order = np.random.default_rng(1).permutation(dataset.train)
        parts = cut(order, config.train.batch_size)[: 2 * options.steps]
        size = 4 * options.box**2 / 1e6
        print(f"{count:,} images of {options.box}^2, {count * size / 1e3:.1f} GB")
        print(" | ".join(HEADER), flush=True)
        for cache in ("cold", "warm"):
            if cache == "cold":
                forget(path)
            speed, waits = trained(dataset, parts[: options.steps], options.recipe)
            alone = read(dataset, parts[options.steps :])
            print(f"{cache} | {speed:.0f} | {waits:.1%} | {alone:.0f} | {alone * size:.0f}")


if __name__ == "__main__":
    main()

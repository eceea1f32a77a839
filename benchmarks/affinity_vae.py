"""Training steps of affinity-VAE on volumes: how many volumes per second of one core.

    python -m benchmarks.affinity_vae

Times are those of the processor, so that what else the machine does counts little.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch

from benchmarks import machine
from modpose.affinity import Affinity
from modpose.affinity.known import KnownAffinity
from modpose.config import AugmentConfig, merge, parse_config
from modpose.data.batches import Batch
from modpose.model.build import build_vae
from modpose.model.terms.affinity import AffinityTerm
from modpose.recipes import recipe_config
from modpose.train.augment import augmented
from modpose.train.learner import Learner, set_up

CLASSES = 6
AUGMENT = (AugmentConfig(), AugmentConfig(rotate="quarter-turns"), AugmentConfig(rotate="any"))


def make_learner(box: int, batch: Batch) -> Learner:
    """Return the recipe's model, untrained, with an affinity matrix of six unlike classes."""
    config = parse_config(
        merge(recipe_config("affinity-vae"), {"train": {"accelerator": "cpu"}}), "affinity-vae"
    )
    assert batch.label is not None
    names = tuple(map(str, range(CLASSES)))
    known = KnownAffinity(batch.label.numpy(), Affinity(np.eye(CLASSES), names))
    vae = build_vae(
        config, shape=[box] * 3, channels=1, n_images=len(batch), affinity=AffinityTerm(known)
    )
    learner = set_up(vae, config)
    learner.vae.train()
    return learner


def seconds_per_volume(box: int, size: int, how: AugmentConfig, steps: int) -> list[float]:
    """Processor seconds per volume of each of so many steps, after one that warms up."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(size, 1, box, box, box, generator=generator)
    batch = Batch(torch.arange(size), images, label=torch.arange(size) % CLASSES)
    learner = make_learner(box, batch)
    taken = []
    for _ in range(steps + 1):
        start = time.process_time()
        elbo = learner.objective(augmented(batch, how, generator), generator)
        (-elbo.value(1.0, {"affinity": 10.0}).mean()).backward()  # type: ignore[no-untyped-call]
        for optimizer in learner.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        taken.append((time.process_time() - start) / size)
    return taken[1:]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.affinity_vae", description=__doc__)
    parser.add_argument("--box", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=7)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(machine.sentence(), flush=True)
    for how in AUGMENT:
        taken = seconds_per_volume(given.box, given.batch_size, how, given.repetitions)
        middle, best = 1 / statistics.median(taken), 1 / min(taken)
        print(
            f"train.augment.rotate={how.rotate}: {middle:.0f} volumes of {given.box}^3 a "
            f"processor-second (best step {best:.0f})"
        )


if __name__ == "__main__":
    main()

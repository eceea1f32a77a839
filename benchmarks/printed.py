"""How long the papers' trainings would take here: a few steps of each, as printed.

    python -m benchmarks.printed

Steps are of random pictures, with every network, every pixel and every cell as printed; times are
those of the processor.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass, field

import torch

from benchmarks import machine
from modpose.config import Config, merge, parse_config
from modpose.data.batches import Batch
from modpose.model.build import build_vae
from modpose.model.objective import Estimate
from modpose.recipes import recipe_config
from modpose.recipes.recipe import Options
from modpose.train.learner import set_up

EVERY: Options = {"train": {"pixels": None, "accelerator": "cpu"}}
P8_LARGE: Options = {"model": {"z_dim": 32}}
NO_AFFINITY: Options = {"train": {"gamma": {"end": 0.0}}}


@dataclass(frozen=True)
class Printed:
    """A training that a paper prints.

    Attributes
    ----------
    title
        What is fitted.
    recipe, options
        Of the model.
    shape
        Of an image or volume.
    images, epochs
        Of the training.
    batch
        Images in a step here: as printed, or fewer where those would not fit into memory.
    """

    title: str
    recipe: str
    shape: tuple[int, ...]
    images: int
    epochs: int
    batch: int
    options: Options = field(default_factory=dict)

    def config(self) -> Config:
        """Return the recipe with every pixel decoded."""
        options = merge(merge(recipe_config(self.recipe), dict(EVERY)), dict(self.options))
        return parse_config(options, self.recipe)


def target(rotations: int, batch: int, more: Options | None = None) -> Printed:
    """TARGET-VAE with so many rotations of its kernels, on MNIST(U)."""
    options = merge({"model": {"encoder": {"rotations": rotations}}}, dict(more or {}))
    z = options["model"].get("z_dim", 2)
    title = f"TARGET-VAE P{rotations}, z {z}, digits"
    return Printed(title, "target-vae-paper", (50, 50), 60_000, 500, batch, options)


def width(hidden: int) -> Options:
    """As many units a layer as give a baseline the parameters of P8."""
    return {"model": {"encoder": {"hidden": hidden}, "field": {"hidden": hidden}}}


TRAININGS = (
    Printed("spatial-VAE, z 1, hinge", "spatial-vae-paper", (40, 40), 16_000, 500, 25),
    Printed("spatial-VAE, z 2, digits", "spatial-vae-paper", (28, 28), 60_000, 200, 25),
    Printed("VAE, z 4, rotated digits", "vae", (50, 50), 60_000, 500, 100, width(160)),
    Printed(
        "spatial-VAE, z 2, rotated digits",
        "spatial-vae-paper",
        (50, 50),
        60_000,
        500,
        25,
        width(279),
    ),
    target(4, 16),
    target(8, 8),
    target(8, 8, P8_LARGE),
    target(16, 4),
    Printed("vae-3d", "vae-3d", (28, 28, 28), 2_560, 400, 128),
    Printed("3D-SpVAE", "3d-spvae", (28, 28, 28), 2_560, 400, 1),
    Printed("3D-SpVAE++", "3d-spvae++", (28, 28, 28), 2_560, 400, 4),
    Printed("affinity-VAE, 64 x 64", "affinity-vae", (64, 64), 8_000, 500, 64, NO_AFFINITY),
    Printed("affinity-VAE, 32^3", "affinity-vae", (32, 32, 32), 6_000, 500, 64, NO_AFFINITY),
    Printed("affinity-VAE, 64^3", "affinity-vae", (64, 64, 64), 8_000, 500, 16, NO_AFFINITY),
)


def seconds_per_image(printed: Printed, steps: int) -> float:
    """Return the median processor time per image of so many steps, after one that warms up."""
    config = printed.config()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(printed.batch, 1, *printed.shape, generator=generator)
    vae = build_vae(config, shape=list(printed.shape), channels=1, n_images=printed.batch)
    learner = set_up(vae, config)
    learner.vae.train()
    batch = Batch(torch.arange(printed.batch), images)
    estimate = Estimate(augment=config.train.augment.rotate == "encoder-input")
    taken = []
    for _ in range(steps + 1):
        start = time.process_time()
        (-learner.objective(batch, generator, estimate).value().mean()).backward()  # type: ignore[no-untyped-call]
        for optimizer in learner.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        taken.append((time.process_time() - start) / printed.batch)
    return statistics.median(taken[1:])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.printed", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--only", help="trainings whose name contains this")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(machine.sentence(), flush=True)
    for printed in TRAININGS:
        if given.only and given.only not in printed.title:
            continue
        taken = seconds_per_image(printed, given.repetitions)
        seen = printed.images * printed.epochs
        print(
            f"{printed.title}: {1000 * taken:.1f} ms an image; {printed.images:,} images for "
            f"{printed.epochs} epochs would take {seen * taken / 3600:,.1f} processor hours",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""How many images per second the search for poses takes, before refinement and with it.

    python -m benchmarks.search

Three figures for each recipe: the posterior on the grid (every angle and shift, an image), its
modes climbed to the top on the full image, and the whole of it, refined by gradient and bounded.
With one thread, times are those of the processor.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks import digits, machine
from modpose.config import merge, parse_config
from modpose.data.batches import Batch
from modpose.distributions.normal import DiagonalNormal
from modpose.infer.refine import refine
from modpose.infer.search import grid_candidates, modes_of
from modpose.memory import keep_freed_memory
from modpose.model.build import build_vae
from modpose.model.settings import SearchSettings
from modpose.model.vae import Vae
from modpose.recipes import recipe_config
from modpose.simulate.digits import transform

RECIPES = ("modpose", "spatial-vae", "target-vae")
SHIFT_STD_PX = 5.0


class Rates(NamedTuple):
    """Images a second."""

    grid: float
    modes: float
    refined: float


def make_vae(recipe: str, box: int) -> Vae:
    """Return an untrained model of a recipe; what it costs does not depend on the training."""
    values = merge(
        recipe_config(recipe),
        {
            "model": {
                "z_dim": 2,
                "shift": {"std_px": SHIFT_STD_PX},
                "likelihood": {"kind": "bernoulli"},
            }
        },
    )
    config = parse_config(values, recipe)
    return build_vae(config, shape=(box, box), channels=1, n_images=1).eval()


def make_batch(n: int, box: int) -> Batch:
    """Return rotated and shifted digits."""
    upright, _ = digits.posed_digits(None, n, 1)
    images, _ = transform(upright, box=box, shift_std_px=SHIFT_STD_PX)
    return Batch(torch.arange(n), torch.from_numpy(images).unsqueeze(1))


def measure(vae: Vae, batch: Batch, settings: SearchSettings, repetitions: int) -> Rates:
    """Return the rates of the three stages, each the best of so many goes."""
    with torch.no_grad():
        z = vae.posterior(batch).best().z
    content = DiagonalNormal(z, torch.full_like(z, -1.0))

    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter

    def rate(work: Callable[[], object]) -> float:
        seconds = []
        for _ in range(repetitions):
            start = clock()
            work()
            seconds.append(clock() - start)
        return len(batch) / min(seconds)

    def grid() -> Tensor:
        with torch.no_grad():
            return grid_candidates(vae, batch, z, settings).log_posterior

    def whole() -> None:
        found = modes_of(vae, batch, z, settings)
        refine(vae, batch, found, content, settings, encode=True, seed=0)

    return Rates(rate(grid), rate(lambda: modes_of(vae, batch, z, settings)), rate(whole))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__)
    parser.add_argument("--images", type=int, default=26)
    parser.add_argument("--box", type=int, default=50)
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--recipe", action="append", help="may be repeated; default: all three")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    settings = SearchSettings()
    print(machine.sentence(options.threads), flush=True)
    print(
        f"{options.box} x {options.box} pixels, {settings.angles} angles, shifts to "
        f"{settings.reach_std:g} x {SHIFT_STD_PX:g} px, {settings.modes} modes\n\n"
        f"{'images a second':16} {'grid':>10} {'modes':>10} {'refined':>10}"
    )
    for recipe in options.recipe or RECIPES:
        vae, batch = make_vae(recipe, options.box), make_batch(options.images, options.box)
        found = measure(vae, batch, settings, options.repetitions)
        print(f"{recipe:16} {found.grid:10.0f} {found.modes:10.0f} {found.refined:10.1f}")


if __name__ == "__main__":
    main()

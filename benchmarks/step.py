"""One training step: the textbook's against modpose's, on this machine, in one run.

    python -m benchmarks.step

Every contestant has a process of its own, so that none profits from another's memory; they take
turns, one step each, so that all meet the same weather.
"""

from __future__ import annotations

import argparse
import logging
import math
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor

from benchmarks import digits, machine, textbook
from modpose.config import Config, merge, parse_config
from modpose.data.batches import Batch
from modpose.geometry.grids import half_box, lattice
from modpose.posterior.posterior import Latents
from modpose.recipes import recipe_config
from modpose.train.loop import Learner, set_up
from modpose.train.memory import keep_freed_memory
from modpose.vae import Elbo, Vae, build_vae

SHAPE = (digits.BOX, digits.BOX)
QUICK_PIXELS, QUICK_RATE = 80, 1e-3
"""How the weights for the comparison of ELBOs are trained."""
LARGEST_GAP = 0.5
"""Nats by which two ways to compute one ELBO may differ."""


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
        Whether :func:`modpose.train.memory.keep_freed_memory` is called.
    """

    name: str
    recipe: str | None
    precision: str = "32-true"
    reuses_memory: bool = True


EXACT, FAST = "spatial-vae-paper", "spatial-vae"
CONTESTANTS = (
    Contestant("textbook", None, reuses_memory=False),
    Contestant("exact, float32", EXACT),
    Contestant("exact, bf16-mixed", EXACT, precision="bf16-mixed"),
    Contestant("fast (default)", FAST),
)
OTHER_ALLOCATOR = (
    Contestant("textbook, freed memory kept", None),
    Contestant("exact, float32, default allocator", EXACT, reuses_memory=False),
    Contestant("fast, default allocator", FAST, reuses_memory=False),
)


class Gap(NamedTuple):
    """How far modpose's ELBO is from the textbook's, nats an image."""

    of_means: float
    largest: float


@dataclass(frozen=True)
class Size:
    """Of networks and batches; None leaves each contestant what it has.

    Attributes
    ----------
    hidden
        Units a layer.
    batch
        Images a step.
    """

    hidden: int | None = None
    batch: int | None = None


def step_config(recipe: str, size: Size, precision: str = "32-true") -> Config:
    """Return the configuration that a contestant trains with.

    In exact mode the encoder sees the images as they are, as in the textbook's step; the default
    mode is the recipe as it is.
    """
    width = {} if size.hidden is None else {"hidden": size.hidden}
    batch = {} if size.batch is None else {"batch_size": size.batch}
    values = merge(
        recipe_config(recipe),
        {
            "model": {
                "z_dim": 2,
                "encoder": width,
                "field": width,
                "shift": {"std_px": digits.SHIFT_STD_PX},
                "likelihood": {"kind": "bernoulli"},
            },
            "train": {"precision": precision, "accelerator": "cpu"} | batch,
        },
    )
    if recipe == EXACT:
        values = merge(values, {"train": {"augment_rotation": False}})
    return parse_config(values, recipe)


def make_textbook(hidden: int | None) -> textbook.SpatialVae:
    """Return the textbook's model on the lattice that modpose uses, with modpose's priors."""
    torch.manual_seed(0)
    half = half_box(SHAPE)
    return textbook.SpatialVae(
        lattice(SHAPE) / half,
        hidden=textbook.HIDDEN if hidden is None else hidden,
        shift_std=digits.SHIFT_STD_PX / half,
    )


def make_learner(config: Config) -> Learner:
    """Return a modpose model with its optimiser."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    return set_up(build_vae(config, shape=SHAPE, channels=1, n_images=1), config)


def learner_step(
    learner: Learner, config: Config, images: Tensor, generator: torch.Generator
) -> None:
    """Take the step of modpose's training loop."""
    batch = Batch(torch.arange(len(images)), images.unsqueeze(1))
    elbo: Elbo = learner.module(
        batch,
        generator=generator,
        pixels=config.train.pixels,
        augment=config.train.augment_rotation,
    )
    loss = -elbo.value().mean()
    for optimizer in learner.optimizers:
        optimizer.zero_grad()
    learner.fabric.backward(loss)
    for optimizer in learner.optimizers:
        optimizer.step()


# --- the race ---------------------------------------------------------------------------------


def race(
    contestants: tuple[Contestant, ...],
    *,
    repetitions: int,
    warm_up: int,
    size: Size,
    threads: int,
) -> dict[str, list[float]]:
    """Let every contestant take its steps in turn; milliseconds an image for each repetition."""
    context = machine.fresh_processes()
    running: list[tuple[Contestant, Connection, Any]] = []
    milliseconds: dict[str, list[float]] = {contestant.name: [] for contestant in contestants}
    with ExitStack() as stack:
        for contestant in contestants:
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_take_steps, args=(theirs, contestant, size, threads), daemon=True
            )
            process.start()
            theirs.close()
            stack.callback(process.join, 30)
            stack.callback(ours.close)
            running.append((contestant, ours, process))
        for _, connection, _ in running:
            connection.recv()  # ready: nobody is still importing when the race starts
        for repetition in range(warm_up + repetitions):
            for contestant, connection, _ in running:
                connection.send("step")
                taken = connection.recv()
                if repetition >= warm_up:
                    milliseconds[contestant.name].append(1000 * taken)
    return milliseconds


def _take_steps(connection: Connection, contestant: Contestant, size: Size, threads: int) -> None:
    """Take a step and say how many seconds an image it took, as often as asked."""
    torch.set_num_threads(threads)
    step, batch_size = _stepper(contestant, size)
    connection.send("ready")
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        start = time.perf_counter()
        step()
        connection.send((time.perf_counter() - start) / batch_size)


def _stepper(contestant: Contestant, size: Size) -> tuple[Callable[[], object], int]:
    """Return what takes a step, and the number of images in it."""
    generator = torch.Generator().manual_seed(0)
    if contestant.recipe is None:
        if contestant.reuses_memory:
            keep_freed_memory()
        batch_size = size.batch or textbook.BATCH_SIZE
        images = torch.from_numpy(digits.posed_digits(None, batch_size, 1)[0])
        model = make_textbook(size.hidden)
        optimizer = textbook.adam(model)
        return lambda: textbook.train_step(model, optimizer, images, generator), batch_size
    config = step_config(contestant.recipe, size, contestant.precision)
    batch_size = config.train.batch_size
    images = torch.from_numpy(digits.posed_digits(None, batch_size, 1)[0])
    with ExitStack() as stack:
        if not contestant.reuses_memory:
            stack.enter_context(mock.patch("modpose.train.loop.keep_freed_memory"))
        learner = make_learner(config)
    learner.module.train()
    return lambda: learner_step(learner, config, images, generator), batch_size


# --- the same numbers -------------------------------------------------------------------------


def parity(size: Size, train_steps: int) -> dict[str, Gap]:
    """Compare ELBOs: the same weights, images and samples in the textbook and in exact mode.

    The weights are those of a modpose model after ``train_steps`` quick steps, so that the
    decoder is no longer nearly flat.
    """
    config = step_config(EXACT, size)
    train = config.train.model_copy(update={"pixels": QUICK_PIXELS, "lr": QUICK_RATE})
    quick = config.model_copy(update={"train": train})
    n_images = train.batch_size
    images = torch.from_numpy(digits.posed_digits(None, n_images, 1)[0])
    generator = torch.Generator().manual_seed(1)
    learner = make_learner(quick)
    for _ in range(train_steps):
        learner_step(learner, quick, images, generator)
    plain = make_textbook(size.hidden)
    copy_weights(learner.vae, plain)
    noise = plain.noise(n_images, generator)
    with torch.no_grad():
        expected = plain.terms(images, noise).elbo()
    gaps = {}
    for precision in ("32-true", "bf16-mixed"):
        same = make_learner(step_config(EXACT, size, precision))
        same.vae.load_state_dict(learner.vae.state_dict())
        found = elbo_at(same, images, noise)
        gaps[precision] = Gap(
            of_means=(found.mean() - expected.mean()).abs().item(),
            largest=(found - expected).abs().max().item(),
        )
    return gaps


@torch.no_grad()
def elbo_at(learner: Learner, images: Tensor, noise: Tensor) -> Tensor:
    """ELBO of every image (B,), every pixel, the sample given by ``noise`` (B, z_dim + 3)."""
    batch = Batch(torch.arange(len(images)), images.unsqueeze(1))
    with learner.fabric.autocast():
        posterior = learner.vae.posterior(batch)
        assert posterior.angle is not None and posterior.shift is not None
        z_dim = posterior.content.mean.shape[-1]
        parts = zip(
            (posterior.content, posterior.angle, posterior.shift),
            torch.split(noise.unsqueeze(1), [z_dim, 1, 2], dim=-1),
            strict=True,
        )
        z, angle, shift = (part.mean + part.log_std.exp() * drawn for part, drawn in parts)
        cell = torch.zeros(len(images), 1, dtype=torch.int64)
        latents = Latents(z, angle.squeeze(-1), shift, cell)
        recon = learner.vae.log_likelihood(batch, latents).squeeze(1)
    kl = posterior.kl(exact=False)
    return recon - kl.pose - kl.content


@torch.no_grad()
def copy_weights(vae: Vae, plain: textbook.SpatialVae) -> None:
    """Give the textbook's model the weights of an equal modpose model."""
    ours, theirs = dict(vae.named_parameters()), dict(plain.named_parameters())
    for layer in ("0", "2", "4"):
        for kind in ("weight", "bias"):
            value: Tensor = ours[f"encoder.network.{layer}.{kind}"]
            if layer == "4":
                value = value[_textbook_order(plain.z_dim)]
            theirs[f"encoder.{layer}.{kind}"].copy_(value)
    first = torch.cat(
        [ours["field.from_coordinates.weight"], ours["field.from_content.weight"]], dim=1
    )
    theirs["decoder.0.weight"].copy_(first)
    theirs["decoder.0.bias"].copy_(ours["field.from_coordinates.bias"])
    for layer, name in (("2", "field.hidden.0"), ("4", "field.output")):
        for kind in ("weight", "bias"):
            theirs[f"decoder.{layer}.{kind}"].copy_(ours[f"{name}.{kind}"])


def _textbook_order(z_dim: int) -> list[int]:
    """Rows of modpose's encoder output (mean, log s.d. of each variable), means first."""
    means: list[int] = []
    log_stds: list[int] = []
    row = 0
    for size in (z_dim, 1, 2):
        means += range(row, row + size)
        log_stds += range(row + size, row + 2 * size)
        row += 2 * size
    return means + log_stds


# --- the print-out ----------------------------------------------------------------------------


def table(taken: dict[str, list[float]]) -> str:
    """Lay out medians, ranges and ratios."""
    base = statistics.median(taken["textbook"])
    lines = [f"{'step':34} {'ms an image':>11} {'(range)':>17} {'textbook / this':>16}"]
    for name, values in taken.items():
        middle = statistics.median(values)
        spread = f"({min(values):.2f} - {max(values):.2f})"
        lines.append(f"{name:34} {middle:11.2f} {spread:>17} {base / middle:15.1f}x")
    return "\n".join(lines)


def conclusions(taken: dict[str, list[float]]) -> str:
    """Say in words what the table means on this machine."""
    middle = {name: statistics.median(values) for name, values in taken.items()}
    exact, half = middle["exact, float32"], middle["exact, bf16-mixed"]
    best = middle["textbook"] / min(exact, half)
    unit = "has a bf16 matrix unit" if machine.has_bf16_unit() else "has no bf16 matrix unit"
    if half < exact:
        advice = f"bf16 is {exact / half:.1f}x as fast as float32: set train.precision=bf16-mixed"
    else:
        advice = f"bf16 is {half / exact:.1f}x slower than float32: leave train.precision alone"
    return (
        f"This processor {unit}; {advice}.\n"
        f"Exact mode, every pixel, is {best:.1f}x the textbook's step here; the default fast mode "
        f"{middle['textbook'] / middle['fast (default)']:.1f}x."
    )


def parity_lines(gaps: dict[str, Gap]) -> str:
    """Say how far the ELBOs are apart, and whether that is within the limit."""
    return "\n".join(
        f"same weights, images and samples, {name}: mean ELBO off by {gap.of_means:.2g} nats, an "
        f"image by {gap.largest:.2g} at most ({'within' if holds(gap) else 'NOT within'} "
        f"{LARGEST_GAP:g})"
        for name, gap in gaps.items()
    )


def holds(gap: Gap) -> bool:
    """Tell whether the mean ELBO is the same within the limit."""
    return math.isfinite(gap.largest) and gap.of_means <= LARGEST_GAP


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--batch-size", type=int, help="images a step, for all contestants")
    parser.add_argument("--hidden", type=int, help="units a layer, for all contestants")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--parity-steps", type=int, default=40, help="training before the check")
    parser.add_argument(
        "--default-allocator",
        action="store_true",
        help="show too what each costs with the C library's allocator as it is, and the "
        "textbook with freed memory kept",
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    print(machine.sentence(options.threads), flush=True)
    size = Size(options.hidden, options.batch_size)
    taken = race(
        CONTESTANTS + (OTHER_ALLOCATOR if options.default_allocator else ()),
        repetitions=options.repetitions,
        warm_up=options.warm_up,
        size=size,
        threads=options.threads,
    )
    print(f"\n{table(taken)}\n\n{conclusions(taken)}", flush=True)
    gaps = parity(size, options.parity_steps)
    print(parity_lines(gaps), flush=True)
    if not all(holds(gap) for gap in gaps.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

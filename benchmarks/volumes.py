"""A training step of 3D-SpVAE on volumes: the textbook's against modpose's.

    python -m benchmarks.volumes

With the same weights, volumes and noise the two bounds are compared first.  Times are those of
one thread of the processor, a volume, medians of repetitions that take turns.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks import machine, textbook
from benchmarks.textbook.spvae_3d import ANGLE_STD, SpVae3d
from modpose.config import Config, merge, parse_config
from modpose.data.batches import Batch
from modpose.geometry.grids import half_box, lattice
from modpose.model.build import build_vae
from modpose.model.latents import Latents
from modpose.model.objective import Estimate
from modpose.model.vae import Vae
from modpose.recipes import recipe_config
from modpose.train.learner import Learner, set_up

LIMIT_NATS = 0.5
Step = Callable[[], int]
"""Takes a step and returns how many volumes it saw."""


def make_config(pixels: int | None, units: tuple[int, int]) -> Config:
    """Return recipe 3d-spvae with unit noise, as the textbook has."""
    encoder, field = units
    model = {
        "encoder": {"hidden": encoder},
        "field": {"hidden": field},
        "likelihood": {"noise": "fixed"},
    }
    more = {"model": model, "train": {"pixels": pixels, "accelerator": "cpu"}}
    return parse_config(merge(recipe_config("3d-spvae"), more), "3d-spvae")


@torch.no_grad()
def copy_weights(plain: SpVae3d, vae: Vae) -> None:
    """Give modpose's model the textbook's weights."""
    first, second, last = (m for m in plain.encoder if isinstance(m, nn.Linear))
    mine = [m for m in vae.encoder.modules() if isinstance(m, nn.Linear)]
    for ours, theirs in zip(mine[:2], (first, second), strict=True):
        ours.load_state_dict(theirs.state_dict())
    k = plain.z_dim
    rows = [range(k), range(k + 6, 2 * k + 6)]  # content; then angles and shifts, means and s.d.
    rows += [range(k, k + 3), range(2 * k + 6, 2 * k + 9)]
    rows += [range(k + 3, k + 6), range(2 * k + 9, 2 * k + 12)]
    order = torch.tensor([i for part in rows for i in part])
    weight, bias = last.weight[order].clone(), last.bias[order].clone()
    angle = slice(2 * k, 2 * k + 3)  # modpose's angles are in radians, not in units of their prior
    weight[angle] *= ANGLE_STD
    bias[angle] *= ANGLE_STD
    bias[2 * k + 3 : 2 * k + 6] += math.log(ANGLE_STD)
    mine[2].weight.copy_(weight)
    mine[2].bias.copy_(bias)
    field = vae.field
    field.from_coordinates.weight.copy_(plain.coord_linear.weight)  # type: ignore[union-attr,operator]
    field.from_coordinates.bias.copy_(  # type: ignore[union-attr,operator]
        plain.coord_linear.bias + plain.latent_linear.bias
    )
    field.from_content.weight.copy_(plain.latent_linear.weight)  # type: ignore[union-attr,operator]
    hidden, output = (m for m in plain.decoder if isinstance(m, nn.Linear))
    field.hidden[0].load_state_dict(hidden.state_dict())  # type: ignore[union-attr,index]
    field.output.load_state_dict(output.state_dict())  # type: ignore[union-attr]


@torch.no_grad()
def bounds(plain: SpVae3d, vae: Vae, volumes: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Return the bound of each volume by the textbook, and by modpose, (B,) nats."""
    batch = Batch(torch.arange(len(volumes)), volumes[:, None])
    posterior = vae.posterior(batch)
    cell = torch.zeros(len(volumes), 1, dtype=torch.int64)
    mean, std = posterior.mean_in(cell), posterior.spread(cell)
    z, angle, shift = (
        part[:, None] for part in torch.split(noise, [noise.shape[1] - 6, 3, 3], dim=1)
    )
    assert posterior.angle is not None
    drawn = Latents(
        mean.z + std.z * z,
        posterior.angle.mean + std.angle * angle,
        mean.shift + std.shift * shift,
        cell,
    )
    kl = posterior.kl(exact=True)
    ours = vae.log_likelihood(batch, drawn)[:, 0] - kl.pose - kl.content
    return plain.terms(volumes, noise), ours


def textbook_step(plain: SpVae3d, volumes: Tensor) -> Step:
    """Return a step of the textbook on these volumes."""
    optimizer, generator = textbook.adam(plain, 1e-4), torch.Generator().manual_seed(0)

    def step() -> int:
        textbook.train_step(plain, optimizer, volumes, generator)
        return len(volumes)

    return step


def modpose_step(learner: Learner, volumes: Tensor, pixels: int | None) -> Step:
    """Return a step of modpose on these volumes."""
    batch = Batch(torch.arange(len(volumes)), volumes[:, None])
    generator = torch.Generator().manual_seed(0)

    def step() -> int:
        elbo = learner.objective(batch, generator, Estimate(pixels=pixels))
        (-elbo.value().mean()).backward()  # type: ignore[no-untyped-call]
        for optimizer in learner.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return len(batch)

    return step


def seconds_a_volume(steps: dict[str, Step], repetitions: int) -> dict[str, float]:
    """Let the contestants take turns; medians of processor seconds per volume, after one step."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repetitions + 1):
        for name, step in steps.items():
            start = time.process_time()
            volumes = step()
            taken[name].append((time.process_time() - start) / volumes)
    return {name: statistics.median(times[1:]) for name, times in taken.items()}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.volumes", description=__doc__)
    parser.add_argument("--box", type=int, default=28)
    parser.add_argument("--batch-size", type=int, default=32, help="of fast mode; others take one")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--units", type=int, nargs=2, default=(1000, 1250), help="of both networks")
    options = parser.parse_args(arguments)
    print(machine.sentence(1), flush=True)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape, (encoder, units) = (options.box,) * 3, options.units
    coordinates = lattice(shape) / half_box(shape)
    plain = SpVae3d(coordinates, encoder_units=encoder, units=units)
    fast, exact = make_config(400, (encoder, units)), make_config(None, (encoder, units))
    learner = set_up(build_vae(exact, shape=shape, channels=1, n_images=1), exact)
    volumes = torch.randn(options.batch_size, *shape)
    copy_weights(plain, learner.vae)
    learner.vae.eval()
    noise = plain.noise(2, torch.Generator().manual_seed(1))
    theirs, ours = bounds(plain, learner.vae, volumes[:2], noise)
    apart = (theirs - ours).abs().max().item()
    print(f"ELBO with the same weights and noise: {theirs.mean():.2f} and {ours.mean():.2f} nats")
    if apart > LIMIT_NATS:
        raise SystemExit(f"the bounds are {apart:.2f} nats apart, expected less than {LIMIT_NATS}")
    learner.vae.train()
    steps = {
        "textbook": textbook_step(plain, volumes[:1]),
        "3d-spvae, every voxel": modpose_step(learner, volumes[:1], None),
        "3d-spvae, 400 voxels": modpose_step(learner, volumes, fast.train.pixels),
    }
    found = seconds_a_volume(steps, options.repetitions)
    for name, seconds in found.items():
        ratio = found["textbook"] / seconds
        print(f"{name:24} {1000 * seconds:9.1f} ms per volume   textbook / this {ratio:6.1f}")


if __name__ == "__main__":
    main()

"""One bound, two programs: the same weights, images and samples in the textbook and in modpose."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks import digits
from benchmarks.systems import (
    SPATIAL,
    Size,
    System,
    as_batch,
    learner_step,
    make_learner,
    step_config,
)
from benchmarks.textbook import Textbook
from benchmarks.textbook.spatial_vae import SpatialVae
from benchmarks.textbook.target_vae import TargetVae
from modpose.model.encoders.orbit import OrbitEncoder
from modpose.model.latents import Latents
from modpose.model.vae import Vae
from modpose.train.learner import Learner

QUICK_RATE = 1e-3
QUICK_PART = 10
"""How the weights for the comparison are trained: this rate, on one in so many pixels."""
LARGEST_GAP = 0.5
"""Nats by which two ways to compute one ELBO may differ."""


class Gap(NamedTuple):
    """How far modpose's ELBO is from the textbook's, nats per image."""

    of_means: float
    largest: float

    def holds(self) -> bool:
        """Return whether the mean ELBO is the same within the limit."""
        return math.isfinite(self.largest) and self.of_means <= LARGEST_GAP


class Sample(NamedTuple):
    """What decides a sample from q: the cell (B,), and standard normal noise.

    Attributes
    ----------
    cell
        Drawn from q; the only one, 0, for spatial-VAE.
    z, angle, shift
        (B, z_dim), (B, 1), (B, 2); in TARGET-VAE a cell has no noise of its shift.
    """

    cell: Tensor
    z: Tensor
    angle: Tensor
    shift: Tensor


def draw_sample(learner: Learner, images: Tensor, generator: torch.Generator) -> Sample:
    """Draw cells from modpose's posterior, and the noise."""
    with torch.no_grad():
        posterior = learner.vae.posterior(as_batch(images))
        cell = torch.multinomial(posterior.cell_log_q.exp(), 1, generator=generator)
    count, z_dim = len(images), posterior.content.mean.shape[-1]
    parts = [torch.randn(count, k, generator=generator) for k in (z_dim, 1, 2)]
    return Sample(cell.squeeze(1), *parts)


@torch.no_grad()
def elbo_of_textbook(plain: Textbook, images: Tensor, sample: Sample) -> Tensor:
    """ELBO of every image (B,) in the textbook."""
    if isinstance(plain, TargetVae):
        normal = torch.cat([sample.z, sample.angle], dim=1)
        return plain.hard_terms(images, sample.cell, normal).elbo()
    assert isinstance(plain, SpatialVae)
    return plain.terms(images, torch.cat([sample.z, sample.angle, sample.shift], dim=1)).elbo()


@torch.no_grad()
def elbo_of_modpose(learner: Learner, images: Tensor, sample: Sample) -> Tensor:
    """ELBO of every image (B,) in modpose, every pixel."""
    batch = as_batch(images)
    with learner.placement.autocast():
        posterior = learner.vae.posterior(batch)
        cell = sample.cell.unsqueeze(1)
        mean, std = posterior.mean_in(cell), posterior.spread(cell)
        latents = Latents(
            mean.z + std.z * sample.z.unsqueeze(1),
            mean.angle + std.angle * sample.angle,
            mean.shift + std.shift * sample.shift.unsqueeze(1),
            cell,
        )
        recon = learner.vae.log_likelihood(batch, latents).squeeze(1)
    kl = posterior.kl(exact=False)
    return recon - kl.pose - kl.content


def parity(system: System, size: Size, train_steps: int, *, bf16: bool = True) -> dict[str, Gap]:
    """Compare ELBOs of the textbook and of exact mode, in float32 and, if wanted, in bfloat16.

    The weights are those of a modpose model after ``train_steps`` quick steps, so that the
    decoder is no longer nearly flat.
    """
    config = step_config(system, system.exact, size)
    pixels = math.prod(system.shape) // QUICK_PART
    train = config.train.model_copy(update={"pixels": pixels, "lr": QUICK_RATE})
    quick = config.model_copy(update={"train": train})
    images = digits.posed_digits(None, train.batch_size, 1, posing=system.posing)[0]
    batch = torch.from_numpy(images)
    generator = torch.Generator().manual_seed(1)
    learner = make_learner(system, quick)
    for _ in range(train_steps):
        learner_step(learner, quick, batch, generator)
    plain = same_weights(system, size, learner.vae)
    sample = draw_sample(learner, batch, generator)
    expected = elbo_of_textbook(plain, batch, sample)
    gaps = {}
    for precision in ("32-true", "bf16-mixed")[: 1 + bf16]:
        same = make_learner(system, step_config(system, system.exact, size, precision))
        same.vae.load_state_dict(learner.vae.state_dict())
        found = elbo_of_modpose(same, batch, sample)
        gaps[precision] = Gap(
            of_means=(found.mean() - expected.mean()).abs().item(),
            largest=(found - expected).abs().max().item(),
        )
    return gaps


def parity_lines(gaps: dict[str, Gap]) -> str:
    """Say how far the ELBOs are apart, and whether that is within the limit."""
    return "\n".join(
        f"same weights, images and samples, {name}: mean ELBO off by {gap.of_means:.2g} nats, an "
        f"image by {gap.largest:.2g} at most ({'within' if gap.holds() else 'NOT within'} "
        f"{LARGEST_GAP:g})"
        for name, gap in gaps.items()
    )


# --- weights ----------------------------------------------------------------------------------


def same_weights(system: System, size: Size, vae: Vae) -> Textbook:
    """Return a textbook's model that has the weights of ``vae``, an equal model of modpose."""
    plain = system.make_textbook(size.hidden)
    if system is SPATIAL:
        assert isinstance(plain, SpatialVae)
        copy_spatial(vae, plain)
        return plain
    assert isinstance(plain, TargetVae)
    return GivenKernels(plain, vae)


@torch.no_grad()
def copy_spatial(vae: Vae, plain: SpatialVae) -> None:
    """Give the textbook's spatial-VAE the weights of modpose's."""
    ours, theirs = dict(vae.named_parameters()), dict(plain.named_parameters())
    for layer in ("0", "2", "4"):
        for kind in ("weight", "bias"):
            value: Tensor = ours[f"encoder.network.{layer}.{kind}"]
            if layer == "4":
                value = value[_means_first(plain.z_dim)]
            theirs[f"encoder.{layer}.{kind}"].copy_(value)
    first = torch.cat(
        [ours["field.from_coordinates.weight"], ours["field.from_content.weight"]], dim=1
    )
    theirs["decoder.0.weight"].copy_(first)
    theirs["decoder.0.bias"].copy_(ours["field.from_coordinates.bias"])
    for layer, name in (("2", "field.hidden.0"), ("4", "field.output")):
        for kind in ("weight", "bias"):
            theirs[f"decoder.{layer}.{kind}"].copy_(ours[f"{name}.{kind}"])


def _means_first(z_dim: int) -> list[int]:
    """Rows of modpose's encoder output (mean, log s.d. of each variable), means first."""
    means: list[int] = []
    log_stds: list[int] = []
    row = 0
    for size in (z_dim, 1, 2):
        means += range(row, row + size)
        log_stds += range(row + size, row + 2 * size)
        row += 2 * size
    return means + log_stds


class GivenKernels(TargetVae):
    """The textbook's TARGET-VAE with the weights of modpose's, rotated kernels included.

    modpose turns kernels without interpolation, so no kernels of the textbook's turn into the same
    ones at every angle.
    """

    given: Tensor

    def __init__(self, plain: TargetVae, vae: Vae) -> None:
        shift_std = vae.layout.shift.std
        super().__init__(plain.box, shift_std / (plain.box / 2), plain.z_dim, plain.sizes)
        assert isinstance(vae.encoder, OrbitEncoder)
        lift = vae.encoder.lift
        with torch.no_grad():
            self.register_buffer("given", lift.kernels()[:, :, 0].transpose(0, 1))
            self.bias.copy_(lift.bias)
            self._copy_networks({**dict(vae.named_parameters()), **dict(vae.named_buffers())})

    def kernels(self) -> Tensor:
        """Kernels at every angle, as they are, (channels, n, k, k)."""
        return self.given

    def _copy_networks(self, ours: dict[str, Tensor]) -> None:
        theirs = dict(self.named_parameters())
        for kind in ("weight", "bias"):
            for layer in ("1", "3", "5"):
                value = ours[f"encoder.network.{layer}.{kind}"]
                if layer == "5":
                    value = self._last_layer(value, kind)
                target = theirs[f"pointwise.{layer}.{kind}"]
                target.copy_(value.reshape(target.shape))
            for name, same in (
                ("from_coordinates", "from_coordinates"),
                ("decoder.1", "hidden.0"),
                ("decoder.3", "output"),
            ):
                theirs[f"{name}.{kind}"].copy_(ours[f"field.{same}.{kind}"])
        theirs["from_content.weight"].copy_(ours["field.from_content.weight"])
        theirs["from_content.bias"].zero_()
        self.frequencies.copy_(ours["field.fourier.frequencies"])

    def _last_layer(self, value: Tensor, kind: str) -> Tensor:
        """Rows in the textbook's order, with the angle in radians, not in units of its prior."""
        z_dim, unit = self.z_dim, math.pi / self.sizes.rotations
        content, angle_mean, angle_log_std, logit = torch.split(value, [2 * z_dim, 1, 1, 1])
        if kind == "bias":
            angle_log_std = angle_log_std + math.log(unit)
        return torch.cat([logit, unit * angle_mean, angle_log_std, content])

"""Our recipe against the authors' TARGET-VAE (commit d98b087), loss by loss."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from modpose.config import Config
from modpose.distributions.normal import DiagonalNormal
from modpose.geometry.rotations import wrap
from modpose.model.build import build_vae
from modpose.model.latents import Latents
from modpose.model.posterior import Posterior
from modpose.model.vae import Vae
from modpose.options import resolve
from modpose.recipes import recipe_config
from tests.step_by_step.replaying import AGREE, Recorded, Rescaled, apart, load, pictures, replay
from tools.record_steps.recording import STEPS, exponential_noise, normal_noise

SIDE, KERNEL, PADDING, KERNELS, ROTATIONS, Z_DIM = 9, 7, 1, 8, 4, 2
CELLS = ROTATIONS * (SIDE + 2 * PADDING - KERNEL + 1) ** 2


def small_recipe() -> Config:
    return resolve(
        recipe_config("target-vae-paper"),
        assignments=[
            f"model.z_dim={Z_DIM}",
            f"model.encoder.rotations={ROTATIONS}",
            f"model.encoder.kernel={KERNEL}",
            f"model.encoder.padding={PADDING}",
            f"model.encoder.channels={KERNELS}",
            "model.encoder.depth=1",
            "model.field.hidden=10",
            f"model.shift.std_px={0.1 * (SIDE - 1) / 2}",
            "model.likelihood={kind: bernoulli}",
            "train.lr=5e-4",
            "train.stop_epochs=null",
            "train.schedule=constant",
            "train.batch_size=6",
        ],
    )


def with_their_weights(recorded: Recorded) -> Vae:
    """Kernels are pixels in place of harmonics; angles are in radians, not in units of pi / 4."""
    vae = build_vae(small_recipe(), shape=(SIDE, SIDE), channels=1, n_images=24)
    encoder, area = vae.encoder, KERNEL**2
    encoder.lift.basis = torch.eye(area).reshape(1, area, KERNEL, KERNEL)
    encoder.lift.weight = torch.nn.Parameter(
        recorded["inference/conv1.weight"].reshape(-1, 1, area)
    )
    encoder.lift.bias = torch.nn.Parameter(recorded["inference/conv1.bias"])
    heads = ("z", "r", "a")
    load(
        encoder.network,
        {
            "1.weight": recorded["inference/conv2.weight"].squeeze(-1),
            "1.bias": recorded["inference/conv2.bias"],
            "3.weight": torch.cat(
                [recorded[f"inference/conv_{head}.weight"].squeeze(-1) for head in heads]
            ),
            "3.bias": torch.cat([recorded[f"inference/conv_{head}.bias"] for head in heads]),
        },
    )
    unit = math.pi / ROTATIONS
    scale = torch.ones(2 * Z_DIM + 3, 1, 1)
    scale[2 * Z_DIM] = 1 / unit
    offset = torch.zeros_like(scale)
    offset[2 * Z_DIM + 1] = -math.log(unit)
    encoder.network[3] = Rescaled(encoder.network[3], scale, offset)
    waves = recorded["generator/embed_latent.weight"]
    turned = torch.tensor([1, -1]) * SIDE / (SIDE - 1) / (2 * math.pi)  # y is down, edges at 1
    names = {"from_coordinates": "coord_linear", "hidden.0": "layers.1", "output": "layers.3"}
    load(
        vae.field,
        {
            f"{our}.{kind}": recorded[f"generator/{their}.{kind}"]
            for our, their in names.items()
            for kind in ("weight", "bias")
        }
        | {
            "from_content.weight": recorded["generator/latent_linear.weight"],
            "fourier.frequencies": (waves[: len(waves) // 2] * turned).T,
        },
    )
    return vae


def mixed_along_the_line(
    posterior: Posterior, temperature: float, generator: torch.Generator | None
) -> Latents:
    """Their mixture averages angles as numbers between -pi and pi, ours as directions."""
    waiting = torch.empty_like(posterior.cell_log_q).exponential_(generator=generator)
    weight = ((posterior.cell_log_q - waiting.log()) / temperature).softmax(-1).unsqueeze(1)
    assert (
        posterior.angle is not None and posterior.shift is not None and posterior.cells is not None
    )
    turns = torch.arange(ROTATIONS).repeat_interleave(CELLS // ROTATIONS) * (math.pi / 2)
    residual = posterior.angle.mean - turns.unsqueeze(-1)
    angle = residual + wrap(turns - 1e-3).unsqueeze(-1) + 1e-3  # half a turn is +pi

    def mixed(mean: Tensor, log_std: Tensor) -> DiagonalNormal:
        return DiagonalNormal(weight @ mean, (weight @ log_std.exp()).log())

    blend = Posterior(
        layout=posterior.layout,
        cell_log_q=torch.zeros(len(weight), 1),
        content=mixed(*posterior.content),
        angle=mixed(angle, posterior.angle.log_std),
        shift=DiagonalNormal(weight @ posterior.shift.mean, posterior.shift.log_std[:, :1]),
    )
    return blend.sample_in(torch.zeros(len(weight), 1, dtype=torch.int64), generator)


def losses(recorded: Recorded, steps: int = STEPS) -> np.ndarray:
    noise = [
        exponential_noise((CELLS,), 6),
        normal_noise((Z_DIM,), 4),
        normal_noise((1,), 5),
        np.zeros((STEPS, 6, 1, 2), np.float32),  # of the shift, which a cell fixes
    ]
    vae, config = with_their_weights(recorded), small_recipe()
    metrics = replay(vae, config, recorded, pictures(recorded.images), noise, steps=steps)
    return np.array([-step["elbo"] for step in metrics])


def test_two_hundred_steps_have_the_losses_of_the_authors_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded = Recorded("target_vae")
    monkeypatch.setattr("modpose.model.draws.soft_sample", mixed_along_the_line)
    ours = losses(recorded)
    assert recorded.loss[-20:].mean() < 0.85 * recorded.loss[:20].mean()  # it has learned
    assert apart(ours, recorded.loss) < AGREE


def test_ours_mixes_angles_on_the_circle() -> None:
    recorded = Recorded("target_vae")
    assert apart(losses(recorded, 5), recorded.loss) > 10 * AGREE

"""Our recipe against the authors' spatial-VAE (commit e631015), loss by loss."""

import math

import numpy as np
import pytest
import torch

from modpose.config import Config
from modpose.geometry.pose import Pose
from modpose.model.build import build_vae
from modpose.model.vae import Vae
from modpose.options import resolve
from modpose.recipes import recipe_config
from tests.step_by_step.replaying import AGREE, Recorded, apart, load, pictures, replay
from tools.record_steps.recording import STEPS, normal_noise

SIDE, Z_DIM = 9, 2
KINDS = ("weight", "bias")
THEIRS = ["angle", "x", "y", "z", "z"]
MEAN_OF = {"z": [3, 4], "angle": [0], "shift": [1, 2]}
ROWS = [i + 5 * spread for which in MEAN_OF.values() for spread in (0, 1) for i in which]
"""Where each of our numbers, mean before log s.d., stands among those of theirs."""


def small_recipe() -> Config:
    return resolve(
        recipe_config("spatial-vae-paper"),
        assignments=[
            f"model.z_dim={Z_DIM}",
            "model.encoder.hidden=12",
            "model.field.hidden=12",
            f"model.shift.std_px={0.1 * SIDE / 2}",
            "model.likelihood={kind: gaussian, noise: fixed, std: 1}",
            "train.augment.rotate=none",
            "train.delay_z_steps=0",
            "train.lr=2e-3",
            "train.batch_size=6",
        ],
    )


def with_their_weights(recorded: Recorded) -> Vae:
    """Ours has the y axis down: numbers of y change their sign, as does the sense of a shift."""
    vae = build_vae(small_recipe(), shape=(SIDE, SIDE), channels=1, n_images=24)
    last_weight, last_bias = (
        recorded["inference/layers.4.weight"],
        recorded["inference/layers.4.bias"],
    )
    last_weight[1], last_bias[1] = -last_weight[1], -last_bias[1]
    load(
        vae.encoder.network,
        {f"{i}.{kind}": recorded[f"inference/layers.{i}.{kind}"] for i in (0, 2) for kind in KINDS}
        | {"4.weight": last_weight[ROWS], "4.bias": last_bias[ROWS]},
    )
    names = {"from_content": "latent_linear", "hidden.0": "layers.1", "output": "layers.3"}
    values = {
        f"{our}.weight": recorded[f"generator/{their}.weight"] for our, their in names.items()
    }
    values |= {
        f"{our}.bias": recorded[f"generator/{their}.bias"]
        for our, their in names.items()
        if our != "from_content"
    }
    values["from_coordinates.weight"] = recorded["generator/coord_linear.weight"] * torch.tensor(
        [1, -1]
    )
    values["from_coordinates.bias"] = recorded["generator/coord_linear.bias"]
    load(vae.field, values)
    axis = torch.linspace(-1, 1, SIDE) * SIDE / 2  # their grid: corners, not edges, at 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    vae.coordinates = torch.stack([x, y], -1).reshape(-1, 2)
    return vae


def losses(recorded: Recorded, steps: int = STEPS) -> np.ndarray:
    noise = normal_noise((Z_DIM + 3,), 4)
    noise[..., 1] *= -1
    metrics = replay(
        with_their_weights(recorded),
        small_recipe(),
        recorded,
        pictures(recorded.images),
        [noise[..., MEAN_OF[which]] for which in ("z", "angle", "shift")],
        steps=steps,
    )
    constant = SIDE**2 * 0.5 * math.log(2 * math.pi)
    return np.array([-step["elbo"] - constant for step in metrics])


def shift_after_the_turn(pose: Pose, x: torch.Tensor) -> torch.Tensor:
    """Their shift (equation 2 of the paper) is added to coordinates that have been rotated."""
    return x @ pose.rotation - pose.shift.unsqueeze(-2)


def test_two_hundred_steps_have_the_losses_of_the_authors_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded = Recorded("spatial_vae")
    monkeypatch.setattr(Pose, "to_object", shift_after_the_turn)
    ours = losses(recorded)
    assert recorded.loss[-20:].mean() < 0.8 * recorded.loss[:20].mean()  # it has learned
    assert apart(ours, recorded.loss) < AGREE


def test_ours_shifts_in_the_frame_of_the_image() -> None:
    recorded = Recorded("spatial_vae")
    assert apart(losses(recorded, 5), recorded.loss) > 10 * AGREE

"""Our recipe against the authors' affinity-VAE (commit a981433), loss by loss."""

import math

import numpy as np
import torch
from torch import nn

from modpose.affinity.known import KnownAffinity
from modpose.affinity.matrix import Affinity
from modpose.config import Config
from modpose.data.batches import Batch
from modpose.model.build import build_vae
from modpose.model.terms.affinity import AffinityTerm
from modpose.model.vae import Vae
from modpose.options import resolve
from modpose.recipes import recipe_config
from tests.step_by_step.replaying import AGREE, Recorded, Rescaled, apart, load, replay
from tools.record_steps.recording import normal_noise

SIDE, Z_DIM, POSE = 8, 3, 2
PIXELS = SIDE**2
BETA, GAMMA = 0.1, 0.5
BETA_NATS, GAMMA_NATS = BETA * PIXELS / Z_DIM, GAMMA * PIXELS
"""Ours is in nats per image: their means over pixels, and over dimensions, times the pixels."""


def small_recipe() -> Config:
    return resolve(
        recipe_config("affinity-vae"),
        assignments=[
            f"model.z_dim={Z_DIM}",
            f"model.pose_channel={POSE}",
            "model.encoder.widths=[4, 8]",
            "model.field.widths=[8, 4]",
            "model.field.patch=null",
            "train.lr=5e-4",
            "train.schedule=constant",
            "train.warmup_steps=0",
            "train.batch_size=6",
            f"train.beta={{kind: constant, end: {BETA_NATS}}}",
            f"train.gamma={{kind: constant, end: {GAMMA_NATS}}}",
            "train.affinity=pair-mean",
        ],
    )


def with_their_weights(recorded: Recorded, config: Config) -> Vae:
    """Three differences are put back: log variances, no first ReLU and a last sigmoid decode."""
    labels = recorded.arrays["labels"]
    classes = Affinity(recorded.arrays["affinity"], [str(k) for k in range(4)])
    term = AffinityTerm(
        KnownAffinity(labels, classes), config.train.affinity, schedule=config.train.gamma
    )
    vae = build_vae(config, shape=(SIDE, SIDE), channels=1, n_images=24, affinity=term)
    heads = [recorded[f"encoder/fc_{head}.weight"] for head in ("mu", "logvar", "pose")]
    biases = [recorded[f"encoder/fc_{head}.bias"] for head in ("mu", "logvar", "pose")]
    convolutions = {
        f"{2 * k}.{kind}": recorded[f"encoder/conv_enc.{k}.{kind}"]
        for k in (0, 1)
        for kind in ("weight", "bias")
    }
    load(
        vae.encoder.network,
        convolutions | {"5.weight": torch.cat(heads), "5.bias": torch.cat(biases)},
    )
    scale = torch.ones(2 * Z_DIM + POSE)
    scale[Z_DIM : 2 * Z_DIM] = 0.5
    vae.encoder.network[5] = Rescaled(vae.encoder.network[5], scale, torch.zeros(len(scale)))
    names = {0: "fc", 3: "conv_dec.0", 5: "conv_dec.1"}
    load(
        vae.field.network,
        {
            f"{our}.{kind}": recorded[f"decoder/{their}.{kind}"]
            for our, their in names.items()
            for kind in ("weight", "bias")
        },
    )
    vae.field.network[2] = nn.Identity()
    vae.field.network.append(nn.Sigmoid())
    return vae


def test_two_hundred_steps_have_the_losses_of_the_authors_program() -> None:
    recorded, config = Recorded("affinity_vae"), small_recipe()
    labels, images = recorded["labels"], recorded.images

    def batch(rows: torch.Tensor) -> Batch:
        return Batch(index=rows, image=images[rows].unsqueeze(1), label=labels[rows])

    metrics = replay(
        with_their_weights(recorded, config),
        config,
        recorded,
        batch,
        [normal_noise((Z_DIM,), 4)],
        epsilon=PIXELS,
    )
    constant = PIXELS * 0.5 * math.log(math.pi)  # of the density N(x; y, 1/2)
    nats = [
        BETA_NATS * step["kl_content"] + GAMMA_NATS * step["affinity"] - step["recon"]
        for step in metrics
    ]
    ours = (np.array(nats) - constant) / PIXELS
    assert recorded.loss[-20:].mean() < 0.85 * recorded.loss[:20].mean()  # it has learned
    assert apart(ours, recorded.loss) < AGREE

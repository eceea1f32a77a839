"""Our recipe against cryoDRGN 4.3.1, loss by loss."""

import numpy as np
import pytest
import torch
from torch import nn

from modpose.config import Config
from modpose.options import resolve
from modpose.recipes import recipe_config
from tests.step_by_step.replaying import AGREE, Recorded, Rescaled, apart, load, replay
from tests.step_by_step.slices import (
    Hartley,
    model_of_slices,
    particles,
    reported_loss,
    use_their_wavelength,
)
from tools.record_steps.recording import normal_noise
from tools.record_steps.slices import HIDDEN, LAYERS, Z_DIM


def small_recipe() -> Config:
    return resolve(
        recipe_config("cryodrgn"),
        assignments=[
            f"model.z_dim={Z_DIM}",
            f"model.encoder.hidden={HIDDEN}",
            f"model.field.hidden={HIDDEN}",
            "train.lr=5e-4",
            "train.batch_size=6",
        ],
    )


def test_two_hundred_steps_have_the_losses_of_the_authors_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_their_wavelength(monkeypatch)
    recorded, config = Recorded("cryodrgn"), small_recipe()
    vae = model_of_slices(recorded, config)
    network = vae.encoder.network
    names = {0: "main.0", LAYERS + 2: f"main.{2 * LAYERS + 2}"}
    names |= {2 + k: f"main.{2 * k + 2}.linear" for k in range(LAYERS)}
    first = recorded["encoder/main.0.weight"]
    network[0] = nn.Linear(first.shape[1], first.shape[0])
    for place, name in names.items():
        kept = {kind: recorded[f"encoder/{name}.{kind}"] for kind in ("weight", "bias")}
        load(getattr(network[place], "linear", network[place]), kept)
    with torch.no_grad():
        network[0].weight.neg_()  # phases are flipped to the other sign
    seen, layers = Hartley(vae.projection.k), list(network)
    scale = torch.ones(2 * Z_DIM)
    scale[Z_DIM:] = 0.5  # their log variance
    vae.encoder.network = nn.Sequential(
        seen, *layers[:-1], Rescaled(layers[-1], scale, torch.zeros(2 * Z_DIM))
    )
    count = len(seen.matrix)
    metrics = replay(
        vae,
        config,
        recorded,
        particles(recorded),
        [normal_noise((Z_DIM,), 4)],
        epsilon=count,
    )
    ours = np.array(reported_loss(metrics, 1 / Z_DIM, count))
    assert recorded.loss[-20:].mean() < 0.95 * recorded.loss[:20].mean()  # it has learned
    assert apart(ours, recorded.loss) < AGREE

"""Our recipe against the authors' lookup table (commit b638e7a), loss by loss."""

import numpy as np
import pytest
import torch
from torch import Tensor

from modpose.config import Config
from modpose.model.image_rows import ImageRows
from modpose.options import resolve
from modpose.recipes import recipe_config
from tests.step_by_step.replaying import AGREE, Recorded, apart, replay
from tests.step_by_step.slices import (
    model_of_slices,
    particles,
    reported_loss,
    use_their_wavelength,
)
from tools.record_steps.recording import normal_noise
from tools.record_steps.slices import HIDDEN, Z_DIM


class LogVariances(ImageRows):
    """Rows of means and log variances, read as means and log standard deviations."""

    def forward(self, index: Tensor) -> Tensor:
        mean, log_variance = super().forward(index).chunk(2, dim=-1)
        return torch.cat([mean, log_variance / 2], dim=-1)


def small_recipe() -> Config:
    return resolve(
        recipe_config("vlt"),
        assignments=[
            f"model.z_dim={Z_DIM}",
            f"model.field.hidden={HIDDEN}",
            "model.encoder.lr=1e-2",
            "train.lr=5e-4",
            "train.batch_size=6",
        ],
    )


def test_two_hundred_steps_have_the_losses_of_the_authors_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_their_wavelength(monkeypatch)
    recorded, config = Recorded("explicit_latents"), small_recipe()
    vae = model_of_slices(recorded, config)
    rows = [recorded[f"table/{part}_embed.weight"] for part in ("zmu", "zvar")]
    table = LogVariances(*vae.encoder.rows.weight.shape, config.model.encoder.lr)
    table.weight.data = torch.cat(rows, dim=1)
    vae.encoder.rows = table
    count = int(vae.projection.weight.sum())
    noise = [normal_noise((Z_DIM,), 4)]
    metrics = replay(vae, config, recorded, particles(recorded), noise, epsilon=count)
    ours = np.array(reported_loss(metrics, 1 / Z_DIM, count))
    assert recorded.loss[-20:].mean() < 0.95 * recorded.loss[:20].mean()  # it has learned
    assert apart(ours, recorded.loss) < AGREE

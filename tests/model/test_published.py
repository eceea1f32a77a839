"""What the recipes of the five papers share with what is printed, or with the authors' programs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from modpose import PoseModel
from modpose.config import TableEncoderConfig, merge, parse_config, set_option
from modpose.errors import InputError
from modpose.model.build import build_vae
from modpose.model.encoders.table import TableEncoder
from modpose.nn.perceptron import ResidualLayer
from modpose.options import resolve
from modpose.recipes import recipe_config
from modpose.train.learner import set_up

PROJECTIONS = ("cryodrgn", "vlt", "evil-twin", "evil-twin-large")


def config_of(recipe: str, *assignments: str) -> Any:
    values = recipe_config(recipe)
    for assignment in assignments:
        values = set_option(values, assignment)
    return parse_config(values, recipe)


# --- cryoDRGN and what is made of it ----------------------------------------------------------


@pytest.mark.parametrize("recipe", PROJECTIONS)
def test_the_kl_is_weighted_by_one_over_the_dimensions_of_content(recipe: str) -> None:
    for z_dim in (1, 2, 8, 10):
        config = config_of(recipe, f"model.z_dim={z_dim}")
        assert config.train.beta.at(0) == config.train.beta.end == 1 / z_dim
    assert config_of(recipe).train.beta.end == 1 / 8
    assert config_of(recipe, "model.z_dim=0").train.beta.end == 1
    assert config_of(recipe, "model.z_dim=2", "train.beta.end=0.5").train.beta.end == 0.5


def test_the_weight_follows_the_dimensions_that_flags_and_assignments_give() -> None:
    base = recipe_config("cryodrgn")
    assert resolve(base, flags={"--z-dim": ("model.z_dim", 2)}).train.beta.end == 1 / 2
    assert resolve(base, assignments=["model.z_dim=4"]).train.beta.end == 1 / 4
    chosen = ["train.beta.end=0.3", "model.z_dim=4"]
    assert resolve(base, assignments=chosen).train.beta.end == 0.3


def test_the_resolved_weight_is_a_number() -> None:
    config = config_of("vae", "model.z_dim=4", "train.beta.kind=linear", "train.beta.end=1/z_dim")
    assert (config.train.beta.kind, config.train.beta.end) == ("linear", 0.25)
    assert parse_config(config.model_dump(mode="json"), "again") == config
    with pytest.raises(InputError, match=r"model\.z_dim is -1"):
        config_of("cryodrgn", "model.z_dim=-1")
    with pytest.raises(InputError, match=r"train\.gamma\.end"):
        config_of("vae", "train.gamma.end=1/z_dim")


def test_residual_networks_have_a_first_layer_and_as_many_more_as_printed() -> None:
    for recipe, printed in (("cryodrgn", 3), ("evil-twin", 3), ("evil-twin-large", 5)):
        vae = build_vae(config_of(recipe), shape=(8, 8), channels=1, n_images=2)
        assert sum(isinstance(m, ResidualLayer) for m in vae.encoder.modules()) == printed
        assert len(vae.field.hidden) == 3


# --- lookup tables ----------------------------------------------------------------------------


def rows_of(**options: Any) -> NDArray[np.float32]:
    config = config_of("vlt")
    vae = build_vae(config, shape=(8, 8), channels=1, n_images=50)
    changed = config.model.encoder.model_copy(update=options)
    assert isinstance(changed, TableEncoderConfig)
    rows: NDArray[np.float32] = TableEncoder(changed, 50, vae.layout).rows.weight.detach().numpy()
    return rows


def test_rows_that_start_from_zeros_are_all_alike_as_printed() -> None:
    rows = rows_of(init="zeros")
    assert (rows[:, :8] == 0).all()
    np.testing.assert_array_equal(rows[:, 8:16], -8 / 2)


def test_random_rows_have_the_statistics_of_a_trained_run() -> None:
    rows = rows_of()
    assert rows[:, :8].std() == pytest.approx(1.49, rel=0.15)  # 400 numbers: 4 s.d. of theirs
    assert rows[:, 8:16].mean() == pytest.approx(-5.47 / 2, abs=0.08)


def test_a_table_separates_images_in_the_epochs_of_its_recipe() -> None:
    """Squares of two brightnesses, from zeros: content must go as far as that of the prior."""
    rng = np.random.default_rng(0)
    bright = np.arange(30) % 2
    images = np.zeros((30, 8, 8), np.float32)
    images[:, 2:6, 2:6] = 0.2 + 0.7 * bright[:, None, None]
    images = np.clip(images + rng.normal(0, 0.05, images.shape), 0, 1).astype(np.float32)
    table = config_of("vlt")
    options: dict[str, Any] = {
        "data": {"val_fraction": 0.0},
        "model": {
            "z_dim": 1,
            "encoder": {"kind": "table", "lr": table.model.encoder.lr},
            "field": {"hidden": 16},
        },
        "train": {"epochs": table.train.epochs, "batch_size": 8, "lr": 1e-3},
    }
    model = PoseModel("vae", options=options, quiet=True)
    z = model.fit(images).latents()["z_0"].to_numpy()
    apart = abs(z[bright == 1].mean() - z[bright == 0].mean())
    assert apart > 1 and apart > 4 * max(z[bright == 1].std(), z[bright == 0].std())


def test_rows_learn_at_the_rate_of_the_authors() -> None:
    vae = build_vae(config_of("vlt"), shape=(8, 8), channels=1, n_images=4)
    rates = {
        group["lr"] for o in set_up(vae, config_of("vlt")).optimizers for group in o.param_groups
    }
    assert rates == {1e-4, 1e-2} and config_of("vlt").train.epochs == 100


# --- particles --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "hidden", "depth"),
    [("spatial-vae-particles-paper", 1000, 2), ("target-vae-particles-paper", 512, 6)],
)
def test_published_decoders_of_particles_give_every_pixel_a_spread(
    recipe: str, hidden: int, depth: int
) -> None:
    config = config_of(recipe)
    assert config.model.likelihood.noise == "per-pixel" and config.train.pixels is None
    assert (config.model.field.hidden, config.model.field.depth) == (hidden, depth)
    small = config_of(recipe, "model.field.hidden=8", "model.encoder.kind=mlp")
    vae = build_vae(small, shape=(8, 8), channels=1, n_images=2)
    outputs = vae.field(torch.zeros(3, 5, 2), torch.zeros(3, config.model.z_dim))
    prediction = vae.likelihood.read(outputs)
    assert prediction.log_std is not None
    assert prediction.signal.shape == prediction.log_std.shape == (3, 5, 1)


def test_digits_of_the_published_recipes_are_binary_still() -> None:
    for recipe in ("spatial-vae-paper", "target-vae-paper"):
        assert "likelihood" not in recipe_config(recipe)["model"]  # the data say which
    merged = merge(
        recipe_config("spatial-vae-paper"), {"model": {"likelihood": {"kind": "bernoulli"}}}
    )
    assert parse_config(merged, "digits").model.likelihood.kind == "bernoulli"

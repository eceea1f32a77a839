"""A prior of the shift means the same, given in pixels or as a fraction of the box."""

from __future__ import annotations

import pytest
import torch

from modpose.config import Config, merge, parse_config
from modpose.data.batches import Batch
from modpose.model.build import build_vae
from modpose.model.vae import Vae
from modpose.recipes import recipe_config

BOX = 16
SMALL = {
    "modpose": {"encoder": {"channels": 4, "hidden": 8, "angles": 16}, "field": {"hidden": 8}},
    "target-vae": {"encoder": {"channels": 4, "rotations": 4}, "field": {"hidden": 8}},
    "spatial-vae": {"encoder": {"hidden": 8}, "field": {"hidden": 8}},
}


def config(recipe: str, shift: dict[str, float]) -> Config:
    model = {**SMALL[recipe], "z_dim": 2, "shift": {"prior": "gaussian", **shift}}
    return parse_config(merge(recipe_config(recipe), {"model": model}), "a test")


def made(recipe: str, shift: dict[str, float]) -> Vae:
    torch.manual_seed(1)
    options = config(recipe, shift)
    return build_vae(options, shape=(BOX, BOX), channels=1, n_images=4).eval()


@pytest.mark.parametrize("recipe", SMALL)
def test_a_fraction_of_the_box_is_as_many_pixels(recipe: str) -> None:
    """0.25 of a box of 16 is 4 pixels, for the encoder, the posterior and the bound alike."""
    in_pixels = made(recipe, {"std_px": 4.0})
    of_box = made(recipe, {"std_px": 1.0, "std_box": 0.25})
    batch = Batch(torch.arange(4), torch.rand(4, 1, BOX, BOX))
    with torch.no_grad():
        first, second = in_pixels.posterior(batch), of_box.posterior(batch)
    assert torch.equal(first.best().shift, second.best().shift)
    assert torch.equal(first.cell_log_q, second.cell_log_q)
    for part, other in zip(first.kl(exact=True), second.kl(exact=True), strict=True):
        assert torch.equal(part, other)

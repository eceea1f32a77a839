"""A result is used again for the same tensors alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from modpose.config import DenseFieldConfig, parse_config
from modpose.model.build import build_vae
from modpose.model.fields.dense import DenseField
from modpose.nn.kept import Kept
from modpose.recipes import recipe_config
from modpose.train.learner import set_up


def test_a_result_is_kept_for_the_same_tensor_only() -> None:
    kept, x, calls = Kept(), torch.ones(3), []

    def twice(given: Tensor) -> Tensor:
        def make() -> Tensor:
            calls.append(given)
            return 2 * given

        return kept("twice", (given,), make)

    assert twice(x) is twice(x)
    assert len(calls) == 1
    twice(x.clone())
    assert len(calls) == 2
    twice(x)
    x += 1
    assert torch.equal(twice(x), 2 * x)
    y = x.clone().requires_grad_()
    with torch.no_grad():
        twice(y)
    assert twice(y).requires_grad


@pytest.mark.parametrize("shape", [(9, 9), (12, 7), (8, 16)])
def test_a_dense_field_read_at_some_points_is_its_picture_there(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    config = DenseFieldConfig(hidden=8, extent=0.8, activation="leaky-relu")
    field = DenseField(config, 2, 3, shape)
    z, x = torch.randn(5, 2), 12 * torch.rand(40, 2) - 6  # some points lie outside
    optimizer = torch.optim.Adam(field.parameters(), lr=0.1, fused=True)
    for mode in (True, False):
        field.train(mode)
        expected = field((x / field.scale).expand(5, -1, -1), z)
        found = field.read(x, z)
        assert not found.requires_grad
        assert torch.allclose(found, expected, rtol=0, atol=1e-5)
        assert torch.equal(field.read(x, z), found)
        expected.sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()  # the weights that were kept are no longer those of the layer


def test_an_optimiser_counts_the_changes_of_weights() -> None:
    config = parse_config(recipe_config("modpose") | {"seed": 0}, "test")
    vae = build_vae(config, shape=(16, 16), channels=1, n_images=4)
    learner = set_up(vae, config)
    weight = next(vae.field.parameters())
    before = weight._version
    weight.grad = torch.ones_like(weight)
    learner.optimizers[0].step()
    assert weight._version > before

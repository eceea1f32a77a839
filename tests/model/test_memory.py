"""A model that is too large for memory is refused before it is made."""

from __future__ import annotations

import pytest
import torch

from modpose import InputError
from modpose.config import parse_config
from modpose.model import memory
from modpose.model.build import build_vae
from modpose.recipes import recipe_config


def test_a_model_larger_than_half_of_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse_config(recipe_config("modpose") | {"seed": 0}, "test")
    parameters = build_vae(config, shape=(32, 32), channels=1, n_images=4).parameters()
    needed = sum(parameter.nbytes for parameter in parameters)
    monkeypatch.setattr(memory, "physical_memory", lambda: 2 * needed // 2)
    with pytest.raises(InputError, match="half of this machine's memory"):
        build_vae(config, shape=(32, 32), channels=1, n_images=4)
    with (
        pytest.raises(InputError, match="recipe x"),
        memory.bounded_memory("recipe x"),
    ):
        torch.nn.Linear(1 << 20, 1 << 30)

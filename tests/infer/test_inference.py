"""Inference over a stack: rows in order, and nothing kept of a batch but its rows."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from modpose.config import merge, parse_config
from modpose.data.dataset import Dataset, dataset_of
from modpose.data.source import open_source
from modpose.infer import encode as inference
from modpose.infer.encode import encode_dataset, importance_bounds
from modpose.model.build import build_vae
from modpose.model.vae import Vae
from modpose.recipes import recipe_config

CPU = torch.device("cpu")
BATCH = 4


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch) -> tuple[Vae, Dataset]:
    """A small model that encodes four of fourteen images at once."""
    small = {"model": {"encoder": {"hidden": 8}, "field": {"hidden": 8}}}
    config = parse_config(merge(recipe_config("spatial-vae"), small) | {"seed": 0}, "test")
    images = np.random.default_rng(0).random((14, 10, 10), np.float32)
    dataset = dataset_of(open_source(images), config, held_out=False)
    monkeypatch.setattr(Vae, "whole_batch", BATCH)
    return build_vae(config, shape=(10, 10), channels=1, n_images=14), dataset


def test_rows_come_in_the_order_asked_for(ready: tuple[Vae, Dataset]) -> None:
    vae, dataset = ready
    every = encode_dataset(vae, dataset, device=CPU, seed=0, quiet=True)
    rows = np.array([13, 0, 7, 7, 2, 9])
    some = encode_dataset(vae, dataset, device=CPU, seed=0, quiet=True, rows=rows)
    for name in ("z", "z_std", "rotation", "shift", "angle_deg", "kl_pose", "kl_content"):
        np.testing.assert_allclose(getattr(some, name), getattr(every, name)[rows], rtol=1e-5)
    assert every.elbo.shape == (14,) and np.isfinite(every.elbo).all()
    assert importance_bounds(vae, dataset, 3, device=CPU, seed=0, quiet=True).shape == (14,)


def test_no_tensor_of_a_batch_outlives_the_next(
    ready: tuple[Vae, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small ones that stayed would break up the memory that large ones are freed from."""
    vae, dataset = ready
    alive: list[int] = []
    batches: list[list[weakref.ReferenceType[Tensor]]] = []
    encode = inference._encode_batch

    def watched(*arguments: Any) -> dict[str, Tensor]:
        alive.append(sum(one() is not None for batch in batches[:-1] for one in batch))
        found = encode(*arguments)
        batches.append([weakref.ref(part) for part in found.values()])
        return found

    monkeypatch.setattr(inference, "_encode_batch", watched)
    encode_dataset(vae, dataset, device=CPU, seed=0, quiet=True)
    assert alive == [0, 0, 0, 0]

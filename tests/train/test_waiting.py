"""A step of training does not wait for numbers of the device, except once for the loss."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, cast

import pytest
import torch

from modpose.train.epoch import Totals
from modpose.train.loop import _backward
from tests.another_device import DEVICE, AnotherDevice
from tests.model.test_devices import FAMILIES
from tests.test_on_a_device import built, images


@pytest.mark.parametrize(("recipe", "shape", "known"), FAMILIES[:-1])
def test_a_step_waits_for_the_loss_alone(
    recipe: str, shape: tuple[int, ...], known: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    vae, batch, totals = built(recipe, shape).train(), images(shape, known), Totals()
    with AnotherDevice() as device:
        vae, batch = vae.to(DEVICE), batch.to(DEVICE)
        for _ in range(2):  # the first makes tables that are kept
            device.waits.clear()
            objective = vae(batch)
            totals.add(objective)
            _backward(cast(Any, None), objective.value().sum())
        assert dict(device.waits) == {"_local_scalar_dense": 1}
        assert totals.of_all().keys() >= {"recon", "kl_pose", "kl_content"}

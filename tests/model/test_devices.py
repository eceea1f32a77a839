"""Models, search and averages make no tensor on another device than that of their input.

No GPU is needed: tensors of the device ``meta`` have shapes but no values, and a dispatch mode
refuses to mix them with tensors of the CPU, as a GPU would.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from modpose.config import merge, parse_config
from modpose.data.batches import Batch
from modpose.fourier.coefficients import Coefficients, half_sphere, map_coefficients
from modpose.fourier.insertion import Inserter, insert, insert_by_torch, solve_jointly
from modpose.fourier.reference import corners, make_references, turned
from modpose.geometry.pose import Pose
from modpose.model.build import build_vae
from modpose.model.encoders import octahedral
from modpose.recipes import recipe_config
from modpose.search.so3_climb import climb
from modpose.search.so3_search import search, shift_grid

GPU = torch.device("meta")
IMAGE, VOLUME = (16, 16), (16, 16, 16)
FAMILIES: list[tuple[str, tuple[int, ...], tuple[str, ...]]] = [
    ("spatial-vae", IMAGE, ()),
    ("target-vae", IMAGE, ()),
    ("modpose", (24, 24), ()),
    ("modpose-posed", IMAGE, ("ctf", "pose")),
    ("cryodrgn", IMAGE, ("ctf", "pose")),
    ("affinity-vae", VOLUME, ()),
    ("modpose-3d", VOLUME, ("wedge",)),
]


class OneDevice(TorchDispatchMode):
    """Refuse operations on tensors of two devices, except of copies, numbers and indices."""

    free = ("_to_copy", "copy_", "index", "index_put_", "_index_put_impl_")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = [part for part in tree_leaves((args, kwargs)) if isinstance(part, Tensor)]
        devices = {part.device for part in found if part.dim()}
        if func.overloadpacket.__name__ not in self.free and len(devices) > 1:
            raise AssertionError(f"{func} of tensors on {devices}")
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def without_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what depends on values pass."""
    monkeypatch.setattr(octahedral, "measured", lambda seen: seen)
    monkeypatch.setattr(Coefficients, "within", within)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())


def within(data: Coefficients, limit: float) -> Coefficients:
    """Keep as many frequencies as the real ones would be."""
    radius = half_sphere(data.box, 0.5)[0].norm(dim=1)
    few = min(data.width, int((radius <= limit + 1e-6).sum()))
    return replace(
        data,
        frequency=data.frequency[:few],
        value=data.value[:, :few],
        transfer=data.transfer[:, :few],
    )


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=GPU)


@pytest.mark.parametrize(("recipe", "shape", "known"), FAMILIES)
def test_a_step_of_training_stays_on_its_device(
    recipe: str, shape: tuple[int, ...], known: tuple[str, ...]
) -> None:
    config = parse_config(merge(recipe_config(recipe), {}), "test")
    vae = build_vae(config, shape=shape, channels=1, n_images=6).to(GPU).train()
    pose = Pose(empty(4, 3, 3), empty(4, len(shape)))
    batch = Batch(
        index=empty(4, dtype=torch.int64),
        image=empty(4, 1, *shape),
        ctf=empty(4, 9) if "ctf" in known else None,
        pose=pose if "pose" in known else None,
        wedge=empty(4, *shape[:-1], shape[-1] // 2 + 1) if "wedge" in known else None,
    )
    with OneDevice():
        vae(batch).value().sum().backward()
        assert vae.eval()(batch).value().device == GPU


def test_search_and_averages_stay_on_their_device() -> None:
    with OneDevice():
        maps = empty(2, 12, 12, 12)
        data = map_coefficients(maps, 0.4)
        references = make_references(maps, 0.4)
        found = search(data, references, empty(10, 3, 3), shift_grid(1.0, 1.0), top=2, apart=0.5)
        assert {part.device for part in found} == {GPU}
        which = empty(2, dtype=torch.int64)
        slopes = make_references(maps, 0.4, slopes=True)
        posed = climb(data, slopes, which, which, empty(2, 3, 3), empty(2, 3), steps=1)
        assert {part.device for part in posed} == {GPU}
        sums = Inserter(2, 12, 0.4, GPU)
        at = turned(data.frequency, posed.rotation)
        sums.add(at, data.value, data.value.abs(), which)
        assert sums.sums().value.device == GPU
        side = sums.side
        half = side, side, side // 2 + 1
        both = torch.complex(empty(*half, 2), empty(*half, 2))
        weights = empty(*half, 3)
        maps = solve_jointly(both, weights, 24, empty(12, 12, 12), empty(2, 7))
        assert maps.device == GPU


def test_insertion_is_the_same_on_any_device() -> None:
    generator = torch.Generator().manual_seed(0)
    index, share = corners(torch.rand(50, 3, generator=generator) - 0.5, 13, 12)
    values = torch.randn(50, 3, generator=generator)
    here, there = torch.zeros(13**3, 3), torch.zeros(13**3, 3)
    insert(index, share, values, here)
    insert_by_torch(index, share, values, there)
    assert here.any() and torch.allclose(here, there, atol=1e-6)

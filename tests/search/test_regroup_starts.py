"""Classes of a random start that are not needed give way, and another is divided."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from modpose.fourier.insertion import insert_slices
from modpose.fourier.reference import make_references, sample, turned
from modpose.geometry.grids import lattice
from modpose.geometry.rotations import haar_rotations
from modpose.search.abinitio.images import SearchImages
from modpose.search.abinitio.regroup import HELD_OUT, _needed, regrouped
from modpose.search.abinitio.rounds import Now, Rounds, _maps
from modpose.search.abinitio.settings import AbInitioSettings, StartPlan

SIDE, EACH, FREE = 24, 200, torch.eye(3)[None]
SETTINGS = AbInitioSettings(classes=3, starts=1, box=24, max_shift=0.02)
PLAN = StartPlan(box=20, radii=(3.0, 5.0), rotations=(576, 576), rounds=25, images=400)


def structures() -> Tensor:
    """A rod, a heap and a ring of six blobs, (3, D, D, D)."""
    part = torch.arange(6) / 6
    rod = torch.stack([0.7 * (part - 0.4), 0 * part, 0 * part], 1)
    heap = 0.2 * (torch.rand(6, 3, generator=torch.Generator().manual_seed(3)) - 0.5)
    angle = 2 * torch.pi * part
    ring = 0.25 * torch.stack([angle.cos(), angle.sin(), 0 * part], 1)
    far = lattice((SIDE,) * 3) - SIDE * torch.stack([rod, heap, ring])[:, :, None]
    return (-far.square().sum(-1) / 6).exp().sum(1).view(3, SIDE, SIDE, SIDE)


@pytest.fixture(scope="module")
def images() -> tuple[SearchImages, Tensor, Tensor]:
    """Images of three structures in turn, with their rotations and structures."""
    generator = torch.Generator().manual_seed(0)
    axis = torch.arange(-8, 9).float()
    k = torch.cartesian_prod(axis, axis)
    k = k[((k[:, 1] > 0) | ((k[:, 1] == 0) & (k[:, 0] > 0))) & (k.norm(dim=1) <= 8)]
    k = k[k.norm(dim=1).argsort(stable=True)]
    which = torch.arange(3 * EACH) % 3
    rotation = haar_rotations(len(which), generator)
    frequency = torch.cat([k, torch.zeros(len(k), 1)], 1) / SIDE
    references = make_references(structures(), 8.5 / SIDE)
    value = 2.0 * sample(references, which, turned(frequency, rotation))
    noise = torch.randn(*value.shape, 2, generator=generator) / 2**0.5
    value = value + torch.view_as_complex(noise)
    return SearchImages(k, value, torch.ones(1, len(k)), torch.ones(13), SIDE), rotation, which


def test_a_class_is_needed_as_much_as_its_images_would_lose():
    score = torch.tensor([[5.0, 1.0, 4.0], [0.0, 6.0, 2.0], [7.0, 0.0, 6.5], [9.0, 0.0, 3.0]])
    needed, own = _needed(score)
    assert needed.tolist() == pytest.approx([(1 + 0.5 + 6) / 4, 1.0, 0.0])
    assert own.tolist() == pytest.approx([7.0, 6.0, 0.0])


def test_two_structures_that_share_a_class_come_apart(images):
    seen, rotation, which = images
    work, generator = Rounds(seen, SETTINGS, FREE, PLAN), torch.Generator().manual_seed(0)
    # the first two structures are in class 0; the third is in both others
    wrong = torch.where(which < 2, 0, 1 + torch.arange(len(which)) // 3 % 2)
    data = seen.coefficients(slice(None), PLAN.radii[1], PLAN.box)
    slot = 2 * wrong + torch.arange(len(which)) // 6 % 2
    sums = insert_slices(data, slot, 6, rotation, torch.zeros(len(which), 3))
    begun = Now(PLAN.rounds, sums, _maps(sums, PLAN.box, work._mask, FREE))
    now = regrouped(work, begun, generator)
    found = work.scores(torch.arange(len(which)), now, generator).argmax(1)
    table = torch.zeros(3, 3, dtype=torch.int64)
    table.index_put_((which, found), torch.tensor(1), accumulate=True)
    assert sorted(table.argmax(1).tolist()) == [0, 1, 2], table
    assert table.amax(1).sum() > 0.8 * len(which)  # the refinement goes on from here
    never = Rounds(seen, SETTINGS, FREE, replace(PLAN, regroup=False))
    assert regrouped(never, begun, generator) is begun


def test_where_every_class_is_needed_only_the_judged_images_are_compared(images, monkeypatch):
    seen, rotation, which = images
    work, generator = Rounds(seen, SETTINGS, FREE, PLAN), torch.Generator().manual_seed(0)
    data = seen.coefficients(slice(None), PLAN.radii[1], PLAN.box)
    slot = 2 * which + torch.arange(len(which)) // 3 % 2
    sums = insert_slices(data, slot, 6, rotation, torch.zeros(len(which), 3))
    right = Now(PLAN.rounds, sums, _maps(sums, PLAN.box, work._mask, FREE))
    compared, scores = [], Rounds.scores

    def counted(self: Rounds, rows: Tensor, *told: object) -> Tensor:
        compared.append(len(rows))
        return scores(self, rows, *told)

    monkeypatch.setattr(Rounds, "scores", counted)
    monkeypatch.setattr("modpose.search.abinitio.regroup.IDLE", 0.0)
    assert regrouped(work, right, generator) is right
    assert compared == [len(which) // HELD_OUT]

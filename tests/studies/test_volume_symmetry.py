"""Symmetry found in a volume, against the group that it was made with."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from modpose.geometry.groups import symmetry_group
from modpose.geometry.rotations import geodesic, haar_rotations
from studies.common.volume_symmetry import volume_symmetry

BOX = 28


def blobs(group: str, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Copies of a crooked chain by a group, rotated at random: (D, D, D), and the group there."""
    rng = np.random.default_rng(seed)
    turn = haar_rotations(1, torch.Generator().manual_seed(seed)).double()[0]
    elements = turn @ symmetry_group(group).double() @ turn.T
    centres = torch.from_numpy(rng.normal(0, 2.5, (6, 3))) + torch.tensor([3.0, 2.0, 4.0])
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    points = torch.stack([x, y, z], -1)
    volume = torch.zeros(BOX, BOX, BOX, dtype=torch.float64)
    for element in elements:
        for centre in centres @ element.T:
            volume += torch.exp(-(points - centre).square().sum(-1) / (2 * 1.5**2))
    return volume.float(), elements.float()


@pytest.mark.parametrize("group", ["C1", "C2", "C5", "D2", "D3", "T", "O"])
def test_the_group_that_a_volume_was_made_with_is_found(group: str) -> None:
    volume, elements = blobs(group)
    found = volume_symmetry(volume)
    assert len(found) == len(elements)
    angles = geodesic(found[:, None], elements[None])
    assert float(angles.min(1).values.max()) < math.radians(1.5)
    assert float(angles.min(0).values.max()) < math.radians(1.5)


def test_the_identity_comes_first() -> None:
    assert torch.equal(volume_symmetry(blobs("C3")[0])[0], torch.eye(3))


def test_a_blemish_breaks_a_symmetry() -> None:
    volume, _ = blobs("C2")
    volume[:14] *= 0.6
    assert len(volume_symmetry(volume)) == 1

"""Turns after which an object looks alike, and volumes posed by mistake after one."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from modpose.evaluate.pose_errors import pose_errors
from modpose.fourier.coefficients import coefficients_of, joined, white_noise
from modpose.geometry.grids import soft_sphere
from modpose.geometry.pose import Pose, sample_images
from modpose.geometry.rotations import geodesic, haar_rotations, rotation_of_vector
from modpose.observe.wedge import wedge_mask
from modpose.search.classify import Assignment, Schedule, State, generator_of
from modpose.search.look_alikes import look_alikes
from modpose.search.refine import half_maps, refine, split_in_halves

BOX = 20


def blobs(centres: Tensor, heights: Tensor, pose: Pose | None = None) -> Tensor:
    """Sum of blobs, posed analytically: (D, D, D)."""
    axes = torch.arange(BOX, dtype=torch.float32) - BOX // 2
    z, y, x = torch.meshgrid(axes, axes, axes, indexing="ij")
    grid = torch.stack([x, y, z], -1)
    places = centres if pose is None else centres @ pose.rotation.T + pose.shift
    squares = (grid[..., None, :] - places).square().sum(-1)
    return (heights * torch.exp(-squares / (2 * 1.3**2))).sum(-1)


AXIS = torch.tensor([1.0, 2.0, 2.0]) / 3
HALF_TURN = rotation_of_vector(math.pi * AXIS[None])[0]


def almost_twofold(offset: float = 0.0) -> tuple[Tensor, Tensor]:
    """Pairs of blobs, equal but in height, about an axis that runs past the centre."""
    half = torch.tensor([[4.0, 1.0, -2.0], [3.0, -4.0, 1.0], [0.0, 3.0, 4.5]])
    moved = offset * torch.tensor([0.0, 1.0, -1.0])
    centres = torch.cat([half, half @ HALF_TURN.T]) + moved
    return centres, torch.tensor([1.0, 1.0, 1.0, 1.0, 0.8, 0.7])


@pytest.mark.parametrize("offset", [0.0, 0.5, 1.0])
def test_the_half_turn_is_found_with_its_shift(offset: float) -> None:
    centres, heights = almost_twofold(offset)
    volume = blobs(centres, heights)
    found = look_alikes(volume[None], 1)
    assert torch.rad2deg(geodesic(found.rotation[0, 0], HALF_TURN)) < 3
    g, s = found.rotation[0, 0], found.shift[0, 0]
    axes = torch.arange(BOX, dtype=torch.float32) - BOX // 2
    z, y, x = torch.meshgrid(axes, axes, axes, indexing="ij")
    points = torch.stack([x, y, z], -1).reshape(1, -1, 3)
    turned = sample_images(volume[None, None], (points - s) @ g)[0, :, 0]  # f(g^T (x - s))
    both = torch.stack([turned, volume.flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.93


def test_composed_poses_show_what_looks_alike() -> None:
    """signal(x) of the pose composed is that of the pose itself, where the symmetry is exact."""
    centres, _ = almost_twofold(0.5)
    heights = torch.ones(6)
    found = look_alikes(blobs(centres, heights)[None], 1)
    rotation = haar_rotations(1, torch.Generator().manual_seed(0))
    shift = torch.tensor([[0.5, -0.3, 0.2]])
    turned, moved = found.of(torch.zeros(1, dtype=torch.int64), rotation, shift)
    one = blobs(centres, heights, Pose(rotation[0], shift[0]))
    other = blobs(centres, heights, Pose(turned[0, 0], moved[0, 0]))
    assert torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1] > 0.99


@pytest.mark.parametrize("which", ["every fourth", "half a set"])
def test_refinement_turns_back_volumes_posed_after_a_half_turn(which: str) -> None:
    centres, heights = almost_twofold()
    generator = torch.Generator().manual_seed(0)
    n = 48
    rotation = haar_rotations(n, generator)
    clean = torch.stack([blobs(centres, heights, Pose(r, torch.zeros(3))) for r in rotation])
    volumes = clean + 0.25 * torch.randn(clean.shape, generator=generator)
    wedge = wedge_mask(torch.tensor([[-60.0, 60.0]]), (BOX,) * 3)
    data = joined([coefficients_of(volumes, wedge, white_noise(BOX, 0.25), 0.4)])
    wrong = torch.arange(n) % 4 == 0
    if which == "half a set":  # as refinement divides it: either half is sure of itself
        divided = generator_of(0, 2)
        wrong = split_in_halves(torch.zeros(n, dtype=torch.int64), divided) == 1
    posed = torch.where(wrong[:, None, None], rotation @ HALF_TURN, rotation)
    zero, one = torch.zeros(n), torch.ones(n)
    start = Assignment(posed, torch.zeros(n, 3), zero.long(), zero, one)
    mask, half = soft_sphere(BOX, BOX - 4.0), torch.arange(n) % 2
    maps = half_maps(data.within(0.25), start, half, 1, mask)
    schedule = Schedule(rounds=1, refine_rounds=2, rotations=60, hypotheses=1)
    state, _, _ = refine(
        data,
        State(1, start, maps.combined, maps.fsc),
        mask=mask,
        reach=1.0,
        schedule=schedule,
    )
    truth = torch.zeros(n, 3)
    error = pose_errors(state.assignment.rotation, state.assignment.shift, rotation, truth)
    assert (error.angle_deg < 20).float().mean() > 0.9

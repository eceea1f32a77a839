"""Coefficients, turned references, scores and climbing, against brute force in real space."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from modpose.errors import InputError
from modpose.fourier.coefficients import (
    Coefficients,
    coefficients_of,
    half_sphere,
    joined,
    measure_noise,
    noise_window,
    phases,
    transform,
    white_noise,
)
from modpose.fourier.reference import make_references, sample, turned
from modpose.geometry.groups import so3_grid
from modpose.geometry.rotations import geodesic, haar_rotations, rotation_of_vector
from modpose.observe.wedge import filter_volumes, wedge_mask
from modpose.search.classify import Schedule, grid_poses
from modpose.search.so3_climb import climb
from modpose.search.so3_search import search, shift_grid
from modpose.simulate.molecules import blob_assembly, density

BOX = 24
PIXEL = 8.0
LIMIT = 0.35


def placed(number: int, rotation: Tensor, shift: Tensor) -> Tensor:
    """Evaluate an assembly at poses, exactly."""
    one = blob_assembly(number)
    count = len(rotation)
    centers = one.centers[None].repeat(count, 0)
    posed = (rotation.double().numpy(), shift.double().numpy(), BOX, PIXEL)
    volumes = torch.from_numpy(density(centers, one.sigmas, one.masses, *posed))
    return volumes / 1e-4


def upright(number: int = 0) -> Tensor:
    return placed(number, torch.eye(3)[None], torch.zeros(1, 3))


def poses(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return haar_rotations(count, generator), torch.rand(count, 3, generator=generator) * 3 - 1.5


def everything() -> Tensor:
    return torch.ones(1, BOX, BOX, BOX // 2 + 1)


def model(rotation: Tensor, shift: Tensor, volumes: Coefficients, number: int = 0) -> Tensor:
    references = make_references(upright(number), LIMIT)
    which = torch.zeros(len(rotation), dtype=torch.int64)
    values = sample(references, which, turned(volumes.frequency, rotation))
    return values * volumes.transfer * phases(volumes.frequency, shift)


def test_half_of_the_frequencies_holds_the_energy_of_a_volume() -> None:
    frequency, place = half_sphere(BOX, 0.5)
    smooth = upright() - upright().mean()
    energy = 2 * transform(smooth, place).abs().square().sum()
    assert energy.item() == pytest.approx(smooth.square().sum().item(), rel=1e-3)
    keys = {tuple(k) for k in (frequency * BOX).round().int().tolist()}
    assert not any(tuple(-i for i in key) in keys for key in keys)
    assert (frequency.norm(dim=1).diff() >= -1e-6).all()


def test_a_turned_reference_is_the_transform_of_the_turned_object() -> None:
    rotation, shift = poses(6)
    volumes = joined([coefficients_of(placed(0, rotation, shift), everything(), ONE, LIMIT)])
    found = model(rotation, shift, volumes)
    error = (found - volumes.value).abs().square().sum() / volumes.value.abs().square().sum()
    assert error.sqrt() < 0.03


def test_slopes_are_differences_of_turned_objects() -> None:
    rotation, _ = poses(3)
    eps = 0.01
    references = make_references(upright(), LIMIT, slopes=True)
    frequency = half_sphere(BOX, LIMIT)[0]
    which = torch.zeros(3, dtype=torch.int64)
    slopes = sample(references, which, turned(frequency, rotation))[..., 1:]
    for axis in range(3):
        step = eps * torch.nn.functional.one_hot(torch.tensor(axis), 3).float()
        ends = [
            coefficients_of(
                placed(0, rotation @ rotation_of_vector(sign * step), torch.zeros(3, 3)),
                everything(),
                ONE,
                LIMIT,
            ).value
            for sign in (1, -1)
        ]
        exact = (ends[0] - ends[1]) / (2 * eps)
        error = (slopes[..., axis] - exact).abs().square().sum() / exact.abs().square().sum()
        assert error.sqrt() < 0.05


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("each_its_own", [True, False])
def test_scores_are_those_of_brute_force_in_real_space(
    normalised: bool, each_its_own: bool
) -> None:
    rotation, shift = poses(2)
    ranges = torch.tensor([[-60.0, 60.0], [-40.0, 50.0]]) if each_its_own else None
    mask = wedge_mask(torch.tensor([[-60.0, 60.0]]) if ranges is None else ranges, (BOX,) * 3)
    noise = 2.0
    observed = filter_volumes(placed(0, rotation, shift), mask)
    generator = torch.Generator().manual_seed(1)
    observed += filter_volumes(noise * torch.randn(observed.shape, generator=generator), mask)
    grid, shifts = so3_grid(7).float(), shift_grid(1.0, 1.0)
    volumes = joined([coefficients_of(observed, mask, white_noise(BOX, noise), 0.45)])
    assert volumes.shared is not each_its_own
    references = make_references(torch.cat([upright(0), upright(1)]), 0.45)
    found = search(volumes, references, grid, shifts, top=3, normalised=normalised)

    best = torch.full((2, 2, 7), -math.inf)
    centred = observed - observed.mean((1, 2, 3), keepdim=True)
    for k in range(2):
        for r in range(7):
            for t in shifts:
                one = filter_volumes(placed(k, grid[r][None], t[None]).expand(2, -1, -1, -1), mask)
                one = one - one.mean((1, 2, 3), keepdim=True)
                inner = (one * centred).sum((1, 2, 3)) / noise**2
                norm = one.square().sum((1, 2, 3)) / noise**2
                plain = inner - norm / 2
                score = inner.clamp(min=0) ** 2 / (2 * norm) if normalised else plain
                best[:, k, r] = torch.maximum(best[:, k, r], score)
    expected = best.topk(3, dim=-1)
    scale = expected.values.abs().max()
    assert (found.score - expected.values).abs().max() < 0.02 * scale
    assert torch.equal(found.rotation[:, :, 0], grid[expected.indices[..., 0]])


def test_kept_poses_are_apart() -> None:
    rotation, shift = poses(2)
    volumes = joined([coefficients_of(placed(0, rotation, shift), everything(), ONE, 0.15)])
    references, grid = make_references(upright(), 0.15), so3_grid(500).float()
    found = search(volumes, references, grid, torch.zeros(1, 3), top=4, apart=0.6)
    between = geodesic(found.rotation[:, 0, :, None], found.rotation[:, 0, None])
    assert between[:, ~torch.eye(4, dtype=torch.bool)].min() >= 0.6
    assert (found.score.diff(dim=-1) <= 0).all()


def test_search_and_climb_find_the_pose() -> None:
    rotation, shift = poses(8)
    mask = wedge_mask(torch.tensor([[-60.0, 60.0]]), (BOX,) * 3)
    observed = filter_volumes(placed(0, rotation, shift), mask)
    volumes = joined([coefficients_of(observed, mask, ONE, LIMIT)])
    grid = so3_grid(800).float()
    references = make_references(upright(), LIMIT, slopes=True)
    coarse = make_references(upright(), 0.2)
    found = search(volumes.within(0.2), coarse, grid, shift_grid(2.0, 2.0), top=4, apart=0.5)
    owner = torch.arange(8).repeat_interleave(4)
    which = torch.zeros_like(owner)
    start = (found.rotation.flatten(0, 2), found.shift.flatten(0, 2))
    top = climb(volumes, references, owner, which, *start, steps=10)
    best = top.rows(4 * torch.arange(8) + top.score.reshape(8, 4).argmax(1))
    assert torch.rad2deg(geodesic(best.rotation, rotation)).max() < 0.5
    assert (best.shift - shift).abs().max() < 0.05
    assert best.amplitude == pytest.approx(torch.ones(8), abs=0.03)
    none = climb(volumes, references, owner, which, *start, steps=0)
    assert (top.score >= none.score).all()


def test_far_shifts_are_searched_near_the_last_ones() -> None:
    """As well as everywhere; and no farther than the reach."""
    rotation, shift = poses(6)
    far = 4 * shift.sign() + shift  # 4 to 5.5 voxels along each axis
    volumes = joined([coefficients_of(placed(0, rotation, far), everything(), ONE, LIMIT)])
    last = far + torch.tensor([1.0, -1.5, 0.5])
    schedule = Schedule(rotations=400)
    turn = haar_rotations(1, torch.Generator().manual_seed(1))
    found, whole = (
        grid_poses(volumes, upright(), 6.0, schedule, turn, about) for about in (last, None)
    )
    assert (found.shift[:, 0, 0] - far).abs().max() < 1.5
    assert torch.rad2deg(geodesic(found.rotation[:, 0, 0], rotation)).median() < 30
    assert (found.score[:, 0, 0] > 0.95 * whole.score[:, 0, 0]).all()
    assert found.shift.abs().max() <= 6.0


def test_shifts_of_a_climb_stay_within_reach() -> None:
    rotation, _ = poses(2)
    far = torch.full((2, 3), 2.0)
    volumes = joined([coefficients_of(placed(0, rotation, far), everything(), ONE, LIMIT)])
    references = make_references(upright(), LIMIT, slopes=True)
    owner, which = torch.arange(2), torch.zeros(2, dtype=torch.int64)
    top = climb(volumes, references, owner, which, rotation, torch.zeros(2, 3), steps=8, reach=1.0)
    assert top.shift.abs().max() <= 1.0
    assert top.shift.amin() > 0.5


def test_noise_is_measured_in_the_corners() -> None:
    generator = torch.Generator().manual_seed(0)
    std = 3.0
    rotation, shift = poses(24)
    noisy = placed(0, rotation, shift) + std * torch.randn(24, BOX, BOX, BOX, generator=generator)
    spectrum = measure_noise([(noisy[:12], everything()), (noisy[12:], everything())], BOX)
    assert spectrum.amplitude[2:] == pytest.approx(torch.full((11,), std), rel=0.05)
    assert noise_window(BOX)[BOX // 2, BOX // 2, BOX // 2] == 0


def test_a_masked_volume_is_refused() -> None:
    with pytest.raises(InputError, match="corners"):
        measure_noise([(torch.zeros(2, BOX, BOX, BOX), everything())], BOX)


def test_shift_grid_covers_the_cube() -> None:
    shifts = shift_grid(2.0, 1.5)
    assert len(shifts) == 4**3
    assert shifts.abs().max() == 2.0
    assert shift_grid(0.0, 1.0).tolist() == [[0.0, 0.0, 0.0]]


ONE = white_noise(BOX, 1.0)

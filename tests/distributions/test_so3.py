"""Posteriors over SO(3) against Monte Carlo and brute force."""

from __future__ import annotations

import math

import pytest
import torch

from modpose.config import ModelConfig
from modpose.distributions.so3 import LOG_STD_RANGE, SO3Normal, log_density
from modpose.geometry.rotations import (
    geodesic,
    haar_rotations,
    rotation_of_columns,
    rotation_of_vector,
    rotation_of_yaw_pitch_roll,
)
from modpose.model.posterior import LatentLayout, Posterior

STDS = (0.02, 0.2, 0.6, 1.0, 1.49)


def make_posterior(prior: str = "uniform", cells: int = 1, scale: float = 0.7) -> Posterior:
    values = {"z_dim": 1, "rotation": {"prior": prior, "std_deg": 90.0}}
    layout = LatentLayout(ModelConfig.model_validate(values), 3)
    generator = torch.Generator().manual_seed(3)
    params = scale * torch.randn(2, cells, layout.n_params, generator=generator)
    return layout.posterior(params, torch.randn(2, cells, generator=generator))


@pytest.mark.parametrize("std", STDS)
def test_density_is_that_of_samples(std: float) -> None:
    omega = std * torch.randn(40_000, 3, generator=torch.Generator().manual_seed(0))
    angle = geodesic(torch.eye(3), rotation_of_vector(omega))
    inner = torch.linspace(0, min(math.pi, 4 * std), 13, dtype=torch.float64)
    found = torch.histogram(angle.double(), inner).hist / len(angle)
    fine = torch.linspace(0, 1, 401, dtype=torch.float64) * inner[-1]
    haar = 2 * (fine / 2).sin().square() / math.pi
    log_std = torch.tensor(math.log(std), dtype=torch.float64)
    density = haar * log_density(fine, log_std).exp()
    steps = torch.cumulative_trapezoid(density, fine)
    at = torch.cat([torch.zeros(1), steps])[torch.linspace(0, 400, 13).round().long()]
    expected = at.diff()
    error = (expected * (1 - expected) / len(angle)).sqrt()
    assert ((found - expected).abs() < 5 * error + 1e-3).all()


@pytest.mark.parametrize("std", STDS)
def test_kl_to_haar_against_monte_carlo(std: float) -> None:
    log_std = torch.full((1, 1), math.log(std))
    turn = SO3Normal(haar_rotations(1, torch.Generator().manual_seed(1)), log_std)
    generator = torch.Generator().manual_seed(2)
    rotation = turn.centre @ rotation_of_vector(std * torch.randn(100_000, 3, generator=generator))
    ratio = turn.log_prob(rotation)
    error = ratio.std() / math.sqrt(len(ratio))
    assert abs(turn.kl().item() - ratio.mean().item()) < 5 * error + 1e-4
    # a difference of numbers of about 5 in single precision: four roundings of 5e-7
    expected = math.log(8 * math.pi**2) - turn.kl().item()
    assert turn.entropy().item() == pytest.approx(expected, abs=2e-6)


def test_kl_is_that_of_flat_space_when_narrow_and_never_negative() -> None:
    log_std = torch.linspace(*LOG_STD_RANGE, 300).unsqueeze(-1).requires_grad_()
    kl = SO3Normal(torch.eye(3).expand(300, 3, 3), log_std).kl()
    flat = math.log(8 * math.pi**2) - 1.5 * math.log(2 * math.pi * math.e) - 3 * log_std[:, 0]
    narrow = log_std[:, 0] < math.log(0.05)
    assert (kl - flat)[narrow].abs().max() < 1e-3
    assert (kl > 0).all() and (kl.diff() < 0).all()
    kl.sum().backward()
    assert torch.isfinite(log_std.grad).all()


@pytest.mark.parametrize("cells", [1, 4])
@pytest.mark.parametrize("prior", ["none", "gaussian", "uniform"])
def test_kl_of_a_mixture_bounds_monte_carlo_from_above(prior: str, cells: int) -> None:
    for scale in (0.3, 1.5):
        posterior = make_posterior(prior, cells, scale)
        latents = posterior.sample(20_000, torch.Generator().manual_seed(0))
        ratio = posterior.log_prior_over_posterior(latents)
        kl = posterior.kl(exact=True)
        gap = kl.pose + kl.content + ratio.mean(1)
        error = 5 * ratio.std(1) / math.sqrt(ratio.shape[1])
        assert (gap > -error).all() and (gap < math.log(cells) + error).all()


@pytest.mark.parametrize(("first", "second"), [(0.3, 0.3), (0.8, 0.8), (0.8, 0.3), (1.3, 1.3)])
@pytest.mark.parametrize("apart", [0.2, 1.0, 3.1])
def test_distance_of_cells_never_exceeds_the_integral(
    first: float, second: float, apart: float
) -> None:
    log_std = torch.tensor([first, second]).log()[None, :, None]
    centre = rotation_of_vector(torch.tensor([[0.0, 0, 0], [apart, 0, 0]]))[None]
    turn = SO3Normal(centre, log_std)
    generator = torch.Generator().manual_seed(4)
    noise = torch.randn(2, 20_000, 3, generator=generator)
    drawn = centre[0][:, None] @ rotation_of_vector(log_std.exp()[0, :, :, None] * noise)
    drawn = drawn.flatten(0, 1)
    one, two = (SO3Normal(centre[0, k], log_std[0, k]).log_prob(drawn) for k in (0, 1))
    mixture = torch.logaddexp(one, two) - math.log(2)
    overlap = (0.5 * (one + two) - mixture).exp()
    expected, error = -overlap.mean().log(), overlap.std() / overlap.mean() / 200
    assert turn.bhattacharyya()[0, 0, 1] < expected + 5 * error + 1e-4
    assert turn.bhattacharyya()[0].diagonal().abs().max() < 1e-5


def test_importance_weights_average_to_one() -> None:
    posterior = make_posterior("uniform", cells=3, scale=0.1)
    latents = posterior.sample(20_000, torch.Generator().manual_seed(1))
    weights = posterior.log_prior_over_posterior(latents).exp()
    error = weights.std(1) / math.sqrt(weights.shape[1])
    assert ((weights.mean(1) - 1).abs() < 5 * error).all()


def test_latents_carry_rotation_matrices() -> None:
    euler, any_turn = make_posterior("gaussian"), make_posterior("uniform", cells=4)
    drawn = euler.sample(5, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.rotation, rotation_of_yaw_pitch_roll(drawn.angle))
    drawn = any_turn.sample(5, torch.Generator().manual_seed(0))
    eye = torch.eye(3).expand(2, 5, 3, 3)
    torch.testing.assert_close(drawn.rotation.mT @ drawn.rotation, eye, atol=1e-5, rtol=0)
    best = any_turn.best()
    assert any_turn.turn is not None
    torch.testing.assert_close(best.rotation, any_turn.turn.at(best.cell).centre)
    assert drawn.at(slice(1)).rotation.shape == (1, 5, 3, 3)
    assert drawn.at(slice(None), slice(2)).shift.shape == (2, 2, 3)


def test_an_encoder_that_says_nothing_gives_the_identity_and_finite_gradients() -> None:
    params = torch.zeros(1, 1, 7, requires_grad=True)
    turn = SO3Normal.read(params)
    torch.testing.assert_close(turn.centre[0, 0], torch.eye(3))
    (turn.centre * torch.randn(3, 3)).sum().backward()
    assert params.grad is not None and torch.isfinite(params.grad).all()


def test_mixed_cells_lie_between() -> None:
    centre = rotation_of_vector(torch.tensor([[0.0, 0, 0.2], [0.0, 0, 0.8]]))[None]
    turn = SO3Normal(centre, torch.zeros(1, 2, 1))
    mixed = turn.mixed(torch.full((1, 1, 2), 0.5))
    assert geodesic(mixed.centre[0, 0], centre[0, 0]).item() == pytest.approx(0.3, abs=1e-5)


def test_columns_make_rotations() -> None:
    numbers = torch.randn(50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rotation = rotation_of_columns(numbers)
    assert torch.allclose(torch.det(rotation), torch.ones(50, dtype=torch.float64))
    first = torch.nn.functional.normalize(numbers[:, :3], dim=-1)
    torch.testing.assert_close(rotation[:, :, 0], first)
    haar = haar_rotations(50, torch.Generator().manual_seed(0), torch.float64)
    again = rotation_of_columns(haar[..., :2].mT.flatten(-2))
    torch.testing.assert_close(again, haar)

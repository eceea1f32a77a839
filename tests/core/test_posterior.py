"""KL terms against closed forms and Monte Carlo; sampling; bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modpose.config import ModelConfig, RotationConfig, ShiftConfig
from modpose.posterior.gaussian import Gaussian, wrapped_entropy, wrapped_log_prob
from modpose.posterior.posterior import LatentLayout, Posterior, angle_kl

PRIORS = ("none", "gaussian", "wide", "uniform")


def make_posterior(
    rotation: str = "uniform", shift: str = "gaussian", cells: int = 3, scale: float = 0.7
) -> Posterior:
    config = ModelConfig.model_validate(
        {
            "z_dim": 2,
            "rotation": {"prior": rotation, "std_deg": 40.0},
            "shift": {"prior": shift, "std_px": 1.5},
        }
    )
    layout = LatentLayout(config, 2)
    generator = torch.Generator().manual_seed(3)
    params = scale * torch.randn(2, cells, layout.n_params, generator=generator)
    return layout.posterior(params, torch.randn(2, cells, generator=generator))


def brute_wrapped_density(x: np.ndarray, std: float) -> np.ndarray:
    turns = 2 * np.pi * np.arange(-60, 61)
    return np.exp(-0.5 * ((x[:, None] + turns) / std) ** 2).sum(1) / (std * np.sqrt(2 * np.pi))


@pytest.mark.parametrize("std", [0.01, 0.1, 0.5, 1.0, 1.5, 2.0, 3.0, 3.2, 5.0, 20.0])
def test_wrapped_normal_against_brute_force(std: float) -> None:
    x = np.linspace(-np.pi, np.pi, 20_001)
    density = brute_wrapped_density(x, std)
    ours = wrapped_log_prob(
        torch.tensor(x), torch.tensor(0.0), torch.tensor(math.log(std)).double()
    )
    near = density > 1e-30
    np.testing.assert_allclose(ours.numpy()[near], np.log(density[near]), atol=1e-5, rtol=1e-5)
    entropy = -np.trapezoid(density * np.log(np.maximum(density, 1e-300)), x)
    found = wrapped_entropy(torch.tensor(math.log(std)).double()).item()
    assert found == pytest.approx(entropy, abs=2e-4)
    assert found <= math.log(2 * math.pi) + 1e-6


@given(st.floats(-6, 3))
@settings(max_examples=40, deadline=None)
def test_wrapped_entropy_grows_with_the_width(log_std: float) -> None:
    pair = torch.tensor([log_std, log_std + 0.05], dtype=torch.float64, requires_grad=True)
    entropy = wrapped_entropy(pair)
    assert entropy[1] >= entropy[0] - 2e-4
    entropy.sum().backward()
    assert torch.isfinite(pair.grad).all()


@given(st.floats(-2, 2), st.floats(-3, 1), st.floats(0.1, 5))
@settings(deadline=None)
def test_gaussian_kl_against_torch(mean: float, log_std: float, std: float) -> None:
    ours = Gaussian(torch.tensor([mean]), torch.tensor([log_std])).kl_to_prior(std)
    q = torch.distributions.Normal(mean, math.exp(log_std))
    theirs = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, std))
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("shift", ["none", "gaussian"])
@pytest.mark.parametrize("rotation", PRIORS)
def test_kl_against_monte_carlo(rotation: str, shift: str) -> None:
    posterior = make_posterior(rotation, shift)
    latents = posterior.sample(60_000, torch.Generator().manual_seed(0))
    ratio = posterior.log_prior_over_posterior(latents)
    kl = posterior.kl(exact=True)
    standard_error = ratio.std(1) / math.sqrt(ratio.shape[1])
    assert ((-ratio.mean(1) - (kl.pose + kl.content)).abs() < 5 * standard_error).all()


@pytest.mark.parametrize("rotation", PRIORS)
def test_importance_weights_average_to_one(rotation: str) -> None:
    posterior = make_posterior(rotation, scale=0.2)
    latents = posterior.sample(100_000, torch.Generator().manual_seed(1))
    weights = posterior.log_prior_over_posterior(latents).exp()
    # E_q[p/q] = 1: the density used for weights is the one that samples come from
    standard_error = weights.std(1) / math.sqrt(weights.shape[1])
    assert ((weights.mean(1) - 1).abs() < 5 * standard_error).all()
    assert standard_error.max() < 0.02


def test_equation_3_of_the_paper() -> None:
    sigma, s = 0.3, math.radians(180)
    angle = Gaussian(torch.tensor([5.0]), torch.tensor([math.log(sigma)]))
    found = angle_kl(angle, RotationConfig(prior="wide", std_deg=180), exact=False)
    expected = -math.log(sigma) + math.log(s) + sigma**2 / (2 * s**2) - 0.5
    assert found.item() == pytest.approx(expected, rel=1e-5)


@given(st.floats(-5, 3))
@settings(deadline=None)
def test_the_wide_prior_overstates_the_exact_kl_so_its_elbo_bounds(log_std: float) -> None:
    angle = Gaussian(torch.zeros(1), torch.tensor([log_std]))
    wide = RotationConfig(prior="wide", std_deg=180)
    assert angle_kl(angle, wide, exact=False) >= angle_kl(angle, wide, exact=True) - 2e-4


def test_turning_back_undoes_a_turn_of_the_image() -> None:
    posterior = make_posterior()
    turn = torch.tensor([0.8, -2.5])
    back = posterior.turned_back(turn)
    assert back.angle is not None and posterior.angle is not None
    assert back.shift is not None and posterior.shift is not None
    difference = back.angle.mean + turn[:, None, None] - posterior.angle.mean
    torch.testing.assert_close(difference.cos(), torch.ones_like(difference))
    again = back.turned_back(-turn)
    assert again.shift is not None
    torch.testing.assert_close(again.shift.mean, posterior.shift.mean, atol=1e-5, rtol=1e-5)


def test_sampling_is_seeded_and_picks_cells_by_their_weight() -> None:
    posterior = make_posterior()
    first = posterior.sample(20_000, torch.Generator().manual_seed(5))
    second = posterior.sample(20_000, torch.Generator().manual_seed(5))
    assert torch.equal(first.z, second.z)
    share = torch.stack([(first.cell == c).float().mean(1) for c in range(3)], dim=1)
    torch.testing.assert_close(share, posterior.cell_log_q.exp(), atol=0.02, rtol=0)


def test_entropy_of_a_one_cell_posterior_is_that_of_its_parts() -> None:
    posterior = make_posterior(cells=1)
    assert posterior.angle is not None and posterior.shift is not None
    expected = wrapped_entropy(posterior.angle.log_std[:, 0, 0]) + (
        posterior.shift.log_std + 0.5 * math.log(2 * math.pi * math.e)
    ).sum((1, 2))
    torch.testing.assert_close(posterior.pose_entropy(), expected)


def test_a_fixed_pose_costs_nothing() -> None:
    posterior = make_posterior("none", "none", cells=1)
    latents = posterior.sample(4, None)
    assert latents.angle.abs().max() == 0 and latents.shift.abs().max() == 0
    assert posterior.kl(exact=True).pose.abs().max() < 1e-6
    assert ShiftConfig().prior == "gaussian"

"""Priors of the pose: normalised, made once, and paired with posteriors of their own space."""

from __future__ import annotations

import math

import pytest
import torch

from modpose.config import RotationConfig, ShiftConfig
from modpose.distributions.normal import DiagonalNormal
from modpose.distributions.priors import (
    Fixed,
    Normal,
    UniformCircle,
    UniformSO3,
    WideCircle,
    kl,
    log_ratio,
    rotation_prior,
    shift_prior,
)
from modpose.distributions.so3 import SO3Normal


def test_each_configured_prior_has_its_class() -> None:
    made = {
        name: (rotation_prior(RotationConfig(prior=name), 2), rotation_prior(config, 3))
        for name, config in {
            "none": RotationConfig(prior="none"),
            "gaussian": RotationConfig(prior="gaussian", std_deg=90),
            "uniform": RotationConfig(prior="uniform"),
        }.items()
    }
    assert [type(one) for one in made["none"]] == [Fixed, Fixed]
    assert [one.numbers for one in made["gaussian"]] == [2, 6]
    assert made["gaussian"][1].precision == pytest.approx((math.pi / 2) ** -2)
    assert [type(one) for one in made["uniform"]] == [UniformCircle, UniformSO3]
    assert isinstance(rotation_prior(RotationConfig(prior="wide"), 2), WideCircle)
    assert shift_prior(ShiftConfig(std_box=0.1), 2, 40).std == pytest.approx(4.0)
    assert not shift_prior(ShiftConfig(prior="none"), 2, 40).inferred


def test_densities_are_normalised() -> None:
    angle = torch.linspace(-math.pi, math.pi, 2001, dtype=torch.float64)[:-1, None]
    for prior in (UniformCircle(), Normal(0.4, 1)):
        assert float(prior.log_prob(angle).exp().mean() * 2 * math.pi) == pytest.approx(1, abs=1e-9)
    centred = Normal(2.0, 2, torch.tensor([1.0, -3.0]))
    value = torch.tensor([[4.0, -2.0]])
    expected = torch.distributions.Normal(torch.tensor([1.0, -3.0]), 2.0).log_prob(value).sum(-1)
    torch.testing.assert_close(centred.log_prob(value), expected)
    torch.testing.assert_close(centred.log_weight(torch.tensor([[1.0, -3.0]])), torch.zeros(1))


def test_kl_is_the_mean_of_the_log_ratio() -> None:
    """By 100,000 draws: the mean of log q - log p, to five of its standard errors."""
    generator = torch.Generator().manual_seed(0)
    log_std = torch.full((100_000, 1), math.log(0.7))
    posterior = DiagonalNormal(torch.full_like(log_std, 0.3), log_std)
    drawn = posterior.rsample(generator)
    for prior in (UniformCircle(), WideCircle(1.0), Normal(0.9, 1, torch.tensor([-0.2]))):
        nats = -log_ratio(prior, posterior, drawn)
        error = float(nats.std()) / math.sqrt(len(nats))
        assert abs(float(nats.mean() - kl(posterior, prior)[0])) < 5 * error + 1e-4


def test_a_posterior_of_another_space_is_refused() -> None:
    turn = SO3Normal(torch.eye(3)[None], torch.zeros(1, 1))
    with pytest.raises(TypeError, match="SO3Normal to UniformCircle"):
        kl(turn, UniformCircle())

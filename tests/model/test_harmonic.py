"""The harmonic encoder: an orthonormal basis, and content that does not turn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import sph_harm_y

from modpose.config import (
    HarmonicEncoderConfig,
    ModelConfig,
    RotationConfig,
    ShiftConfig,
    merge,
    parse_config,
)
from modpose.data.batches import Batch
from modpose.geometry.grids import lattice
from modpose.geometry.groups import octahedral
from modpose.geometry.rotations import haar_rotations, rotation_2d
from modpose.model.build import build_vae
from modpose.model.encoders.harmonic import HarmonicEncoder, Harmonics, degrees, real_harmonics
from modpose.model.objective import Estimate
from modpose.model.posterior import LatentLayout
from modpose.recipes import recipe_config


def test_harmonics_are_those_of_scipy() -> None:
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    found = real_harmonics(x, 4).numpy()
    polar = np.arccos((x[:, 2] / x.norm(dim=1)).numpy())
    around = np.arctan2(x[:, 1].numpy(), x[:, 0].numpy())
    column = 0
    for degree in range(5):
        for m in range(degree + 1):
            there = sph_harm_y(degree, m, polar, around)
            parts = (
                [there.real] if m == 0 else [math.sqrt(2) * there.real, math.sqrt(2) * there.imag]
            )
            for part in parts:
                assert np.allclose(found[:, column], part, atol=1e-5)
                column += 1
    assert column == found.shape[1] == len(degrees(3, 4)) == 25


def test_circular_harmonics_are_orthonormal() -> None:
    angle = torch.arange(64) * (2 * math.pi / 64)
    found = real_harmonics(torch.stack([angle.cos(), angle.sin()], dim=1), 5).double()
    assert torch.allclose(found.T @ found * (2 * math.pi / 64), torch.eye(11).double(), atol=1e-5)
    assert degrees(2, 5).tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


@pytest.mark.parametrize("dim", [2, 3])
def test_white_noise_has_unit_variance_on_every_shell(dim: int) -> None:
    shape = [16] * dim
    noise = torch.randn(2000, 1, *shape, generator=torch.Generator().manual_seed(1))
    variance = Harmonics(shape, 3)(noise).square().mean(0)
    assert variance.shape == (7, 16 if dim == 3 else 7)
    assert float(variance[2:].sub(1).abs().max()) < 0.35  # the lattice is no sphere
    assert float(variance.mean()) == pytest.approx(1, abs=0.1)


def test_a_part_of_the_images_estimates_the_reconstruction_of_all() -> None:
    config = parse_config(
        merge(recipe_config("affinity-harmonic"), {"train": {"gamma": {"end": 0.0}}}), "test"
    )
    vae = build_vae(config, shape=[12, 12], channels=1, n_images=6).requires_grad_(False)
    batch = Batch(torch.arange(6), torch.rand(1, 1, 12, 12).expand(6, 1, 12, 12))
    seeded = [torch.Generator().manual_seed(0) for _ in range(3)]
    whole = vae(batch, generator=seeded[0]).elbo
    part = vae(batch, generator=seeded[1], how=Estimate(decoded_images=2)).elbo
    assert torch.allclose(part.recon[:2], 3 * whole.recon[:2]) and not part.recon[2:].any()
    assert torch.equal(part.kl_content, whole.kl_content)
    more = vae(batch, generator=seeded[2], how=Estimate(decoded_images=9)).elbo
    assert torch.equal(more.recon, whole.recon)


def blobs(rotation: torch.Tensor, shape: list[int]) -> torch.Tensor:
    """Three Gaussians, smooth enough for the lattice, turned about the centre, (B, 1, *shape)."""
    dim = len(shape)
    points = torch.tensor([[5.0, 0.0, 1.0], [-2.0, 4.0, 0.0], [0.0, -3.0, -4.0]])[:, :dim]
    at = points @ rotation.transpose(-1, -2)
    distance = (lattice(shape) - at.unsqueeze(-2)).square().sum(-1)  # (B, 3, P)
    weights = torch.tensor([1.0, 2.0, 3.0])[:, None]
    return (weights * (-distance / 8).exp()).sum(1).reshape(-1, 1, *shape)


@pytest.mark.parametrize("dim", [2, 3])
def test_content_does_not_turn_and_pose_does(dim: int) -> None:
    generator = torch.Generator().manual_seed(2)
    torch.manual_seed(0)
    shape = [24] * dim
    model = ModelConfig(z_dim=2, rotation=RotationConfig(prior="none"), pose_channel=3)
    layout = LatentLayout(model.model_copy(update={"shift": ShiftConfig(prior="none")}), dim)
    encoder = HarmonicEncoder(
        HarmonicEncoderConfig(lmax=6), channels=1, shape=shape, layout=layout
    ).requires_grad_(False)
    any_turn = (
        haar_rotations(20, generator)
        if dim == 3
        else rotation_2d(2 * math.pi * torch.rand(20, generator=generator))
    )
    quarter = octahedral().float() if dim == 3 else rotation_2d(math.pi / 2 * torch.arange(4.0))
    for rotation, tolerance in ((any_turn, 0.05), (quarter, 1e-4)):
        batch = Batch(torch.arange(len(rotation)), blobs(rotation, shape))
        inside = encoder.invariants(encoder.harmonics(batch.image))
        spread = (inside - inside.mean(0)).norm(dim=1) / inside.mean(0).norm()
        assert float(spread.max()) < tolerance
        params = encoder.numbers(batch.image)
        assert float(params[:, :4].std(0).max()) < 0.1 * float(params[:, 4:].std(0).max())
    other = blobs(any_turn, shape) + blobs(any_turn, shape).roll(4, -1)
    apart = encoder.invariants(encoder.harmonics(other)) - inside.mean(0)
    assert float(apart.norm(dim=1).min() / inside.mean(0).norm()) > 0.3

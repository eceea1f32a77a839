"""KL terms against closed forms and Monte Carlo; sampling; bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modpose.config import ModelConfig, RotationConfig, ShiftConfig
from modpose.distributions.normal import (
    DiagonalNormal,
    tabulated_wrapped_entropy,
    wrapped_entropy,
    wrapped_log_prob,
)
from modpose.distributions.priors import Normal, kl, rotation_prior
from modpose.geometry.rotations import rotation_2d
from modpose.model.cells import Cells
from modpose.model.draws import soft_sample, top_cells
from modpose.model.posterior import LatentLayout, Posterior

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
    ours = kl(DiagonalNormal(torch.tensor([mean]), torch.tensor([log_std])), Normal(std, 1))
    q = torch.distributions.Normal(mean, math.exp(log_std))
    theirs = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, std))
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("shift", ["none", "gaussian"])
@pytest.mark.parametrize("rotation", PRIORS)
def test_kl_against_monte_carlo(rotation: str, shift: str) -> None:
    posterior = make_posterior(rotation, shift, cells=1)
    gap, standard_error = gap_of_kl(posterior)
    assert (gap.abs() < 5 * standard_error).all()


def gap_of_kl(posterior: Posterior) -> tuple[torch.Tensor, torch.Tensor]:
    """KL minus its Monte Carlo estimate, and the standard error of that."""
    latents = posterior.sample(60_000, torch.Generator().manual_seed(0))
    ratio = posterior.log_prior_over_posterior(latents)
    kl = posterior.kl(exact=True)
    return kl.pose + kl.content + ratio.mean(1), ratio.std(1) / math.sqrt(ratio.shape[1])


@pytest.mark.parametrize("scale", [0.3, 0.7, 3.0])
@pytest.mark.parametrize("rotation", PRIORS)
def test_kl_of_a_mixture_bounds_monte_carlo_from_above(rotation: str, scale: float) -> None:
    gap, standard_error = gap_of_kl(make_posterior(rotation, scale=scale))
    assert (gap > -5 * standard_error).all()
    # and by no more than the entropy of the choice of a cell
    assert (gap < math.log(3) + 5 * standard_error).all()


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
    angle = DiagonalNormal(torch.tensor([5.0]), torch.tensor([math.log(sigma)]))
    found = kl(angle, rotation_prior(RotationConfig(prior="wide", std_deg=180), 2), exact=False)
    expected = -math.log(sigma) + math.log(s) + sigma**2 / (2 * s**2) - 0.5
    assert found.item() == pytest.approx(expected, rel=1e-5)


@given(st.floats(-5, 3))
@settings(deadline=None)
def test_the_wide_prior_overstates_the_exact_kl_so_its_elbo_bounds(log_std: float) -> None:
    angle = DiagonalNormal(torch.zeros(1), torch.tensor([log_std]))
    wide = rotation_prior(RotationConfig(prior="wide", std_deg=180), 2)
    assert kl(angle, wide, exact=False) >= kl(angle, wide) - 2e-4


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


def test_turning_back_about_a_centre_moves_the_shift_back_to_it() -> None:
    posterior, turn = make_posterior(), torch.tensor([0.8, -2.5])
    centre = torch.tensor([[3.0, -1.0], [0.5, 2.0]])
    about_middle, back = posterior.turned_back(turn), posterior.turned_back(turn, centre)
    assert back.shift is not None and about_middle.shift is not None
    expected = about_middle.shift.mean + centre[:, None]
    torch.testing.assert_close(back.shift.mean, expected)


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


# --- cells that tell the pose -----------------------------------------------------------------

CELLS, IMAGES = 5, 2


def make_cells(per_image: bool, *, angle: bool, residual: bool) -> Cells:
    generator = torch.Generator().manual_seed(8)
    shape = (IMAGES, CELLS) if per_image else (CELLS,)
    return Cells(
        angle=6 * torch.rand(shape, generator=generator) if angle else None,
        shift=3 * torch.randn(*shape, 2, generator=generator),
        log_prior=torch.randn(shape, generator=generator).log_softmax(-1),
        angle_std=0.4,
        shift_std=0.5 if residual else None,
    )


def orbit_posterior(
    per_image: bool = False, *, angle: bool = True, residual: bool = False, scale: float = 0.4
) -> Posterior:
    encoder = {"kind": "orbit", "rotations": 8, "add_offset": angle, "subpixel": residual}
    layout = LatentLayout(ModelConfig.model_validate({"z_dim": 2, "encoder": encoder}), 2)
    generator = torch.Generator().manual_seed(3)
    params = scale * torch.randn(IMAGES, CELLS, layout.n_params, generator=generator)
    logits = torch.randn(IMAGES, CELLS, generator=generator)
    cells = make_cells(per_image, angle=angle, residual=residual)
    return layout.posterior(params.requires_grad_(), logits.requires_grad_(), cells)


KINDS = [(p, a, r) for p in (False, True) for a in (False, True) for r in (False, True)]


@pytest.mark.parametrize(("per_image", "angle", "residual"), KINDS)
def test_kl_of_cells_against_monte_carlo(per_image: bool, angle: bool, residual: bool) -> None:
    posterior = orbit_posterior(per_image, angle=angle, residual=residual)
    gap, standard_error = gap_of_kl(posterior)
    assert (gap.abs() < 5 * standard_error).all()
    # E_q[p/q] = 1: prior and posterior are densities of the same thing
    near = orbit_posterior(per_image, angle=angle, residual=residual, scale=0.1)
    latents = near.sample(60_000, torch.Generator().manual_seed(1))
    weights = near.log_prior_over_posterior(latents).exp()
    standard_error = weights.std(1) / math.sqrt(weights.shape[1])
    assert ((weights.mean(1) - 1).abs() < 5 * standard_error).all()


@pytest.mark.parametrize("per_image", [False, True])
def test_equation_5_of_the_paper_by_brute_force(per_image: bool) -> None:
    posterior = orbit_posterior(per_image, residual=True)
    cells, kl = posterior.cells, posterior.kl(exact=True)
    assert cells is not None and cells.angle is not None and cells.shift is not None
    assert posterior.angle is not None and posterior.shift is not None
    normal = torch.distributions.Normal
    for b in range(IMAGES):
        pose, content = 0.0, 0.0
        for c in range(CELLS):
            at = (b, c) if per_image else (c,)
            q = posterior.cell_log_q[b, c].exp()
            pairs = [
                (posterior.angle, cells.angle[at][None], 0.4),
                (posterior.shift, cells.shift[at], 0.5),
            ]
            parts = [posterior.cell_log_q[b, c] - cells.log_prior[at]]
            for gaussian, centre, std in pairs:
                own = normal(gaussian.mean[b, c], gaussian.log_std[b, c].exp())
                prior = normal(centre, torch.full_like(centre, std))
                parts.append(torch.distributions.kl_divergence(own, prior).sum())
            own = normal(posterior.content.mean[b, c], posterior.content.log_std[b, c].exp())
            content += (q * torch.distributions.kl_divergence(own, normal(0.0, 1.0)).sum()).item()
            pose += (q * sum(parts)).item()
        assert kl.pose[b].item() == pytest.approx(pose, rel=1e-4)
        assert kl.content[b].item() == pytest.approx(content, rel=1e-4)


@pytest.mark.parametrize(("per_image", "angle", "residual"), KINDS)
def test_samples_of_a_cell_lie_about_it(per_image: bool, angle: bool, residual: bool) -> None:
    posterior = orbit_posterior(per_image, angle=angle, residual=residual, scale=0.0)
    cells = posterior.cells
    assert cells is not None and cells.shift is not None
    index = torch.arange(CELLS).expand(IMAGES, -1)
    means, spread = posterior.mean_in(index), posterior.spread(index)
    torch.testing.assert_close(means.shift, cells.shift.expand(IMAGES, -1, -1))
    drawn = posterior.sample_in(index.repeat(1, 4000), torch.Generator().manual_seed(1))
    away = drawn.shift.unflatten(1, (4000, CELLS)) - cells.shift.expand(IMAGES, -1, -1)[:, None]
    expected = 0.5 if residual else 0.0
    torch.testing.assert_close(
        away.std((0, 1)), torch.full((CELLS, 2), expected), atol=0.02, rtol=0
    )
    assert spread.shift.eq(expected).all() or (spread.shift - expected).abs().max() < 1e-6
    if angle:
        assert cells.angle is not None
        offset = cells.angle.expand(IMAGES, -1)
        assert (means.angle - offset).cos().min() > 1 - 1e-6
        wide = drawn.angle.unflatten(1, (4000, CELLS)) - offset[:, None]
        torch.testing.assert_close(wide.std((0, 1)), torch.full((CELLS,), 0.4), atol=0.02, rtol=0)


@pytest.mark.parametrize(("per_image", "angle", "residual"), KINDS)
def test_turning_cells_back_undoes_a_turn(per_image: bool, angle: bool, residual: bool) -> None:
    posterior = orbit_posterior(per_image, angle=angle, residual=residual)
    turn = torch.tensor([0.8, -2.5])
    index = torch.arange(CELLS).expand(IMAGES, -1)
    back, before = posterior.turned_back(turn).mean_in(index), posterior.mean_in(index)
    assert ((back.angle + turn[:, None] - before.angle).cos() > 1 - 1e-5).all()
    expected = torch.einsum("bij,bcj->bci", rotation_2d(-turn), before.shift)
    torch.testing.assert_close(back.shift, expected, atol=1e-5, rtol=1e-5)
    kl, same = posterior.turned_back(turn).kl(exact=True), posterior.kl(exact=True)
    torch.testing.assert_close(kl.pose, same.pose, atol=1e-4, rtol=1e-4)
    ratios = []
    for one in (posterior, posterior.turned_back(turn)):  # at the means, on the line
        line = index.float() if one.angle is None else one.angle.mean[..., 0]
        ratios.append(one.log_prior_over_posterior(one.mean_in(index)._replace(angle=line)))
    torch.testing.assert_close(*ratios, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("per_image", [False, True])
def test_top_gives_the_most_probable_cells_and_their_share(per_image: bool) -> None:
    posterior = orbit_posterior(per_image, residual=True)
    q = posterior.cell_log_q.detach().exp().numpy()
    top = top_cells(posterior, 3, None)
    order = np.argsort(-q, axis=1)[:, :3]
    np.testing.assert_array_equal(top.latents.cell.numpy(), order)
    share = np.take_along_axis(q, order, 1)
    np.testing.assert_allclose(
        top.log_weight.detach().exp().numpy(), share / share.sum(1, keepdims=True), rtol=1e-5
    )
    assert torch.equal(top.latents.cell[:, :1], posterior.best().cell)
    whole = top_cells(posterior, 99, None)
    assert whole.latents.cell.shape == (IMAGES, CELLS)
    # over all cells, the weighted expectation is the exact one, its gradient included
    value = torch.arange(float(CELLS)) ** 2
    exact = (posterior.cell_log_q.exp() * value).sum()
    listed = (whole.log_weight.exp() * value[whole.latents.cell]).sum()
    torch.testing.assert_close(exact, listed)


def test_expectation_over_top_cells_has_the_gradient_of_the_expectation() -> None:
    logits = torch.tensor([[0.3, -0.2, 1.1, 0.0]], requires_grad=True)
    layout = LatentLayout(ModelConfig(z_dim=1), 2)
    posterior = layout.posterior(torch.zeros(1, 4, layout.n_params), logits)
    value = torch.tensor([1.0, 4.0, -2.0, 0.5])
    top = top_cells(posterior, 4, None)
    (found,) = torch.autograd.grad((top.log_weight.exp() * value[top.latents.cell]).sum(), logits)
    again = logits.detach().clone().requires_grad_()
    (expected,) = torch.autograd.grad((again.softmax(-1) * value).sum(), again)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("per_image", "angle", "residual"), KINDS)
def test_soft_samples_mix_parameters(per_image: bool, angle: bool, residual: bool) -> None:
    posterior = orbit_posterior(per_image, angle=angle, residual=residual)
    # cold: one cell, chosen with the probability of q
    cold = posterior._replace(cell_log_q=posterior.cell_log_q[:1].expand(4000, -1).detach())
    wide = Posterior(
        posterior.layout,
        cold.cell_log_q,
        DiagonalNormal(*(part[:1].expand(4000, -1, -1).detach() for part in posterior.content)),
        None,
        None,
    )
    drawn = soft_sample(wide, 1e-4, torch.Generator().manual_seed(0)).cell
    share = torch.bincount(drawn.flatten(), minlength=CELLS) / 4000
    torch.testing.assert_close(share, cold.cell_log_q[0].exp(), atol=0.03, rtol=0)
    # hot: the plain average of means; on the circle for angles
    hot = soft_sample(posterior, 1e6, torch.Generator().manual_seed(0))
    hot.z.sum().backward(retain_graph=True)
    narrow = DiagonalNormal(
        posterior.content.mean, torch.full_like(posterior.content.log_std, -20.0)
    )
    z = soft_sample(posterior._replace(content=narrow), 1e6, torch.Generator().manual_seed(0)).z
    torch.testing.assert_close(z[:, 0], posterior.content.mean.mean(1), atol=1e-4, rtol=1e-3)
    if not residual:
        assert posterior.shift is not None
        torch.testing.assert_close(hot.shift[:, 0], posterior.shift.mean.mean(1), atol=1e-3, rtol=0)


def test_soft_angles_are_mixed_across_the_cut() -> None:
    layout = LatentLayout(ModelConfig.model_validate({"z_dim": 0, "encoder": {"kind": "orbit"}}), 2)
    cells = Cells(torch.tensor([3.1, -3.1]), torch.zeros(2, 2), torch.zeros(2).log_softmax(0), 1e-3)
    posterior = layout.posterior(torch.zeros(1, 2, layout.n_params), torch.zeros(1, 2), cells)
    angle = soft_sample(posterior, 1e6, torch.Generator().manual_seed(0)).angle
    assert angle.cos().item() < -0.99


@pytest.mark.parametrize(("angle", "residual"), [(True, True), (False, False), (True, False)])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_gradients_of_soft_samples_are_finite(
    angle: bool, residual: bool, temperature: float
) -> None:
    encoder = {"kind": "orbit", "add_offset": angle, "subpixel": residual}
    layout = LatentLayout(ModelConfig.model_validate({"encoder": encoder}), 2)
    params = torch.randn(IMAGES, CELLS, layout.n_params, requires_grad=True)
    logits = torch.randn(IMAGES, CELLS, requires_grad=True)
    cells = make_cells(True, angle=angle, residual=residual)
    posterior = layout.posterior(params, logits, cells)
    latents = soft_sample(posterior, temperature, torch.Generator().manual_seed(0))
    total = latents.z.sum() + latents.angle.cos().sum() + latents.shift.square().sum()
    (total + posterior.kl(exact=False).pose.sum()).backward()
    assert params.grad is not None and logits.grad is not None
    assert torch.isfinite(params.grad).all() and torch.isfinite(logits.grad).all()
    assert logits.grad.abs().max() > 0


@given(st.floats(-7.9, 3.9))
@settings(deadline=None)
def test_the_table_of_entropies(log_std: float) -> None:
    exact = torch.tensor([log_std], dtype=torch.float64, requires_grad=True)
    read = torch.tensor([log_std], requires_grad=True)
    entropy, tabulated = wrapped_entropy(exact), tabulated_wrapped_entropy(read)
    assert tabulated.item() == pytest.approx(entropy.item(), abs=3e-4)
    entropy.backward()
    tabulated.backward()
    assert exact.grad is not None and read.grad is not None
    assert read.grad.item() == pytest.approx(exact.grad.item(), abs=0.3)


def test_entropy_of_fixed_shifts_is_that_of_cells_and_angles() -> None:
    posterior = orbit_posterior()
    assert posterior.angle is not None
    q = posterior.cell_log_q.exp()
    within = wrapped_entropy(posterior.angle.log_std[..., 0])
    expected = (q * (within - posterior.cell_log_q)).sum(-1)
    torch.testing.assert_close(posterior.pose_entropy(), expected, atol=1e-3, rtol=1e-3)

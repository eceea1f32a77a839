"""Search: the grid against brute force, modes against quadrature, bounds against the evidence."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from modpose import PoseModel
from modpose.cli import main
from modpose.config import merge, parse_config
from modpose.data.batches import Batch
from modpose.distributions.normal import DiagonalNormal
from modpose.errors import InputError
from modpose.geometry.rotations import wrap
from modpose.infer.climb import PoseOptimizer
from modpose.infer.encoded import gain_summary
from modpose.infer.grid import decode_upright, fast_length, log_likelihood_grid, log_prior
from modpose.infer.refine import Components, Mixture, Refiner, refine
from modpose.infer.search import PoseModes, modes_of
from modpose.model.build import build_vae
from modpose.model.latents import Latents
from modpose.model.settings import SearchSettings
from modpose.model.vae import Vae
from modpose.observe.observation import Observation
from modpose.recipes import recipe_config

BERNOULLI = {"likelihood": {"kind": "bernoulli"}}
ASYMMETRIC = ((0.45, 0.0, 1.0), (-0.15, 0.3, 0.8), (-0.1, -0.35, 0.6))
TWOFOLD = ((0.4, 0.1, 1.0), (-0.4, -0.1, 1.0), (0.0, 0.0, 0.5))


class Blobs(nn.Module):
    """An analytic field: Gaussian blobs (x, y, height); content scales the first."""

    def __init__(self, blobs: tuple[tuple[float, ...], ...], outputs: int = 1) -> None:
        super().__init__()
        self.blobs = torch.tensor(blobs)
        self.outputs = outputs
        self.gain, self.offset = 1.0, 0.0

    def forward(self, u: Tensor, z: Tensor) -> Tensor:
        away = (u[..., None, :] - self.blobs[:, :2]).square().sum(-1)
        height = self.blobs[:, 2].expand(len(z), -1)
        if z.shape[-1]:
            height = torch.cat([height[:, :1] * (1 + z[:, :1]), height[:, 1:]], dim=1)
        value = (height[:, None] * (-away / (2 * 0.15**2)).exp()).sum(-1, keepdim=True)
        scale = torch.linspace(1, 0.3, self.outputs)
        return (self.gain * value + self.offset) * scale


def model(
    blobs: tuple[tuple[float, ...], ...] = ASYMMETRIC,
    *,
    shape: tuple[int, int] = (24, 24),
    channels: int = 1,
    mask: float | None = None,
    noise: float = 0.3,
    **sections: Any,
) -> Vae:
    """A model whose field is known; its encoder knows nothing."""
    values = {
        "z_dim": 1,
        "encoder": {"hidden": 8},
        "field": {"hidden": 4},
        "shift": {"std_px": 2.0},
        "likelihood": {"kind": "gaussian", "noise": "fixed", "std": noise},
    }
    config = merge(recipe_config("spatial-vae"), {"model": merge(values, sections)})
    config = merge(config, {"data": {"mask": mask}})
    vae = build_vae(parse_config(config, "test"), shape=shape, channels=channels, n_images=8).eval()
    field = Blobs(blobs, channels * vae.likelihood.outputs_per_channel)
    if vae.likelihood.outputs_per_channel == 2:
        field.gain = 0.5
    if values_are_pictures(vae):
        field.gain, field.offset = 6.0, -3.0
    vae.field = field
    return vae


def values_are_pictures(vae: Vae) -> bool:
    return type(vae.likelihood).__name__ == "Bernoulli"


CTF_ROW = torch.tensor([4.0, 9000.0, 8000.0, 30.0, 300.0, 2.7, 0.1, 0.0, 0.0])


def latents(z: Tensor, angle: Tensor, shift: Tensor) -> Latents:
    cell = torch.zeros(angle.shape, dtype=torch.int64)
    return Latents(z.expand(*angle.shape, z.shape[-1]), angle, shift, cell)


def observe(vae: Vae, angle: Tensor, shift: Tensor, seed: int = 0, ctf: bool = False) -> Batch:
    """Images of known pose, content zero, with the noise that the model believes in."""
    generator = torch.Generator().manual_seed(seed)
    rows = CTF_ROW.expand(len(angle), -1) if ctf else None
    z = torch.zeros(len(angle), 1, vae.layout.z_dim)
    seen = None if rows is None else Observation(rows)
    prediction = vae.predict(latents(z, angle[:, None], shift[:, None]), seen)
    mean = vae.likelihood.mean(prediction)[:, 0]
    if values_are_pictures(vae):
        image = torch.bernoulli(mean, generator=generator)
    else:
        assert prediction.log_std is not None
        log_std = prediction.log_std[:, 0] if prediction.log_std.dim() else prediction.log_std
        image = mean + log_std.exp() * torch.randn(mean.shape, generator=generator)
    image = image.transpose(1, 2).reshape(len(angle), vae.channels, *vae.shape)
    return Batch(torch.arange(len(angle)), image, rows)


def posed(vae: Vae, n: int, seed: int = 1, ctf: bool = False) -> tuple[Batch, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    angle = math.pi * (2 * torch.rand(n, generator=generator) - 1)
    shift = 2 * torch.randn(n, 2, generator=generator)
    angle = angle if vae.layout.rotation.inferred else 0 * angle
    shift = shift if vae.layout.shift.inferred else 0 * shift
    return observe(vae, angle, shift, seed, ctf), angle, shift


def still(vae: Vae, n: int, spread: float = 0.05) -> DiagonalNormal:
    """The true content, as a hypothesis."""
    mean = torch.zeros(n, 1, vae.layout.z_dim)
    return DiagonalNormal(mean, torch.full_like(mean, math.log(spread)))


# --- the grid ---------------------------------------------------------------------------------


def brute_force(vae: Vae, batch: Batch, z: Tensor, angle: Tensor, shift: Tensor) -> Tensor:
    """(B, H, A, S) log-likelihoods, pose by pose through the model."""
    images, hypotheses = len(batch), z.shape[1]
    poses = (images, hypotheses, len(angle), len(shift))
    spin = angle[:, None].expand(poses).flatten(1)
    move = shift.expand(*poses, 2).flatten(1, 3)
    content = z[:, :, None, None].expand(*poses, -1).flatten(1, 3)
    cell = torch.zeros(spin.shape, dtype=torch.int64)
    with torch.no_grad():
        parts = [
            vae.log_likelihood(batch, Latents(*some))
            for some in zip(
                *(torch.split(part, 200, 1) for part in (content, spin, move, cell)), strict=True
            )
        ]
    return torch.cat(parts, 1).reshape(poses)


LIKELIHOODS: dict[str, dict[str, Any]] = {
    "bernoulli": BERNOULLI,
    "fixed": {},
    "softplus": {"likelihood": {"noise": "learned", "softplus": True}},
    "per-pixel": {"likelihood": {"noise": "per-pixel"}},
}


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize(
    ("shape", "channels", "mask"), [((12, 12), 1, None), ((9, 12), 3, None), ((13, 13), 1, 0.8)]
)
def test_the_grid_is_the_exact_log_likelihood(
    likelihood: str, shape: tuple[int, int], channels: int, mask: float | None
) -> None:
    """At quarter turns nothing is interpolated: every shift, to rounding, far over the edge."""
    vae = model(shape=shape, channels=channels, mask=mask, **LIKELIHOODS[likelihood])
    generator = torch.Generator().manual_seed(0)
    batch = Batch(torch.arange(2), torch.rand(2, channels, *shape, generator=generator))
    z = torch.randn(2, 2, 1, generator=generator)
    with torch.no_grad():
        grid = log_likelihood_grid(vae, batch, z, angles=4, reach=7)
    mesh = torch.meshgrid(grid.shift_y, grid.shift_x, indexing="ij")
    shift = torch.stack([mesh[1].flatten(), mesh[0].flatten()], dim=-1)
    expected = brute_force(vae, batch, z, grid.angle, shift)
    torch.testing.assert_close(grid.log_likelihood.flatten(3), expected, rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("likelihood", ["bernoulli", "fixed"])
def test_between_quarter_turns_the_grid_is_exact_up_to_interpolation(likelihood: str) -> None:
    vae = model(mask=1.0, **LIKELIHOODS[likelihood])
    batch, *_ = posed(vae, 2)
    z = torch.zeros(2, 1, 1)
    with torch.no_grad():
        grid = log_likelihood_grid(vae, batch, z, angles=12, reach=2)
        coarse = log_likelihood_grid(vae, batch, z, angles=12, reach=2, spacing=2.0)
    mesh = torch.meshgrid(grid.shift_y, grid.shift_x, indexing="ij")
    shift = torch.stack([mesh[1].flatten(), mesh[0].flatten()], dim=-1)
    expected = brute_force(vae, batch, z, grid.angle, shift)
    spread = expected.std()
    error = grid.log_likelihood.flatten(3) - expected
    assert error.std() < 0.1 * spread and error.abs().max() < 0.3 * spread
    error = coarse.log_likelihood - grid.log_likelihood[..., ::2, ::2]
    assert error.std() < 0.3 * spread
    assert coarse.shift_x.tolist() == [-2, 0, 2]


def test_shared_hypotheses_give_what_each_images_own_would() -> None:
    vae = model(**BERNOULLI)
    batch, *_ = posed(vae, 3)
    z = torch.tensor([0.0, 0.5])[None, :, None]
    one, all_ = (
        log_likelihood_grid(vae, batch, content, angles=8, reach=3, spacing=1.5)
        for content in (z, z.expand(3, -1, -1))
    )
    torch.testing.assert_close(one.log_likelihood, all_.log_likelihood)


def test_with_a_ctf_the_grid_follows_brute_force() -> None:
    """What differs is how the edge of the box is padded before filtering."""
    vae = model(shape=(32, 32), noise=0.1, ctf="auto")
    batch, *_ = posed(vae, 2, ctf=True)
    z = torch.zeros(2, 1, 1)
    with torch.no_grad():
        grid = log_likelihood_grid(vae, batch, z, angles=8, reach=2)
    mesh = torch.meshgrid(grid.shift_y, grid.shift_x, indexing="ij")
    shift = torch.stack([mesh[1].flatten(), mesh[0].flatten()], dim=-1)
    expected = brute_force(vae, batch, z, grid.angle, shift)
    error = grid.log_likelihood.flatten(3) - expected
    assert error.std() < 0.1 * expected.std()


def test_fft_lengths_are_even_and_smooth() -> None:
    assert [fast_length(n) for n in (7, 53, 54, 55, 61)] == [8, 54, 54, 60, 64]


# --- modes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("likelihood", "ctf"), [("bernoulli", False), ("fixed", False), ("fixed", True)]
)
def test_the_pose_is_found(likelihood: str, ctf: bool) -> None:
    seen = {"ctf": "auto", "noise": 0.1} if ctf else {}
    vae = model(shape=(28, 28), **seen, **LIKELIHOODS[likelihood])
    batch, angle, shift = posed(vae, 12, ctf=ctf)
    modes = modes_of(vae, batch, torch.zeros(12, 1, 1))
    turned = wrap(modes.angle[:, 0] - angle).rad2deg().abs()
    moved = (modes.shift[:, 0] - shift).abs()
    width = modes.angle_std[:, 0].rad2deg()
    assert turned.median() < 3 and turned.max() < 12
    assert moved.median() < 0.2 and moved.max() < 0.8
    # the errors are what the widths say: a chi-square of 12 lies in (3, 31) at 99.7 %
    if not ctf:
        assert 2 < (turned / width).square().sum() < 45


def test_an_asymmetric_object_has_one_mode_and_a_twofold_one_two() -> None:
    settings = SearchSettings(modes=3)
    for blobs in (ASYMMETRIC, TWOFOLD):
        vae = model(blobs, noise=0.15)
        batch, angle, _ = posed(vae, 8)
        modes = modes_of(vae, batch, torch.zeros(1, 1, 1), settings)
        weight = modes.log_weight.exp()
        torch.testing.assert_close(weight.sum(1), torch.ones(8))
        if blobs is ASYMMETRIC:
            assert (weight[:, 0] > 0.999).all()
            continue
        assert ((weight[:, :2] - 0.5).abs() < 0.01).all()
        apart = wrap(modes.angle[:, 0] - modes.angle[:, 1]).abs().rad2deg()
        torch.testing.assert_close(apart, torch.full((8,), 180.0), atol=0.2, rtol=0)
        torch.testing.assert_close(modes.shift[:, 0], modes.shift[:, 1], atol=0.02, rtol=0)
        error = wrap(2 * (modes.angle[:, 0] - angle)).rad2deg().abs()
        assert error.max() < 8


def test_weights_of_modes_are_those_of_quadrature() -> None:
    """Laplace's approximation against the posterior integrated on a fine grid, rotation only."""
    almost = ((0.4, 0.1, 1.0), (-0.4, -0.1, 0.85), (0.0, 0.0, 0.5))
    vae = model(almost, noise=0.5, shift={"prior": "none"})
    batch, *_ = posed(vae, 10, seed=5)
    modes = modes_of(vae, batch, torch.zeros(1, 1, 1), SearchSettings(modes=2))
    angle = torch.linspace(-math.pi, math.pi, 721)[:-1]
    score = brute_force(vae, batch, torch.zeros(10, 1, 1), angle, torch.zeros(1, 2))[:, 0, :, 0]
    mass = score.softmax(1)
    near = wrap(angle - modes.angle[:, :1]).abs() < math.pi / 2
    expected = (mass * near).sum(1)
    found = modes.log_weight[:, 0].exp()
    assert (1 - expected).max() > 0.05  # some are ambiguous, or the test would show nothing
    torch.testing.assert_close(found, expected, atol=0.06, rtol=0)


def test_models_of_rotation_only_and_of_shift_only() -> None:
    turn = model(shift={"prior": "none"})
    batch, angle, _ = posed(turn, 6)
    modes = modes_of(turn, batch, torch.zeros(1, 1, 1))
    assert (modes.shift == 0).all() and (modes.shift_std == 0).all()
    assert wrap(modes.angle[:, 0] - angle).rad2deg().abs().max() < 12
    move = model(rotation={"prior": "none"})
    batch, _, shift = posed(move, 6)
    modes = modes_of(move, batch, torch.zeros(1, 1, 1))
    assert (modes.angle == 0).all() and (modes.angle_std == 0).all()
    assert (modes.shift[:, 0] - shift).abs().max() < 0.8


def test_a_narrow_prior_of_the_angle_decides_between_twins() -> None:
    vae = model(TWOFOLD, rotation={"prior": "gaussian", "std_deg": 30.0})
    angle = torch.tensor([0.3, -0.4, 0.1])
    batch = observe(vae, angle, torch.zeros(3, 2))
    modes = modes_of(vae, batch, torch.zeros(1, 1, 1))
    assert (wrap(modes.angle[:, 0] - angle).abs() < 0.2).all()
    assert (modes.log_weight[:, 0] > math.log(0.999)).all()


def test_the_right_hypothesis_of_content_is_chosen() -> None:
    vae = model(noise=0.15)
    batch, *_ = posed(vae, 5)
    z = torch.tensor([1.5, 0.0, -0.9])[None, :, None]
    assert (modes_of(vae, batch, z).hypothesis[:, 0] == 1).all()


def test_a_start_far_from_the_grid_is_considered() -> None:
    vae = model(noise=0.15)
    angle, shift = torch.tensor([0.5, 1.0]), torch.tensor([[9.0, 0.0], [0.0, -9.0]])
    batch = observe(vae, angle, shift)
    z = torch.zeros(2, 1, 1)
    modes = modes_of(vae, batch, z, SearchSettings(reach_std=2.0), (angle, shift))
    assert (modes.shift[:, 0] - shift).abs().max() < 0.5


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_slopes_against_finite_differences(likelihood: str) -> None:
    vae = model(rotation={"prior": "gaussian", "std_deg": 60.0}, **LIKELIHOODS[likelihood])
    if likelihood == "per-pixel":  # its slope leaves out that of the noise: make that flat
        field = vae.field
        scale = torch.tensor([1.0, 0.0])
        vae.field = Scaled(field, scale)
    batch, angle, shift = posed(vae, 3)
    z = torch.zeros(3, 1, 1)
    climber = PoseOptimizer(vae, batch, z, reach=6)
    seen = climber.seen(torch.arange(3), torch.zeros(3, dtype=torch.int64))
    angle, shift = angle + 0.1, shift + 0.3
    here = climber.slope(seen, angle, shift)

    def value(pose: Tensor) -> Tensor:
        with torch.no_grad():
            exact = vae.log_likelihood(batch, latents(z, pose[:, :1], pose[:, None, 1:]))[:, 0]
        return exact + log_prior(vae, pose[:, 0], pose[:, 1:])

    pose = torch.cat([angle[:, None], shift], dim=1)
    torch.testing.assert_close(here.value, value(pose), rtol=2e-3, atol=0.3)
    for k, step in enumerate((0.02, 0.1, 0.1)):
        change = torch.zeros(3)
        change[k] = step
        slope = (value(pose + change) - value(pose - change)) / (2 * step)
        unit = here.information[:, k, k].detach().sqrt()
        torch.testing.assert_close(here.gradient[:, k] / unit, slope / unit, rtol=0.1, atol=0.15)


class Scaled(nn.Module):
    def __init__(self, field: nn.Module, scale: Tensor) -> None:
        super().__init__()
        self.field, self.scale = field, scale

    def forward(self, u: Tensor, z: Tensor) -> Tensor:
        return self.field(u, z) * self.scale


def test_models_without_a_pose_and_bad_settings_are_refused() -> None:
    batch = Batch(torch.arange(1), torch.zeros(1, 1, 24, 24))
    none = {"rotation": {"prior": "none"}, "shift": {"prior": "none"}}
    with pytest.raises(InputError, match="neither rotation nor shift"):
        modes_of(model(**none), batch, torch.zeros(1, 1, 1))
    with pytest.raises(InputError, match="multiple of 4"):
        SearchSettings(angles=30)
    with pytest.raises(InputError, match="samples"):
        SearchSettings(samples=0)


# --- refinement and bounds --------------------------------------------------------------------


def searched(
    vae: Vae,
    batch: Batch,
    settings: SearchSettings | None = None,
    content: DiagonalNormal | None = None,
) -> Mixture:
    settings = settings or SearchSettings()
    content = content or still(vae, len(batch))
    modes = modes_of(vae, batch, content.mean, settings)
    return refine(vae, batch, modes, content, settings, encode=False, seed=0)


@pytest.mark.parametrize("blobs", [ASYMMETRIC, TWOFOLD])
@pytest.mark.parametrize("noise", [0.25, 1.5])
def test_the_mixture_is_a_tight_bound_of_the_evidence(
    blobs: tuple[tuple[float, ...], ...], noise: float
) -> None:
    """Rotation is all that is latent, so the evidence is one integral; also where modes overlap."""
    vae = model(blobs, shape=(16, 16), noise=noise, shift={"prior": "none"}, z_dim=0)
    batch, *_ = posed(vae, 12)
    settings = SearchSettings(samples=32, refine_steps=25, refine_pixels=None)
    mixture = searched(vae, batch, settings)
    angle = torch.linspace(-math.pi, math.pi, 361)[:-1]
    score = brute_force(vae, batch, torch.zeros(12, 1, 0), angle, torch.zeros(1, 2))[:, 0, :, 0]
    evidence = score.logsumexp(1) - math.log(len(angle))
    gap = evidence - mixture.elbo().mean(0)
    error = mixture.elbo().std(0).square().mean().sqrt() / math.sqrt(12 * 32)
    assert gap.mean() > -3 * error
    assert gap.mean() < (0.25 if noise < 1 else 0.6)  # one of two modes alone would miss log 2


def test_components_that_coincide_bound_like_one() -> None:
    vae = model(z_dim=1)
    batch, angle, shift = posed(vae, 2)
    work = Refiner(vae, batch, SearchSettings(samples=32), seed=0)
    row = torch.cat([torch.zeros(2, 1), angle[:, None], shift], dim=1)
    log_std = torch.tensor([0.1, 0.1, 0.2, 0.2]).log().expand(2, 4)
    one = Components(row, log_std, torch.arange(2), torch.zeros(2, dtype=torch.int64))
    two = Components(
        row.repeat_interleave(2, 0),
        log_std.repeat_interleave(2, 0),
        torch.tensor([0, 0, 1, 1]),
        torch.tensor([0, 1, 0, 1]),
    )
    single, double = (
        work.mixture(parts, work.bound(parts, "choose").value()) for parts in (one, two)
    )
    torch.testing.assert_close(single.elbo().mean(0), double.elbo().mean(0), atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(single.chosen_by, double.chosen_by, atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(double.modes.log_weight.exp(), torch.full((2, 2), 0.5))


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_refinement_never_lowers_the_bound(likelihood: str) -> None:
    """From content that is off and far too sure of itself; and it gets better by a lot."""
    vae = model(**LIKELIHOODS[likelihood])
    batch, *_ = posed(vae, 6)
    content = DiagonalNormal(torch.full((6, 1, 1), 0.4), torch.full((6, 1, 1), math.log(0.1)))
    before = searched(vae, batch, SearchSettings(refine_steps=0, samples=8), content)
    after = searched(vae, batch, SearchSettings(refine_steps=30, samples=8), content)
    # single-precision sums over pixels, of another batch: a few roundings of 1.2e-7
    rounding = 16 * torch.finfo(torch.float32).eps * before.chosen_by.abs()
    assert (after.chosen_by >= before.chosen_by - rounding).all()
    assert after.elbo().mean() > before.elbo().mean()
    assert after.best.z.abs().mean() < 0.25
    assert all(p.requires_grad for p in vae.encoder.parameters())


def test_a_twofold_object_keeps_two_components_of_one_weight() -> None:
    vae = model(TWOFOLD, noise=0.15, z_dim=0)
    batch, *_ = posed(vae, 4)
    mixture = searched(vae, batch)
    assert ((mixture.modes.log_weight[:, :2].exp() - 0.5).abs() < 0.1).all()
    single = model(noise=0.15, z_dim=0)
    batch, *_ = posed(single, 4)
    alone = searched(single, batch)
    inside = mixture.modes.angle_std[:, 0].log() - alone.modes.angle_std[:, 0].log()
    assert (mixture.pose_entropy - alone.pose_entropy - inside).median() > 0.3


def test_results_do_not_depend_on_the_batch() -> None:
    vae = model(TWOFOLD, **BERNOULLI)
    batch, *_ = posed(vae, 5)
    settings = SearchSettings(refine_steps=10, refine_pixels=200)
    together = searched(vae, batch, settings)
    for k in (0, 3):
        alone = searched(vae, batch.rows(torch.tensor([k])), settings)
        for name in ("angle", "shift", "log_weight"):
            one, all_ = getattr(alone.modes, name)[0, 0], getattr(together.modes, name)[k, 0]
            torch.testing.assert_close(one, all_, atol=1e-3, rtol=1e-3)
        elbo = together.elbo()[:, k]
        torch.testing.assert_close(alone.elbo()[:, 0], elbo, atol=0.02, rtol=1e-4)


def test_fewer_modes_than_asked_for_repeat_the_first() -> None:
    vae = model(noise=0.1)
    batch, *_ = posed(vae, 3)
    modes: PoseModes = modes_of(vae, batch, torch.zeros(1, 1, 1), SearchSettings(modes=4))
    empty = torch.isinf(modes.log_weight)
    first = modes.angle[:, :1].expand_as(modes.angle)
    assert torch.equal(modes.angle[empty], first[empty])


def test_upright_predictions_are_the_field_itself() -> None:
    vae = model()
    z = torch.tensor([[0.0], [0.5]])
    upright = decode_upright(vae, z, half=12, spacing=1.0)
    zero = torch.zeros(2, 1)
    expected = vae.predict(latents(z[:, None], zero, torch.zeros(2, 1, 2))).signal
    inside = upright.signal[:, 0, :24, :24]
    torch.testing.assert_close(inside, expected.reshape(2, 24, 24))
    assert upright.half == 12


# --- encode -----------------------------------------------------------------------------------


SMALL = {
    "model": {"encoder": {"hidden": 16}, "field": {"hidden": 16, "fourier": {"count": 8}}},
    "train": {"epochs": 2, "delay_z_steps": 0, "warmup_steps": 0, "accelerator": "cpu"},
}
QUICK = SearchSettings(angles=16, nodes=12, modes=2, climb_steps=2, refine_steps=5, samples=4)


def pictures(n: int = 40, seed: int = 3) -> np.ndarray:
    vae = model(shape=(16, 16), **BERNOULLI)
    batch, *_ = posed(vae, n, seed)
    return batch.image[:, 0].numpy()


def test_encode_with_search_keeps_the_better_and_says_the_gain() -> None:
    images = pictures()
    fitted = PoseModel("spatial-vae", z_dim=1, options=SMALL, quiet=True).fit(images)
    found = fitted.encode(images, search=QUICK)
    again = fitted.encode(images, search=QUICK)
    assert found.elbo_gain is not None and (found.elbo_gain >= 0).all()
    assert (found.elbo_gain > 0).any()
    np.testing.assert_array_equal(found.elbo, again.elbo)
    np.testing.assert_allclose(
        found.elbo, found.recon - found.kl_pose - found.kl_content, rtol=1e-4, atol=1e-2
    )
    plain = fitted.encode(images)
    assert plain.elbo_gain is None and "elbo_gain" not in plain.to_dataframe()
    assert found.elbo.mean() > plain.elbo.mean()
    kept = found.elbo_gain == 0
    np.testing.assert_allclose(found.z[kept], plain.z[kept], atol=1e-5)
    assert found.to_dataframe()["elbo_gain"].tolist() == found.elbo_gain.tolist()
    assert "amortisation gap" in gain_summary(found)


ORBIT = {"encoder": {"channels": 8, "kernel": 9}, "field": {"hidden": 16}}


@pytest.mark.parametrize(
    ("recipe", "options", "colour"),
    [
        ("target-vae", ORBIT, False),
        ("modpose", {"field": {"hidden": 16}}, True),
        (
            "modpose",
            {
                "field": {"hidden": 16},
                "rotation": {"prior": "gaussian", "std_deg": 45.0},
                "likelihood": {"kind": "gaussian", "noise": "per-pixel"},
            },
            False,
        ),
    ],
)
def test_posteriors_of_many_cells_are_compared_with(
    recipe: str, options: dict[str, Any], colour: bool
) -> None:
    images = pictures(16)
    if colour:
        images = np.stack([images, 0.5 * images, 1 - images], axis=-1)
    train = {"epochs": 1, "warmup_steps": 0, "accelerator": "cpu"}
    fitted = PoseModel(recipe, z_dim=1, options={"model": options, "train": train}, quiet=True)
    found = fitted.fit(images).encode(images, search=QUICK)
    assert found.elbo_gain is not None and (found.elbo_gain >= 0).all()
    assert np.isfinite(found.elbo).all() and np.isfinite(found.pose_entropy).all()


def test_a_lookup_table_meets_new_images_by_search() -> None:
    images = pictures(60)
    options = merge(SMALL, {"model": {"encoder": {"kind": "table"}}, "data": {"val_fraction": 0}})
    options["model"]["encoder"].pop("hidden", None)
    options["train"]["augment"] = {"rotate": "none"}
    fitted = PoseModel("spatial-vae", z_dim=1, options=options, quiet=True).fit(images[:40])
    with pytest.raises(InputError, match="lookup table"):
        fitted.encode(images[40:])
    new = fitted.encode(images[40:], search=QUICK)
    assert new.z.shape == (20, 1) and new.elbo_gain is None
    assert np.isfinite(new.elbo).all()
    assert "nothing to compare" in gain_summary(new)
    own = fitted.encode(images[:40], search=QUICK)
    assert own.elbo_gain is not None and (own.elbo_gain >= 0).all()
    some = fitted.encode(images[:40], search=QUICK, rows=np.array([7, 3]))
    np.testing.assert_allclose(some.z, own.z[[7, 3]], atol=1e-5)
    with pytest.raises(InputError, match="range of rows is 3 to 40, expected 0 to 39"):
        fitted.encode(images[:40], search=QUICK, rows=np.array([3, 40]))


def test_a_table_with_a_known_field_finds_content_and_pose_of_new_images() -> None:
    options = merge(SMALL, {"model": {"encoder": {"kind": "table"}}, "data": {"val_fraction": 0}})
    options["model"]["encoder"].pop("hidden", None)
    options["train"]["augment"] = {"rotate": "none"}
    vae = model(shape=(20, 20), noise=0.15)
    truth = torch.tensor([-0.6, 0.0, 0.6, 1.2] * 5)
    generator = torch.Generator().manual_seed(0)
    angle = math.pi * (2 * torch.rand(20, generator=generator) - 1)
    with torch.no_grad():
        at = latents(truth[:, None, None], angle[:, None], torch.zeros(20, 1, 2))
        signal = vae.predict(at).signal[:, 0, :, 0].reshape(20, 20, 20)
    images = (signal + 0.15 * torch.randn(signal.shape, generator=generator)).numpy()
    options["model"]["likelihood"] = {"kind": "gaussian", "noise": "fixed", "std": 0.15}
    options["model"]["shift"] = {"std_px": 2.0}
    options["data"]["normalize"] = "none"
    fitted = PoseModel("spatial-vae", z_dim=1, options=options, quiet=True).fit(images[:10])
    fitted.vae.field = vae.field
    with torch.no_grad():  # rows as a long fit would leave them
        fitted.vae.encoder.rows.weight[:, 0] = torch.linspace(-1, 1.5, 10)
    found = fitted.encode(images, search=SearchSettings(samples=4, refine_pixels=None))
    assert np.corrcoef(found.z[:, 0], truth.numpy())[0, 1] > 0.98
    assert found.angle_deg is not None
    error = wrap(torch.from_numpy(found.angle_deg).deg2rad() - angle).rad2deg().abs()
    assert error.median() < 4


def test_encode_search_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = pictures(24)
    np.save(tmp_path / "images.npy", images)
    run, out = tmp_path / "run", tmp_path / "latents.parquet"
    PoseModel("spatial-vae", z_dim=1, options=SMALL, quiet=True).fit(images).save(run)
    command = ["encode", str(run), str(tmp_path / "images.npy"), "-o", str(out), "--search"]
    with pytest.raises(SystemExit) as leaving:
        main(command)
    assert not leaving.value.code
    said = capsys.readouterr().out
    assert "over the encoder" in said and "latents.parquet" in said
    table = pd.read_parquet(out)
    assert (table["elbo_gain"] >= 0).all() and len(table) == 24
    with pytest.raises(SystemExit) as leaving:
        main(command)
    assert leaving.value.code == 2
    assert "--overwrite" in capsys.readouterr().err


def test_search_needs_a_pose() -> None:
    options = merge(SMALL, {"model": {"field": {"kind": "dense", "hidden": 8}}})
    fitted = PoseModel("vae", z_dim=1, options=options, quiet=True).fit(pictures(12))
    with pytest.raises(InputError, match="neither rotation nor shift"):
        fitted.encode(pictures(4), search=True)


def test_the_benchmark_says_three_rates(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2]))
        import benchmarks.search

    threads = torch.get_num_threads()
    benchmarks.search.main(
        ["--images", "2", "--box", "16", "--repetitions", "1", "--recipe", "modpose"]
    )
    assert torch.get_num_threads() == threads
    name, *rates = capsys.readouterr().out.strip().splitlines()[-1].split()
    assert name == "modpose" and len(rates) == 3
    assert all(float(rate) > 0 for rate in rates)

"""The polar encoder: correlation on rings, peaks, equivariance, and a pose that is found."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modpose import PoseModel
from modpose.config import Config, PolarEncoderConfig, RotationConfig, parse_config
from modpose.data.batches import Batch
from modpose.evaluate.metrics import resultant_length
from modpose.geometry.grids import lattice
from modpose.geometry.pose import rotate_images
from modpose.geometry.rotations import rotation_2d
from modpose.model.build import build_vae
from modpose.model.encoders.centre import IsotropicConvolution
from modpose.model.encoders.polar import InvariantPerceptron, PolarEncoder, Rings, best_angles
from modpose.model.objective import Estimate
from modpose.model.vae import Vae
from modpose.simulate.digits import glyphs, transform

BOX = 24


def config(**encoder: object) -> Config:
    model = {
        "z_dim": 3,
        "encoder": {"kind": "polar", "channels": 8, "hidden": 32, **encoder},
        "field": {"kind": "dense", "hidden": 32},
        "likelihood": {"kind": "gaussian", "noise": "fixed", "std": 0.5},
        "shift": {"prior": "gaussian", "std_px": 2.0},
    }
    train = {"cells": {"kind": "top", "count": 2}}
    return parse_config({"recipe": "modpose", "model": model, "train": train}, "test")


def make_vae(channels: int = 1, **encoder: object) -> Vae:
    return build_vae(config(**encoder), shape=(BOX, BOX), channels=channels, n_images=4).eval()


def batch_of(images: torch.Tensor) -> Batch:
    return Batch(torch.arange(len(images)), images)


def smooth_images(n: int, seed: int = 0) -> torch.Tensor:
    """Sums of a few broad blobs near the centre, (n, 1, BOX, BOX)."""
    rng = np.random.default_rng(seed)
    x = lattice((BOX, BOX)).numpy()
    images = np.zeros((n, BOX * BOX))
    for image in images:
        for _ in range(3):
            middle = rng.uniform(-5, 5, 2)
            image += rng.uniform(0.5, 1) * np.exp(-((x - middle) ** 2).sum(1) / (2 * 2.0**2))
    return torch.from_numpy(images.reshape(n, 1, BOX, BOX)).float()


def test_correlation_against_a_direct_sum() -> None:
    rings = Rings(16, 6.0)
    generator = torch.Generator().manual_seed(0)
    seen = torch.randn(2, 3, 16, rings.count, generator=generator)
    expected = torch.randn(2, 3, 16, rings.count, generator=generator)
    direct = torch.stack(
        [(seen * expected.roll(k, 2) * rings.area).sum((1, 2, 3)) for k in range(16)], dim=1
    )
    torch.testing.assert_close(rings.correlate(seen, expected), direct, rtol=1e-4, atol=1e-4)


def test_rings_cover_the_disc_once() -> None:
    rings = Rings(64, 9.0)
    assert (rings.area.sum() * 64).item() == pytest.approx(math.pi * 9.0**2, rel=1e-5)


def test_reading_from_an_angle_on_turns_the_picture_upright() -> None:
    image, angle = smooth_images(3), torch.tensor([0.3, 1.9, -2.5])
    turned = rotate_images(image, angle, lattice((BOX, BOX)))
    rings, centre = Rings(64, 8.0), torch.zeros(3, 2)
    torch.testing.assert_close(
        rings.read(turned, centre, angle), rings.read(image, centre), atol=0.12, rtol=0
    )


@given(st.floats(-math.pi, math.pi), st.floats(0.05, 0.3), st.floats(0.4, math.pi), st.floats(1, 3))
@settings(deadline=None, max_examples=60)
def test_peaks_of_two_gaussian_bumps(mean: float, std: float, apart: float, drop: float) -> None:
    angles = torch.arange(256) * (2 * math.pi / 256)

    def bump(at: float) -> torch.Tensor:
        error = torch.remainder(angles - at + math.pi, 2 * math.pi) - math.pi
        return -0.5 * (error / std).square()

    score = torch.logaddexp(bump(mean), bump(mean + apart + 4 * std) - drop)[None]
    found = best_angles(score, 2)
    error = math.remainder(found.angle[0, 0].item() - mean, 2 * math.pi)
    assert abs(error) < 0.01
    assert found.std[0, 0].item() == pytest.approx(std, rel=0.05)
    second = math.remainder(found.angle[0, 1].item() - mean - apart - 4 * std, 2 * math.pi)
    if 4 * std + apart < 2 * math.pi - 4 * std:  # the bumps do not run into each other
        assert abs(second) < 0.01
        ratio = (found.log_weight[0, 0] - found.log_weight[0, 1]).item()
        assert ratio == pytest.approx(drop, abs=0.1)


def test_where_there_is_one_peak_the_rest_have_no_weight() -> None:
    angles = torch.arange(64) * (2 * math.pi / 64)
    found = best_angles(10 * angles.cos()[None], 3)
    assert found.log_weight[0, 0].item() == pytest.approx(0, abs=1e-6)
    assert (found.log_weight[0, 1:] < -100).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_turning_the_image_turns_the_angle_and_leaves_content(channels: int) -> None:
    vae = make_vae(channels)
    with torch.no_grad():  # a picture that prefers an angle
        for weight in vae.field.parameters():
            weight.mul_(3)
    image = smooth_images(6).expand(-1, channels, -1, -1).contiguous()
    angle = torch.linspace(-3, 3, 6)
    # read the rings about the true centre: an untrained one is nowhere
    vae.encoder.centre = Still()
    posterior = vae.posterior(batch_of(image))
    turned = vae.posterior(batch_of(rotate_images(image, angle, vae.coordinates)))
    found = turned.best().angle[:, 0] - posterior.best().angle[:, 0]
    error = torch.remainder(found - angle + math.pi, 2 * math.pi) - math.pi
    assert error.abs().max() < math.radians(4)
    torch.testing.assert_close(turned.content.mean, posterior.content.mean, atol=0.03, rtol=0)


def test_content_does_not_change_as_rings_turn() -> None:
    """By steps of the rings: convolutions that thin angles out would notice."""
    encoder = make_vae().encoder
    assert isinstance(encoder, PolarEncoder)
    rings = torch.randn(3, 1, 64, encoder.rings.count, generator=torch.Generator().manual_seed(0))
    told = encoder.look(rings)
    for step in (1, 2, 7, 32):
        torch.testing.assert_close(encoder.look(rings.roll(step, 2)), told, atol=1e-6, rtol=1e-5)
    apart = encoder.train().look(rings.roll(1, 2)) - encoder.look(rings)
    assert apart.abs().max() > 1e-4


def test_half_a_turn_of_the_image_is_half_a_turn_of_what_is_read() -> None:
    """About the middle pixel of an even box, where the grid of the centre is not symmetric."""
    vae, image = strong_vae(), smooth_images(6)
    turned = image.flip(-2, -1).roll((1, 1), (-2, -1))
    here, there = (vae.posterior(batch_of(one)) for one in (image, turned))
    best = here.best(), there.best()
    torch.testing.assert_close(best[1].shift, -best[0].shift, atol=0.05, rtol=0)
    apart = best[1].angle - best[0].angle - math.pi
    torch.testing.assert_close(apart.cos(), torch.ones_like(apart), atol=2e-4, rtol=0)


def test_the_centre_follows_turns_of_the_image() -> None:
    """To a fiftieth of a pixel; read once, to a fifteenth, by the grid that it is sampled on."""
    vae, image = strong_vae(), smooth_images(6)
    found = []
    for angle in torch.linspace(0.1, 3.0, 9):
        turned = rotate_images(image, angle.expand(6), lattice((BOX, BOX)))
        found.append(vae.posterior(batch_of(turned)).best().shift[:, 0] @ rotation_2d(angle))
    assert torch.stack(found).std(0).mean() < 0.02


def strong_vae() -> Vae:
    """Untrained, but for a larger attention, content and picture."""
    vae = make_vae()
    with torch.no_grad():
        for part in (vae.encoder.centre, vae.encoder.look, vae.field):
            for weight in part.parameters():
                weight.mul_(2)
    return vae


def test_a_prior_of_angles_turns_with_a_copy() -> None:
    """Else a copy that is rotated far would be read as what lies near the prior's mean."""
    vae = narrow_vae(15.0)
    image, angle = smooth_images(6), torch.tensor([2.5, -2.0, 1.5, -1.2, 3.0, -2.8])
    upright, copy = vae.posterior(batch_of(image)), vae.posterior(batch_of(image), angle)
    apart = copy.best().angle[:, 0] - upright.best().angle[:, 0]
    assert apart.abs().max() < math.radians(4)
    torch.testing.assert_close(copy.cell_log_q, upright.cell_log_q, atol=0.1, rtol=0.1)
    untold = vae.posterior(batch_of(rotate_images(image, angle, vae.coordinates)))
    off = untold.turned_back(angle).best().angle[:, 0] - upright.best().angle[:, 0]
    assert (off.cos() < math.cos(math.radians(30))).sum() >= 3


def test_a_prior_of_angles_may_count_more_at_first() -> None:
    vae, batch = narrow_vae(60.0), batch_of(smooth_images(6))
    plain, firm = vae.posterior(batch), vae.posterior(batch, angle_prior=1e4)
    assert plain.best().angle.abs().max() > math.radians(10)
    assert firm.best().angle.abs().max() < math.radians(3)
    turn = torch.linspace(-3, 3, 6)
    turned = vae.posterior(batch, turn, angle_prior=1e4)
    assert turned.best().angle.abs().max() < math.radians(3)


def narrow_vae(std_deg: float) -> Vae:
    """A picture that prefers an angle, the prior of which is narrow; objects in the middle."""
    plain = config()
    rotation = RotationConfig(prior="gaussian", std_deg=std_deg)
    model = plain.model.model_copy(update={"rotation": rotation})
    narrow = plain.model_copy(update={"model": model})
    vae = build_vae(narrow, shape=(BOX, BOX), channels=1, n_images=4).eval()
    with torch.no_grad():
        for weight in vae.field.parameters():
            weight.mul_(3)
    vae.encoder.centre = Still()
    return vae


class Still(torch.nn.Module):
    """Says that every object is in the middle."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.new_zeros(len(image), 2)

    def again(self, image: torch.Tensor, centre: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
        return centre


def test_hypotheses_share_one_content_and_gradients_reach_every_part() -> None:
    vae = make_vae().train()
    batch = batch_of(smooth_images(5))
    generator = torch.Generator().manual_seed(0)
    latents = vae.posterior(batch).sample_in(torch.tensor([[0, 1]] * 5), generator)
    assert torch.equal(latents.z[:, 0], latents.z[:, 1])
    (-vae(batch, generator=generator, how=Estimate(pixels=100)).value().mean()).backward()
    without = [n for n, p in vae.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    assert isinstance(vae.encoder, PolarEncoder)
    assert all(one.grad.abs().max() > 0 for one in vae.encoder.centre.attention[1].parameters())


def test_the_first_look_is_trained_on_a_bound_of_its_own() -> None:
    """Its content is that of the rings alone, and what turned the image upright is its angle."""
    vae, batch = make_vae().train(), batch_of(smooth_images(5))
    encoder = vae.encoder
    assert isinstance(encoder, PolarEncoder)
    seen: list[torch.Tensor] = []
    encoder.look.register_forward_hook(lambda _, __, told: seen.append(told))
    encoder.rings.read = recorded(encoder.rings.read, upright := [])  # type: ignore[method-assign]
    first = vae.posterior(batch).first
    assert first is not None and first.cell_log_q.shape == (5, 1)
    torch.testing.assert_close(first.content.mean[:, 0], seen[0][:, : vae.layout.z_dim])
    torch.testing.assert_close(
        rotation_2d(first.best().angle[:, 0]), rotation_2d(upright[1]), atol=1e-5, rtol=0
    )
    vae(batch, generator=torch.Generator().manual_seed(0)).first_pass.value().mean().backward()
    for part in (encoder.look_again, vae.field):
        assert all(p.grad is None and p.requires_grad for p in part.parameters())
    for part in (encoder.look, encoder.centre.attention[1]):
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in part.parameters())


def recorded(read: Callable[..., torch.Tensor], angles: list[object]) -> Callable[..., object]:
    """Read rings as usual, and keep the angles that they are read from."""

    def reading(image: torch.Tensor, centre: torch.Tensor, angle: object = None) -> torch.Tensor:
        angles.append(angle)
        return read(image, centre, angle)

    return reading


def test_the_first_look_counts_by_its_weight_and_in_training_alone() -> None:
    batch, weights = batch_of(smooth_images(5)), {}
    for weight in (0.0, 0.5, 1.0):
        torch.manual_seed(0)
        vae = make_vae(first_look=weight).train()
        weights[weight] = vae(batch, generator=torch.Generator().manual_seed(1))
    assert weights[0.0].first_pass is None
    for beta in (0.0, 1.0):
        first = weights[1.0].first_pass.value(beta)
        torch.testing.assert_close(first, 2 * weights[0.5].first_pass.value(beta))
        values = [weights[w].value(beta).detach() for w in (1.0, 0.0)]
        # a difference of sums over pixels: each is rounded to 1.2e-7 of itself, a few times over
        rounding = 8 * torch.finfo(torch.float32).eps * max(float(v.abs().max()) for v in values)
        torch.testing.assert_close(values[0] - values[1], first.detach(), atol=rounding, rtol=1e-5)
    assert (weights[1.0].first_pass.value(0.0) > weights[1.0].first_pass.value()).all()
    assert vae.eval().posterior(batch).first is None and vae(batch).first_pass is None


def test_the_bound_of_the_first_look_is_that_of_its_posterior() -> None:
    """The decoded images stand for the others: over many batches the mean is that of them all."""
    vae, batch = make_vae(first_look=1.0).train(), batch_of(smooth_images(6))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        first = vae.posterior(batch).first
        assert first is not None
        every = vae.eval().elbo(batch, first, generator).value()
        vae.train()
        rows = [batch.rows(torch.randperm(6, generator=generator)) for _ in range(200)]
        drawn = torch.stack(
            [vae(one, generator=generator).first_pass.value().mean() for one in rows]
        )
    off = drawn.mean() - every.mean()
    assert off.abs() < 4 * drawn.std() / math.sqrt(len(drawn)) + 0.02 * every.mean().abs()


def test_the_first_look_at_a_copy_is_turned_back() -> None:
    vae, batch = narrow_vae(30.0).train(), batch_of(smooth_images(6))
    here = vae.posterior(batch).first
    copy = vae.posterior(batch, torch.linspace(-3, 3, 6)).first
    assert here is not None and copy is not None
    off = copy.best().angle[:, 0] - here.best().angle[:, 0]
    assert off.cos().min() > math.cos(math.radians(4))


@pytest.mark.parametrize(("rotation", "shift"), [("none", "gaussian"), ("gaussian", "none")])
def test_a_pose_that_is_not_inferred_is_zero(rotation: str, shift: str) -> None:
    values = config().model_dump()
    values["model"]["rotation"]["prior"] = rotation
    values["model"]["shift"]["prior"] = shift
    vae = build_vae(parse_config(values, "test"), shape=(BOX, BOX), channels=1, n_images=4)
    best = vae.eval().posterior(batch_of(smooth_images(4))).best()
    assert (best.angle == 0).all() == (rotation == "none")
    assert (best.shift == 0).all() == (shift == "none")


def test_the_pose_of_a_letter_is_found_in_seconds() -> None:
    images, truth = transform(np.repeat(glyphs("F", 20), 600, 0), box=24, shift_std_px=1.5, seed=0)
    options = {
        "train": {"epochs": 12, "batch_size": 32, "warmup_steps": 50, "pixels": 300},
        "model": {"field": {"hidden": 64}, "encoder": {"channels": 16, "hidden": 64}},
    }
    model = PoseModel("modpose", z_dim=1, options=options, quiet=True).fit(images)
    found = model.latents()
    error = found["angle_deg"].to_numpy() - truth["angle_deg"].to_numpy()
    assert resultant_length(error) > 0.97
    assert found["pose_entropy"].notna().all()


def test_four_ways_to_begin_are_those_of_four_turned_rings() -> None:
    config = PolarEncoderConfig(angles=16, channels=4, hidden=8)
    look = InvariantPerceptron(3, 5, config).eval()
    rings = torch.randn(2, 1, 16, 3)
    sequence = rings.transpose(2, 3).flatten(1, 2)
    each = torch.cat([look.convolutions(sequence.roll(k, -1)) for k in range(4)], -1)
    expected = look.perceptron(torch.cat([each.mean(-1), each.amax(-1)], -1))
    torch.testing.assert_close(look(rings), expected)


def test_a_convolution_to_one_channel_is_that_of_its_kernel() -> None:
    layer, image = IsotropicConvolution(4, 1), torch.randn(2, 4, 7, 9)
    kernel = torch.einsum("oir,rhw->oihw", layer.weight, layer.rings)
    expected = torch.nn.functional.conv2d(image, kernel, layer.bias, padding=2)
    torch.testing.assert_close(layer(image), expected, atol=1e-5, rtol=1e-5)

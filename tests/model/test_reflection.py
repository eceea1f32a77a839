"""Reflection as a pose variable: its convention, its posterior, and an encoder that finds it."""

from __future__ import annotations

import math

import pytest
import torch

from modpose.config import ModelConfig, parse_config
from modpose.config.facts import Facts, check_config
from modpose.data.batches import Batch
from modpose.errors import InputError
from modpose.geometry.grids import lattice
from modpose.geometry.pose import Pose, mirror, mirror_images, sample_images
from modpose.geometry.rotations import rotation_2d
from modpose.model.build import build_vae
from modpose.model.cells import Cells
from modpose.model.draws import training_draw
from modpose.model.latents import Latents
from modpose.model.posterior import LatentLayout, Posterior
from modpose.model.reflection import mirrored_back, or_mirrored
from modpose.model.vae import Vae
from modpose.recipes import recipe_config

MIRROR = torch.tensor([[1.0, 0.0], [0.0, -1.0]])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_vae(recipe: str = "target-vae", box: int = 16, **model: object) -> Vae:
    values = recipe_config(recipe)
    small = {
        "encoder": {"channels": 8},
        "field": {"hidden": 16},
        "reflection": {"prior": "uniform"},
    }
    options = {**values["model"], **model}
    for name, part in small.items():
        options[name] = {**options.get(name, {}), **part}
    config = parse_config({**values, "recipe": recipe, "model": options}, "test")
    return build_vae(config, shape=(box, box), channels=1, n_images=8)


def make_posterior(tells: str) -> Posterior:
    """Three hypotheses a reflection, whose cells tell angle and shift as well, or do not."""
    model = {"z_dim": 1, "reflection": {"prior": "uniform"}}
    if tells == "place":
        model |= {"encoder": {"kind": "orbit", "rotations": 3, "subpixel": True}}
    layout = LatentLayout(ModelConfig.model_validate(model), 2)
    draw, cells = generator(3), None
    if tells == "place":
        places = torch.randn(3, 2, generator=draw)
        turns = torch.arange(3) * (2 * math.pi / 3)
        prior = torch.tensor([0.2, 0.3, 0.5]).log()
        cells = Cells(turns, places, prior, angle_std=math.pi / 3, shift_std=0.8)
    halves = []
    for _ in range(2):
        params = 0.5 * torch.randn(2, 3, layout.n_params, generator=draw)
        halves.append(layout.posterior(params, torch.randn(2, 3, generator=draw), cells))
    return or_mirrored(halves[0], mirrored_back(halves[1]), torch.tensor([0.7, -0.4]))


# --- the convention -----------------------------------------------------------------------------


def test_a_mirrored_pose_is_a_rotation_after_the_reflection() -> None:
    angle, shift = torch.tensor([[0.4, 0.4]]), torch.tensor([[[1.0, 2.0], [1.0, 2.0]]])
    mirrored, cell = torch.tensor([[False, True]]), torch.zeros(1, 2, dtype=torch.int64)
    pose = Latents(torch.zeros(1, 2, 0), angle, shift, cell, mirrored=mirrored).pose()
    turn = rotation_2d(torch.tensor(0.4))
    torch.testing.assert_close(pose.rotation[0], torch.stack([turn, turn @ MIRROR]))
    torch.testing.assert_close(torch.linalg.det(pose.rotation[0]), torch.tensor([1.0, -1.0]))
    u = torch.randn(5, 2, generator=generator())
    here = pose.to_image(u)
    for k in range(2):
        back = Pose(pose.rotation[0, k], pose.shift[0, k]).to_object(here[0, k])
        torch.testing.assert_close(back, u, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("box", [12, 13])
def test_a_mirrored_picture_is_read_at_the_mirrored_places(box: int) -> None:
    image = torch.randn(2, 1, box, box, generator=generator())
    read = sample_images(image, mirror(lattice((box, box))).expand(2, -1, -1))
    read = read.transpose(1, 2).reshape(image.shape)
    mirrored = mirror_images(image)
    first = 1 - box % 2  # the first row of an even number has no partner
    torch.testing.assert_close(mirrored[..., first:, :], read[..., first:, :], atol=1e-5, rtol=0)
    assert torch.equal(mirror_images(mirrored), image)


def test_the_slope_of_a_mirrored_pose_is_that_of_finite_differences() -> None:
    x = torch.randn(6, 2, generator=generator(), dtype=torch.float64)
    mirrored = torch.tensor([[True]])

    def places(angle: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        nothing = torch.zeros(1, 1, 0, dtype=torch.float64)
        cell = torch.zeros(1, 1, dtype=torch.int64)
        return Latents(nothing, angle, shift, cell, mirrored=mirrored).pose().to_object(x)

    angle = torch.tensor([[0.3]], dtype=torch.float64, requires_grad=True)
    shift = torch.tensor([[[0.5, -1.0]]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(places, (angle, shift))


# --- the posterior ------------------------------------------------------------------------------


@pytest.mark.parametrize("tells", ["place", "reflection"])
def test_the_kl_is_that_of_many_samples(tells: str) -> None:
    posterior, count = make_posterior(tells), 40_000
    latents = posterior.sample(count, generator(1))
    assert latents.mirrored is not None
    ratio = -posterior.log_prior_over_posterior(latents)
    kl = sum(posterior.kl(exact=True))
    error = ratio.std(1) / math.sqrt(count)
    if tells == "place":  # the joint KL with the cell; otherwise an upper bound
        assert ((ratio.mean(1) - kl).abs() < 4 * error).all()
    else:
        assert (ratio.mean(1) < kl + 4 * error).all()
    share = latents.mirrored.float().mean(1)
    assert posterior.log_reflection() is not None
    told = posterior.log_reflection().exp()[:, 1]
    torch.testing.assert_close(told, torch.sigmoid(torch.tensor([-0.7, 0.4])))
    assert ((share - told).abs() < 4 * (told * (1 - told) / count).sqrt()).all()


def test_a_reflection_alone_costs_what_a_coin_tells() -> None:
    """One Gaussian a reflection, both the prior's: only the reflection has a KL."""
    model = ModelConfig.model_validate(
        {"z_dim": 1, "rotation": {"prior": "none"}, "reflection": {"prior": "uniform"}}
    )
    layout = LatentLayout(model, 2)
    half = layout.posterior(torch.zeros(1, 1, layout.n_params), torch.zeros(1, 1))
    p = 0.8
    both = or_mirrored(half, mirrored_back(half), torch.tensor([math.log((1 - p) / p)]))
    expected = math.log(2) + p * math.log(p) + (1 - p) * math.log(1 - p)
    kl = both.kl(exact=True)
    assert kl.pose.item() == pytest.approx(expected, abs=1e-5)
    assert kl.content.item() == pytest.approx(0.0, abs=1e-6)
    assert both.best().mirrored.item()


# --- the encoder --------------------------------------------------------------------------------


@pytest.mark.parametrize("box", [16, 17])
def test_what_is_said_of_a_mirrored_image_is_mirrored(box: int) -> None:
    vae = make_vae(box=box).eval()
    image = torch.randn(2, 1, box, box, generator=generator())
    batch = Batch(torch.arange(2), image)
    with torch.no_grad():
        one = vae.posterior(batch)
        other = vae.posterior(batch.with_image(mirror_images(image)))
    assert one.cells is not None and other.cells is not None
    assert one.cells.mirrored is not None and one.angle is not None and other.angle is not None
    half = one.cell_log_q.shape[1] // 2
    swapped = torch.arange(2 * half).roll(half)
    torch.testing.assert_close(other.cell_log_q, one.cell_log_q[:, swapped])
    torch.testing.assert_close(other.content.mean, one.content.mean[:, swapped])
    torch.testing.assert_close(other.angle.mean, -one.angle.mean[:, swapped])
    torch.testing.assert_close(other.shift.mean, mirror(one.shift.mean[:, swapped]))
    assert torch.equal(one.cells.mirrored, torch.arange(2 * half) >= half)
    assert one.cells.log_prior.exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    torch.testing.assert_close(one.kl(exact=True).pose, other.kl(exact=True).pose)


@pytest.mark.parametrize("cells", ["soft", "top"])
def test_either_reflection_is_trained(cells: str) -> None:
    vae = make_vae()
    if cells == "top":
        config = parse_config(
            {"recipe": "t", "train": {"cells": {"kind": "top", "count": 3}}}, "test"
        )
        vae.training_draw = training_draw(config.train.cells)
    vae.train()
    batch = Batch(torch.arange(3), torch.randn(3, 1, 16, 16, generator=generator()))
    value = vae(batch, generator=generator()).value().mean()
    value.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in vae.parameters())
    posterior = vae.posterior(batch)
    latents, weight = vae.training_draw(posterior, generator())
    torch.testing.assert_close(weight.exp().sum(1), torch.ones(3))
    if cells == "soft":
        assert latents.mirrored is not None
        assert torch.equal(latents.mirrored, torch.tensor([[False, True]]).expand(3, -1))


@pytest.mark.parametrize(
    ("recipe", "shape", "says"),
    [
        ("spatial-vae", (16, 16), "none with the mlp encoder"),
        ("modpose", (16, 16), "none with the polar encoder"),
        ("vae-3d", (8, 8, 8), "none for volumes"),
    ],
)
def test_where_nothing_tells_a_reflection_it_is_refused(
    recipe: str, shape: tuple[int, ...], says: str
) -> None:
    values = recipe_config(recipe)
    model = {**values.get("model", {}), "reflection": {"prior": "uniform"}}
    config = parse_config({**values, "recipe": recipe, "model": model}, "test")
    with pytest.raises(InputError, match=says):
        check_config(Facts(config, shape, 1))


def test_reflection_is_off_unless_asked_for() -> None:
    assert ModelConfig().reflection.prior == "none"

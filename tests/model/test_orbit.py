"""The orbit encoder: equivariance, what its cells refer to, its sizes, TARGET-VAE end to end."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

from modpose import PoseModel
from modpose.config import ModelConfig, OrbitEncoderConfig, merge, parse_config
from modpose.data.batches import Batch
from modpose.errors import InputError
from modpose.geometry.grids import lattice
from modpose.geometry.pose import Pose, sample_images
from modpose.geometry.rotations import rotation_2d
from modpose.model.build import build_vae
from modpose.model.cells import Cells
from modpose.model.encoders.orbit import LiftingConvolution, OrbitEncoder, fit_window
from modpose.model.posterior import LatentLayout, Posterior
from modpose.options import configure
from modpose.recipes import recipe_config
from modpose.simulate.digits import glyphs, transform


def make_model(**options: Any) -> ModelConfig:
    encoder = {"kind": "orbit", "channels": 6, "rotations": 4} | options.pop("encoder", {})
    values = {"encoder": encoder, "shift": {"std_px": 3.0}}
    return ModelConfig.model_validate(merge(values, options))


def make_encoder(
    box: int = 20, channels: int = 1, **options: Any
) -> tuple[OrbitEncoder, LatentLayout]:
    model = make_model(**options)
    layout = LatentLayout(model, 2)
    assert isinstance(model.encoder, OrbitEncoderConfig)
    torch.manual_seed(1)
    encoder = OrbitEncoder(model, model.encoder, layout=layout, channels=channels, shape=(box, box))
    return encoder, layout


class Numbers(NamedTuple):
    """What an encoder gives for every cell."""

    params: Tensor
    cell_logits: Tensor
    cells: Cells | None


def propose(encoder: OrbitEncoder, image: Tensor) -> Numbers:
    with torch.no_grad():
        return Numbers(*encoder.numbers(image))


def grid(values: Tensor, rotations: int) -> Tensor:
    """Split the cells of (B, C, ...) into (B, n, rows, columns, ...) of a square grid."""
    side = math.isqrt(values.shape[1] // rotations)
    return values.unflatten(1, (rotations, side, side))


def blob(box: int, angle: float, shift: tuple[float, float], width: float = 1.2) -> Tensor:
    """Draw a smooth object without symmetry, in the pose (angle, shift), as (1, 1, box, box)."""
    pose = Pose(rotation_2d(torch.tensor(angle)), torch.tensor(shift))
    u = pose.to_object(lattice((box, box)))
    value = sum(
        height * torch.exp(-((u - torch.tensor(place)) / width).square().sum(-1) / 2)
        for height, place in [(1.0, (0.0, 0.0)), (0.8, (3.0, 0.0)), (0.6, (-1.0, 2.5))]
    )
    assert isinstance(value, Tensor)
    return value.reshape(1, 1, box, box)


# --- kernels ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [12, 13])
@pytest.mark.parametrize("rotations", [4, 6, 8, 16])
def test_turned_kernels_keep_their_norm(rotations: int, kernel: int) -> None:
    torch.manual_seed(0)
    kernels = LiftingConvolution(3, 8, kernel, rotations).kernels().detach()
    assert kernels.shape == (rotations, 8, 3, kernel, kernel)
    norms = kernels.flatten(2).norm(dim=-1)
    assert ((norms / norms[0] - 1).abs() < 0.12).all()
    assert ((norms.mean(1) / norms[0].mean() - 1).abs() < 0.03).all()


@pytest.mark.parametrize("kernel", [14, 15])
@pytest.mark.parametrize("rotations", [8, 6])
def test_kernels_are_turned_by_the_angle_of_their_cell(rotations: int, kernel: int) -> None:
    """Against a cubic spline through the upright kernel, for one that is smooth."""
    lift = LiftingConvolution(1, 1, kernel, rotations)
    slow = torch.randn(5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # up to two waves a turn, alike in rings 2 to 5
        lift.weight.zero_()
        for start, ring in [(4, 2), (11, 3), (20, 4), (33, 5)]:
            lift.weight[0, 0, start : start + 5] = slow * math.sqrt(ring)
        kernels = lift.kernels()[:, 0, 0].double().numpy()
    middle = (kernel - 1) / 2
    y, x = np.mgrid[:kernel, :kernel] - middle
    for r in range(rotations):
        cos, sin = math.cos(2 * math.pi * r / rotations), math.sin(2 * math.pi * r / rotations)
        upright = np.stack([-sin * x + cos * y, cos * x + sin * y]) + middle  # R^T, rows first
        expected = ndimage.map_coordinates(kernels[0], upright, order=3)
        assert np.corrcoef(expected.ravel(), kernels[r].ravel())[0, 1] > 0.99


# --- equivariance -----------------------------------------------------------------------------


@pytest.mark.parametrize("box", [20, 21])
@pytest.mark.parametrize("rotations", [4, 8])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_quarter_turn_permutes_the_cells(rotations: int, stride: int, box: int) -> None:
    encoder, _ = make_encoder(box, encoder={"rotations": rotations, "stride": stride})
    image = torch.rand(2, 1, box, box)
    upright, turned = propose(encoder, image), propose(encoder, image.rot90(-1, (-2, -1)))
    assert upright.cells is not None and upright.cells.shift is not None
    for before, after in zip(upright[:2], turned[:2], strict=True):
        expected = grid(before, rotations).roll(rotations // 4, 1).rot90(-1, (2, 3))
        torch.testing.assert_close(grid(after, rotations), expected, atol=1e-6, rtol=1e-4)
    # the cells themselves turn with the picture, about the middle of the array
    middle = (box - 1) / 2 - box // 2
    places = grid(upright.cells.shift[None], rotations) - middle
    turned_places = places.rot90(-1, (2, 3)) @ rotation_2d(torch.tensor(-math.pi / 2))
    torch.testing.assert_close(turned_places, places, atol=1e-5, rtol=0)


def test_an_eighth_of_a_turn_permutes_the_cells_of_a_smooth_image() -> None:
    encoder, _ = make_encoder(25, encoder={"rotations": 8, "kernel": 15, "padding": 4})
    first, second = (blob(25, angle, (0.0, 0.0), width=1.8) for angle in (0.3, 0.3 + math.pi / 4))
    middle = 9
    upright = grid(propose(encoder, first).params, 8)[0, :, middle, middle]
    turned = grid(propose(encoder, second).params, 8)[0, :, middle, middle]
    moved = (turned - upright.roll(1, 0)).norm() / (upright - upright.mean(0)).norm()
    assert moved < 0.1


@given(st.integers(-4, 4), st.integers(-4, 4), st.sampled_from([1, 2]))
@settings(max_examples=15, deadline=None)
def test_shifts_by_whole_strides_move_the_cells(dx: int, dy: int, stride: int) -> None:
    encoder, _ = make_encoder(24, encoder={"stride": stride, "kernel": 8, "padding": 8})
    dx, dy = dx // stride, dy // stride
    image = torch.zeros(1, 1, 24, 24)
    image[..., 8:16, 8:16] = torch.rand(8, 8, generator=torch.Generator().manual_seed(0))
    moved = image.roll((stride * dy, stride * dx), (2, 3))
    before, after = propose(encoder, image), propose(encoder, moved)
    expected = grid(before.cell_logits, 4).roll((dy, dx), (2, 3))
    torch.testing.assert_close(grid(after.cell_logits, 4), expected, atol=1e-6, rtol=1e-4)


# --- what a cell refers to --------------------------------------------------------------------


@pytest.mark.parametrize(("box", "kernel", "padding", "stride"), [
    (24, 13, 4, 1), (24, 12, 4, 1), (25, 13, 4, 1), (25, 12, 3, 1), (24, 14, 4, 2), (25, 13, 4, 2),
])  # fmt: skip
@pytest.mark.parametrize("rotations", [4, 6])
def test_the_best_match_of_a_kernel_is_the_pose_of_the_object(
    box: int, kernel: int, padding: int, stride: int, rotations: int
) -> None:
    """An encoder that correlates with the upright object peaks in the cell that recentres it."""
    sizes = {"kernel": kernel, "padding": padding, "stride": stride}
    options = sizes | {"rotations": rotations, "channels": 1, "depth": 0}
    encoder, layout = make_encoder(box, encoder=options)
    place = encoder.window.places((box, box))
    assert place.abs().min(dim=0).values.max() <= stride / 2
    target = place[len(place) // 2 + 2]
    turn = 1
    angle = 2 * math.pi * turn / rotations
    matched = match_kernel(encoder, box, kernel)
    with torch.no_grad():
        encoder.lift.weight.copy_(matched)
        output = encoder.network[-1]
        output.weight.zero_()
        output.weight[-1] = 100.0
    image = blob(box, angle, (target[0].item(), target[1].item()))
    best = layout.posterior(*propose(encoder, image)).best()
    torch.testing.assert_close(best.shift[0, 0], target)
    assert math.cos(best.angle[0, 0].item() - angle) > 0.999
    u = Pose(rotation_2d(best.angle[0]), best.shift[0]).to_image(lattice((box, box)))
    recentred = sample_images(image, u.reshape(1, -1, 2)).reshape(box, box)
    upright = blob(box, 0.0, (0.0, 0.0)).flatten()
    assert torch.corrcoef(torch.stack([recentred.flatten(), upright]))[0, 1] > 0.98


def match_kernel(encoder: OrbitEncoder, box: int, kernel: int) -> Tensor:
    """Coefficients whose upright kernel is nearest to the upright object, its mean taken off."""
    half = (kernel - 1) / 2 - kernel // 2
    drawn = blob(kernel, 0.0, (half, half)).flatten()
    basis = encoder.lift.basis[0].flatten(1).T
    inside = basis.abs().sum(1) > 0
    found = torch.linalg.lstsq(basis[inside], (drawn - drawn[inside].mean())[inside][:, None])
    return found.solution.T.reshape(1, 1, -1)


def test_the_prior_of_the_cells() -> None:
    encoder, _ = make_encoder(20, rotation={"prior": "gaussian", "std_deg": 50.0})
    cells = encoder.cells((20, 20), torch.device("cpu"))
    assert cells is not None and cells.angle is not None and cells.shift is not None
    angle, shift = np.rad2deg(cells.angle.numpy()), cells.shift.numpy()
    away = np.minimum(angle, 360 - angle)
    density = np.exp(-0.5 * (away / 50) ** 2 - 0.5 * (shift**2).sum(1) / 3**2)
    np.testing.assert_allclose(cells.log_prior.exp(), density / density.sum(), rtol=1e-4)
    assert cells.angle_std == pytest.approx(math.pi / 4) and cells.shift_std is None
    plain = make_encoder(20)[0].cells((20, 20), torch.device("cpu"))
    assert plain is not None
    by_rotation = plain.log_prior.exp().reshape(4, -1).sum(1)
    torch.testing.assert_close(by_rotation, torch.full((4,), 0.25))


def test_larger_images_have_more_cells_and_the_same_numbers_in_them() -> None:
    encoder, _ = make_encoder(20, encoder={"kernel": 8, "padding": 2})
    field = torch.zeros(1, 1, 30, 30)
    field[..., 5:25, 5:25] = torch.rand(20, 20, generator=torch.Generator().manual_seed(0))
    inner, whole = propose(encoder, field[..., 5:25, 5:25]), propose(encoder, field)
    assert inner.cells is not None and whole.cells is not None
    assert inner.cells.shift is not None and whole.cells.shift is not None
    crop = grid(whole.cell_logits, 4)[:, :, 5:-5, 5:-5]
    torch.testing.assert_close(grid(inner.cell_logits, 4), crop)
    places = grid(whole.cells.shift[None], 4)[:, :, 5:-5, 5:-5]
    torch.testing.assert_close(grid(inner.cells.shift[None], 4), places)


# --- sizes and switches -----------------------------------------------------------------------


def test_the_published_sizes_are_the_defaults_at_50_pixels() -> None:
    window = fit_window(OrbitEncoderConfig(), (50, 50), centred=False)
    assert (window.kernel, window.padding) == (28, 8)
    assert len(window.places((50, 50))) == 39**2


@given(st.integers(8, 130), st.integers(1, 4), st.booleans())
def test_default_sizes_fit_any_box(box: int, stride: int, centred: bool) -> None:
    window = fit_window(OrbitEncoderConfig(stride=stride), (box, box), centred=centred)
    assert box / 2 <= window.kernel <= 0.56 * box + 2
    places = window.places((box, box))
    if centred:
        assert window.kernel % 2 == 1 and places.tolist() == [[0.0, 0.0]]
    elif (box + 2 * window.padding - window.kernel) % stride == 0:
        middle = (box - 1) / 2 - box // 2
        torch.testing.assert_close(places.mean(0), torch.full((2,), middle))
    padded = window.pad(torch.rand(1, 1, box, box))
    count = (padded.shape[-1] - window.kernel) // (1 if centred else stride) + 1
    assert count**2 == len(places)


def test_without_shift_the_kernels_lie_on_the_box_centre() -> None:
    encoder, layout = make_encoder(20, shift={"prior": "none"})
    image = torch.rand(2, 1, 20, 20)
    proposal = propose(encoder, image)
    assert proposal.params.shape == (2, 4, layout.n_params)
    reach = encoder.window.kernel // 2
    spoiled = image.clone()
    spoiled[..., : 10 - reach, :] = 5.0
    spoiled[..., 10 + reach + 1 :] = 5.0
    # where a processor convolves by transforms, roundings of what lies outside come through
    again = propose(encoder, spoiled)
    torch.testing.assert_close(again.params, proposal.params, atol=1e-4, rtol=0)
    posterior = layout.posterior(*proposal)
    assert posterior.shift is None and posterior.best().shift.abs().max() == 0


@pytest.mark.parametrize(("options", "message"), [
    ({"model": {"encoder": {"kernel": 40}}}, "kernel is 40, expected at most 26"),
    ({"model": {"encoder": {"kernel": 24, "padding": 0}}}, "at most 20"),
    ({"model": {"encoder": {"kernel": 12}, "shift": {"prior": "none"}}}, "an odd side"),
    ({"model": {"rotation": {"prior": "wide"}}}, "wide, expected uniform, gaussian or none"),
])  # fmt: skip
def test_parts_that_do_not_agree_are_refused(options: dict[str, Any], message: str) -> None:
    config = parse_config(merge(recipe_config("target-vae"), options), "target-vae")
    with pytest.raises(InputError, match=message):
        build_vae(config, shape=(20, 20), channels=1, n_images=2)
    config = parse_config(merge(recipe_config("target-vae"), {"model": {}}), "target-vae")
    with pytest.raises(InputError, match="for volumes"):
        build_vae(
            config.model_copy(
                update={
                    "model": make_model(rotation={"prior": "none"}, likelihood={"kind": "gaussian"})
                }
            ),
            shape=(8, 8, 8),
            channels=1,
            n_images=2,
        )


VARIANTS: list[tuple[dict[str, Any], int, bool]] = [
    ({"rotations": 1}, 1, False),
    ({"rotations": 4, "infer_rotation": False}, 1, False),
    ({"rotations": 4, "add_offset": False}, 4, False),
    ({"rotations": 4}, 4, True),
    ({"rotations": 8}, 8, True),
    ({"rotations": 16, "stride": 2, "subpixel": True}, 16, True),
]


@pytest.mark.parametrize(("encoder", "count", "told"), VARIANTS)
def test_variants_of_the_ablation(encoder: dict[str, Any], count: int, told: bool) -> None:
    network, layout = make_encoder(18, channels=3, encoder=encoder)
    proposal = propose(network, torch.rand(2, 3, 18, 18))
    posterior = layout.posterior(*proposal)
    places = len(network.window.places((18, 18)))
    assert posterior.cell_log_q.shape == (2, count * places)
    assert posterior.cells is not None and (posterior.cells.angle is not None) == told
    assert torch.isfinite(posterior.kl(exact=True).pose).all()
    if told:
        within = posterior.sample(2000, torch.Generator().manual_seed(0)).angle.flatten()
        octants = torch.histc(torch.remainder(within, 2 * math.pi), 8, 0, 2 * math.pi)
        assert (octants > 200).all()  # every angle is within reach of some cell


def test_group_sets_the_rotations_and_needs_an_orbit_encoder(tmp_path: Any) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((4, 12, 12), np.float32))
    source = str(tmp_path / "x.npy")
    flags: dict[str, tuple[str, object]] = {"--group": ("model.encoder.rotations", 16)}
    config = configure(source, recipe="target-vae", flags=flags)[1]
    assert isinstance(config.model.encoder, OrbitEncoderConfig)
    assert config.model.encoder.rotations == 16
    with pytest.raises(InputError, match=r"--group.*model.encoder.kind is mlp, expected orbit"):
        configure(source, recipe="spatial-vae", flags=flags)


# --- end to end -------------------------------------------------------------------------------


@pytest.mark.parametrize("cells", [{"kind": "soft"}, {"kind": "top", "count": 3}])
@pytest.mark.parametrize("recipe", ["target-vae", "target-vae-paper"])
def test_three_epochs_end_to_end(recipe: str, cells: dict[str, Any]) -> None:
    images, _ = transform(np.tile(glyphs("FRA", 14), (40, 1, 1)), box=20, shift_std_px=1.5)
    options = {
        "model": {
            "encoder": {"channels": 8, "rotations": 4},
            "field": {"hidden": 16, "fourier": {"count": 16}},
        },
        "train": {"epochs": 3, "lr": 2e-3, "batch_size": 20, "cells": cells},
    }
    model = PoseModel(recipe, z_dim=1, options=options, quiet=True).fit(images)
    rows = model.metrics()
    assert rows["val_elbo"].iloc[-1] > rows["val_elbo"].iloc[0]
    found = model.encode(images[:10])
    assert found.angle_deg is not None and np.isfinite(found.elbo).all()
    assert (np.abs(found.angle_deg) <= 180).all()
    assert np.abs(found.shift).max() < 20
    assert model.reconstruct(images[:2]).shape == (2, 20, 20)
    again = PoseModel(recipe, z_dim=1, options=options, quiet=True).fit(images)
    np.testing.assert_array_equal(again.metrics()["val_elbo"], rows["val_elbo"])


def test_gradients_reach_every_weight() -> None:
    for cells in ({"kind": "soft"}, {"kind": "top"}):
        options: dict[str, Any] = {
            "model": {"encoder": {"channels": 4}, "field": {"hidden": 8}},
            "train": {"cells": cells},
        }
        config = parse_config(merge(recipe_config("target-vae"), options), "target-vae")
        vae = build_vae(config, shape=(16, 16), channels=1, n_images=3)
        batch = Batch(torch.arange(3), torch.rand(3, 1, 16, 16))
        vae(batch, generator=torch.Generator().manual_seed(0)).value().mean().backward()
        for name, parameter in vae.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_augmentation_turns_the_cells_back() -> None:
    """With exact quarter turns, the posterior of the rotated image, rotated back, is the same."""
    encoder, layout = make_encoder(21)
    image = torch.rand(1, 1, 21, 21)
    upright = layout.posterior(*propose(encoder, image))
    turned = layout.posterior(*propose(encoder, image.rot90(-1, (-2, -1))))
    back = turned.turned_back(torch.tensor([math.pi / 2]))
    torch.testing.assert_close(back.pose_entropy(), upright.pose_entropy())
    torch.testing.assert_close(back.kl(exact=True).pose, upright.kl(exact=True).pose)
    _assert_same_pose(back, upright)


def _assert_same_pose(one: Posterior, other: Posterior) -> None:
    first, second = one.best(), other.best()
    torch.testing.assert_close(first.shift, second.shift, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(first.z, second.z, atol=1e-5, rtol=1e-4)
    assert (first.angle - second.angle).cos().min() > 0.9999

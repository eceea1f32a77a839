"""Networks of Fourier transforms, lookup tables, evil twins and corrections of poses."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import nn

from modpose import PoseModel
from modpose.config import (
    FourierFieldConfig,
    ModelConfig,
    PoseRefinementConfig,
    RotationConfig,
    TableEncoderConfig,
    merge,
    parse_config,
)
from modpose.data.batches import Batch
from modpose.data.dataset import dataset_of
from modpose.data.particles import Particles
from modpose.data.source import Source
from modpose.data.stack import ArrayStack
from modpose.data.twins import Twins
from modpose.errors import InputError
from modpose.geometry.pose import Pose
from modpose.geometry.rotations import geodesic, haar_rotations
from modpose.geometry.windows import soft_window
from modpose.model.build import build_vae
from modpose.model.encoders.table import TableEncoder
from modpose.model.fields.slices import SliceField, half_space
from modpose.model.image_rows import PoseCorrections
from modpose.model.posterior import LatentLayout
from modpose.model.settings import SearchSettings
from modpose.model.vae import Vae
from modpose.recipes import recipe_config
from modpose.train.learner import set_up

BOX = 16
SMALL: dict[str, Any] = {
    "model": {"z_dim": 2, "field": {"hidden": 16, "depth": 2}},
    "train": {"epochs": 1, "batch_size": 8},
}


def config_of(recipe: str = "cryodrgn", **sections: Any) -> Any:
    options = merge(recipe_config(recipe), SMALL)
    if options["model"]["encoder"]["kind"] == "mlp":
        options = merge(options, {"model": {"encoder": {"hidden": 16, "depth": 1}}})
    return parse_config(merge(options, sections), recipe)


def make_vae(recipe: str = "cryodrgn", **sections: Any) -> Vae:
    return build_vae(config_of(recipe, **sections), shape=(BOX, BOX), channels=1, n_images=6)


def make_batch(ctf: bool = True) -> Batch:
    generator = torch.Generator().manual_seed(0)
    row = torch.tensor([4.0, 9000.0, 8000.0, 30.0, 300.0, 2.7, 0.1, 0.0, 0.0])
    return Batch(
        torch.arange(6),
        torch.randn(6, 1, BOX, BOX, generator=generator),
        row.expand(6, 9) if ctf else None,
        Pose(haar_rotations(6, generator=generator), torch.randn(6, 2, generator=generator)),
    )


def posed_source(images: np.ndarray, rotation: np.ndarray, shift: np.ndarray) -> Source:
    """Images in memory with their poses."""
    table = pd.DataFrame(index=pd.RangeIndex(len(images)))
    particles = Particles(table, given_poses=(rotation, shift))
    return Source(ArrayStack(images.astype(np.float32)), particles)


def two_states(n: int, seed: int = 0) -> tuple[Source, np.ndarray]:
    """Projections of blobs, one of which is there in half of the images."""
    rng = np.random.default_rng(seed)
    rotation = Rotation.random(n, rng=rng).as_matrix()
    shift = rng.normal(0, 0.5, (n, 2))
    state = rng.integers(0, 2, n)
    blobs = np.array([[2.5, 0, 0], [-2.0, 2, 0], [0, -2, 1.5], [0, 0, -3.5]])
    weight = np.ones((n, 4))
    weight[:, 3] = 2 * state
    seen = np.einsum("nij,bj->nbi", rotation, blobs)[..., :2] + shift[:, None]
    axis = np.arange(BOX) - BOX // 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    r2 = (x - seen[..., 0, None, None]) ** 2 + (y - seen[..., 1, None, None]) ** 2
    images = (weight[..., None, None] * np.exp(-r2 / (2 * 1.2**2))).sum(1)
    noisy = images + rng.normal(0, images.std(), images.shape)
    return posed_source(noisy, rotation, shift), state


# --- the field --------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 50), content=st.sampled_from(["first", "every"]))
def test_the_field_is_hermitian(seed: int, content: str) -> None:
    torch.manual_seed(seed)
    options: dict[str, Any] = {"content": content, "hidden": 8, "features": 9}
    field = SliceField(FourierFieldConfig(**options), 3, 20)
    u, z = torch.randn(2, 11, 3), torch.randn(2, 3)
    u[0, 0], u[0, 1, 2], u[0, 2, 1:] = 0, 0, 0  # on the borders of the half spaces
    here, there = field(u, z), field(-u, z)
    torch.testing.assert_close(here[..., 0], there[..., 0])
    other = torch.ones(2, 11, dtype=torch.bool)
    other[0, 0] = False  # the origin is its own opposite
    torch.testing.assert_close(here[..., 1][other], -there[..., 1][other])


def test_one_of_two_opposite_frequencies_is_on_the_first_side() -> None:
    u = torch.tensor([[1.0, 2, 3], [1, 2, 0], [1, 0, 0], [-1, 1, 0], [5, 5, -1]])
    assert (half_space(u) == -half_space(-u)).all()
    assert half_space(torch.zeros(3)) == 1


@pytest.mark.parametrize("encoding", ["gaussian", "geometric"])
def test_the_encoding_has_the_phases_that_are_published(encoding: str) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"encoding": encoding, "hidden": 4, "features": 300}
    field = SliceField(FourierFieldConfig(**options), 0, 64)
    if encoding == "gaussian":  # cryoDRGN: N(0, 0.5²) x 32 x k, k in cycles per pixel = u / 2
        assert field.positions.std() == pytest.approx(0.5 * 32 / 2, rel=0.1)
    else:
        pixels = field.positions.max(0).values / math.pi
        assert pixels.min() == pytest.approx(1) and pixels.max() == pytest.approx(32)
        assert (field.positions != 0).sum(0).eq(1).all()
    wave = field.encode(torch.full((1, 1, 3), 0.3))
    torch.testing.assert_close(wave[..., :300] ** 2 + wave[..., 300:] ** 2, torch.ones(1, 1, 300))


def test_content_changes_every_layer_at_low_rank() -> None:
    torch.manual_seed(0)
    config = FourierFieldConfig(content="every", hidden=6, depth=1, rank=2)
    layer = SliceField(config, 3, 8).hidden[0]
    h, z = torch.randn(4, 5, 6), torch.randn(4, 3)
    for i in range(4):  # one image at a time, by the formula
        gains = torch.diag(layer.gains(z[i]))
        weight = torch.eye(6) + layer.linear.weight + layer.left @ gains @ layer.right
        bias = layer.linear.bias + layer.offset(z[i])
        torch.testing.assert_close(layer(h, z)[i], h[i] @ weight.T + bias, atol=1e-5, rtol=1e-5)


def test_gradients_are_those_of_finite_differences() -> None:
    vae, batch = make_vae(model={"field": {"content": "every", "activation": "silu"}}), make_batch()
    projection, given_pose = vae.projection, batch.pose
    assert projection is not None and given_pose is not None

    def nats(content: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        pose = Pose(given_pose.rotation, shift)
        return projection.log_likelihood(vae.field, batch, content, pose)[2].sum()

    z = torch.randn(6, 1, 2, requires_grad=True)
    shift = given_pose.shift.clone().requires_grad_()
    by_z, by_shift = torch.autograd.grad(nats(z, shift), [z, shift])
    step, move = torch.zeros_like(z), torch.zeros_like(shift)
    step[2, 0, 1], move[2, 0] = 0.05, 0.02
    with torch.no_grad():
        slope = (nats(z + step, shift) - nats(z - step, shift)) / 0.1
        along = (nats(z, shift + move) - nats(z, shift - move)) / 0.04
    assert slope.item() == pytest.approx(by_z[2, 0, 1].item(), rel=0.02, abs=2e-3)
    assert along.item() == pytest.approx(by_shift[2, 0].item(), rel=0.02, abs=1e-2)


# --- the composition --------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["cryodrgn", "vlt", "evil-twin"])
@pytest.mark.parametrize("ctf", [True, False])
def test_every_part_is_trained(recipe: str, ctf: bool) -> None:
    vae, batch = make_vae(recipe), make_batch(ctf)
    elbo = vae(batch, generator=torch.Generator().manual_seed(0))
    assert elbo.elbo.recon.shape == (6,) and bool((elbo.elbo.kl_pose == 0).all())
    (-elbo.value().mean()).backward()
    for name, weight in vae.named_parameters():
        if weight.requires_grad:
            assert weight.grad is not None, name
            assert torch.isfinite(weight.grad.to_dense()).all(), name


@pytest.mark.parametrize("sees", ["transform", "aligned"])
def test_the_encoder_does_not_see_the_given_shift(sees: str) -> None:
    vae = make_vae(model={"encoder": {"sees": sees}})
    projection, batch = vae.projection, make_batch(ctf=False)
    assert projection is not None and batch.pose is not None
    move = torch.tensor([[2.0, -1.0]]).expand(6, 2)
    pose = Pose(batch.pose.rotation, batch.pose.shift + move)
    moved = replace(batch, image=batch.image.roll((-1, 2), (2, 3)), pose=pose)
    shown = [projection.show(b, sees, vae.coordinates) for b in (batch, moved)]
    assert shown[0].shape == (6, projection.n_shown(sees))
    torch.testing.assert_close(shown[0], shown[1], atol=1e-4, rtol=0)


def test_an_aligned_encoder_does_not_see_a_turn_in_the_plane() -> None:
    vae = make_vae(model={"encoder": {"sees": "aligned"}})
    projection, batch = vae.projection, make_batch(ctf=False)
    assert projection is not None and batch.pose is not None
    axis = torch.arange(BOX) - BOX // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")

    def blob(cx: float, cy: float) -> torch.Tensor:
        return torch.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * 2.0**2)).expand(1, 1, -1, -1)

    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    rotation, still = batch.pose.rotation[:1], torch.zeros(1, 2)
    one = Batch(torch.arange(1), blob(3, 1), pose=Pose(rotation, still))
    other = Batch(torch.arange(1), blob(-1, 3), pose=Pose(quarter @ rotation, still))
    shown = [projection.show(b, "aligned", vae.coordinates) for b in (one, other)]
    torch.testing.assert_close(shown[0], shown[1], atol=0.03, rtol=0)


@pytest.mark.parametrize(
    ("sections", "named"),
    [
        ({"model": {"poses": "inferred"}}, "model.poses"),
        ({"model": {"likelihood": {"kind": "gaussian"}}}, "model.likelihood.kind"),
        ({"model": {"shift": {"prior": "gaussian"}}}, "priors of the pose"),
        ({"model": {"field": {"kind": "dense"}, "likelihood": {"kind": "gaussian"}}}, "sees"),
    ],
)
def test_parts_that_do_not_agree_are_refused(sections: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        make_vae(**sections)


def test_colour_and_oblong_images_are_refused() -> None:
    for shape, channels in (((BOX, BOX), 3), ((BOX, BOX + 2), 1)):
        with pytest.raises(InputError, match="square images"):
            build_vae(config_of(), shape=shape, channels=channels, n_images=2)


# --- tables and twins -------------------------------------------------------------------------


def test_rows_start_as_they_are_asked_to() -> None:
    torch.manual_seed(0)
    layout = LatentLayout(ModelConfig(z_dim=4, rotation=RotationConfig(prior="gaussian")), 2)
    options: dict[str, Any] = {"init": "random", "mean": -0.05, "spread": 1.49, "log_std": -2.7}
    rows = TableEncoder(TableEncoderConfig(**options), 4000, layout).rows.weight.detach()
    assert rows[:, :4].mean() == pytest.approx(-0.05, abs=0.05)
    assert rows[:, :4].std() == pytest.approx(1.49, rel=0.05)
    assert (rows[:, 4:8] == -2.7).all() and (rows[:, 8:] == 0).all() and rows.shape[1] > 8


def test_frozen_rows_are_not_trained() -> None:
    vae = make_vae("vlt", model={"encoder": {"frozen": True}})
    learner = set_up(vae, config_of("vlt", model={"encoder": {"frozen": True}}))
    assert len(learner.optimizers) == 1
    assert len(set_up(make_vae("vlt"), config_of("vlt")).optimizers) == 2


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 300), seed=st.integers(0, 20))
def test_no_image_is_its_own_twin(n: int, seed: int) -> None:
    partner = Twins("permutation", n, seed).partner
    assert sorted(partner) == list(range(n))
    assert (partner != np.arange(n)).all()


@pytest.mark.parametrize("twin", ["permutation", "noise"])
def test_the_encoder_is_shown_the_twin_and_judged_by_the_image(twin: str) -> None:
    source, _ = two_states(40)
    config = config_of("evil-twin", data={"twin": twin})
    dataset = dataset_of(source, config)
    batch = dataset.batch(np.arange(5))
    assert batch.twin is not None
    if twin == "permutation":
        own = dataset.batch(dataset.twins.partner[:5]).image
        torch.testing.assert_close(batch.twin, own)
    else:
        again = dataset.batch(np.array([3])).twin
        assert again is not None
        torch.testing.assert_close(batch.twin[3:4], again)
        assert batch.twin.std() == pytest.approx(dataset.statistics().std, rel=0.1)
    vae = build_vae(config, shape=dataset.shape, channels=1, n_images=dataset.n)
    blind = batch.with_image(torch.zeros_like(batch.image))
    torch.testing.assert_close(vae.posterior(batch).content.mean, vae.posterior(blind).content.mean)
    vae.eval()
    seen = [vae(b, generator=torch.Generator().manual_seed(0)).elbo for b in (batch, blind)]
    assert not torch.allclose(*(elbo.recon for elbo in seen))


# --- poses that are refined -------------------------------------------------------------------


def test_corrections_turn_and_shift_by_what_the_rows_say() -> None:
    corrections = PoseCorrections(PoseRefinementConfig(rotation_std_deg=3, shift_std_px=2), 4)
    pose = Pose(haar_rotations(2), torch.zeros(2, 2))
    index = torch.tensor([3, 1])
    torch.testing.assert_close(corrections(index, pose).rotation, pose.rotation)
    with torch.no_grad():
        corrections.rows.weight[3] = torch.tensor([0.0, 2.0, 0.0, 0.5, -1.0])
    moved = corrections(index, pose)
    angle = torch.rad2deg(geodesic(moved.rotation, pose.rotation))
    torch.testing.assert_close(angle, torch.tensor([6.0, 0.0]), atol=0.05, rtol=0)
    torch.testing.assert_close(moved.shift, torch.tensor([[1.0, -2.0], [0.0, 0.0]]))
    assert corrections.penalty(index)[0].item() == pytest.approx(0.5 * (4 + 0.25 + 1))


def test_gradients_find_small_errors_of_the_poses() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[3.0, 0, 1], [-2, 3, 0], [0, -3, 3], [1, 1, -4]])

    class Blobs(nn.Module):
        def forward(self, u: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
            phase = -math.pi * (u @ centres.T)
            envelope = (-0.5 * (math.pi * 1.3 * u).square().sum(-1)).exp()
            parts = [(phase.cos().sum(-1)) * envelope, (phase.sin().sum(-1)) * envelope]
            return torch.stack(parts, -1)

    projection, z = make_vae().projection, torch.zeros(20, 1, 0)
    assert projection is not None
    true = Pose(haar_rotations(20, generator=generator), torch.randn(20, 2, generator=generator))
    with torch.no_grad():
        seen = projection.picture(projection.predict(Blobs(), z, true, None)[:, 0])
    corrections = PoseCorrections(PoseRefinementConfig(), 20)
    wrong = PoseCorrections(PoseRefinementConfig(), 20)
    with torch.no_grad():
        wrong.rows.weight.normal_(generator=generator)
        start = wrong(torch.arange(20), true)
    batch = Batch(torch.arange(20), seen.unsqueeze(1))
    optimizer = torch.optim.SparseAdam(corrections.parameters(), lr=0.1)
    for _ in range(80):
        optimizer.zero_grad()
        pose = corrections(batch.index, start)
        (-projection.log_likelihood(Blobs(), batch, z, pose).sum()).backward()
        optimizer.step()
    with torch.no_grad():
        pose = corrections(batch.index, start)
    before, after = (geodesic(p.rotation, true.rotation).rad2deg() for p in (start, pose))
    assert before.median() > 3 and after.median() < 0.5
    assert (pose.shift - true.shift).abs().median() < 0.05


# --- data -------------------------------------------------------------------------------------


def test_a_set_has_zero_mean_and_unit_spread_before_its_window() -> None:
    source, _ = two_states(60)
    dataset = dataset_of(source, config_of(data={"window": None}))
    found = dataset.statistics()
    assert found.mean == pytest.approx(0, abs=1e-4) and found.std == pytest.approx(1, rel=1e-4)


def test_the_window_is_one_inside_and_zero_outside() -> None:
    window = soft_window((20, 20), 0.5, 0.9)
    assert window[10, 10] == window[10, 15] == 1 and window[10, 19] == 0 == window[0, 0]
    assert 0 < window[10, 17] < 1


# --- inference --------------------------------------------------------------------------------


def fitted(recipe: str, source: Source, **sections: Any) -> PoseModel:
    options = merge(SMALL, {"model": {"field": {"hidden": 16, "depth": 1}}})
    if recipe != "vlt":
        options = merge(options, {"model": {"encoder": {"hidden": 16, "depth": 1}}})
    return PoseModel(recipe, options=merge(options, sections), quiet=True).fit(source)


FEW = SearchSettings(modes=2, refine_steps=20, samples=4)


def test_content_is_refined_from_what_the_encoder_says() -> None:
    source, _ = two_states(60)
    model = fitted("modpose-posed", source, train={"epochs": 5, "lr": 5e-3})
    own, found = model.encode(source), model.encode(source, search=FEW)
    assert found.elbo_gain is not None and (found.elbo_gain >= 0).all()
    assert found.elbo_gain.mean() > 0 and found.elbo.mean() > own.elbo.mean()
    np.testing.assert_array_equal(found.rotation, own.rotation)


def test_new_images_are_fitted_where_there_is_a_table() -> None:
    source, _ = two_states(60)
    model = fitted("vlt", source, train={"epochs": 5, "lr": 5e-3})
    new, _ = two_states(20, seed=1)
    with pytest.raises(InputError, match="lookup table"):
        model.encode(new)
    found = model.encode(new, search=FEW)
    assert found.z.shape == (20, 2) and found.elbo_gain is None
    assert np.isfinite(found.elbo).all()


def test_a_table_starts_from_another_run(tmp_path: Path) -> None:
    source, _ = two_states(40)
    first = fitted("cryodrgn", source)
    first.save(tmp_path / "run")
    frozen = {"init": "pretrained", "run": str(tmp_path / "run"), "frozen": True}
    second = fitted("vlt", source, model={"encoder": frozen})
    columns = ["z_0", "z_1", "z_0_std", "z_1_std"]
    np.testing.assert_allclose(second.latents()[columns], first.latents()[columns], rtol=1e-4)
    other, _ = two_states(40, seed=1)
    with pytest.raises(InputError, match="other images"):
        fitted("vlt", other, model={"encoder": frozen})


def test_corrections_belong_to_the_images_they_were_learned_for() -> None:
    source, _ = two_states(40)
    refined = {"refine_poses": {"lr": 0.1}}
    model = fitted("cryodrgn", source, model=refined, train={"epochs": 2})
    given_poses = source.particles.poses()
    assert given_poses is not None
    moved = np.abs(model.encode(source).rotation - given_poses[0]).max()
    assert 1e-3 < moved < 0.2
    new = source.subset(np.arange(10))
    np.testing.assert_allclose(model.encode(new).rotation, given_poses[0][:10], atol=1e-6)


# --- the whole --------------------------------------------------------------------------------


def test_two_states_are_told_apart() -> None:
    source, state = two_states(400)
    options = merge(
        SMALL,
        {
            "data": {"val_fraction": 0.05},
            "model": {
                "z_dim": 1,
                "encoder": {"hidden": 64, "depth": 2},
                "field": {"hidden": 48, "depth": 2},
            },
            "train": {"epochs": 25, "batch_size": 20, "lr": 5e-3, "schedule": "cosine"},
        },
    )
    model = PoseModel("modpose-posed", options=options, quiet=True).fit(source)
    z = model.latents()["z_0"].to_numpy()
    accuracy = ((z > np.median(z)) == state).mean()
    assert max(accuracy, 1 - accuracy) > 0.85
    table = model.latents()
    given_poses = source.particles.poses()
    assert given_poses is not None
    np.testing.assert_allclose(table["r01"], given_poses[0][:, 0, 1], atol=1e-6)
    np.testing.assert_allclose(table["shift_y"], given_poses[1][:, 1], atol=1e-6)
    ends = np.quantile(z, [0.1, 0.9])
    volumes = model.decode(ends[:, None])
    assert volumes.shape == (2, BOX, BOX, BOX)
    change = np.abs(volumes[1] - volumes[0])
    where = np.unravel_index(change.argmax(), change.shape)  # the blob at (0, 0, -3.5)
    np.testing.assert_allclose(np.array(where) - BOX // 2, [-3.5, 0, 0], atol=1.5)

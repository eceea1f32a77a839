from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modpose.errors import InputError
from modpose.estimator import PoseModel
from modpose.evaluate.equivariance import (
    Poses,
    RotationErrors,
    move,
    twin_angle_errors,
    twin_shift_errors,
)
from modpose.evaluate.symmetry import fold_deg, symmetry
from modpose.simulate.digits import glyphs, transform
from studies.common import equivariance
from studies.common.equivariance import (
    by_label,
    consistency_errors,
    infer_poses,
    measure_equivariance,
    turned_consistency,
)

ANGLES = st.floats(-720, 720)

# --- errors -----------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(ANGLES, ANGLES, ANGLES)
def test_an_angle_that_follows_has_no_error_whatever_the_frame(
    frame: float, true: float, off: float
) -> None:
    frames = np.array([frame, 2 * frame + 10.0])  # each object has its own
    turned = frames + true + off
    errors = twin_angle_errors(turned, frames, true)
    expected = np.angle(np.exp(1j * np.deg2rad(off)), deg=True)
    gap = (errors - expected + 180) % 360 - 180
    np.testing.assert_allclose(gap, 0, atol=1e-6)
    assert ((errors > -180) & (errors <= 180)).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31))
def test_a_shift_that_follows_has_no_error_whatever_the_centre(seed: int) -> None:
    rng = np.random.default_rng(seed)
    centre, true, angle = rng.normal(size=(9, 2)), rng.normal(size=(9, 2)), rng.uniform(0, 360, 9)
    radians = np.deg2rad(angle)
    turn = np.array([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]])
    moved = true + np.einsum("ijn,nj->ni", turn, centre)
    np.testing.assert_allclose(twin_shift_errors(moved, centre, true, angle), 0, atol=1e-9)
    off = twin_shift_errors(moved + np.array([3.0, -4.0]), centre, true, angle)
    np.testing.assert_allclose(np.hypot(*off.T), 5.0)


def test_summaries_of_errors() -> None:
    found = RotationErrors.of([[10.0, -10.0], [350.0, 30.0]])
    assert (found.images, found.median_deg) == (4, pytest.approx(10.0))
    assert found.rmse_deg == pytest.approx(np.sqrt((100 + 100 + 100 + 900) / 4))
    unit = np.exp(1j * np.deg2rad([10, -10, -10, 30])).mean()
    assert found.resultant == pytest.approx(abs(unit))
    chance = RotationErrors.of(np.random.default_rng(0).uniform(0, 360, 20_000))
    assert chance.median_deg == pytest.approx(90, abs=2)
    assert chance.rmse_deg == pytest.approx(104, abs=1)
    assert chance.resultant < 0.03


def test_errors_by_label() -> None:
    errors = np.array([[1.0, -1.0], [20.0, 20.0], [3.0, -3.0]])
    found = by_label(errors, ["b", "a", "b"])
    assert list(found) == ["a", "b"]
    assert found["a"].rmse_deg == pytest.approx(20)
    assert found["b"].rmse_deg == pytest.approx(np.sqrt((1 + 1 + 9 + 9) / 4))
    with pytest.raises(ValueError, match="3 rows of errors have 2 labels"):
        by_label(errors, [1, 2])


def test_consistency_is_about_the_image_as_it_is() -> None:
    turns = np.array([0.0, 90.0, 180.0, 270.0])
    unturned = np.array([5.0, -100.0])
    found = unturned[:, None] + turns + np.array([[0, 1, 2, 3], [0, 0, 180, 0]])
    expected = [[0, 1, 2, 3], [0, 0, 180, 0]]
    np.testing.assert_allclose(consistency_errors(found, unturned, turns), expected, atol=1e-9)


# --- symmetry ---------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("spread", [2.0, 7.0])
def test_the_order_of_a_symmetry_is_found(order: int, spread: float) -> None:
    rng = np.random.default_rng(order)
    n = 300
    errors = rng.integers(order, size=n) * 360 / order + rng.normal(0, spread, n) + 77
    found = symmetry(errors)
    assert found.order == order
    assert found.spread_deg == pytest.approx(spread, rel=0.2)
    np.testing.assert_allclose(found.weights, 1 / order, atol=0.08)
    assert sum(found.weights) + found.background == pytest.approx(1)


def test_unequal_places_outliers_and_none_at_all() -> None:
    rng = np.random.default_rng(1)
    n = 500
    mostly = 180 * (rng.random(n) < 0.2) + rng.normal(0, 6, n)
    found = symmetry(mostly)
    assert found.order == 2
    assert found.weights == pytest.approx((0.8, 0.2), abs=0.05)  # the first is near zero
    blunders = np.where(rng.random(n) < 0.3, rng.uniform(0, 360, n), rng.normal(0, 6, n))
    found = symmetry(blunders)
    assert found.order == 1 and found.background == pytest.approx(0.3, abs=0.06)
    rare = 180 * (rng.random(n) < 0.02) + rng.normal(0, 6, n)
    assert symmetry(rare).order == 1 and symmetry(rare, least=0.001).order == 2
    uniform = symmetry(rng.uniform(0, 360, n))
    assert uniform.order is None and uniform.background == 1
    assert symmetry(np.zeros(10)).order == 1
    with pytest.raises(InputError, match="number of errors is 1"):
        symmetry([3.0])


@settings(max_examples=50, deadline=None)
@given(ANGLES, st.integers(1, 8), st.integers(-9, 9))
def test_folding_forgets_whole_turns_of_the_symmetry(error: float, order: int, turns: int) -> None:
    folded = fold_deg([error, error + turns * 360 / order], order)
    assert (np.abs(folded) <= 180 / order + 1e-9).all()
    gap = np.exp(1j * np.deg2rad(order * (folded - error)))
    np.testing.assert_allclose(gap, 1, atol=1e-6)


# --- moving images ----------------------------------------------------------------------------


@pytest.mark.parametrize("side", [40, 41])
def test_moved_images_are_those_that_the_simulator_draws(side: int) -> None:
    pictures = glyphs("2R", 20)
    upright, _ = transform(pictures, box=side, angle_std_deg=0.0)
    posed, truth = transform(pictures, box=side, shift_std_px=2.0, seed=3)
    shifts = truth[["shift_x", "shift_y"]].to_numpy()
    moved = move(upright, truth["angle_deg"].to_numpy(), shifts)
    assert np.abs(moved - posed).max() < 0.12 and np.abs(moved - posed).mean() < 2e-3


def test_the_border_goes_on_and_values_stay_within(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    images = (rng.random((3, 21, 21, 3)) * 0.2 + 0.7).astype(np.float32)
    images[:, 10, 10] = 0.0
    moved = move(images, 30.0, (6.0, 0.0))
    assert moved.shape == images.shape and moved.dtype == np.float32
    assert moved.min() >= 0 and moved.max() <= images.max()
    np.testing.assert_allclose(moved[:, 10, 0], 0.8, atol=0.05)  # from beyond the edge
    np.testing.assert_allclose(move(images, 0.0, 0.0), images, atol=1e-5)


# --- models -----------------------------------------------------------------------------------


class Seer:
    """An exact oracle in a model's place: centre of mass, and the direction of the skew."""

    quiet = True
    config = SimpleNamespace(
        model=SimpleNamespace(
            rotation=SimpleNamespace(prior="uniform"), shift=SimpleNamespace(prior="gaussian")
        )
    )


def seen(_: Any, images: np.ndarray, batch: int = 256, copies: int = 1) -> Poses:
    light = images.sum((1, 2))
    y, x = np.mgrid[: images.shape[1], : images.shape[2]] - images.shape[1] // 2
    centre = np.stack([(images * g).sum((1, 2)) / light for g in (x, y)], 1)
    w = x - centre[:, 0, None, None] + 1j * (y - centre[:, 1, None, None])
    skew = (images * w * np.abs(w) ** 2).sum((1, 2))
    return Poses(light[:, None], np.angle(skew, deg=True), centre)


def blobs(n: int) -> np.ndarray:
    y, x = np.mgrid[:64, :64] - 32
    sizes = np.linspace(1.0, 2.0, n)[:, None, None]
    one, two = (np.exp(-((x - a) ** 2 + y**2) / 18) for a in (0, 8))
    return np.asarray(sizes * one + 0.5 * two, np.float32)


def test_what_follows_exactly_scores_as_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equivariance, "infer_poses", seen)
    found = measure_equivariance(Seer(), blobs(3))  # type: ignore[arg-type]
    assert found.turned_rmse_deg is not None and found.turned_rmse_deg < 0.1
    assert found.turned_resultant == pytest.approx(1, abs=1e-4)
    assert found.turned_shift_rmse_px is not None and found.turned_shift_rmse_px < 0.02
    assert found.shifted_shift_rmse_px is not None and found.shifted_shift_rmse_px < 0.02
    assert found.turned_content < 0.01 and found.shifted_content < 0.01
    errors = turned_consistency(Seer(), blobs(2), 16)  # type: ignore[arg-type]
    assert errors.shape == (2, 16) and np.abs(errors).max() < 0.2


def test_what_never_follows_scores_as_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    def blind(_: Any, images: np.ndarray, batch: int = 256) -> Poses:
        n = len(images)
        return Poses(images[:, 30:34, 20:40].reshape(n, -1), np.zeros(n), np.zeros((n, 2)))

    monkeypatch.setattr(equivariance, "infer_poses", blind)
    found = measure_equivariance(Seer(), blobs(3))  # type: ignore[arg-type]
    assert found.turned_rmse_deg == pytest.approx(104, abs=2)
    assert found.turned_resultant == pytest.approx(1 / 35, abs=1e-6)  # every angle but zero
    assert found.shifted_shift_rmse_px == pytest.approx(8)
    assert found.turned_content > 0.3
    with pytest.raises(InputError, match="number of images is 1, expected at least 2"):
        measure_equivariance(Seer(), blobs(1))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def model() -> PoseModel:
    options = {
        "model": {"encoder": {"hidden": 8}, "field": {"hidden": 8}},
        "train": {"epochs": 1, "batch_size": 10},
    }
    return PoseModel("spatial-vae", options=options, quiet=True).fit(glyphs("abcdefghij", 24))


def test_inferred_poses_are_those_of_encode(model: PoseModel) -> None:
    images = glyphs("klmnopq", 24)
    found, encoded = infer_poses(model, images, batch=3), model.encode(images)
    np.testing.assert_allclose(found.z, encoded.z, atol=1e-5)
    np.testing.assert_allclose(found.angle_deg, encoded.angle_deg, atol=1e-3)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.shift, encoded.shift, atol=1e-4)
    measured = measure_equivariance(model, images, step_deg=120).to_dict()
    assert measured["images"] == 7 and measured["turned_median_deg"] <= 180


def test_models_without_pose_or_encoder() -> None:
    options: dict[str, Any] = {
        "model": {"encoder": {"hidden": 8}, "field": {"hidden": 8}},
        "train": {"epochs": 1, "batch_size": 10},
    }
    images = glyphs("abcdefghij", 24)
    plain = PoseModel("vae", options=options, quiet=True).fit(images)
    measured = measure_equivariance(plain, images[:3], step_deg=120)
    assert measured.turned_rmse_deg is None and measured.shifted_shift_rmse_px is None
    assert set(measured.to_dict()) == {"images", "turned_content", "shifted_content"}
    table = {
        "model": {"encoder": {"kind": "table"}, "field": {"hidden": 8}},
        "train": {"epochs": 1},
    }
    table["data"] = {"val_fraction": 0.0}
    looked_up = PoseModel("spatial-vae", options=merged(table), quiet=True).fit(images)
    with pytest.raises(InputError, match="a lookup table infers nothing"):
        infer_poses(looked_up, images)


def merged(options: dict[str, Any]) -> dict[str, Any]:
    return options | {"train": {"epochs": 1, "augment": {"rotate": "none"}}}

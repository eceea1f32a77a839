"""Orders of symmetry from modes of posteriors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modpose.errors import InputError
from modpose.evaluate.symmetry import (
    COMPARABLE,
    SAME,
    angle_posterior,
    class_symmetry,
    image_order,
    is_round,
    place_weights,
    relative_deg,
    turn_costs,
)


def modes_at(angles: list[float], weights: list[float] | None = None, std: float = 2.0):
    """One image's modes (1, K), the heaviest first."""
    angle = np.array([angles])
    weight = np.ones_like(angle) if weights is None else np.array([weights])
    return relative_deg(angle), weight / weight.sum(), np.full_like(angle, std)


# --- one image --------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 8),
    st.floats(-180, 180),
    st.floats(0.15, 1.0),
    st.integers(0, 2**31),
)
def test_modes_all_round_the_circle_have_that_order(
    order: int, frame: float, least: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    jitter = rng.uniform(-3, 3, order)
    angles = [frame + 360 * k / order + jitter[k] for k in range(order)]
    weights = [1.0, *rng.uniform(least, 1.0, order - 1)]
    assert image_order(*modes_at(angles, weights)).tolist() == [order]


@pytest.mark.parametrize(
    ("angles", "weights", "order"),
    [
        ([10.0, 190.0], [1.0, 0.9 * COMPARABLE], 1),  # too improbable
        ([10.0, 190.0], [1.0, 1.1 * COMPARABLE], 2),
        ([0.0, 90.0], [1.0, 1.0], 1),  # two ways up, but no group
        ([0.0, 150.0], [1.0, 1.0], 1),
        ([0.0, 120.0], [1.0, 1.0], 1),  # the third is missing
        ([0.0, 90.0, 180.0, 270.0], [1.0, 0.01, 0.5, 0.01], 2),
        ([0.0, 60.0, 120.0, 180.0, 240.0, 300.0], [1.0, 0.01, 1.0, 0.01, 1.0, 0.01], 3),
        ([0.0, 180.0, 180.0], [1.0, 0.06, 0.06], 2),  # two shifts of one angle count together
    ],
)
def test_only_comparable_modes_at_every_multiple_make_an_order(
    angles: list[float], weights: list[float], order: int
) -> None:
    assert image_order(*modes_at(angles, weights)).tolist() == [order]


def test_images_are_judged_one_by_one_and_padding_counts_for_nothing() -> None:
    relative = np.array([[0.0, 180.0], [0.0, 0.0], [0.0, 0.0]])
    weight = np.array([[0.6, 0.4], [1.0, 0.0], [1.0, 0.0]])
    std = np.array([[2.0, 2.0], [2.0, 2.0], [100.0, 100.0]])
    assert image_order(relative, weight, std).tolist() == [2, 1, 0]


@pytest.mark.parametrize(("order", "width"), [(1, 53), (2, 26), (4, 13)])
def test_wide_modes_that_cover_the_circle_are_round(order: int, width: float) -> None:
    angles = [360 * k / order for k in range(order)]
    assert not is_round(*modes_at(angles, std=0.9 * width)).any()
    assert is_round(*modes_at(angles, std=1.1 * width)).all()
    assert image_order(*modes_at(angles, std=1.1 * width)).tolist() == [0]


@settings(max_examples=20, deadline=None)
@given(st.floats(1, 104), st.floats(0.05, 0.95), st.floats(-180, 180), st.integers(0, 2**31))
def test_the_posterior_of_the_angle_is_that_of_draws(
    std: float, share: float, apart: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    n, bins = 40_000, 24
    found = angle_posterior([[0.0, apart]], [[share, 1 - share]], [[std, 0.5 * std]], bins)
    assert found.shape == (1, bins) and found.sum() == pytest.approx(1)
    first = rng.random(n) < share
    draws = np.where(first, rng.normal(0, std, n), rng.normal(apart, 0.5 * std, n))
    place = np.round((draws + 180) / 360 * bins).astype(int) % bins
    counts = np.bincount(place, minlength=bins) / n
    np.testing.assert_allclose(found[0], counts, atol=5 * 0.5 / np.sqrt(n))


# --- a class ----------------------------------------------------------------------------------


def ring(order: int, lost: float, images: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Modes at the multiples of 360°/order, all but the best of them ``lost`` nats lower."""
    relative = np.tile(360.0 * np.arange(order) / order, (images, 1))
    weight = np.tile(np.exp(-lost * (np.arange(order) > 0)), (images, 1))
    return relative, weight / weight.sum(1, keepdims=True)


@pytest.mark.parametrize("order", range(2, 9))
def test_a_class_has_the_group_whose_turns_cost_little(order: int) -> None:
    average = np.full(4, 200.0)
    orders = [1, 1, 1, order]  # what single images are does not matter
    near = class_symmetry(orders, *ring(order, 0.9 * SAME * 200), average)
    assert (near.order, near.group, near.images) == (order, f"C{order}", 4)
    assert near.nearest == (order, pytest.approx(0.9 * SAME))
    assert near.shares[1] == 0.75 and near.shares[order] == 0.25
    far = class_symmetry(orders, *ring(order, 1.1 * SAME * 200), average)
    assert (far.order, far.group) == (1, "C1")
    assert far.nearest[1] == pytest.approx(1.1 * SAME)
    assert len(far.weights) == 1 and far.weights[0] == pytest.approx(1, abs=1e-8)


def test_a_turn_without_a_mode_costs_as_much_as_the_average_one() -> None:
    relative, weight = ring(3, 1.0)
    np.testing.assert_allclose(turn_costs(relative, weight, 3, np.full(4, 50.0)), 1.0)
    np.testing.assert_allclose(turn_costs(relative, weight, 3, np.full(4, 0.5)), 0.5)
    np.testing.assert_allclose(turn_costs(relative, weight, 2, np.full(4, 50.0)), 50.0)
    np.testing.assert_allclose(turn_costs(relative, weight, 6, np.full(4, 50.0)), 50.0)
    assert (turn_costs(relative, weight, 2, np.full(4, -1.0)) == 0).all()


def test_an_image_that_tells_much_counts_for_much() -> None:
    relative = np.array([[0.0, 180.0], [0.0, 180.0]])
    weight = np.array([[0.5, 0.5], [1.0, 0.0]])  # the second knows which way is up
    assert class_symmetry([2, 1], relative, weight, [1000.0, 10.0]).order == 2
    assert class_symmetry([2, 1], relative, weight, [10.0, 1000.0]).order == 1


def test_a_class_of_round_images_is_a_disc() -> None:
    found = class_symmetry([0, 0, 1], *ring(1, 0.0, 3), [0.1, 0.1, 5.0])
    assert (found.order, found.group) == (0, "none found (a disc)")
    assert found.shares[0] == pytest.approx(2 / 3)


def test_weights_are_the_mean_over_images() -> None:
    relative = np.array([[0.0, 178.0, 90.0], [0.0, -175.0, 0.0]])
    weight = np.array([[0.5, 0.4, 0.1], [0.8, 0.2, 0.0]])
    found = class_symmetry([2, 2], relative, weight, [100.0, 100.0])
    assert found.weights == pytest.approx((0.65, 0.3))
    np.testing.assert_allclose(place_weights(relative, weight, 2), [[0.5, 0.4], [0.8, 0.2]])
    with pytest.raises(InputError, match="the number of images is 0"):
        class_symmetry([], np.empty((0, 3)), np.empty((0, 3)), [])

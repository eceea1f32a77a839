from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from sklearn.metrics import accuracy_score
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from modpose.evaluate import metrics
from modpose.geometry.degrees import wrap_deg

degrees = st.floats(-1e4, 1e4)
angle_arrays = arrays(float, st.integers(1, 40), elements=st.floats(-720, 720))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- angles -----------------------------------------------------------------------------------


@given(degrees)
def test_wrapping_keeps_the_direction_and_the_range(angle: float) -> None:
    wrapped = float(wrap_deg(angle))
    assert -180 < wrapped <= 180
    assert math.cos(math.radians(wrapped - angle)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("angle", "expected"),
    [(180, 180), (-180, 180), (540, 180), (181, -179), (0, 0), (360, 0), (180 + 3e-14, 180)],
)
def test_wrapping_at_the_cut(angle: float, expected: float) -> None:
    assert wrap_deg(angle) == pytest.approx(expected)
    assert wrap_deg(angle) > -180


@given(angle_arrays, degrees)
def test_one_global_rotation_is_recovered_exactly(true: np.ndarray, turn: float) -> None:
    errors, offset = metrics.align_angles(true + turn, true)
    np.testing.assert_allclose(errors, 0, atol=1e-6)
    assert math.cos(math.radians(offset - turn)) == pytest.approx(1.0)


@settings(max_examples=50)
@given(st.integers(0, 2**31), degrees, st.floats(1.0, 80.0))
def test_figures_do_not_depend_on_the_frame(seed: int, turn: float, noise: float) -> None:
    true = rng(seed).uniform(-180, 180, 50)
    predicted = true + noise * rng(seed + 1).standard_normal(50)
    plain, _ = metrics.align_angles(predicted, true)
    turned, _ = metrics.align_angles(wrap_deg(predicted + turn), true)
    # the errors themselves may sit on either side of the cut
    np.testing.assert_allclose(wrap_deg(plain - turned), 0, atol=1e-6)
    assert metrics.resultant_length(plain) == pytest.approx(metrics.resultant_length(turned))
    assert metrics.resultant_length(predicted - true) == pytest.approx(
        metrics.resultant_length(plain)
    )


def test_the_offset_maximises_the_cosine_of_the_errors() -> None:
    true = rng().uniform(-180, 180, 300)
    predicted = true + rng(1).normal(140, 50, 300)
    _, offset = metrics.align_angles(predicted, true)
    grid = np.arange(-180, 180, 0.1)
    scores = np.cos(np.deg2rad(predicted - true - grid[:, None])).sum(axis=1)
    assert offset == pytest.approx(grid[scores.argmax()], abs=0.1)


@pytest.mark.parametrize("sigma", [5.0, 17.0, 60.0])
def test_resultant_length_and_rmse_of_gaussian_errors(sigma: float) -> None:
    n = 20_000
    errors = rng().normal(0, sigma, n)
    expected = math.exp(-0.5 * math.radians(sigma) ** 2)
    assert metrics.resultant_length(errors) == pytest.approx(expected, abs=4 / math.sqrt(n))
    if sigma < 50:  # little of it wraps
        assert metrics.circular_rmse_deg(errors) == pytest.approx(sigma, rel=0.03)


def test_rmse_of_uniform_errors_and_of_errors_across_the_cut() -> None:
    uniform = np.linspace(-180, 180, 100_001)
    assert metrics.circular_rmse_deg(uniform) == pytest.approx(180 / math.sqrt(3), rel=1e-3)
    assert metrics.circular_rmse_deg([359.0, -361.0, 721.0]) == pytest.approx(1.0)


def test_resultant_length_of_chance_is_as_documented() -> None:
    lengths = [metrics.resultant_length(rng(s).uniform(-180, 180, 400)) for s in range(400)]
    assert np.mean(lengths) == pytest.approx(math.sqrt(math.pi) / 2 / 20, rel=0.1)


def test_circular_correlation_against_the_formula_by_hand() -> None:
    a, b = rng().vonmises(0.3, 2, 200), rng(1).vonmises(-1, 3, 200)
    b = b + 0.7 * a
    am, bm = stats.circmean(a), stats.circmean(b)
    top = sum(math.sin(x - am) * math.sin(y - bm) for x, y in zip(a, b, strict=True))
    bottom = math.sqrt(
        sum(math.sin(x - am) ** 2 for x in a) * sum(math.sin(y - bm) ** 2 for y in b)
    )
    found = metrics.circular_correlation(np.rad2deg(a), np.rad2deg(b))
    assert found == pytest.approx(top / bottom)


def test_circular_correlation_is_ill_conditioned_for_uniform_angles() -> None:
    """The claim of the documentation: it scatters where the resultant length stands still."""
    lengths, correlations = [], []
    for seed in range(300):
        true = rng(seed).uniform(-180, 180, 1000)
        predicted = true + rng(seed + 1000).normal(100, 17.2, 1000)
        lengths.append(metrics.resultant_length(predicted - true))
        correlations.append(metrics.circular_correlation(predicted, true))
    assert np.std(lengths) < 0.005
    assert np.mean(lengths) == pytest.approx(0.956, abs=0.002)
    assert np.std(correlations) > 0.1
    assert min(correlations) < 0.3


def test_circular_correlation_without_variation_is_nan() -> None:
    assert math.isnan(metrics.circular_correlation([0.0, 0.0, 0.0], [1.0, 2.0, 3.0]))


@pytest.mark.parametrize("slope", [-0.9, -0.3, 0.0, 0.45, 1.0])
def test_a_frame_that_follows_the_hinge_is_regressed_out(slope: float) -> None:
    n = 2000
    hinge = rng().uniform(-20, 20, n)
    errors = wrap_deg(170 + slope * hinge + rng(1).normal(0, 4, n))
    residuals, found = metrics.remove_linear_drift(errors, hinge)
    # standard error of the slope: 4 / (std of the hinge √n)
    assert found == pytest.approx(slope, abs=5 * 4 / (11.5 * math.sqrt(n)) + 1e-3)
    assert metrics.circular_rmse_deg(residuals) == pytest.approx(4, rel=0.06)


def test_regression_never_makes_the_resultant_shorter_and_cannot_exceed_the_slope() -> None:
    hinge = rng().uniform(-20, 20, 300)
    errors = rng(1).uniform(-180, 180, 300)
    residuals, slope = metrics.remove_linear_drift(errors, hinge)
    assert metrics.resultant_length(residuals) >= metrics.resultant_length(errors) - 1e-9
    assert abs(slope) <= 1
    assert abs(metrics.remove_linear_drift(3 * hinge, hinge)[1]) == pytest.approx(1, abs=1e-3)


# --- correlations -----------------------------------------------------------------------------

pairs = st.integers(3, 60).flatmap(
    lambda n: st.tuples(
        arrays(float, n, elements=st.integers(-20, 20)),
        arrays(float, n, elements=st.integers(-9, 9)),
    )
)


@given(pairs)
def test_correlations_are_those_of_scipy(pair: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = pair
    assume(np.ptp(a) > 0)
    assume(np.ptp(b) > 0)
    assert metrics.pearson(a, b) == pytest.approx(stats.pearsonr(a, b).statistic, abs=1e-9)
    assert metrics.spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-9)


def test_correlation_without_variation_is_nan() -> None:
    assert math.isnan(metrics.pearson([1.0, 1.0], [0.0, 1.0]))
    assert math.isnan(metrics.spearman([0.0, 1.0], [2.0, 2.0]))


def test_multiple_correlation_finds_a_turned_axis() -> None:
    z = rng().normal(size=(500, 3))
    target = z @ [1.0, -2.0, 0.5] + 7
    assert metrics.multiple_correlation(z, target) == pytest.approx(1.0)
    noisy = target + rng(1).normal(0, math.sqrt(5.25), 500)
    assert metrics.multiple_correlation(z, noisy) == pytest.approx(math.sqrt(0.5), abs=0.08)
    assert metrics.multiple_correlation(z[:, :1], noisy) == pytest.approx(
        abs(metrics.pearson(z[:, 0], noisy))
    )


def test_multiple_correlation_by_chance_is_as_documented() -> None:
    found = [
        metrics.multiple_correlation(rng(s).normal(size=(400, 4)), rng(s + 900).normal(size=400))
        for s in range(200)
    ]
    assert np.mean(found) == pytest.approx(math.sqrt(4 / 400), rel=0.1)


# --- shifts -----------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.integers(0, 2**31), st.floats(-9, 9), st.floats(-9, 9))
def test_the_offset_of_an_off_centre_frame_is_recovered(seed: int, cx: float, cy: float) -> None:
    angle = rng(seed).uniform(-180, 180, 30)
    true = rng(seed + 1).normal(size=(30, 2))
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    turned = np.stack([c * cx - s * cy, s * cx + c * cy], axis=1)
    residuals, offset = metrics.align_shifts(true + turned, true, angle)
    np.testing.assert_allclose(residuals, 0, atol=1e-9)
    np.testing.assert_allclose(offset, [cx, cy], atol=1e-9)


def test_the_offset_is_the_least_squares_one() -> None:
    angle = rng().uniform(-180, 180, 40)
    true, predicted = rng(1).normal(size=(40, 2)), rng(2).normal(size=(40, 2))
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    design = np.concatenate([np.stack([c, -s], 1), np.stack([s, c], 1)])
    right = (predicted - true).T.ravel()
    expected, squares, *_ = np.linalg.lstsq(design, right, rcond=None)
    residuals, offset = metrics.align_shifts(predicted, true, angle)
    np.testing.assert_allclose(offset, expected)
    assert metrics.shift_rmse_px(residuals) == pytest.approx(math.sqrt(squares[0] / 40))


def test_an_off_centre_model_explains_the_same_image() -> None:
    """The ambiguity itself: content drawn at u − c with shift t + R c is the same picture."""

    def picture(centre: np.ndarray, angle: float, shift: np.ndarray) -> np.ndarray:
        a = math.radians(angle)
        x, y = np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]]) @ centre + shift
        rows, columns = np.mgrid[:16, :16] - 8
        return np.exp(-((columns - x) ** 2 + (rows - y) ** 2))

    true = rng().normal(size=(10, 2))
    angle = rng(1).uniform(-180, 180, 10)
    u, c, delta = np.array([3.0, -1.0]), np.array([0.7, 1.9]), 65.0
    turn = np.array(
        [
            [math.cos(math.radians(delta)), -math.sin(math.radians(delta))],
            [math.sin(math.radians(delta)), math.cos(math.radians(delta))],
        ]
    )
    predicted = []
    for t, a in zip(true, np.deg2rad(angle), strict=True):
        r = np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
        predicted.append(t + r @ c)
        model = turn.T @ (u - c)  # its frame is rotated by delta and off-centre by c
        np.testing.assert_allclose(
            picture(model, math.degrees(a) + delta, predicted[-1]),
            picture(u, math.degrees(a), t),
            atol=1e-9,
        )
    residuals, _ = metrics.align_shifts(predicted, true, angle)
    np.testing.assert_allclose(residuals, 0, atol=1e-9)


def test_shift_rmse_is_of_vector_lengths() -> None:
    assert metrics.shift_rmse_px([[3.0, 4.0], [0.0, 0.0]]) == pytest.approx(5 / math.sqrt(2))


# --- classes ----------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_hungarian_accuracy_is_the_best_of_all_matchings(rows: list[tuple[int, int]]) -> None:
    labels, clusters = np.array(rows).T
    accuracy, mapping = metrics.hungarian_accuracy(labels, clusters)
    best = max(
        np.mean(np.array(permutation)[clusters] == labels)
        for permutation in itertools.permutations(range(4))
    )
    assert accuracy == pytest.approx(best)
    assert accuracy == pytest.approx(
        np.mean([mapping.get(c) == label for label, c in zip(labels, clusters, strict=True)])
    )
    assert len(set(mapping.values())) == len(mapping)


def test_hungarian_accuracy_with_more_clusters_than_labels_and_names() -> None:
    labels = ["open"] * 4 + ["shut"] * 4
    accuracy, mapping = metrics.hungarian_accuracy(labels, [7, 7, 7, 1, 2, 2, 2, 2])
    assert accuracy == 7 / 8
    assert mapping == {7: "open", 2: "shut"}


def test_ari_is_one_for_a_renamed_partition_and_nought_by_chance() -> None:
    labels = rng().integers(0, 5, 3000)
    assert metrics.ari(labels, 10 - labels) == 1
    assert abs(metrics.ari(labels, rng(1).integers(0, 5, 3000))) < 0.01


def test_knn_accuracy_is_leave_one_out() -> None:
    labels = rng().integers(0, 3, 120)
    z = rng(1).normal(size=(120, 2)) + 1.2 * labels[:, None]
    model = KNeighborsClassifier(n_neighbors=5)
    expected = accuracy_score(labels, cross_val_predict(model, z, labels, cv=LeaveOneOut()))
    assert metrics.knn_accuracy(z, labels) == pytest.approx(expected)
    assert 0.5 < expected < 0.95


def test_knn_accuracy_does_not_count_the_point_itself_nor_its_own_label() -> None:
    assert metrics.knn_accuracy([0.0, 0.0, 9.0, 9.0], ["a", "b", "a", "b"], k=1) == 0


# --- what cannot be compared ------------------------------------------------------------------


def test_refuses_lengths_that_differ_and_nothing() -> None:
    with pytest.raises(ValueError, match="2 values are compared with 3"):
        metrics.align_angles([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="no values"):
        metrics.pearson([], [])
    with pytest.raises(ValueError, match="1 values are compared with 2"):
        metrics.hungarian_accuracy([1], [1, 2])
    with pytest.raises(ValueError, match="k is 5, expected 1 to 2"):
        metrics.knn_accuracy([1.0, 2.0, 3.0], [0, 0, 1])

"""The latent map and its statistics against scikit-learn, brute force and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, f1_score
from sklearn.neighbors import KNeighborsClassifier

from modpose.errors import InputError
from modpose.evaluate.latent_map import Between, LatentMap, novelty_auc
from modpose.evaluate.metrics import knn_r2
from studies.affinity.classification import Confusion
from studies.affinity.pose_channel import linearity, linearity_by_class

CENTRES = np.array([[0.0, 0.0, 0.0], [6.0, 0.0, 0.0], [0.0, 6.0, 0.0]])
NAMES = np.array(["a", "b", "c"])


def blobs(n: int, seed: int, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    member = np.arange(n) % 3
    return CENTRES[member] + spread * rng.standard_normal((n, 3)), NAMES[member]


@pytest.fixture(scope="module")
def known() -> LatentMap:
    return LatentMap.of(*blobs(240, 0, 2.0))


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("k", [1, 5, 25])
def test_hard_and_soft_assignments_are_scikit_learns(distance: str, k: int) -> None:
    z, labels = blobs(240, 0, 2.0)
    known = LatentMap.of(z, labels, distance)  # type: ignore[arg-type]
    others, _ = blobs(90, 1, 2.0)
    theirs = KNeighborsClassifier(k, metric=distance).fit(z, labels)
    shares = theirs.predict_proba(others)
    np.testing.assert_allclose(known.fractions(others, k), shares, atol=1e-12)
    ours = known.nearest(others, k)
    clear = np.sort(shares, axis=1)[:, -1] > np.sort(shares, axis=1)[:, -2]
    assert clear.sum() > 80
    np.testing.assert_array_equal(np.array(known.names)[ours][clear], theirs.predict(others[clear]))


def test_ties_go_to_the_nearer_class() -> None:
    known = LatentMap.of(np.array([[0.0], [3.0], [10.0], [11.0]]), ["a", "b", "a", "b"])
    assert known.nearest([[1.0], [2.0]], 2).tolist() == [0, 1]
    assert known.nearest([[1.0]], 99).tolist() == [0]  # all of them, two each
    np.testing.assert_allclose(known.fractions([[1.0]], 99), [[0.5, 0.5]])


def test_within_two_standard_deviations_on_every_axis(known: LatentMap) -> None:
    others, _ = blobs(200, 3, 3.0)
    found = known.within(others, 2.0)
    for row, one in enumerate(others):
        inside = {}
        for k in range(3):
            z = known.z[known.member == k]
            off = np.abs(one - z.mean(0)) / z.std(0)
            if (off <= 2).all():
                inside[k] = float((off**2).sum())
        expected = min(inside, key=inside.__getitem__) if inside else -1
        assert found[row] == expected
    assert (found == -1).any() and (found >= 0).any()
    one = LatentMap.of(blobs(30_000, 4)[0], np.repeat("x", 30_000))
    few = LatentMap.of(np.random.default_rng(1).standard_normal((30_000, 3)), one.names * 30_000)
    inside_share = (few.within(np.random.default_rng(2).standard_normal((30_000, 3))) == 0).mean()
    assert inside_share == pytest.approx(0.9545**3, abs=0.01)


def test_centroid_distances_are_those_of_the_means(known: LatentMap) -> None:
    distances = known.centroid_distances()
    for i in range(3):
        for j in range(3):
            means = [known.z[known.member == k].mean(0) for k in (i, j)]
            assert distances[i, j] == pytest.approx(np.linalg.norm(means[0] - means[1]))
    assert (np.diag(distances) == 0).all()


def test_new_samples_stand_out_and_known_ones_do_not(known: LatentMap) -> None:
    same, _ = blobs(300, 5, 2.0)
    far = np.array([12.0, 12.0, 12.0]) + np.random.default_rng(6).standard_normal((100, 3))
    known_scores, new_scores = known.novelty(same), known.novelty(far)
    assert np.median(known.novelty()) == pytest.approx(1.0, abs=0.1)
    assert np.median(known_scores) == pytest.approx(1.0, abs=0.15)
    assert novelty_auc(known_scores, new_scores) > 0.99
    pairs = (new_scores[:, None] > known_scores).mean()
    assert novelty_auc(known_scores, new_scores) == pytest.approx(pairs)  # no ties
    assert novelty_auc(known_scores[:150], known_scores[150:]) == pytest.approx(0.5, abs=0.1)
    table = known.place(np.concatenate([same, far]), soft_k=30)
    assert table["new"][:300].mean() < 0.1
    assert table["new"][300:].mean() > 0.9


def test_novelty_counts_in_units_of_the_own_class() -> None:
    rng = np.random.default_rng(0)
    tight, loose = rng.standard_normal((80, 2)), 50 + 10 * rng.standard_normal((80, 2))
    known = LatentMap.of(np.concatenate([tight, loose]), np.repeat(["t", "l"], 80))
    scaled = LatentMap.of(7 * known.z, np.repeat(["t", "l"], 80))
    probes = np.array([[6.0, 0.0], [56.0, 50.0]])
    scores = known.novelty(probes)
    assert scores[0] > 3 > scores[1]
    np.testing.assert_allclose(scaled.novelty(7 * probes), scores)


def test_places_name_the_kin_and_how_sure(known: LatentMap) -> None:
    table = known.place(CENTRES, soft_k=40)
    assert table["nearest"].tolist() == ["a", "b", "c"]
    assert (table["share"] > 0.6).all()
    assert (table["second_share"] <= table["share"]).all()
    assert (table["share"] + table["second_share"] <= 1 + 1e-12).all()
    assert table["within_2_sigma"].tolist() == ["a", "b", "c"]
    assert (table["second"] != table["nearest"]).all()


def test_a_map_of_one_class_has_no_second(known: LatentMap) -> None:
    one = LatentMap.of(blobs(30, 0)[0], np.repeat("only", 30))
    table = one.place([[0.0, 0.0, 0.0]])
    assert table["nearest"][0] == "only" and table["second"][0] == ""
    assert table["share"][0] == 1.0 and table["second_share"][0] == 0.0


def test_an_unseen_class_may_lie_between_two_known_ones(known: LatentMap) -> None:
    middle = np.array([3.0, 0.0, 0.0]) + 0.1 * np.random.default_rng(0).standard_normal((50, 3))
    whole = known.together(middle, np.repeat("ab", 50))
    found = Between.of(whole, "ab", "a", "b")
    assert found.holds
    assert found.to_first == pytest.approx(0.5, abs=0.1)
    beyond = known.together(middle + np.array([20.0, 0, 0]), np.repeat("ab", 50))
    assert not Between.of(beyond, "ab", "a", "b").holds
    with pytest.raises(InputError, match="a class is 'E', expected one of a, ab, b, c"):
        Between.of(whole, "ab", "E", "b")


@pytest.mark.parametrize(
    ("z", "labels", "said"),
    [
        (np.zeros((3, 2)), ["a"], "the shape of the labels is"),
        (np.zeros((1, 2)), ["a"], "at least two contents"),
        (np.full((2, 2), np.nan), ["a", "b"], "not finite"),
    ],
)
def test_what_is_no_map_is_refused(z: np.ndarray, labels: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        LatentMap.of(z, labels)


def test_contents_of_another_width_are_refused(known: LatentMap) -> None:
    with pytest.raises(InputError, match="dimensions of content is 2, expected 3 as in the map"):
        known.nearest([[0.0, 0.0]])
    with pytest.raises(InputError, match="the number of neighbours is 0"):
        known.nearest(CENTRES, 0)


# --- confusion --------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1))
def test_confusion_and_f1_are_scikit_learns(pairs: list[tuple[str, str]]) -> None:
    true, predicted = (list(part) for part in zip(*pairs, strict=True))
    found = Confusion.of(true, predicted, list("abc"))
    rows = sorted(set(true))
    expected = confusion_matrix(true, predicted, labels=list("abc"))
    np.testing.assert_array_equal(found.counts, expected[["abc".index(r) for r in rows]])
    theirs = f1_score(true, predicted, labels=rows, average=None, zero_division=0.0)
    np.testing.assert_allclose([found.f1()[r] for r in rows], theirs)
    assert found.macro_f1 == pytest.approx(np.mean(theirs))
    assert found.accuracy == pytest.approx(np.mean(np.array(true) == np.array(predicted)))


def test_unseen_classes_are_rows_of_their_own() -> None:
    found = Confusion.of(["z", "2", "2", "2"], ["z", "z", "z", ""], ["b", "z"])
    assert found.true == ("2", "z")
    assert found.predicted == ("b", "z", "")
    assert found.counts.tolist() == [[0, 2, 1], [0, 1, 0]]
    assert found.most_often() == {"2": "z", "z": "z"}
    assert found.f1() == {"2": 0.0, "z": pytest.approx(2 / 4)}
    np.testing.assert_allclose(found.shares().sum(1), 1.0)


# --- pose channel, organisation ---------------------------------------------------------------


def test_linearity_finds_the_component_that_follows_the_angle() -> None:
    rng = np.random.default_rng(0)
    angle = rng.uniform(-44, 44, 500)
    channel = np.column_stack([rng.standard_normal(500), 3 - 0.05 * angle, np.zeros(500)])
    found = linearity(channel, angle)
    assert found.component == 1
    assert found.pearson == pytest.approx(-1.0)
    assert found.slope == pytest.approx(-0.05)
    assert found.multiple == pytest.approx(1.0)
    both = np.column_stack([angle + 30 * rng.standard_normal(500), rng.standard_normal(500)])
    one = linearity(both, angle)
    assert abs(one.pearson) == pytest.approx(np.corrcoef(both[:, 0], angle)[0, 1])
    assert one.multiple >= abs(one.pearson)


def test_each_class_may_have_a_zero_of_its_own() -> None:
    rng = np.random.default_rng(0)
    angle, labels = rng.uniform(-44, 44, 400), np.repeat(["a", "b"], 200)
    channel = (np.where(labels == "a", 0.0, 500.0) + angle)[:, None]
    assert abs(linearity(channel, angle).pearson) < 0.5
    by_class = linearity_by_class(channel, angle, labels)
    assert list(by_class) == ["a", "b"]
    assert all(one.pearson == pytest.approx(1.0) for one in by_class.values())


def test_what_organises_a_space_is_predicted_from_neighbours() -> None:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((1500, 2))
    radius = np.linalg.norm(z, axis=1)  # not linear in z
    assert knn_r2(z, radius) > 0.9
    assert knn_r2(z, rng.standard_normal(1500)) == pytest.approx(-0.1, abs=0.06)
    assert np.isnan(knn_r2(z, np.ones(1500)))
    with pytest.raises(ValueError, match="expected 1 to 1 neighbours"):
        knn_r2(z[:2], radius[:2])

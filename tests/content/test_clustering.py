from __future__ import annotations

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage

from modpose.content.clustering import WARD_MAX, cluster
from modpose.errors import InputError
from modpose.evaluate.metrics import ari


def three_clouds() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [60, 40, 20])
    centres = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 7.0]])
    return centres[labels] + rng.normal(size=(120, 2)), labels


@pytest.mark.parametrize("method", ["ward", "kmeans", "gmm"])
def test_finds_three_clouds_the_largest_first(method: str) -> None:
    z, labels = three_clouds()
    found = cluster(z, 3, method)  # type: ignore[arg-type]
    assert found.dtype == np.int64
    assert ari(labels, found) > 0.95
    counts = np.bincount(found)
    assert list(counts) == sorted(counts, reverse=True)
    np.testing.assert_array_equal(found, cluster(z, 3, method))  # type: ignore[arg-type]


def test_classes_that_share_a_motion_are_not_cut_along_it() -> None:
    rng = np.random.default_rng(0)
    classes, place = rng.integers(0, 3, 600), rng.uniform(-1, 1, 600)
    curve = np.stack([8 * place, 5 * place**2, 0 * place, 0 * place], 1)
    offset = np.array([[0, 0, 0, 0], [0, 0, 5, 0], [0, 0, 0, 5.0]])
    z = curve + offset[classes] + rng.normal(size=(600, 4))
    assert ari(classes, cluster(z, 3, "kmeans")) < 0.5
    assert ari(classes, cluster(z, 3, "motion")) > 0.9
    np.testing.assert_array_equal(cluster([0.0, 0.1, 9.0], 2, "motion"), [0, 0, 1])


def test_ward_is_that_of_scipy() -> None:
    z = np.random.default_rng(3).normal(size=(80, 4))
    assert ari(fcluster(linkage(z, "ward"), 6, "maxclust"), cluster(z, 6)) == 1


def test_one_dimension_and_one_cluster() -> None:
    np.testing.assert_array_equal(cluster([0.0, 0.1, 9.0], 2), [0, 0, 1])
    np.testing.assert_array_equal(cluster([[0.0], [5.0]], 1), [0, 0])


@pytest.mark.parametrize(
    ("z", "k", "method", "sentence"),
    [
        ([0.0, 0.0, 1.0], 3, "kmeans", "number of clusters is 3, expected 1 to 2"),
        ([0.0, 1.0], 0, "ward", "number of clusters is 0, expected 1 to 2"),
        ([0.0, np.nan], 1, "ward", "not finite"),
        ([0.0, 1.0], 2, "dbscan", "the method is 'dbscan', expected ward, kmeans, gmm or motion"),
        (np.arange(WARD_MAX + 1.0), 2, "ward", "20001, expected at most 20000 for ward"),
    ],
)
def test_refuses(z: np.ndarray, k: int, method: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        cluster(z, k, method)  # type: ignore[arg-type]

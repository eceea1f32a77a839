from __future__ import annotations

import sys
import tracemalloc

import numpy as np
import pytest

from modpose.content.embedding import embed, principal_axes, tsne
from modpose.errors import InputError


@pytest.mark.parametrize("n", [2, 3, 50])
def test_principal_axes_are_those_of_the_covariance(n: int) -> None:
    z = np.random.default_rng(n).standard_normal((n, 4)) @ np.diag([3, 2, 1, 0.5])
    _, axes, spread = principal_axes(z)
    assert np.allclose(axes @ axes.T, np.eye(4), atol=1e-10)
    assert np.allclose(np.diag(axes @ np.cov(z.T) @ axes.T), spread**2, atol=1e-8)
    assert np.all(np.diff(spread) <= 1e-12)


def test_principal_axes_of_many_images_take_no_square_of_their_number() -> None:
    """The report of 60,000 images stopped at a matrix of 60,000 x 60,000 (26.8 GiB)."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((60_000, 4)) * [1, 4, 2, 3] + 5
    tracemalloc.start()
    try:
        mean, axes, spread = principal_axes(z)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * z.nbytes
    values, vectors = np.linalg.eigh(np.cov(z.T))
    assert np.allclose(mean, z.mean(0))
    assert np.allclose(spread**2, values[::-1])
    assert np.allclose(np.abs(axes @ vectors), np.eye(4)[::-1], atol=1e-6)


def test_principal_axes_of_fewer_images_than_latents_are_complete() -> None:
    _, axes, spread = principal_axes(np.random.default_rng(0).standard_normal((3, 5)))
    assert np.allclose(axes @ axes.T, np.eye(5))
    assert spread.shape == (5,)
    assert np.allclose(spread[2:], 0)


def test_tsne_separates_two_groups_and_repeats() -> None:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((80, 3)) + np.repeat([[0.0], [20.0]], 40, axis=0)
    embedding = tsne(z, 1)
    assert np.array_equal(embedding, embed(z, "tsne", seed=1))
    between = np.linalg.norm(embedding[:40].mean(0) - embedding[40:].mean(0))
    assert between > 2 * embedding[:40].std()
    assert embed(z[:, :1], "tsne", dims=1).shape == (80, 1)
    assert embed(z, "tsne", dims=3).shape == (80, 3)


def test_pca_keeps_distances_and_orders_by_spread() -> None:
    z = np.random.default_rng(0).standard_normal((200, 3)) * [1, 5, 2]
    part = embed(z, "pca", dims=3)
    assert np.allclose(np.linalg.norm(z[0] - z[1]), np.linalg.norm(part[0] - part[1]))
    assert part[:, 0].std() > part[:, 1].std() > part[:, 2].std()
    assert np.allclose(embed(z, "pca", dims=1), part[:, :1])


def test_umap_is_used_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    z = np.random.default_rng(0).standard_normal((30, 3))
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(InputError, match="umap-learn"):
        embed(z, "umap")


@pytest.mark.parametrize(
    ("rows", "method", "dims", "message"),
    [
        (30, "pca", 4, "1 to 3"),
        (30, "pca", 0, "1 to 3"),
        (30, "tsne", 4, "1 to 3"),
        (4, "tsne", 2, "at least 5"),
        (0, "pca", 2, "at least 1"),
        (30, "isomap", 2, "pca, umap or tsne"),
    ],
)
def test_refuses_what_cannot_be_embedded(rows: int, method: str, dims: int, message: str) -> None:
    z = np.random.default_rng(0).standard_normal((rows, 3))
    with pytest.raises(InputError, match=message):
        embed(z, method, dims)  # type: ignore[arg-type]


def test_refuses_content_that_is_not_finite() -> None:
    with pytest.raises(InputError, match="not finite"):
        embed([[0.0], [np.nan]])

"""Density against a known normal, paths against known shapes."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from modpose.content import density as densities
from modpose.content import paths
from modpose.content.density import axes_for_density, free_energy, log_density
from modpose.content.paths import Landscape, dense_path
from modpose.errors import InputError

Floats = NDArray[np.float64]


@pytest.mark.parametrize("d", [1, 2, 4])
def test_the_density_of_a_normal_cloud_is_known(d: int) -> None:
    z = np.random.default_rng(0).standard_normal((4000, d))
    truth = -0.5 * (z**2).sum(1) - 0.5 * d * np.log(2 * np.pi)
    inner = (z**2).sum(1) < d
    error = (log_density(z) - truth)[inner]
    assert abs(error.mean()) < 0.1  # of few neighbours, and of the curvature
    assert error.std() < 1.5 / np.sqrt(densities.NEIGHBOURS)


def test_a_part_of_many_images_represents_all(monkeypatch: pytest.MonkeyPatch) -> None:
    z = np.random.default_rng(0).standard_normal((4000, 2))
    whole = log_density(z)
    monkeypatch.setattr(densities, "MOST_POINTS", 2000)
    assert abs((log_density(z) - whole).mean()) < 0.1


def test_free_energy_of_two_wells_is_the_logarithm_of_their_populations() -> None:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((30_000, 2))
    z[:24_000, 0] += 8  # four times as many images
    found = free_energy(z)
    x, y = found.ticks
    inside = np.abs(y) < 1
    left = found.energy[np.abs(x) < 1][:, inside].min()
    right = found.energy[np.abs(x - 8) < 1][:, inside].min()
    assert right == 0
    assert left == pytest.approx(np.log(4), abs=0.15)
    middle = found.energy[np.abs(x - 4) < 0.3][:, inside]
    assert np.isnan(middle).any() or middle.min() > 5
    assert np.isnan(found.energy).any()
    assert found.error[found.energy == 0] < 0.1


def test_free_energy_of_one_coordinate_follows_the_normal() -> None:
    z = np.random.default_rng(0).standard_normal(20_000)
    found = free_energy(z)
    (x,) = found.ticks
    inner = np.abs(x) < 1.5
    assert np.abs(found.energy - x**2 / 2)[inner].max() < 0.15


def test_axes_of_a_density_are_those_that_tell_and_few_enough_for_the_images() -> None:
    k, images = densities.NEIGHBOURS, 30 * 4**5  # a quarter of the width along five axes
    spread = np.array([9.0, 3.0, 2.0, 0.9, 1.5])
    assert axes_for_density(spread, np.ones(5), images) == 3  # up to the first that is error
    assert axes_for_density(spread, np.full(5, 0.1), images) == 5
    assert axes_for_density(np.full(49, 2.0), np.ones(49), images) == 5
    assert axes_for_density(np.full(49, 2.0), np.ones(49), images - 1) == 4
    assert axes_for_density(np.full(49, 2.0), np.ones(49), k) == 2  # those of the map
    assert axes_for_density([0.1], [1.0], k) == 1


def ring(n: int, gap_deg: float = 90, seed: int = 0) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    angle = np.deg2rad(rng.uniform(gap_deg / 2, 360 - gap_deg / 2, n))
    z = np.stack([np.cos(angle), np.sin(angle)], 1) + 0.05 * rng.standard_normal((n, 2))
    return z, np.rad2deg(angle)


def test_a_path_goes_round_the_gap_of_a_ring() -> None:
    z, angle = ring(3000)
    ends = z[[np.abs(angle - 50).argmin(), np.abs(angle - 310).argmin()]]
    path = dense_path(z, ends, 20)
    radius = np.linalg.norm(path.z, axis=1)
    assert np.abs(radius - 1).max() < 0.08
    assert path.length == pytest.approx(np.deg2rad(260), rel=0.1)
    steps = np.linalg.norm(np.diff(path.z, axis=0), axis=1)
    assert steps.max() < 1.2 * steps.min()
    position, distance = path.places(z)
    inner = (angle > 60) & (angle < 300)
    expected = (angle[inner] - 50) / 260
    near = np.isfinite(position[inner])
    assert near.mean() > 0.8
    assert np.abs(position[inner] - expected)[near].max() < 0.06
    assert np.array_equal(np.isnan(position), distance > path.radius)


def test_a_path_prefers_the_dense_way_to_the_short_one() -> None:
    rng = np.random.default_rng(1)
    arc, _ = ring(6000, 180)  # from (0, 1) by (-1, 0) to (0, -1)
    short = np.stack([0.05 * rng.standard_normal(300), rng.uniform(-1, 1, 300)], 1)
    path = dense_path(np.concatenate([arc, short]), [[0.0, 1.0], [0.0, -1.0]], 15)
    assert path.z[:, 0].min() < -0.9


def test_two_islands_are_not_joined_also_by_stray_images_between() -> None:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((2000, 3)) * 0.3
    z[1000:, 0] += 6
    z[-5:] = [[1.5, 0, 0], [2.3, 0, 0], [3, 0, 0], [3.7, 0, 0], [4.5, 0, 0]]
    with pytest.raises(InputError, match="a and b are in separate regions"):
        dense_path(z, [[0, 0, 0], [6, 0, 0]], names=("a", "b"))
    with pytest.raises(InputError, match="middle lies in an empty region"):
        dense_path(z, [[0, 0, 0], [3, 3, 0]], names=("a", "middle"))
    assert Landscape(z).farthest([[0, 0, 0], [6, 0, 0]]) is None


@pytest.mark.parametrize("few", [10, 25, 40])
def test_a_small_island_is_not_joined_either(few: int) -> None:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((400, 2))
    z[:few, 0] += 30
    with pytest.raises(InputError, match=r"separate regions|empty region"):
        dense_path(z, [[0.0, 0.0], [30.0, 0.0]])


def test_the_farthest_of_several_places_are_the_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    z, angle = ring(4000)
    places = [z[np.abs(angle - a).argmin()] for a in (180, 60, 120, 300, 240)]
    assert Landscape(z).farthest([*places, [0.0, 0.0]]) in ((1, 3), (3, 1))
    monkeypatch.setattr(paths, "MOST_NODES", 1000)
    assert Landscape(z).farthest(places) in ((1, 3), (3, 1))


def test_the_same_call_gives_the_same_path() -> None:
    z, _ = ring(500)
    first, second = (dense_path(z, z[:2], 5) for _ in range(2))
    assert np.array_equal(first.z, second.z)


@pytest.mark.parametrize("z", [np.ones((10, 2)), [[0.0, np.nan], [1.0, 1.0]], np.zeros((1, 2))])
def test_refuses_content_without_a_density(z: Floats) -> None:
    for function in (log_density, free_energy, Landscape):
        with pytest.raises(InputError, match=r"same content|not finite|\(N, d\)"):
            function(z)

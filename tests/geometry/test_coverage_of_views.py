"""Evenness of views against cones of known gap, and against counts of planes."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from modpose.geometry import views
from modpose.geometry.views import NEAR, directions_of, evenness, half_sphere

Floats = NDArray[np.float64]


def within(count: int, degrees: float, seed: int = 0) -> Floats:
    """Directions evenly within so many degrees of the z axis."""
    rng = np.random.default_rng(seed)
    z = rng.uniform(np.cos(np.deg2rad(degrees)), 1, count)
    angle, ring = rng.uniform(0, 2 * np.pi, count), np.sqrt(1 - z**2)
    return np.stack([ring * np.cos(angle), ring * np.sin(angle), z], 1)


def test_even_views_leave_no_gap_and_are_worth_all() -> None:
    found = evenness(within(20_000, 180))
    assert found.gap == 0
    assert found.worth == pytest.approx(1, abs=0.01)  # 2,000 images tell each direction


@pytest.mark.parametrize("degrees", [0.0, 10.0, 30.0, 60.0])
def test_the_gap_of_a_cone_is_known(degrees: float) -> None:
    """Planes across directions within a of z reach to a of the plane z = 0, and NEAR beyond."""
    theory = 1 - np.sin(np.deg2rad(degrees) + np.arcsin(NEAR))
    # a tenth of what even views give counts as a gap, too
    assert theory - 0.01 <= evenness(within(20_000, degrees)).gap < theory + 0.05


def test_views_about_one_axis_tell_every_direction() -> None:
    angle = np.random.default_rng(0).uniform(0, 2 * np.pi, 20_000)
    side = np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1)
    assert evenness(side).gap == 0


def test_few_other_views_are_worth_little() -> None:
    """Near z, only the tenth of the views that are even tells; the number there is a tenth."""
    seen = np.concatenate([within(18_000, 20), within(2000, 180)])
    found = evenness(seen)
    told = (np.abs(seen @ half_sphere(1000).T) < NEAR).mean(0) / NEAR
    assert told.min() == pytest.approx(0.1, abs=0.03)
    assert found.worth < 0.5


def test_the_direction_is_where_the_beam_runs_in_the_object() -> None:
    """Of rotations about the beam only, it is z; the rotation takes it to the beam's axis."""
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.standard_normal((5, 3, 3)))
    seen = directions_of(turn)
    np.testing.assert_allclose(np.einsum("nij,nj->ni", turn, seen), [[0, 0, 1]] * 5, atol=1e-12)


def test_half_a_sphere_is_evenly_covered() -> None:
    points = half_sphere(2000)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1)
    assert (points[:, 2] > 0).all()
    np.testing.assert_allclose(points.T @ points / 2000, np.eye(3) / 3, atol=0.005)


def test_of_many_images_and_copies_some_represent_all(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.standard_normal((1000, 3, 3)))
    half = np.diag([-1.0, -1.0, 1.0])
    both = directions_of(turn, np.stack([np.eye(3), half]))
    np.testing.assert_allclose(both, np.concatenate([turn[:, 2], turn[:, 2] @ half]))
    monkeypatch.setattr(views, "MOST", 500)
    few = directions_of(turn, np.stack([np.eye(3), half]))
    np.testing.assert_allclose(few[: len(few) // 2], turn[::4, 2])

"""Surfaces: a ball has the right radius, area and volume, is closed, and points outwards."""

from __future__ import annotations

import numpy as np
import pytest

from modpose.plot.surface import surface_of


def ball(side: int, radius: float) -> np.ndarray:
    axis = np.arange(side) - side // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    return (radius - np.sqrt(x**2 + y**2 + z**2)).astype(np.float32)


def test_a_ball_is_round_closed_and_points_outwards() -> None:
    radius = 7.3
    corners, normals, faces = surface_of(ball(20, radius), 0.0)
    far = np.linalg.norm(corners, axis=1)
    assert abs(far - radius).max() < 0.25
    assert (np.sum(normals * corners, axis=1) / far).min() > 0.95
    a, b, c = (corners[faces[:, k]].astype(float) for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
    volume = np.sum(a * np.cross(b, c)) / 6  # positive: triangles are counter-clockwise
    assert area == pytest.approx(4 * np.pi * radius**2, rel=0.03)
    assert volume == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.03)
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()


def test_corners_are_in_the_order_x_y_z_from_the_centre() -> None:
    volume = np.zeros((12, 12, 12), np.float32)
    volume[6 + 1, 6 - 2, 6 + 3] = 1.0
    corners, _, _ = surface_of(volume, 0.5)
    assert np.allclose(corners.mean(0), [3, -2, 1], atol=1e-6)


def test_an_object_at_the_border_is_closed_and_nothing_has_no_corners() -> None:
    corners, _, faces = surface_of(np.ones((4, 4, 4), np.float32), 0.5)
    assert len(corners) and len(faces)
    empty = surface_of(np.zeros((4, 4, 4), np.float32), 0.5)
    assert empty.corners.shape == (0, 3) and empty.faces.shape == (0, 3)
    assert empty.packed() == bytes(8)

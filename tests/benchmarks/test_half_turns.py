"""The benchmark of half turns: its two ways of rotating images, and what it calls a change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.ndimage import rotate

from benchmarks.agreement import agreement
from benchmarks.digits import FAR
from benchmarks.half_turns import Readings, both_contents, drawn_at, steadiest, third_moment
from benchmarks.poses import pictures
from benchmarks.ways_up import moments, turned_moments
from modpose.evaluate.equivariance import move
from modpose.simulate.digits import glyphs, transform


def test_digits_drawn_anew_lie_as_rotated_images_do() -> None:
    """But for a second interpolation, which blurs a little."""
    pictures = glyphs("27", 28)
    images, truth = transform(pictures, box=FAR.box, shift_std_px=3.0, seed=2)
    assert np.array_equal(drawn_at(pictures, truth, 0.0), images)
    for angle in (40.0, 200.0):
        anew, turned = drawn_at(pictures, truth, angle), move(images, angle, 0.0)
        assert np.abs(anew - turned).mean() < 0.1 * np.abs(anew - images).mean()


def test_content_changes_only_where_a_half_turn_changes_it() -> None:
    errors = np.zeros((3, 4))
    errors[:2, 2] = 179.0
    z = np.zeros((3, 4, 2))
    z[:, :, 0] = np.array([[0.0], [1.0], [2.0]])
    z[1, 2, 1] = 1.0
    assert both_contents(Readings(errors, errors, z)).tolist() == [False, True]


def test_the_third_moment_turns_with_the_image() -> None:
    images, _ = transform(glyphs("27", 28), box=FAR.box, angle_std_deg=0.0)
    moment = third_moment(images, np.zeros(2))
    half = third_moment(images, np.full(2, 180.0))
    np.testing.assert_allclose(half, -moment, rtol=1e-9)
    turned = third_moment(move(images, 50.0, 0.0), np.full(2, 50.0))
    np.testing.assert_allclose(turned, moment, rtol=0.15)  # interpolation moves 0.06


def test_the_linear_rule_is_the_direction_of_least_noise() -> None:
    """Two numbers of equal variance, one with a tenth of the other's noise."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((500, 1, 2))
    numbers = images + [1.0, 0.1] * rng.standard_normal((500, 4, 2))
    rule = steadiest(numbers)
    assert abs(rule[1]) > 10 * abs(rule[0])


def test_moments_follow_the_image_and_change_sign_by_half_a_turn() -> None:
    images, _ = transform(glyphs("27", 28), box=FAR.box, angle_std_deg=0.0)
    here, axis = moments(images, np.zeros(2))
    half, _ = moments(images, np.zeros(2), axis + np.pi)
    np.testing.assert_allclose(half, -here, atol=1e-12)
    cut, free = turned_moments(images, np.array([0.0, 50.0]))
    np.testing.assert_allclose(cut[:, 0], here, atol=1e-12)
    size = np.abs(here).max()
    assert np.abs(free[:, 1] - here).max() < 0.01 * size  # interpolation; cut values move more
    assert np.abs(free[:, 1] - here).max() < np.abs(cut[:, 1] - here).max()


def test_fits_that_group_alike_agree() -> None:
    rng = np.random.default_rng(0)
    z = 100.0 * np.repeat(np.arange(10), 5)[:, None] + rng.standard_normal((50, 2))
    assert agreement([z, -z[:, ::-1], z], "ward") == 1.0
    assert abs(agreement([z, rng.permutation(z)], "ward")) < 0.3


def test_smoothed_digits_are_cut_hardly_by_a_rotation(tmp_path: Path) -> None:
    drawn = np.rint(255 * glyphs("27", 28)).astype(np.uint8)
    np.savez(tmp_path / "mnist.npz", x_test=drawn, y_test=np.array([2, 7]))
    cut = []
    for smooth in (0.0, 1.0):
        images, labels = pictures(tmp_path / "mnist.npz", "test", 2, smooth)
        assert labels.tolist() == [2, 7] and images.min() >= 0 and images.max() <= 1
        free = rotate(images, 51.0, axes=(1, 2), reshape=False)
        cut.append(np.abs(free - free.clip(images.min(), images.max())).max())
    assert cut[1] < 0.1 * cut[0]

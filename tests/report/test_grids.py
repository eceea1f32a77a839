"""Pictures as arrays: alignment against scipy, walks through content, mosaics."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from modpose.plot import grids


def blob_pictures(angle_deg, shift_px, box=41, centre=(6.0, 2.0)):
    """Analytic pictures of an asymmetric object: f = two Gaussians, posed without interpolation."""
    axis = np.arange(box) - box // 2
    x, y = np.meshgrid(axis, axis)
    pictures = []
    for angle, (dx, dy) in zip(np.deg2rad(angle_deg), shift_px, strict=True):
        u = np.cos(angle) * (x - dx) + np.sin(angle) * (y - dy)
        v = -np.sin(angle) * (x - dx) + np.cos(angle) * (y - dy)
        first = np.exp(-((u - centre[0]) ** 2 + (v - centre[1]) ** 2) / 18)
        pictures.append(first + 0.5 * np.exp(-((u + 4) ** 2 + v**2) / 18))
    return np.stack(pictures).astype(np.float32)


def test_aligned_average_is_the_upright_object() -> None:
    rng = np.random.default_rng(0)
    angle, shift = rng.uniform(-180, 180, 300), rng.normal(0, 2, (300, 2))
    truth = blob_pictures([0.0], [(0, 0)])[0]
    average = grids.aligned_average(blob_pictures(angle, shift), angle, shift)
    assert np.abs(average - truth).max() < 0.04  # bilinear interpolation flattens the peaks a bit
    unaligned = blob_pictures(angle, shift).mean(0)
    assert np.abs(unaligned - truth).max() > 0.4


def test_mirrored_pictures_align_with_the_others() -> None:
    """f(M R^T (x - t)), M = diag(1, -1), is the picture flipped in rows, at -angle and M t."""
    rng = np.random.default_rng(2)
    angle, shift = rng.uniform(-180, 180, 200), rng.normal(0, 2, (200, 2))
    mirrored = rng.random(200) < 0.5
    sense = np.where(mirrored, -1.0, 1.0)
    pictures = blob_pictures(sense * angle, shift * np.stack([np.ones(200), sense], axis=1))
    pictures[mirrored] = pictures[mirrored, ::-1]
    truth = blob_pictures([0.0], [(0, 0)])[0]
    average = grids.aligned_average(pictures, angle, shift, mirrored)
    assert np.abs(average - truth).max() < 0.04
    assert np.abs(grids.aligned_average(pictures, angle, shift) - truth).max() > 0.2


def test_large_and_small_pictures_align() -> None:
    """A picture of scale s is one of s times the box, read every s pixels."""
    rng = np.random.default_rng(3)
    angle, shift = rng.uniform(-180, 180, 100), rng.normal(0, 2, (100, 2))
    scale = np.exp(0.15 * rng.standard_normal(100))
    truth = blob_pictures([0.0], [(0, 0)])[0]
    pictures = np.stack(
        [
            ndimage.affine_transform(
                blob_pictures([a], [t / s])[0], np.eye(2) / s, 20 - 20 / np.array([s, s]), order=3
            )
            for a, t, s in zip(angle, shift, scale, strict=True)
        ]
    )
    average = grids.aligned_average(pictures, angle, shift, None, scale)
    assert np.abs(average - truth).max() < 0.04
    assert np.abs(grids.aligned_average(pictures, angle, shift) - truth).max() > 0.05


def test_wrong_sense_of_rotation_does_not_align() -> None:
    rng = np.random.default_rng(1)
    angle, shift = rng.uniform(-180, 180, 200), np.zeros((200, 2))
    truth = blob_pictures([0.0], [(0, 0)])[0]
    average = grids.aligned_average(blob_pictures(angle, shift), -angle, shift)
    assert np.abs(average - truth).max() > 0.4


@settings(max_examples=25, deadline=None)
@given(
    angle=st.floats(-180, 180),
    dx=st.floats(-4, 4),
    dy=st.floats(-4, 4),
    height=st.integers(7, 14),
    width=st.integers(7, 14),
    seed=st.integers(0, 99),
)
def test_align_agrees_with_scipy(angle, dx, dy, height, width, seed) -> None:
    image = np.random.default_rng(seed).random((height, width)).astype(np.float32)
    theta = np.deg2rad(angle)
    # scipy reads output[o] = input[M o + offset] with o = (row, column)
    matrix = np.array([[np.cos(theta), np.sin(theta)], [-np.sin(theta), np.cos(theta)]])
    centre = np.array([height // 2, width // 2])
    offset = centre + np.array([dy, dx]) - matrix @ centre
    expected = ndimage.affine_transform(image, matrix, offset, order=1, mode="nearest")
    reach = ndimage.affine_transform(
        np.ones_like(image), matrix, offset, order=1, mode="constant", cval=0.0
    )
    upright, inside = grids.align(image[None], np.array([angle]), np.array([[dx, dy]]))
    sure = inside[0] == 1
    assert np.allclose(upright[0][sure], expected[sure], atol=1e-3)
    assert np.all(reach[~sure] < 1)
    assert np.all(upright[0][~sure] == 0)


def test_align_keeps_an_unmoved_image_and_its_channels() -> None:
    image = np.random.default_rng(0).random((2, 8, 9, 3)).astype(np.float32)
    upright, inside = grids.align(image, np.zeros(2), np.zeros((2, 2)))
    assert np.allclose(upright, image, atol=1e-5)
    assert inside.all()


def test_corners_that_no_image_reaches_take_the_background() -> None:
    images = np.full((5, 20, 20), 3.0, np.float32)
    images[:, 8:12, 8:12] = 9.0
    average = grids.aligned_average(images, np.full(5, 45.0), np.zeros((5, 2)))
    assert average[0, 0] == pytest.approx(3.0)
    assert average[10, 10] == pytest.approx(9.0)


# --- walks through content --------------------------------------------------------------------


def test_normal_quantiles_cut_equal_probability() -> None:
    quantiles = grids.normal_quantiles(10)
    assert np.allclose(stats.norm.cdf(quantiles), (np.arange(10) + 0.5) / 10)


def test_manifold_of_one_latent_rises_from_left_to_right() -> None:
    codes = grids.manifold_codes(np.zeros((3, 1)), 7)
    assert codes.shape == (7, 1)
    assert np.all(np.diff(codes[:, 0]) > 0)


def test_manifold_of_two_latents_rises_rightwards_and_upwards() -> None:
    codes = grids.manifold_codes(np.zeros((3, 2)), 5).reshape(5, 5, 2)
    assert np.all(np.diff(codes[:, :, 0], axis=1) > 0)
    assert np.all(np.diff(codes[:, :, 1], axis=0) < 0)  # the first row is drawn at the top
    assert np.allclose(codes[2, 2], 0)


def test_manifold_of_many_latents_lies_in_the_plane_of_widest_spread() -> None:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((2000, 5)) * [0.1, 3, 0.1, 1, 0.1] + 7
    codes = grids.manifold_codes(z, 9).reshape(9, 9, 5)
    along = codes[0, -1] - codes[0, 0]
    up = codes[0, 0] - codes[-1, 0]
    assert np.argmax(np.abs(along)) == 1
    assert np.argmax(np.abs(up)) == 3
    assert along[1] == pytest.approx(2 * 3 * stats.norm.ppf(17 / 18), rel=0.1)
    assert np.allclose(codes.mean((0, 1)), 7, atol=0.2)


def test_traversal_moves_one_latent_only() -> None:
    z = np.random.default_rng(0).standard_normal((500, 3))
    codes = grids.traversal_codes(z, 1, 9)
    assert np.ptp(codes[:, [0, 2]], axis=0).max() == 0
    assert codes[0, 1] == pytest.approx(np.percentile(z[:, 1], 2))
    assert codes[-1, 1] == pytest.approx(np.percentile(z[:, 1], 98))


def test_busiest_latents_are_those_of_widest_spread_in_order() -> None:
    z = np.random.default_rng(0).standard_normal((400, 5)) * [1, 0.01, 2, 0.02, 3]
    assert grids.busiest_latents(z, 3) == [0, 2, 4]
    assert grids.busiest_latents(z) == [0, 1, 2, 3, 4]


def test_pairs_are_far_apart_and_reproducible() -> None:
    z = np.random.default_rng(0).standard_normal((300, 2))
    pairs = grids.distant_pairs(z, 40, seed=3)
    assert pairs == grids.distant_pairs(z, 40, seed=3)
    lengths = [np.linalg.norm(z[a] - z[b]) for a, b in pairs]
    assert np.mean(lengths) > 2.5  # two random points are 1.8 apart


def test_interpolation_starts_and_ends_at_its_ends() -> None:
    codes = grids.interpolation_codes(np.array([0.0, 2.0]), np.array([4.0, 0.0]), 5)
    assert np.allclose(codes, [[0, 2], [1, 1.5], [2, 1], [3, 0.5], [4, 0]])


# --- pictures ---------------------------------------------------------------------------------


def test_images_become_pictures() -> None:
    grey = np.random.default_rng(0).random((2, 1, 4, 5))
    colour = np.random.default_rng(0).random((2, 3, 4, 5))
    assert np.array_equal(grids.as_pictures(grey), grey[:, 0])
    assert np.array_equal(grids.as_pictures(colour)[1, 2, 3], colour[1, :, 2, 3])


def test_volumes_become_their_three_projections() -> None:
    volume = np.random.default_rng(0).random((2, 1, 4, 6, 5))
    pictures = grids.as_pictures(volume)
    assert pictures.shape == (2, 6, 5 + 5 + 6)
    assert np.allclose(pictures[:, :, :5], volume[:, 0].mean(1))
    assert np.allclose(pictures[:, :4, 5:10], volume[:, 0].mean(2))
    assert np.allclose(pictures[:, :4, 10:], volume[:, 0].mean(3))


def test_mosaic_reads_from_left_to_right_then_down() -> None:
    tiles = np.arange(5.0)[:, None, None] * np.ones((5, 2, 3))
    sheet = grids.mosaic(tiles, 3, gap=1, fill=-1)
    assert sheet.shape == (5, 11)
    assert [sheet[0, 0], sheet[0, 4], sheet[0, 8], sheet[3, 0], sheet[3, 4]] == [0, 1, 2, 3, 4]
    assert sheet[3, 8] == sheet[2, 0] == sheet[0, 3] == -1


def test_row_0_is_drawn_at_the_bottom_for_em() -> None:
    picture = np.zeros((1, 3, 2))
    picture[0, 0] = 1
    assert grids.drawn(picture, "lower")[0, -1].tolist() == [1, 1]
    assert grids.drawn(picture, "upper")[0, 0].tolist() == [1, 1]


@pytest.mark.parametrize("value", [0.0, -5.0, 1e6])
def test_grey_range_of_a_constant_is_not_empty(value: float) -> None:
    low, high = grids.grey_range(np.full((2, 3, 3), value))
    assert low < value < high


def test_grey_range_ignores_outliers_and_what_is_not_finite() -> None:
    pictures = np.random.default_rng(0).normal(0, 1, (50, 20, 20))
    pictures[0, 0, 0], pictures[1, 1, 1] = 1e9, np.nan
    low, high = grids.grey_range(pictures)
    assert -3 < low < -2
    assert 2 < high < 3
    assert np.isfinite(grids.to_unit(pictures, (low, high))).all()

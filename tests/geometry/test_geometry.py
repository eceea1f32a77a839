"""Coordinates and poses against SciPy and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

from modpose.geometry.grids import half_box, lattice
from modpose.geometry.pose import Pose, rotate_images, sample_images
from modpose.geometry.rotations import rotation_2d, wrap
from modpose.geometry.windows import disc

angles = st.floats(-20, 20)


def test_lattice_orders_x_first_and_centres_like_the_fft() -> None:
    x = lattice((4, 5)).reshape(4, 5, 2)
    assert x[2, 2].tolist() == [0, 0]
    assert x[2, 4].tolist() == [2, 0]
    assert x[0, 2].tolist() == [0, -2]
    zero = np.fft.fftshift(np.fft.fftfreq(4)).tolist().index(0.0)
    assert x[zero, 0, 1] == 0
    assert lattice((3, 4, 6)).reshape(3, 4, 6, 3)[2, 2, 3].tolist() == [0, 0, 1]


def test_disc_holds_the_pixels_within_the_radius() -> None:
    inside = disc((9, 8), 0.75)
    rows, columns = np.mgrid[:9, :8]
    assert (inside == ((rows - 4) ** 2 + (columns - 4) ** 2 <= 9)).all()
    assert half_box((9, 8)) == 4.5


@given(angles)
def test_rotation_matches_scipy(angle: float) -> None:
    ours = rotation_2d(torch.tensor(angle, dtype=torch.float64)).numpy()
    theirs = Rotation.from_euler("z", angle).as_matrix()[:2, :2]
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


@given(st.floats(-1e3, 1e3))
def test_wrap_lands_in_the_half_open_interval(angle: float) -> None:
    wrapped = wrap(torch.tensor(angle, dtype=torch.float64)).item()
    assert -math.pi < wrapped <= math.pi
    assert math.isclose(math.cos(wrapped), math.cos(angle), abs_tol=1e-9)


def test_to_image_undoes_to_object() -> None:
    generator = torch.Generator().manual_seed(0)
    pose = Pose(
        rotation_2d(torch.randn(5, generator=generator)), torch.randn(5, 2, generator=generator)
    )
    u = torch.randn(7, 2, generator=generator)
    there = torch.stack([pose.to_object(x)[k] for k, x in enumerate(pose.to_image(u))])
    torch.testing.assert_close(there, u.expand(5, 7, 2), atol=1e-5, rtol=0)


def test_a_positive_angle_carries_x_towards_y() -> None:
    pose = Pose(rotation_2d(torch.tensor(math.pi / 2)), torch.tensor([3.0, -1.0]))
    torch.testing.assert_close(
        pose.to_image(torch.tensor([[1.0, 0.0]])), torch.tensor([[3.0, 0.0]]), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("shape", [(12, 12), (11, 14)])
def test_sampling_images_matches_scipy(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    picture = rng.standard_normal(shape)
    angle, shift = 0.7, np.array([1.3, -0.4])
    rotation = rotation_2d(torch.tensor([angle], dtype=torch.float64))
    pose = Pose(rotation, torch.tensor(shift)[None])
    u = pose.to_object(lattice(shape).double())
    ours = sample_images(torch.tensor(picture)[None, None], u)[0, :, 0].reshape(shape)
    # SciPy maps output (row, column) to input (row, column): reverse the axes of x -> R^T (x - t)
    centre = np.array(shape) // 2
    matrix = rotation[0].numpy().T[::-1, ::-1]
    offset = centre - matrix @ (centre + shift[::-1])
    theirs = affine_transform(picture, matrix, offset, order=1, mode="constant", cval=0.0)
    inside = np.abs(u[0].numpy()).max(axis=1).reshape(shape) < min(shape) // 2 - 1
    np.testing.assert_allclose(ours.numpy()[inside], theirs[inside], atol=1e-10)


def test_sampling_volumes_at_the_lattice_gives_the_volume() -> None:
    volume = torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(1))
    read = sample_images(volume, lattice((4, 5, 6)).expand(2, -1, -1))
    torch.testing.assert_close(read.transpose(1, 2).reshape(volume.shape), volume)


def test_rotating_a_posed_picture_adds_to_its_pose() -> None:
    def picture(pose: Pose) -> torch.Tensor:
        u = pose.to_object(lattice((32, 32)))
        value = torch.exp(-((u[..., 0] - 3) ** 2 / 8 + u[..., 1] ** 2 / 20))
        return value.reshape(-1, 1, 32, 32)

    angle, shift, turn = torch.tensor([0.4]), torch.tensor([[2.0, 1.0]]), torch.tensor([1.1])
    turned = rotate_images(picture(Pose(rotation_2d(angle), shift)), turn, lattice((32, 32)))
    moved = (rotation_2d(turn) @ shift.unsqueeze(-1)).squeeze(-1)
    expected = picture(Pose(rotation_2d(angle + turn), moved))
    wrong = picture(Pose(rotation_2d(angle - turn), moved))
    assert (turned - expected).abs().max() < 0.08  # what bilinear reading costs
    assert (turned - wrong).abs().max() > 0.5
    centre = torch.tensor([[1.5, -0.5]])
    about = rotate_images(picture(Pose(rotation_2d(angle), shift)), turn, lattice((32, 32)), centre)
    moved = (rotation_2d(turn) @ (shift - centre).unsqueeze(-1)).squeeze(-1)
    assert (about - picture(Pose(rotation_2d(angle + turn), moved))).abs().max() < 0.08
    assert (about - expected).abs().max() > 0.3

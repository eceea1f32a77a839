"""Rotations in three dimensions against SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from modpose.geometry.degrees import rotation_of_relion
from modpose.geometry.rotations import (
    geodesic,
    haar_rotations,
    quaternion_of_rotation,
    relion_of_rotation,
    rotation_of_quaternion,
    rotation_of_vector,
    rotation_of_yaw_pitch_roll,
    vector_of_rotation,
)

VECTORS = st.tuples(*[st.floats(-3, 3)] * 3)
AXES = st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: np.linalg.norm(v) > 0.1)
DEGREES = st.floats(-400, 400)
FEW = settings(deadline=None, max_examples=30)


def double(values: object) -> torch.Tensor:
    return torch.tensor(np.array(values), dtype=torch.float64)


@FEW
@given(VECTORS)
def test_rotation_vectors_are_those_of_scipy(vector: tuple[float, ...]) -> None:
    theirs = Rotation.from_rotvec(vector)
    ours = rotation_of_vector(double(vector))
    np.testing.assert_allclose(ours, theirs.as_matrix(), atol=1e-12)
    # a half turn has two vectors: compare the rotations
    back = Rotation.from_rotvec(vector_of_rotation(ours).numpy())
    assert (back.inv() * theirs).magnitude() < 1e-7
    assert back.magnitude() <= math.pi + 1e-12


@FEW
@given(AXES, st.sampled_from([0.0, 1e-12, 1e-7, 1e-4, 3.14, math.pi - 1e-7, math.pi]))
def test_small_angles_and_half_turns_survive(axis: tuple[float, ...], angle: float) -> None:
    unit = np.array(axis) / np.linalg.norm(axis)
    rotation = rotation_of_vector(double(angle * unit))
    found = vector_of_rotation(rotation).numpy()
    assert np.linalg.norm(found) == pytest.approx(angle, abs=1e-12)
    assert min(abs(found - angle * unit).max(), abs(found + angle * unit).max()) < 1e-9
    assert geodesic(torch.eye(3, dtype=torch.float64), rotation).item() == pytest.approx(
        angle, abs=1e-9
    )


def test_quaternions_are_those_of_scipy() -> None:
    rotations = Rotation.random(500, rng=np.random.default_rng(0))
    theirs = rotations.as_quat(canonical=True)[:, [3, 0, 1, 2]]
    ours = quaternion_of_rotation(double(rotations.as_matrix()))
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
    np.testing.assert_allclose(rotation_of_quaternion(-3 * ours), rotations.as_matrix(), atol=1e-12)


@FEW
@given(DEGREES, DEGREES, DEGREES)
def test_relion_angles(rot: float, tilt: float, psi: float) -> None:
    rotation = rotation_of_relion(rot, tilt, psi)
    angles = relion_of_rotation(double(rotation))
    np.testing.assert_allclose(rotation_of_relion(*angles.numpy()), rotation, atol=1e-7)
    assert 0 <= angles[1] <= 180
    assert (angles.abs() <= 180).all()


@pytest.mark.parametrize("tilt", [0.0, 180.0])
def test_relion_angles_where_only_their_sum_counts(tilt: float) -> None:
    angles = relion_of_rotation(double(rotation_of_relion(30.0, tilt, 50.0)))
    np.testing.assert_allclose(angles, [0, tilt, 80 if tilt == 0 else 20], atol=1e-9)


def test_equation_8_of_yi_et_al() -> None:
    angles = np.array([0.3, -1.1, 2.0])
    theirs = Rotation.from_euler("ZYX", angles).as_matrix()
    np.testing.assert_allclose(rotation_of_yaw_pitch_roll(double(angles)), theirs, atol=1e-12)


def test_geodesic_is_the_angle_between_and_broadcasts() -> None:
    a, b = (Rotation.random(40, rng=np.random.default_rng(s)) for s in (1, 2))
    ours = geodesic(double(a.as_matrix())[:, None], double(b.as_matrix()))
    theirs = [[(p.inv() * q).magnitude() for q in b] for p in a]
    np.testing.assert_allclose(ours, theirs, atol=1e-7)


def test_float32_keeps_its_precision() -> None:
    rotations = haar_rotations(1000, torch.Generator().manual_seed(0))
    assert rotations.dtype == torch.float32
    through = rotation_of_vector(vector_of_rotation(rotations))
    assert (through - rotations).abs().max() < 2e-5
    assert geodesic(rotations, through).max() < 2e-5
    angles = relion_of_rotation(rotations).numpy()
    assert np.abs(rotation_of_relion(*angles.T) - rotations.numpy()).max() < 2e-5


def test_gradients_are_finite_at_the_identity() -> None:
    vector = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rotation_of_vector, (vector,))
    quaternion = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rotation_of_quaternion, (quaternion,))


def test_haar_rotations_are_uniform() -> None:
    rotations = haar_rotations(20_000, torch.Generator().manual_seed(1), torch.float64)
    angles = geodesic(torch.eye(3, dtype=torch.float64), rotations)
    # density (1 - cos a)/pi: distribution function (a - sin a)/pi
    uniform = np.sort(((angles - angles.sin()) / math.pi).numpy())
    assert np.abs(uniform - (np.arange(20_000) + 0.5) / 20_000).max() < 2 / math.sqrt(20_000)
    assert rotations.mean(0).abs().max() < 5 / math.sqrt(3 * 20_000)
    # pairs of Haar rotations are 126.5 degrees apart on average
    pairs = torch.rad2deg(geodesic(rotations[::2], rotations[1::2])).mean()
    assert pairs.item() == pytest.approx(90 + 360 / math.pi**2, abs=1.5)

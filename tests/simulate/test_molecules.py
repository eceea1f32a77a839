from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from modpose.simulate import molecules
from modpose.simulate.molecules import axis_rotations, hinged_molecule, project

BEAM = np.array([0.0, 0.0, 1.0])


def one(rotation: np.ndarray, shift: tuple[float, float] = (0.0, 0.0), box: int = 40) -> np.ndarray:
    m = hinged_molecule()
    return project(
        m.conformations(np.zeros(1)),
        m.sigmas,
        m.masses,
        rotation[None],
        np.array([shift]),
        box,
        4.0,
    )[0]


def test_axis_rotations_are_those_of_scipy() -> None:
    axis = np.array([0.48, -0.6, 0.64])
    angles = np.array([-170.0, -20.0, 0.0, 33.0, 180.0])
    expected = Rotation.from_rotvec(np.deg2rad(angles)[:, None] * axis).as_matrix()
    np.testing.assert_allclose(axis_rotations(axis, angles), expected, atol=1e-12)


def test_projection_is_the_integral_of_the_density_along_the_beam() -> None:
    """Brute force: sum the 3-D Gaussians of a turned, shifted molecule over z."""
    rng = np.random.default_rng(0)
    centers = rng.normal(0, 10, (4, 3))
    sigmas, masses = rng.uniform(3, 6, 4), rng.uniform(0.5, 2, 4)
    rotation, shift, pixel = Rotation.random(rng=rng).as_matrix(), np.array([1.3, -2.2]), 2.5
    image = project(centers[None], sigmas, masses, rotation[None], shift[None], 24, pixel)[0]
    z = np.arange(-80, 80.1, 1.0)
    for row, column in [(12, 12), (3, 20), (18, 9)]:
        seen = np.stack(
            [np.full_like(z, (column - 12) * pixel), np.full_like(z, (row - 12) * pixel), z], 1
        )
        seen[:, :2] -= pixel * shift
        upright = seen @ rotation  # rows times R is Rᵀ on columns
        distance2 = ((upright[:, None] - centers) ** 2).sum(-1)
        density = masses / (2 * np.pi * sigmas**2) ** 1.5 * np.exp(-distance2 / (2 * sigmas**2))
        assert image[row, column] == pytest.approx(density.sum(), rel=1e-5)


def test_small_blobs_are_drawn_near_their_place_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many atoms, some at the rim or outside, are drawn as in all pixels, image by image."""
    rng = np.random.default_rng(1)
    count, box, pixel = 300, 64, np.array([3.0, 4.0])
    centers = rng.uniform(-150, 150, (2, count, 3))
    blobs = rng.uniform(1, 2, count), rng.uniform(1, 12, count)
    posed = Rotation.random(2, rng=rng).as_matrix(), rng.normal(0, 2, (2, 2))
    monkeypatch.setattr(molecules, "BLOBS", 128)
    near = project(centers, *blobs, *posed, box, pixel)
    monkeypatch.setattr(molecules, "DENSE", box)
    whole = project(centers, *blobs, *posed, box, pixel)
    rounding = np.finfo(np.float32).eps * whole.max()
    np.testing.assert_allclose(near, whole, rtol=0, atol=2 * rounding)


def test_all_mass_is_in_the_image() -> None:
    image = one(np.eye(3))
    assert image.sum() * 4.0**2 == pytest.approx(hinged_molecule().masses.sum(), rel=1e-3)


@settings(max_examples=25, deadline=None)
@given(st.floats(-180, 180), st.floats(-3, 3), st.floats(-3, 3))
def test_centre_of_mass_moves_with_the_shift_and_not_with_the_rotation(
    angle: float, dx: float, dy: float
) -> None:
    image = one(axis_rotations(BEAM, np.array([angle]))[0], (dx, dy)).astype(float)
    y, x = np.mgrid[:40, :40] - 20
    centre = np.array([(image * x).sum(), (image * y).sum()]) / image.sum()
    np.testing.assert_allclose(centre, [dx, dy], atol=0.05)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns_are_exact_on_an_odd_box(turns: int) -> None:
    """x → y is positive, so with rows as y np.rot90 (which takes y to −x) goes the other way."""
    turned = one(axis_rotations(BEAM, np.array([90.0 * turns]))[0], box=41)
    np.testing.assert_allclose(turned, np.rot90(one(np.eye(3), box=41), -turns), atol=1e-6)


# --- the built-in molecule --------------------------------------------------------------------


def test_only_the_arm_moves_and_both_parts_stay_rigid() -> None:
    m = hinged_molecule()
    still, moved = m.conformations(np.array([0.0, 17.0]))
    np.testing.assert_array_equal(still[~m.arm], moved[~m.arm])
    arm = m.arm

    def distances(points: np.ndarray) -> np.ndarray:
        return np.linalg.norm(points[:, None] - points, axis=-1)

    np.testing.assert_allclose(distances(still[arm]), distances(moved[arm]), atol=1e-9)
    assert np.linalg.norm(still[arm] - moved[arm], axis=1).max() > 10


def test_the_hinge_angle_is_the_angle_turned() -> None:
    m = hinged_molecule()
    start, end = m.conformations(np.array([-8.0, 22.0]))
    before, after = start[m.arm] - m.hinge, end[m.arm] - m.hinge
    found, _ = Rotation.align_vectors(after, before)
    # Not SciPy's residual: it is the root of a difference of sums of 1e5, so rounding to 16 digits
    # leaves up to 1e-5 of it.  Coordinates of 1e2 Å leave 1e-13.
    np.testing.assert_allclose(found.apply(before), after, atol=1e-11)
    np.testing.assert_allclose(found.as_rotvec(degrees=True), 30.0 * m.axis, atol=1e-6)


def test_the_molecule_is_centred_and_of_protein_size() -> None:
    m = hinged_molecule()
    np.testing.assert_allclose(m.masses @ m.conformations(np.zeros(1))[0], 0, atol=1e-9)
    assert 50 < m.radius(np.linspace(-20, 20, 5)) < 80
    assert 0.2 < m.masses[m.arm].sum() / m.masses.sum() < 0.35


def test_no_rotation_maps_the_projection_near_itself() -> None:
    """Normalised correlation with its own rotated copies, at the best shift."""
    m = hinged_molecule()
    angles = np.arange(0.0, 360.0, 4.0)
    centers = np.repeat(m.conformations(np.zeros(1)), len(angles), axis=0)
    turns = axis_rotations(BEAM, angles)
    images = project(centers, m.sigmas, m.masses, turns, np.zeros((len(angles), 2)), 40, 4.0)
    spectra = np.fft.rfft2(images - images.mean((1, 2), keepdims=True))
    best = np.fft.irfft2(spectra * spectra[0].conj()).reshape(len(angles), -1).max(axis=1)
    correlation = best / best[0]
    away = (angles > 40) & (angles < 320)
    assert correlation[away].max() < 0.75
    assert correlation[angles == 180] < 0.7


def test_the_hinge_is_visible_and_cannot_be_undone_by_a_pose() -> None:
    """The two ends of the range differ, at the best rotation and shift."""
    m = hinged_molecule()
    angles = np.arange(-60.0, 60.1, 2.0)
    closed, opened = (
        project(
            np.repeat(m.conformations(np.array([h])), len(angles), axis=0),
            m.sigmas,
            m.masses,
            axis_rotations(BEAM, angles),
            np.zeros((len(angles), 2)),
            40,
            4.0,
        )
        for h in (-20.0, 20.0)
    )
    a, b = (np.fft.rfft2(i - i.mean((1, 2), keepdims=True)) for i in (closed[30:31], opened))
    best = np.fft.irfft2(b * a.conj()).max()
    energy = ((closed[30] - closed[30].mean()) ** 2).sum()
    assert best / energy < 0.93

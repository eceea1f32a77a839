"""Missing wedges against brute-force Fourier sums and the CTF in two dimensions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from modpose.errors import InputError
from modpose.geometry.grids import frequencies
from modpose.observe.ctf import ctf_2d, ctf_3d
from modpose.observe.wedge import (
    filter_volumes,
    is_measured,
    wedge_mask,
    whole_mask,
)

RANGES = st.tuples(st.floats(-90, 80), st.floats(1, 170)).map(
    lambda r: (r[0], min(90.0, r[0] + r[1]))
)


@pytest.mark.parametrize("tilt", [-57.0, -20.0, 0.0, 33.0, 60.0])
def test_a_tilted_projection_is_measured_where_the_convention_says(tilt: float) -> None:
    """The transform of the projection of R_y(tilt) points, summed by hand, is a measured slice."""
    points = np.random.default_rng(0).normal(size=(5, 3))
    tilted = Rotation.from_euler("y", tilt, degrees=True).apply(points)  # right-handed, active
    k = np.array([0.31, -0.22])
    image = np.exp(-2j * np.pi * tilted[:, :2] @ k).sum()
    slope = np.deg2rad(tilt)
    in_volume = np.array([k[0] * math.cos(slope), k[1], k[0] * math.sin(slope)])
    volume = np.exp(-2j * np.pi * points @ in_volume).sum()
    assert abs(image - volume) < 1e-12
    frequency = torch.tensor(in_volume)
    for margin, expected in ((0.5, True), (-0.5, False)):
        near = torch.tensor([tilt - margin, tilt + margin]).sort().values
        both = near if margin > 0 else torch.tensor([tilt + 0.5, 89.0])
        assert bool(is_measured(frequency, both)) is expected
        assert bool(is_measured(-frequency, both)) is expected


@settings(deadline=None, max_examples=12)
@given(RANGES, st.sampled_from([(8, 8, 8), (7, 9, 8), (6, 6, 9)]))
def test_masks_keep_volumes_real_and_are_filters(
    tilt_range: tuple[float, float], shape: tuple[int, int, int]
) -> None:
    limits = torch.tensor([tilt_range])
    mask = wedge_mask(limits, shape, rfft=False)[0].numpy()
    volume = np.random.default_rng(1).normal(size=shape)
    filtered = np.fft.ifftn(np.fft.fftn(volume) * mask)
    assert np.abs(filtered.imag).max() < 1e-12
    half = wedge_mask(limits, shape)
    torch.testing.assert_close(whole_mask(half, shape[2])[0], torch.tensor(mask))
    ours = filter_volumes(torch.tensor(volume)[None], half.double())
    np.testing.assert_allclose(ours[0], filtered.real, atol=1e-12)
    torch.testing.assert_close(filter_volumes(ours, half.double()), ours)  # nothing more to lose
    # by hand, away from the frequencies that stand for two signs and from the wedge's faces
    low, high = tilt_range
    z, y, x = np.meshgrid(*[np.fft.fftfreq(n) for n in shape], indexing="ij")
    angle = np.degrees(np.arctan(z / np.where(x == 0, 1.0, x)))
    clear = (x != 0) & (np.minimum(abs(angle - low), abs(angle - high)) > 0.01)
    clear &= (z != -0.5) & (y != -0.5) & (x != -0.5)
    np.testing.assert_array_equal(mask[clear], ((angle > low) & (angle < high))[clear])
    assert (mask[(x == 0) & (z == 0)] == 1).all()


def test_the_fraction_that_is_measured() -> None:
    mask = wedge_mask(torch.tensor([[-60.0, 60.0], [-90.0, 90.0]]), (48, 48, 48), rfft=False)
    ball = frequencies((48, 48, 48)).norm(dim=-1) < 0.49
    assert mask[0][ball].mean().item() == pytest.approx(2 / 3, abs=0.02)
    assert (mask[1] == 1).all()


def test_a_volume_that_was_turned_carries_its_wedge_along() -> None:
    limits = torch.tensor([[-50.0, 40.0]])
    quarter = torch.tensor(Rotation.from_euler("z", 90, degrees=True).as_matrix())[None]
    plain = wedge_mask(limits, (9, 9, 9), rfft=False)[0]
    turned = wedge_mask(limits, (9, 9, 9), rotation=quarter, rfft=False)[0]
    # z is the last of three turned axes: x -> y, y -> -x; the array's axes are (z, y, x)
    centred = np.fft.fftshift(plain.numpy())
    expected = np.rot90(centred, 1, axes=(2, 1))
    np.testing.assert_array_equal(np.fft.fftshift(turned.numpy()), expected)


def test_each_particle_has_its_own() -> None:
    limits = torch.tensor([[-60.0, 60.0], [-40.0, 70.0]])
    both = wedge_mask(limits, (8, 8, 8))
    for one, alone in zip(both, limits, strict=True):
        torch.testing.assert_close(one, wedge_mask(alone[None], (8, 8, 8))[0])
    assert both.shape == (2, 8, 8, 5)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ((60.0, -60.0), "60 to -60 degrees, a wedge that hides everything, expected two angles"),
        ((0.0, 0.0), "a wedge that hides everything"),
        ((-100.0, 60.0), "-100 to 60 degrees, expected two angles from -90 to 90"),
        ((float("nan"), 60.0), "nan to 60"),
    ],
)
def test_refuses_ranges_that_are_none(limits: tuple[float, float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        wedge_mask(torch.tensor([[-60.0, 60.0], limits]), (8, 8, 8))


def test_refuses_arrays_of_another_shape() -> None:
    with pytest.raises(InputError, match=r"is \(2,\), expected shape \(particles, 2\)"):
        wedge_mask(torch.tensor([-60.0, 60.0]), (8, 8, 8))


def test_the_ctf_in_three_dimensions_is_that_of_its_slices() -> None:
    row = [7.0, 51000.0, 49000.0, 30.0, 300.0, 2.0, 0.07, 10.0, 100.0]
    params = torch.tensor([row, row], dtype=torch.float64)
    params[1, 1:3] = 20000.0
    volume = ctf_3d(params, (16, 12, 14), rfft=False)
    same = params.clone()
    same[:, 1:3] = params[:, 1:3].mean(1, keepdim=True)
    slices = {
        (0, 1): volume[:, :, :, 0],
        (1, 2): volume[:, 0],
        (0, 2): volume[:, :, 0],
    }
    sides = (16, 12, 14)
    for (a, b), found in slices.items():
        flat = ctf_2d(same, (sides[a], sides[b]), rfft=False)
        torch.testing.assert_close(found, flat, atol=2e-4, rtol=0)
    torch.testing.assert_close(ctf_3d(params, sides), volume[..., :8])

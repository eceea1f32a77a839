"""The centre that attention gives: it turns and moves with the picture, to a part of a pixel."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modpose.config import PolarEncoderConfig
from modpose.geometry.grids import lattice
from modpose.geometry.rotations import rotation_2d
from modpose.model.encoders.centre import (
    Centre,
    IsotropicConvolution,
    coarse_grid,
    gaussian_weights,
)

BOX = 49
"""Odd, so that the middle of the pixels is the point that lattices turn about."""
SMALL = 0.4
"""Pixels: about a tenth of the spacing of the map."""


def make_centre(side: int = BOX, seed: int = 0, sharp: float = 3.0) -> Centre:
    """Build one that looks at a few places, as trained ones do."""
    torch.manual_seed(seed)
    centre = Centre(1, (side, side), PolarEncoderConfig(channels=16))
    last = centre.attention[-1]
    assert isinstance(last, IsotropicConvolution)
    with torch.no_grad():
        last.weight.mul_(sharp)
    return centre


def blobs(angle: float, shift: tuple[float, float], side: int = BOX) -> torch.Tensor:
    """Three blobs off the middle, the same object in any pose, (1, 1, side, side)."""
    places = torch.tensor([[6.0, -1.0], [-2.0, 5.0], [-3.0, -4.0]])
    turned = places @ rotation_2d(torch.tensor(angle)).T + torch.tensor(shift)
    away = (lattice((side, side))[:, None] - turned).square().sum(-1)
    image = (torch.tensor([1.0, 0.6, 0.8]) * torch.exp(-away / (2 * 1.5**2))).sum(-1)
    return image.reshape(1, 1, side, side)


@settings(max_examples=25, deadline=None)
@given(angle=st.floats(-math.pi, math.pi), seed=st.integers(0, 9))
def test_the_centre_turns_with_the_object(angle: float, seed: int) -> None:
    centre = make_centre(seed=seed)
    with torch.no_grad():
        first, found = centre(blobs(0.0, (0.0, 0.0)))[0], centre(blobs(angle, (0.0, 0.0)))[0]
    torch.testing.assert_close(found, rotation_2d(torch.tensor(angle)) @ first, atol=SMALL, rtol=0)


@settings(max_examples=25, deadline=None)
@given(x=st.floats(-5, 5), y=st.floats(-5, 5), seed=st.integers(0, 9))
def test_the_centre_moves_with_the_object(x: float, y: float, seed: int) -> None:
    centre = make_centre(seed=seed, sharp=0.3)
    with torch.no_grad():
        for one in centre.parameters():
            one.abs_()  # nothing but what is bright: the background does not move
        first, found = centre(blobs(0.0, (0.0, 0.0)))[0], centre(blobs(0.0, (x, y)))[0]
    torch.testing.assert_close(found - first, torch.tensor([x, y]), atol=SMALL, rtol=0)


def test_which_place_is_the_centre_depends_on_the_network() -> None:
    places = torch.stack([make_centre(seed=seed)(blobs(0.0, (0.0, 0.0)))[0] for seed in range(5)])
    assert places.std(0).norm() > 0.5  # the property above is not that of a centre of mass


@pytest.mark.parametrize("side", [24, 25, 50, 64])
def test_a_sharp_map_gives_the_place_of_its_peak(side: int) -> None:
    centre = make_centre(side)
    heat = torch.zeros(1, 1, len(centre.rows), len(centre.columns))
    heat[0, 0, 2, 5] = 1e5
    centre.attention = torch.nn.Sequential(Fixed(heat))
    x, y = centre(torch.zeros(1, 1, side, side))[0].tolist()
    spacing = side / len(centre.rows)
    assert x == pytest.approx(5.5 * spacing - 0.5 - side // 2, abs=1e-4)
    assert y == pytest.approx(2.5 * spacing - 0.5 - side // 2, abs=1e-4)


@pytest.mark.parametrize("side", [39, 65])
def test_a_bright_pixel_is_its_own_centre(side: int) -> None:
    centre, spacing = make_centre(side), side // 13
    centre.attention = torch.nn.Sequential(centre.attention[0], Brightest())
    image = torch.zeros(1, 1, side, side)
    image[0, 0, 4 * spacing + spacing // 2, 6 * spacing + spacing // 2] = 1.0  # where values are
    x, y = centre(image)[0].tolist()
    assert x == pytest.approx(6 * spacing + spacing // 2 - side // 2, abs=1e-4)
    assert y == pytest.approx(4 * spacing + spacing // 2 - side // 2, abs=1e-4)


class Brightest(torch.nn.Module):
    """A map with all of its weight on the brightest of the least smoothed values."""

    def forward(self, smoothed: torch.Tensor) -> torch.Tensor:
        return 1e5 * smoothed[:, :1]


def test_what_is_smoothed_moves_with_the_object_by_whole_values() -> None:
    smooth = make_centre(65).attention[0]
    image = blobs(0.0, (0.0, 0.0), 65)
    still, moved = smooth(image), smooth(image.roll((5, 10), (2, 3)))
    torch.testing.assert_close(moved[..., 1:, 2:], still[..., :-1, :-2], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("longest", [8, 13, 15, 30, 50, 60, 128])
def test_the_map_has_thirteen_values_a_side_or_one_a_pixel(longest: int) -> None:
    centre = Centre(1, (longest, longest), PolarEncoderConfig(channels=8))
    assert len(centre.rows) == len(centre.columns) == min(13, longest)


class Fixed(torch.nn.Module):
    """The same map whatever the image."""

    def __init__(self, heat: torch.Tensor) -> None:
        super().__init__()
        self.heat = heat

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.heat


def test_a_picture_without_any_object_has_its_centre_in_the_middle() -> None:
    for shape in ((24, 24), (25, 40)):
        centre = Centre(3, shape, PolarEncoderConfig(channels=8))
        x, y = centre(torch.zeros(2, 3, *shape))[0].tolist()
        assert x == pytest.approx((shape[1] - 1) / 2 - shape[1] // 2, abs=1e-4)
        assert y == pytest.approx((shape[0] - 1) / 2 - shape[0] // 2, abs=1e-4)


def test_kernels_are_the_same_turned_and_mirrored() -> None:
    torch.manual_seed(0)
    layer = IsotropicConvolution(2, 3)
    x = torch.randn(1, 2, 9, 9)
    turned, mirrored = layer(x.rot90(1, (2, 3))), layer(x.flip(3))
    torch.testing.assert_close(turned, layer(x).rot90(1, (2, 3)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mirrored, layer(x).flip(3), atol=1e-5, rtol=1e-5)


@given(n=st.integers(8, 80), side=st.integers(4, 13), width=st.sampled_from([0.5, 1.0, 2.0]))
def test_smoothing_keeps_what_is_constant_and_straight(n: int, side: int, width: float) -> None:
    side = min(side, n // 2)
    weights = gaussian_weights(n, side, width)
    inner = slice(side // 2 - 1, side // 2 + 1) if 8 * width < side else slice(0, 0)
    sums, means = weights.sum(1), weights @ torch.arange(n, dtype=torch.float32)
    assert (sums <= 1 + 1e-5).all()
    torch.testing.assert_close(sums[inner], torch.ones(len(sums[inner])), atol=2e-3, rtol=0)
    torch.testing.assert_close(means[inner], coarse_grid(n, side)[inner], atol=0.1, rtol=0)

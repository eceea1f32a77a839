from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modpose.errors import InputError
from modpose.evaluate.equivariance import move
from studies.target_vae.shapes import (
    SCALES,
    SHAPES,
    SYMMETRY,
    FieldSettings,
    SpriteSettings,
    draw_sprites,
    simulate_fields,
    simulate_sprites,
)


def one(shape: str, scale: float = 1.0, angle: float = 0.0, shift: tuple[float, float] = (0, 0)):
    index = np.array([SHAPES.index(shape)])
    place = np.array([shift], float)
    return draw_sprites(index, np.array([scale]), np.array([angle]), place, 64)[0]


# --- sprites ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "area", "extent"),
    [
        ("square", 20 * 20, (20, 20)),
        ("ellipse", np.pi * 13 * 7, (26, 14)),
        ("heart", 222, (19, 19)),  # counted in dSprites
    ],
)
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_sizes_are_those_of_dsprites(
    shape: str, area: float, extent: tuple[int, int], scale: float
) -> None:
    picture = one(shape, scale)
    assert picture.sum() == pytest.approx(area * scale**2, rel=0.05)
    rows, columns = np.nonzero(picture > 0.5)
    # a pixel on each side may be covered by half
    assert np.ptp(columns) + 1 == pytest.approx(scale * extent[0], abs=2)
    assert np.ptp(rows) + 1 == pytest.approx(scale * extent[1], abs=2)


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(SHAPES),
    st.floats(-360, 360),
    st.floats(-12, 12),
    st.floats(-12, 12),
    st.floats(0.5, 1.0),
)
def test_a_posed_sprite_is_the_upright_one_moved(
    shape: str, angle: float, x: float, y: float, scale: float
) -> None:
    drawn = one(shape, scale, angle, (x, y))
    moved = move(one(shape, scale)[None], angle, (x, y))[0]
    assert np.corrcoef(drawn.ravel(), moved.ravel())[0, 1] > 0.95  # edges are resampled
    assert moved.sum() == pytest.approx(drawn.sum(), rel=0.05)


@pytest.mark.parametrize("shape", SHAPES)
def test_each_shape_has_its_symmetry_and_no_more(shape: str) -> None:
    upright = one(shape)
    same = [k for k in range(1, 9) if np.abs(one(shape, angle=360 / k) - upright).sum() < 4]
    assert max(same) == SYMMETRY[shape]


def test_the_heart_points_along_y() -> None:
    rows, columns = np.nonzero(one("heart") > 0.5)
    tip = columns[rows == rows.max()]
    assert abs(tip.mean() - 32) <= 0.5 and np.ptp(tip) <= 3
    lobes = columns[rows == rows.min()]
    assert lobes.min() < 29 and lobes.max() > 35 and not (lobes == 32).any()


def test_sets_are_drawn_as_asked() -> None:
    images, truth = simulate_sprites(SpriteSettings(n=900, seed=1))
    assert images.shape == (900, 64, 64) and set(np.unique(images)) == {0.0, 1.0}
    counts = truth["class"].value_counts()
    assert set(counts.index) == set(SHAPES) and counts.min() > 240
    assert set(truth["scale"]) == set(SCALES)
    assert abs(np.exp(1j * np.deg2rad(truth["angle_deg"])).mean()) < 0.1
    assert truth[["shift_x", "shift_y"]].abs().to_numpy().max() <= 16
    y, x = np.mgrid[:64, :64] - 32
    light = images.sum((1, 2))
    ellipses = (truth["class"] == "ellipse").to_numpy()
    centre = np.stack([(images * g).sum((1, 2)) / light for g in (x, y)], 1)[ellipses]
    true = truth[["shift_x", "shift_y"]].to_numpy()[ellipses]
    assert np.abs(centre - true).max() < 0.5
    again, same = simulate_sprites(SpriteSettings(n=900, seed=1))
    np.testing.assert_array_equal(images, again)
    assert truth.equals(same)


def test_sprites_beyond_the_edge_are_cut_and_grey_ones_are_smooth() -> None:
    images, _ = simulate_sprites(SpriteSettings(n=60, reach_px=90.0, seed=2))
    light = images.sum((1, 2))
    assert (light == 0).any() and (light > 0).any()
    grey, _ = simulate_sprites(SpriteSettings(n=20, binary=False, seed=2))
    assert ((grey > 0) & (grey < 1)).any()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n": 0}, "n is 0"),
        ({"box": 8}, "box is 8, expected at least 16"),
        ({"reach_px": -1.0}, "reach_px is -1.0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_sprites_refuse(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        SpriteSettings(**options)


# --- fields -----------------------------------------------------------------------------------


def test_objects_lie_where_the_truth_says_and_apart() -> None:
    pictures, truth = simulate_sprites(SpriteSettings(n=30, box=40, reach_px=5.0, seed=3))
    centres = truth[["shift_x", "shift_y"]].to_numpy()
    settings = FieldSettings(n=8, side=150, objects=(2, 5), apart_px=35.0, seed=4)
    fields, objects = simulate_fields(pictures, centres, settings)
    assert fields.shape == (8, 150, 150)
    for number, own in objects.groupby("field"):
        expected = np.zeros((190, 190), np.float32)
        places = own[["shift_x", "shift_y"]].to_numpy()
        for place, picture in zip(places, own["picture"], strict=True):
            x, y = np.rint(place + 75 - centres[picture]).astype(int)  # of the picture's centre
            window = expected[y : y + 40, x : x + 40]
            np.maximum(window, pictures[picture], out=window)
        np.testing.assert_array_equal(fields[number], expected[20:170, 20:170])
        gaps = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1))
        assert (gaps[np.triu_indices(len(places), 1)] >= 35).all()
        assert own["picture"].is_unique and len(own) <= 5
    assert objects.groupby("field").size().min() >= 1


def test_where_there_is_no_room_fewer_are_placed() -> None:
    pictures = np.ones((9, 20, 20), np.float32)
    settings = FieldSettings(n=1, side=40, objects=(9, 9), apart_px=100.0)
    _, objects = simulate_fields(pictures, np.zeros((9, 2)), settings)
    assert len(objects) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"side": 10}, "side is 10"),
        ({"objects": (5, 2)}, "objects is"),
        ({"objects": (1, 9)}, "pictures is 4, expected at least 9"),
        ({"n": 0}, "the number of images is 0"),
    ],
)
def test_fields_refuse(options: dict[str, Any], said: str) -> None:
    def simulate() -> None:
        settings = FieldSettings(**{"objects": (1, 2), **options})
        simulate_fields(np.ones((4, 20, 20), np.float32), np.zeros((4, 2)), settings)

    with pytest.raises(InputError, match=said):
        simulate()
    with pytest.raises(InputError, match="the shapes is"):
        simulate_fields(np.ones((4, 20, 20), np.float32), np.zeros((3, 2)), FieldSettings())

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modpose.errors import InputError
from modpose.simulate.digits import glyphs, transform


def blobs(n: int, size: int) -> np.ndarray:
    """Smooth asymmetric pictures, the analytic answer to which is known: two Gaussians."""
    return np.repeat(blob_at(size, 0.0, (0.0, 0.0))[None], n, axis=0)


def blob_at(size: int, angle_deg: float, shift: tuple[float, float]) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - size // 2.0
    a = np.deg2rad(angle_deg)
    out = np.zeros((size, size))
    for cx, cy, height in [(4.0, 1.0, 0.8), (-2.0, 3.0, 0.5)]:
        px = np.cos(a) * cx - np.sin(a) * cy + shift[0]
        py = np.sin(a) * cx + np.cos(a) * cy + shift[1]
        out += height * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 1.8**2))
    return out


@pytest.mark.parametrize(("size", "box"), [(28, 28), (28, 50), (27, 40), (28, 33)])
def test_the_copy_is_the_signal_at_the_posed_coordinates(size: int, box: int) -> None:
    images, truth = transform(blobs(20, size), box=box, shift_std_px=1.0, seed=4)
    assert images.shape == (20, box, box)
    assert images.dtype == np.float32
    for image, row in zip(images, truth.itertuples(), strict=True):
        expected = blob_at(box, row.angle_deg, (row.shift_x, row.shift_y))
        np.testing.assert_allclose(image, expected, atol=6e-3)


def test_no_angle_and_no_shift_is_the_picture_itself() -> None:
    pictures = glyphs("Rg7", 28)
    images, truth = transform(pictures, box=28, angle_std_deg=0.0)
    np.testing.assert_allclose(images, pictures, atol=1e-5)
    assert (truth == 0).all().all()
    larger, _ = transform(pictures, box=41, angle_std_deg=0.0)
    np.testing.assert_allclose(larger[:, 6:34, 6:34], pictures, atol=1e-5)  # 20 − 14 = 6
    assert larger[:, :5].max() < 1e-5


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31))
def test_values_stay_between_zero_and_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images, _ = transform(rng.integers(0, 2, (5, 9, 12)) * 1.0, box=14, shift_std_px=2.0, seed=seed)
    assert images.min() >= 0
    assert images.max() <= 1


def test_angles_and_shifts_are_drawn_as_asked() -> None:
    pictures = np.zeros((4000, 1, 1))
    _, uniform = transform(pictures, box=1, shift_std_px=3.0, seed=1)
    assert ((uniform.angle_deg > -180) & (uniform.angle_deg <= 180)).all()
    assert abs(np.exp(1j * np.deg2rad(uniform.angle_deg)).mean()) < 5 / np.sqrt(2 * 4000)
    assert uniform[["shift_x", "shift_y"]].std().to_numpy() == pytest.approx(3.0, rel=0.06)
    _, narrow = transform(pictures, box=1, angle_std_deg=20.0, seed=1)
    assert narrow.angle_deg.std() == pytest.approx(20.0, rel=0.06)
    _, wide = transform(pictures, box=1, angle_std_deg=300.0, seed=1)
    assert ((wide.angle_deg > -180) & (wide.angle_deg <= 180)).all()


def test_a_seed_is_a_data_set() -> None:
    pictures = glyphs("AB", 20)
    first, again, other = (transform(pictures, box=20, seed=s) for s in (5, 5, 6))
    np.testing.assert_array_equal(first[0], again[0])
    assert not first[1].equals(other[1])


@pytest.mark.parametrize(
    ("pictures", "options", "sentence"),
    [
        (np.zeros((4, 4)), {"box": 4}, "expected .N, h, w."),
        (np.full((1, 4, 4), 255.0), {"box": 4}, "255 to 255, expected 0 to 1"),
        (np.full((1, 4, 4), np.nan), {"box": 4}, "nan to nan, expected 0 to 1"),
        (np.zeros((1, 4, 4)), {"box": 0}, "box is 0"),
        (np.zeros((1, 4, 4)), {"box": 4, "shift_std_px": -1.0}, "shift_std_px is -1.0"),
        (np.zeros((1, 4, 4)), {"box": 4, "angle_std_deg": float("nan")}, "angle_std_deg is nan"),
        (np.zeros((1, 4, 4)), {"box": 4, "seed": -1}, "seed is -1"),
    ],
)
def test_refuses(pictures: np.ndarray, options: dict[str, float], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        transform(pictures, **options)  # type: ignore[arg-type]


def test_glyphs_are_different_centred_and_inside() -> None:
    characters = "0123456789"
    pictures = glyphs(characters, 28)
    assert pictures.shape == (10, 28, 28)
    assert pictures.min() == 0
    assert pictures.max() == 1
    for picture in pictures:
        rows, columns = np.nonzero(picture > 0.2)
        assert abs((rows.min() + rows.max()) / 2 - 14) <= 1
        assert abs((columns.min() + columns.max()) / 2 - 14) <= 1
        assert picture[0].max() == picture[-1].max() == picture[:, 0].max() == 0
    flat = pictures.reshape(10, -1)
    correlation = np.corrcoef(flat) - np.eye(10)
    assert correlation.max() < 0.95


def test_glyphs_refuse_nothing_and_no_room() -> None:
    with pytest.raises(InputError, match="at least 8 pixels"):
        glyphs("A", 4)
    with pytest.raises(InputError, match="one character"):
        glyphs("", 28)

"""Preprocessing against brute force, splitting, batching, statistics."""

from __future__ import annotations

import threading

import numpy as np
import pandas as pd
import pytest
import scipy.signal
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from modpose.config import DataConfig
from modpose.data import dataset as dataset_module
from modpose.data import preprocess
from modpose.data.dataset import Dataset, split
from modpose.data.mrc import write_mrcs
from modpose.data.particles import Particles
from modpose.data.source import Source, open_source
from modpose.data.stack import ArrayStack, Stack
from modpose.errors import InputError
from modpose.geometry.windows import disc, squared_radius


def pictures(n: int = 20, side: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, side, side)).astype(np.float32)


def dataset(array, *, seed: int = 0, ctf: bool = False, **config) -> Dataset:
    return Dataset(open_source(np.asarray(array)), DataConfig(**config), seed=seed, ctf=ctf)


def images(data: Dataset) -> np.ndarray:
    return data.batch(np.arange(data.n)).image.numpy()


# --- preprocessing ----------------------------------------------------------------------------


def band_limited(side: int, dims: int, seed: int, waves: int = 1) -> np.ndarray:
    """A real function of (i - n // 2) / n with waves of at most ``waves`` periods a box."""
    rng = np.random.default_rng(seed)
    axis = (np.arange(side) - side // 2) / side
    grid = np.meshgrid(*[axis] * dims, indexing="ij")
    out = np.full([side] * dims, rng.normal())
    for _ in range(5):
        k = rng.integers(-waves, waves + 1, dims)
        phase = sum(ki * g for ki, g in zip(k, grid, strict=True))
        out += rng.normal() * np.cos(2 * np.pi * phase + rng.uniform(0, 6))
    return out[None, None].astype(np.float32)


@settings(deadline=None)
@given(
    n=st.integers(5, 24),
    m=st.integers(3, 24),
    dims=st.sampled_from([2, 3]),
    seed=st.integers(0, 99),
)
def test_fourier_cropping_resamples_band_limited_images_exactly(n, m, dims, seed):
    assume(m <= n)
    waves = (m - 1) // 2
    small = preprocess.fourier_crop(band_limited(n, dims, seed, waves), m)
    np.testing.assert_allclose(small, band_limited(m, dims, seed, waves), atol=2e-5)
    assert small.dtype == np.float32


@given(n=st.integers(4, 20), m=st.integers(2, 20), value=st.floats(-5, 5, width=32))
def test_fourier_cropping_keeps_constants(n, m, value):
    assume(m <= n)
    flat = np.full((1, 2, n, n), value, np.float32)
    np.testing.assert_allclose(preprocess.fourier_crop(flat, m), value, atol=1e-5)


def test_fourier_cropping_is_scipy_resampling_of_each_axis():
    x = pictures(3, 12)[:, None]
    theirs = scipy.signal.resample(scipy.signal.resample(x, 9, axis=2), 9, axis=3)
    # scipy starts its grid at the first pixel, we put the centre on the centre.
    shift = np.exp(2j * np.pi * np.fft.fftfreq(9) * 9 * (6 / 12 - 4 / 9))
    moved = np.fft.ifft2(np.fft.fft2(theirs) * shift[:, None] * shift[None, :]).real
    np.testing.assert_allclose(preprocess.fourier_crop(x, 9), moved, atol=1e-5)


@given(n=st.integers(2, 15), c=st.integers(2, 15), dims=st.sampled_from([2, 3]))
def test_cropping_keeps_the_centre_in_the_centre(n, c, dims):
    assume(c <= n)
    x = np.zeros((1, 1, *[n] * dims), np.float32)
    x[(0, 0, *[n // 2] * dims)] = 1
    small = preprocess.crop(x, c)
    assert small.shape == (1, 1, *[c] * dims)
    assert small[(0, 0, *[c // 2] * dims)] == 1


@pytest.mark.parametrize("shape", [(8, 8), (9, 9), (8, 12), (7, 7, 7)])
def test_the_mask_is_a_disc_about_the_centre(shape):
    inside = disc(shape, 0.75)
    for index in np.ndindex(shape):
        distance = np.sqrt(sum((i - n // 2) ** 2 for i, n in zip(index, shape, strict=True)))
        assert inside[index] == (distance <= 0.75 * min(shape) / 2)


def test_masked_pixels_are_zero():
    data = dataset(pictures() + 5, mask=0.5)
    assert (images(data)[:, 0][:, ~data.mask] == 0).all()
    np.testing.assert_array_equal(images(data)[:, 0][:, data.mask], (pictures() + 5)[:, data.mask])


def test_images_are_normalised_one_by_one():
    x = images(dataset(pictures() * 7 + 3, normalize="image"))
    np.testing.assert_allclose(x.mean(axis=(1, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(x.std(axis=(1, 2, 3)), 1, atol=1e-5)


def test_the_background_decides_where_asked():
    x = images(dataset(pictures() * 7 + 3, normalize="background"))
    outside = ~disc((8, 8), 1.0)
    np.testing.assert_allclose(x[:, 0, outside].mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(x[:, 0, outside].std(axis=1), 1, atol=1e-5)


def test_a_constant_background_is_refused():
    flat = pictures() * disc((8, 8), 1.0)
    with pytest.raises(InputError, match="array, image 1: its background is constant"):
        images(dataset(flat, normalize="background"))


@pytest.mark.parametrize("invert", [False, True])
def test_bytes_become_fractions(invert):
    values = np.random.default_rng(0).integers(0, 200, (4, 8, 8)).astype(np.uint8)
    x = images(dataset(values, normalize="range", invert=invert))[:, 0]
    np.testing.assert_allclose(x, 1 - values / 255 if invert else values / 255, atol=1e-6)


def test_fractions_stay_and_other_numbers_are_scaled():
    fractions = np.random.default_rng(0).uniform(0, 0.7, (4, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(images(dataset(fractions, normalize="range"))[:, 0], fractions)
    data = dataset(pictures(), normalize="range")
    low, high = pictures().min(), pictures().max()
    assert data.value_range == pytest.approx((low, high))
    np.testing.assert_allclose(images(data)[:, 0], (pictures() - low) / (high - low), atol=1e-6)
    given_range = Dataset(
        open_source(pictures()), DataConfig(normalize="range"), seed=0, value_range=(-1.0, 1.0)
    )
    np.testing.assert_allclose(
        images(given_range)[:, 0], np.clip((pictures() + 1) / 2, 0, 1), atol=1e-6
    )


def test_the_order_is_crop_box_invert():
    x = pictures(3, 16)
    expected = -preprocess.fourier_crop(preprocess.crop(x[:, None], 12), 6)
    np.testing.assert_allclose(images(dataset(x, crop=12, box=6, invert=True)), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "config", "sentence"),
    [
        ((2, 8, 8), {"crop": 9}, "data.crop: the size is 9, expected at most 8 px"),
        ((2, 8, 8), {"box": 9}, "data.box: the size is 9, expected at most 8 px"),
        ((2, 8, 6), {"box": 4}, r"the shape is 8x6, expected a square for data\.box"),
    ],
)
def test_sizes_that_do_not_fit(shape, config, sentence):
    with pytest.raises(InputError, match=sentence):
        dataset(np.random.default_rng(0).normal(size=shape), **config)


def test_oblong_images_are_fine_and_oblong_volumes_are_not(tmp_path):
    assert dataset(np.random.default_rng(0).normal(size=(3, 8, 6))).shape == (8, 6)
    write_mrcs(tmp_path / "a.map", np.random.default_rng(0).normal(size=(1, 8, 6, 7)), 1.0)
    source = open_source(tmp_path / "a.map")
    with pytest.raises(InputError, match="the shape of the volumes is 8x6x7, expected a cube"):
        Dataset(source, DataConfig(), seed=0)
    assert Dataset(source, DataConfig(crop=6), seed=0).shape == (6, 6, 6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named(tmp_path, bad):
    x = pictures()
    x[6, 2, 3] = bad
    write_mrcs(tmp_path / "a.mrcs", x, 1.0)
    data = Dataset(open_source(tmp_path / "a.mrcs", index=np.array([3, 6])), DataConfig(), seed=0)
    with pytest.raises(InputError, match=r"a\.mrcs, image 7: the image holds a value that is NaN"):
        data.batch(np.array([0, 1]))


def test_constant_images_are_named():
    x = pictures()
    x[4] = 2
    with pytest.raises(InputError, match="array, image 5: the image is constant"):
        images(dataset(x))


# --- split and batches ------------------------------------------------------------------------


@given(n=st.integers(1, 200), fraction=st.floats(0, 0.99), seed=st.integers(0, 9))
def test_a_split_is_a_partition(n, fraction, seed):
    train, val = split(n, fraction, seed)
    assert sorted([*train, *val]) == list(range(n))
    assert (np.diff(train) > 0).all()
    assert (np.diff(val) > 0).all()
    assert len(train) >= 1
    assert (len(val) >= 1) == (fraction > 0 and n > 1)
    assert abs(len(val) - fraction * n) <= 1
    np.testing.assert_array_equal(split(n, fraction, seed)[1], val)


def test_another_seed_gives_another_split():
    assert split(100, 0.1, 0)[1].tolist() != split(100, 0.1, 1)[1].tolist()


@pytest.mark.parametrize("size", [1, 3, 20, 50])
def test_batches_cover_the_images_once(size):
    data = dataset(pictures())
    index = np.array([5, 3, 9, 11, 2, 7, 0])
    plain = list(data.batches(index, size))
    assert torch.cat([b.index for b in plain]).tolist() == index.tolist()
    assert [len(b) for b in plain] == [size] * (7 // size) + ([7 % size] if 7 % size else [])
    shuffled = list(data.batches(index, size, generator=np.random.default_rng(0)))
    order = torch.cat([b.index for b in shuffled]).numpy()
    assert sorted(order) == sorted(index)
    assert order.tolist() != index.tolist()
    x = torch.cat([b.image for b in shuffled]).numpy()
    np.testing.assert_array_equal(x[:, 0], pictures()[order])
    assert list(data.batches(np.array([], dtype=np.int64), size)) == []


def test_the_same_generator_gives_the_same_order():
    data = dataset(pictures())
    orders = [
        [b.index.tolist() for b in data.batches(data.train, 4, generator=np.random.default_rng(3))]
        for _ in range(2)
    ]
    assert orders[0] == orders[1]


def test_an_error_while_reading_ahead_reaches_the_caller_and_no_thread_stays():
    x = pictures()
    x[10] = np.nan
    data = dataset(x)
    batches = data.batches(np.arange(20), 5)
    assert next(batches).index.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match="image 11"):
        list(batches)
    early = dataset(pictures()).batches(np.arange(20), 5)
    next(early)
    early.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("batches")]


class Counting(Stack):
    """Counts what is read."""

    def __init__(self, inner: Stack) -> None:
        self.n, self.shape, self.channels = inner.n, inner.shape, inner.channels
        self.pixel_size, self.name, self.dtype = 1.0, "counting", inner.dtype
        self.inner, self.rows = inner, []

    def _read_into(self, rows, out):
        self.rows += rows.tolist()
        out[...] = self.inner.read(rows)


@pytest.mark.parametrize("cached", [True, False])
def test_small_stacks_are_read_once_and_large_ones_every_time(monkeypatch, cached):
    if not cached:
        monkeypatch.setattr(dataset_module, "CACHE_BYTES", 0)
    stack = Counting(ArrayStack(pictures()))
    data = Dataset(open_source(stack), DataConfig(normalize="image"), seed=0)
    assert stack.rows == []
    first, second = images(data), images(data)
    np.testing.assert_array_equal(first, second)
    assert sorted(stack.rows) == sorted(list(range(20)) * (1 if cached else 2))


def test_what_is_changed_in_a_batch_does_not_change_the_data():
    data = dataset(pictures())
    data.batch(np.arange(3)).image.zero_()
    np.testing.assert_array_equal(images(data)[:, 0], pictures())


# --- pixel size, CTF, statistics --------------------------------------------------------------


def test_pixel_size_and_ctf_follow_the_fourier_crop():
    table = pd.DataFrame(
        {
            "rlnDefocusU": np.arange(20) * 100.0 + 1e4,
            "rlnVoltage": 300.0,
            "rlnSphericalAberration": 2.7,
            "rlnAmplitudeContrast": 0.1,
            "rlnImagePixelSize": 1.5,
        }
    )
    source = Source(ArrayStack(pictures(side=12)), Particles(table, format="star"))
    data = Dataset(source, DataConfig(crop=10, box=5), seed=0, ctf=True)
    assert data.pixel_size == pytest.approx(3.0)
    batch = data.batch(np.array([7, 2]))
    assert batch.ctf.dtype == torch.float32
    assert batch.ctf[:, 0].tolist() == [3.0, 3.0]
    assert batch.ctf[:, 1].tolist() == [10700.0, 10200.0]
    assert Dataset(source, DataConfig(), seed=0).batch(np.array([0])).ctf is None


def test_no_ctf_where_the_table_has_none():
    assert dataset(pictures(), ctf=True).ctf is None


def test_statistics_of_all_images_and_of_a_sample():
    x = pictures() * 3 + 1
    found = dataset(x).statistics()
    expected = (x.mean(), x.std(), x.min(), x.max())
    np.testing.assert_allclose((found.mean, found.std, found.min, found.max), expected, rtol=1e-5)
    stack = Counting(ArrayStack(np.random.default_rng(0).normal(size=(1500, 4, 4))))
    Dataset(open_source(stack), DataConfig(), seed=0).statistics()
    assert len(stack.rows) == 1000
    assert (stack.rows[0], stack.rows[-1]) == (0, 1499)


def test_particles_and_galaxies_become_batches(some_data):
    source = open_source(some_data / "spa/apoferritin_empiar10146_64.star")
    data = Dataset(
        source, DataConfig(box=32, invert=True, normalize="background", mask=0.9), seed=0
    )
    assert (data.shape, data.pixel_size, len(data.val)) == ((32, 32), 6.0, 137)
    for batch in data.batches(data.train, 256, generator=np.random.default_rng(0)):
        assert torch.isfinite(batch.image).all()
    # Inverted, apoferritin is a bright shell of about 45 A about the centre.
    mean = images(data)[:, 0].mean(axis=0)
    radius = np.sqrt(squared_radius((32, 32)))
    rings = [mean[(radius >= r) & (radius < r + 1)].mean() for r in range(12)]
    assert 36 <= 6 * np.argmax(rings) <= 54
    assert max(rings) > 0.5
    particles = open_source(some_data / "spa/empiar_10076_7.cs")
    seven = Dataset(particles, DataConfig(box=64), seed=0, ctf=True)
    assert seven.pixel_size == pytest.approx(1.31 * 5, rel=1e-4)
    assert seven.ctf[:, 0] == pytest.approx(1.31 * 5, rel=1e-4)
    galaxies = open_source(f"{some_data}/galaxy/galaxy_zoo_train_64.npz:images")
    colour = Dataset(galaxies, DataConfig(normalize="range"), seed=0)
    found = colour.statistics()
    assert colour.channels == 3
    assert 0 <= found.min < found.max <= 1


def test_batches_that_several_threads_read_keep_their_order(monkeypatch):
    monkeypatch.setattr(dataset_module, "CACHE_BYTES", 0)
    first = threading.Event()

    class Late(Counting):
        def _read_into(self, rows, out):
            if 0 in rows:
                assert first.wait(600)  # until a later batch is read
            super()._read_into(rows, out)
            if 0 not in rows:
                first.set()

    data = Dataset(open_source(Late(ArrayStack(pictures()))), DataConfig(normalize="image"), seed=0)
    parts = [np.arange(k, k + 4) for k in range(0, 20, 4)]
    found = torch.cat([batch.index for batch in data.each(parts)])
    assert found.tolist() == list(range(20))

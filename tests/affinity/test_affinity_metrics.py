"""Metrics against brute force, closed forms and the invariances that they claim."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from affinity_phantoms import chain, draw, turns
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import lpmv

from modpose.affinity import (
    AlignedFsc,
    Fsc,
    MeanAbsoluteDifference,
    MeanDifference,
    PowerSpectrum,
    Soap,
    compute_affinity,
)
from modpose.affinity.align import rotation_grid
from modpose.affinity.foreground import centres_of_mass, otsu_threshold
from modpose.affinity.harmonics import circular_power, legendre_table, spherical_power
from modpose.affinity.spectra import refuse_too_large
from modpose.errors import InputError
from modpose.fourier.shells import make_shells


def naive_fsc(a: np.ndarray, b: np.ndarray, kmax: int) -> float:
    """Correlate shell by shell over the whole transform, as the definition says."""
    one, two = np.fft.fftn(a.astype(float)), np.fft.fftn(b.astype(float))
    mesh = np.meshgrid(*[np.fft.fftfreq(side) for side in a.shape], indexing="ij")
    shell = np.rint(np.sqrt(sum(axis**2 for axis in mesh)) * min(a.shape)).astype(int)
    total = weighed = 0.0
    for k in range(1, kmax + 1):
        inside = shell == k
        power = (abs(one[inside]) ** 2).sum() * (abs(two[inside]) ** 2).sum()
        weighed += inside.sum() * (one[inside] * two[inside].conj()).sum().real / np.sqrt(power)
        total += inside.sum()
    return weighed / total


def described(metric: Fsc | PowerSpectrum | Soap, images: Sequence[np.ndarray]) -> np.ndarray:
    return metric.compare(metric.describe(torch.from_numpy(np.stack(images).astype(np.float32))))


# --- Fourier shell correlation ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "kmax"), [((8, 8, 8), None), ((9, 9, 9), 3), ((12, 12), None), ((10, 15), 4)]
)
def test_the_product_is_the_weighted_mean_of_the_shells(
    shape: tuple[int, ...], kmax: int | None
) -> None:
    images = np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32) + 5
    found = described(Fsc(kmax), list(images))
    for i in range(4):
        for j in range(4):
            expected = naive_fsc(images[i], images[j], kmax or min(shape) // 2)
            assert found[i, j] == pytest.approx(expected, abs=1e-5)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    gain=st.floats(0.01, 100),
    offset=st.floats(-100, 100),
    side=st.integers(4, 9),
)
def test_gain_and_offset_do_not_matter_and_the_matrix_is_positive(
    seed: int, gain: float, offset: float, side: int
) -> None:
    images = np.random.default_rng(seed).normal(size=(5, side, side)).astype(np.float32)
    found = described(Fsc(), list(images))
    other = images.copy()
    other[2] = -gain * other[2] + offset
    flipped = described(Fsc(), list(other))
    sign = np.where(np.arange(5) == 2, -1, 1)
    np.testing.assert_allclose(flipped, found * sign * sign[:, None], atol=2e-3)
    assert np.linalg.eigvalsh(found)[0] > -1e-5
    assert (np.diag(found) == 1).all()


def test_every_coefficient_of_a_shell_is_counted_once() -> None:
    for shape in [(8, 8, 8), (7, 7), (6, 9)]:
        mesh = np.meshgrid(*[np.fft.fftfreq(side) for side in shape], indexing="ij")
        shell = np.rint(np.sqrt(sum(axis**2 for axis in mesh)) * min(shape)).astype(int)
        expected = np.bincount(shell.ravel())[1 : min(shape) // 2 + 1]
        np.testing.assert_array_equal(make_shells(shape).count.numpy(), expected)


def test_shells_without_power_do_not_count() -> None:
    """A band-limited image is itself at full length, and rounding noise decides nothing."""
    x = np.arange(16) * 2 * np.pi / 16
    wave = np.cos(x)[:, None] + np.zeros(16)
    other = np.cos(x + 0.3)[:, None] + np.zeros(16)
    found = described(Fsc(), [wave, other])
    assert found[0, 1] == pytest.approx(np.cos(0.3), abs=1e-5)


@pytest.mark.parametrize("kmax", [0, 5, -1])
def test_a_limit_outside_the_box_is_refused(kmax: int) -> None:
    with pytest.raises(InputError, match="1 to 4"):
        compute_affinity(np.random.default_rng(0).normal(size=(2, 8, 8)), Fsc(kmax))


def test_what_does_not_fit_into_memory_is_refused() -> None:
    with pytest.raises(InputError, match="GiB"):
        refuse_too_large(10**7, 10**7, "fsc")


# --- differences ------------------------------------------------------------------------------


def test_mean_differences_are_those_of_the_paper() -> None:
    images = np.random.default_rng(0).normal(size=(4, 6, 6)) + np.arange(4)[:, None, None]
    signed = compute_affinity(images, MeanDifference(raw=True)).values
    absolute = compute_affinity(images, MeanAbsoluteDifference(raw=True)).values
    for i in range(4):
        for j in range(4):
            # single-precision sums of 36 numbers of up to 5: 36 roundings of 3e-7
            assert signed[i, j] == pytest.approx((images[i] - images[j]).mean(), abs=1e-5)
            assert absolute[i, j] == pytest.approx(abs(images[i] - images[j]).mean(), abs=1e-5)
    np.testing.assert_allclose(signed, -signed.T)
    for raw, metric in ((signed, MeanDifference()), (absolute, MeanAbsoluteDifference())):
        affinity = compute_affinity(images, metric).values
        np.testing.assert_allclose(affinity, 1 - abs(raw) / abs(raw).max(), atol=1e-6)


def test_the_published_mean_difference_sees_nothing_but_mass() -> None:
    image = np.random.default_rng(0).normal(size=(6, 6))
    pair = np.stack([image, image[::-1]])
    assert compute_affinity(pair, MeanDifference(raw=True)).values[0, 1] == pytest.approx(0)
    assert compute_affinity(pair, MeanAbsoluteDifference(raw=True)).values[0, 1] > 0.1


# --- harmonics --------------------------------------------------------------------------------


def test_the_legendre_table_is_that_of_scipy() -> None:
    from math import factorial, pi, sqrt

    height = np.linspace(-1, 1, 7)
    table = legendre_table(height, 6)
    for degree in range(7):
        for m in range(degree + 1):
            scale = sqrt(
                (2 * degree + 1) / (4 * pi) * factorial(degree - m) / factorial(degree + m)
            )
            expected = scale * lpmv(m, degree, height)
            np.testing.assert_allclose(table[:, degree, m], expected, atol=1e-12)
    assert not table[:, 2, 3:].any()


def test_a_harmonic_has_power_in_its_own_degree() -> None:
    """x is of degree 1, 3 z^2 - r^2 and x y of 2, x y z of 3; and Parseval holds."""
    axis = np.arange(25) - 12.0
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    r = np.sqrt(x**2 + y**2 + z**2)
    envelope = np.exp(-((r - 6) ** 2) / 8)
    for degree, form in ((1, x), (2, 3 * z**2 - r**2), (2, x * y), (3, x * y * z)):
        volume = torch.from_numpy(form / np.maximum(r, 1) ** degree * envelope).float()[None]
        power = spherical_power(volume, torch.tensor([[12.0, 12, 12]]), 5)[0].sum(dim=0)
        assert power.argmax() == degree
        assert power[degree] / power.sum() > 0.99
        assert power.sum() == pytest.approx(float(volume.square().sum()), rel=0.15)


def test_a_wave_round_the_centre_has_power_in_its_own_order() -> None:
    axis = np.arange(33) - 16.0
    y, x = np.meshgrid(axis, axis, indexing="ij")
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    image = torch.from_numpy(np.cos(3 * angle + 1) * np.exp(-((r - 9) ** 2) / 8)).float()[None]
    power = circular_power(image, torch.tensor([[16.0, 16.0]]), 6)[0].sum(dim=0)
    assert power[3] / power.sum() > 0.99
    assert power.sum() == pytest.approx(float(image.square().sum()), rel=0.1)


def test_the_mean_of_the_ball_is_taken_off() -> None:
    flat = torch.full((1, 9, 9, 9), 3.0)
    assert spherical_power(flat, torch.tensor([[4.0, 4, 4]]), 3).abs().max() < 1e-6
    assert circular_power(torch.full((1, 9, 9), 3.0), torch.tensor([[4.0, 4]]), 3).max() < 1e-6


@pytest.mark.parametrize("d", [2, 3])
def test_power_does_not_depend_on_the_rotation(d: int) -> None:
    objects = [chain(seed, d, spread=2.5) for seed in range(3)]
    poses = turns(6, 7, d)
    images = [
        draw(places, 21, poses[2 * i + j]) for i, places in enumerate(objects) for j in (0, 1)
    ]
    images = [gain * image - 3 for gain, image in zip((1, 2, 3, 4, 5, 6), images, strict=True)]
    found = described(PowerSpectrum(), images)
    same = [found[2 * i, 2 * i + 1] for i in range(3)]
    others = [found[i, j] for i in range(6) for j in range(6) if i // 2 != j // 2]
    assert min(same) > 0.995
    assert max(others) < min(same) - 0.01


def test_an_object_off_its_centre_is_found_by_its_mass() -> None:
    places, shift = chain(3, 3, spread=1.5), np.array([2.0, -1.0, 3.0])
    images = [draw(places, 24), draw(places, 24, turns(1, 2)[0], shift)]
    by_mass = described(PowerSpectrum(centre="mass"), images)[0, 1]
    assert by_mass > 0.98 > described(PowerSpectrum(), images)[0, 1] + 0.02
    centres = centres_of_mass(torch.from_numpy(np.stack(images))).numpy()
    np.testing.assert_allclose(centres[1] - centres[0], shift, atol=0.3)


def test_zeta_is_a_power() -> None:
    images = [draw(chain(seed, 2), 15) for seed in range(3)]
    plain, third = described(PowerSpectrum(), images), described(PowerSpectrum(zeta=3), images)
    np.testing.assert_allclose(third, plain**3, atol=1e-9)


@pytest.mark.parametrize(
    "bad", [{"lmax": -1}, {"zeta": 0.0}, {"zeta": float("nan")}, {"centre": "middle"}]
)
def test_settings_of_the_power_spectrum_are_checked(bad: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(bad))):
        PowerSpectrum(**bad)  # type: ignore[arg-type]


# --- foreground -------------------------------------------------------------------------------


def test_otsu_parts_two_levels_where_brute_force_does() -> None:
    rng = np.random.default_rng(0)
    image = np.where(rng.random((30, 30)) < 0.3, 4.0, 1.0) + rng.normal(size=(30, 30)) * 0.5
    found = otsu_threshold(image)

    def within(level: float) -> float:
        low, high = image[image <= level], image[image > level]
        return low.size * low.var() + high.size * high.var()

    levels = np.linspace(image.min(), image.max(), 400)[1:-1]
    assert within(found) <= min(map(within, levels)) * 1.001
    assert 1.5 < found < 3.5


# --- SOAP -------------------------------------------------------------------------------------


def test_soap_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dscribe", None)
    monkeypatch.setitem(sys.modules, "dscribe.descriptors", None)
    with pytest.raises(InputError, match=r"pip install 'modpose\[soap\]'"):
        compute_affinity(np.random.default_rng(0).normal(size=(2, 8, 8)), Soap())


@pytest.mark.filterwarnings("ignore")  # what its dependencies warn of when imported
def test_soap_does_not_depend_on_pose_and_sees_mirror_images_as_one() -> None:
    pytest.importorskip("dscribe", reason="the extra 'soap' is not installed")
    places = [chain(seed, 3, spread=2.0) for seed in (0, 1)]
    images = [
        draw(p, 20, r, s) for p in places for r, s in zip(turns(2, 5), np.eye(3), strict=False)
    ]
    found = described(Soap(), images)
    assert min(found[0, 1], found[2, 3]) > 0.99
    assert found[0, 2] < min(found[0, 1], found[2, 3]) - 0.005
    flat = draw(chain(1, 2), 20)
    assert described(Soap(), [flat, flat[:, ::-1]])[0, 1] == pytest.approx(1, abs=1e-6)
    with pytest.raises(InputError, match="largest value"):
        described(Soap(threshold=1e6), [flat, flat])


# --- alignment --------------------------------------------------------------------------------


@pytest.mark.parametrize(("d", "step"), [(2, 15.0), (3, 30.0)])
def test_a_turned_and_shifted_copy_is_found_again(d: int, step: float) -> None:
    side = 24 if d == 2 else 16
    places = chain(4, d, count=6, spread=3.0 if d == 2 else 1.8)
    other = chain(5, d, count=6, spread=3.0 if d == 2 else 1.8)
    shift = np.array([1.3, -0.6, 0.8])[:d]
    images = np.stack(
        [draw(places, side), draw(places, side, turns(1, 3, d)[0], shift), draw(other, side)]
    )
    limit = 5
    aligned = compute_affinity(images, AlignedFsc(limit, step, max_shift=3)).values
    as_they_lie = compute_affinity(images, Fsc(limit)).values
    assert aligned[0, 1] > 0.95
    assert aligned[0, 1] > aligned[0, 2] + 0.1
    assert (aligned >= as_they_lie - 1e-6).all()
    np.testing.assert_array_equal(aligned, aligned.T)


def test_without_shifts_or_turns_to_find_the_value_is_that_of_fsc() -> None:
    """Of an image with itself moved by whole pixels, the exact shift theorem holds."""
    image = draw(chain(2, 2, spread=2.0), 20)
    moved = np.roll(image, (2, -3), axis=(0, 1))
    found = compute_affinity(np.stack([image, moved]), AlignedFsc(6, 30.0, max_shift=4)).values
    assert found[0, 1] > 0.99
    held = compute_affinity(np.stack([image, moved]), AlignedFsc(6, 30.0, max_shift=0)).values
    assert held[0, 1] < 0.9


def test_the_rotations_cover_the_circle_and_the_sphere() -> None:
    flat = rotation_grid(2, 15.0)
    assert len(flat) == 24
    solid = rotation_grid(3, 30.0).double().numpy()
    np.testing.assert_allclose(
        solid @ solid.transpose(0, 2, 1), np.tile(np.eye(3), (len(solid), 1, 1)), atol=1e-5
    )
    traces = np.einsum("aij,bij->ab", turns(200, 1), solid).max(axis=1)
    assert np.degrees(np.arccos((traces - 1) / 2)).max() < 30


def test_settings_of_the_alignment_are_checked() -> None:
    with pytest.raises(InputError, match="step"):
        AlignedFsc(step_deg=0)
    with pytest.raises(InputError, match="max-shift"):
        AlignedFsc(max_shift=-1)


# --- the reference program's own images -------------------------------------------------------


def test_invariants_tell_the_published_volumes_apart(some_data: Path) -> None:
    with np.load(some_data / "affinity" / "affinity_volumes_64.npz") as data:
        volumes, classes = data["volumes"][::3].astype(np.float32), data["cls"][::3]
    small = volumes.reshape(-1, 32, 2, 32, 2, 32, 2).mean(axis=(2, 4, 6))
    values = compute_affinity(small, PowerSpectrum(centre="mass")).values.copy()
    np.fill_diagonal(values, -1)
    assert (classes[values.argmax(axis=1)] == classes).all()
    by_class = compute_affinity(small, PowerSpectrum(centre="mass"), labels=classes)
    assert by_class.names == ("1b23", "1dfo", "1dkg", "1e3p")
    assert by_class.is_positive()

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_ctf import calculate_ctf_2d

from modpose.errors import InputError
from modpose.observe.ctf import CtfColumn, apply_ctf, ctf_2d, electron_wavelength

TYPICAL = [1.5, 16000.0, 14000.0, 35.0, 300.0, 2.7, 0.1, 0.0, 0.0]

microscopes = st.tuples(
    st.floats(0.8, 6.0),
    st.floats(3000.0, 40000.0),
    st.floats(3000.0, 40000.0),
    st.floats(-180.0, 180.0),
    st.sampled_from([100.0, 120.0, 200.0, 300.0]),
    st.floats(0.0, 4.0),
    st.floats(0.0, 0.9),
    st.floats(0.0, 170.0),
    st.floats(0.0, 300.0),
)


def rows(*values: list[float], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype)


def direct_ctf(p: tuple[float, ...], kx: float, ky: float) -> float:
    """The physics, one frequency at a time: sin of RELION's phase, amplitude contrast as a shift.

    kx and ky are in cycles per pixel.
    """
    pixel, u, v, angle, kv, cs, w, phase, b = p
    # relativistic wavelength from the constants of nature, Å
    e, m, c, h = 1.602176634e-19, 9.1093837015e-31, 299792458.0, 6.62607015e-34
    volts = kv * 1e3
    wavelength = 1e10 * h / math.sqrt(2 * m * e * volts * (1 + e * volts / (2 * m * c**2)))
    sx, sy = kx / pixel, ky / pixel
    a = math.radians(angle)
    along, across = sx * math.cos(a) + sy * math.sin(a), -sx * math.sin(a) + sy * math.cos(a)
    s2 = sx**2 + sy**2
    defocus_s2 = u * along**2 + v * across**2
    chi = math.pi * wavelength * defocus_s2 - math.pi / 2 * cs * 1e7 * wavelength**3 * s2**2
    return math.sin(chi + math.radians(phase) + math.asin(w)) * math.exp(-b * s2 / 4)


@settings(max_examples=60, deadline=None)
@given(microscopes)
def test_agrees_with_the_direct_formula_at_every_kind_of_frequency(p: tuple[float, ...]) -> None:
    height, width = 12, 10
    ctf = ctf_2d(rows(list(p)), (height, width))[0].numpy()
    assert ctf.shape == (height, width // 2 + 1)
    for row, column in [(0, 0), (0, 3), (5, 0), (2, 4), (9, 2), (6, 5), (11, 1)]:
        ky = np.fft.fftfreq(height)[row]
        assert ctf[row, column] == pytest.approx(
            direct_ctf(p, np.fft.rfftfreq(width)[column], ky), abs=1e-7
        )


def test_wavelengths_of_the_textbook() -> None:
    # Williams & Carter, Transmission Electron Microscopy, table 1.2 (pm)
    kv = torch.tensor([100.0, 120.0, 200.0, 300.0], dtype=torch.float64)
    expected = torch.tensor([0.0370, 0.0335, 0.0251, 0.0197], dtype=torch.float64)
    torch.testing.assert_close(electron_wavelength(kv), expected, atol=5e-5, rtol=0)


@pytest.mark.parametrize(("u", "v", "angle"), [(9000, 9000, 0), (22000, 15000, 30), (9e3, 8e3, 77)])
def test_agrees_with_torch_ctf(u: float, v: float, angle: float) -> None:
    params = rows([1.3, u, v, angle, 300.0, 2.7, 0.07, 20.0, 0.0])
    theirs = calculate_ctf_2d(
        defocus=(u + v) / 2e4,
        astigmatism=(u - v) / 2e4,
        astigmatism_angle=torch.tensor(angle, dtype=torch.float64),
        voltage=300.0,
        spherical_aberration=2.7,
        amplitude_contrast=0.07,
        phase_shift=20.0,
        pixel_size=1.3,
        image_shape=(32, 24),
        rfft=True,
        fftshift=False,
    )
    ours = ctf_2d(params, (32, 24))[0]
    # theirs is in single precision: of a phase of up to 400 rad each rounding takes 2.4e-5
    torch.testing.assert_close(ours, theirs.reshape(ours.shape).double(), atol=5e-4, rtol=0)


def test_zero_frequency_is_the_amplitude_contrast_and_low_frequencies_are_positive() -> None:
    ctf = ctf_2d(rows(TYPICAL), (64, 64))[0]
    assert ctf[0, 0].item() == pytest.approx(0.1)
    assert (ctf[0, :4] > 0).all()


def test_whole_plane_is_the_half_plane_completed_by_symmetry() -> None:
    params = rows(TYPICAL, [3.0, 9000.0, 20000.0, -60.0, 200.0, 1.4, 0.2, 45.0, 80.0])
    whole, half = ctf_2d(params, (9, 14), rfft=False), ctf_2d(params, (9, 14))
    torch.testing.assert_close(whole[..., :7], half[..., :7])
    mirrored = whole.flip((1, 2)).roll((1, 1), (1, 2))
    # an even side has its Nyquist frequency only once, with one of the two signs
    torch.testing.assert_close(
        whole[:, :, [*range(7), *range(8, 14)]], mirrored[:, :, [*range(7), *range(8, 14)]]
    )


def test_single_precision_is_enough_for_high_resolution() -> None:
    params = [0.8, 30000.0, 29000.0, 12.0, 300.0, 2.7, 0.1, 0.0, 0.0]
    single = ctf_2d(rows(params, dtype=torch.float32), (128, 128))
    assert single.dtype == torch.float32
    double = ctf_2d(rows(params), (128, 128))
    assert (single - double).abs().max() < 2e-3


@settings(max_examples=30, deadline=None)
@given(microscopes)
def test_swapping_the_axes_of_astigmatism_is_a_quarter_turn(p: tuple[float, ...]) -> None:
    swapped = [p[0], p[2], p[1], p[3] + 90.0, *p[4:]]
    torch.testing.assert_close(
        ctf_2d(rows(list(p)), (16, 16)), ctf_2d(rows(swapped), (16, 16)), atol=1e-7, rtol=0
    )


def test_refuses_another_number_of_parameters() -> None:
    with pytest.raises(InputError, match=r"\(2, 8\), expected shape \(images, 9\)"):
        ctf_2d(torch.zeros(2, 8), (8, 8))


# --- applying it ------------------------------------------------------------------------------


def test_gradients_with_respect_to_images_and_parameters() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 1, 5, 6, dtype=torch.float64, generator=generator).requires_grad_()
    params = rows(TYPICAL, [4.0, 9000.0, 8000.0, 10.0, 200.0, 1.4, 0.2, 10.0, 50.0])
    scale = torch.tensor([1.0, 1e4, 1e4, 50.0, 300.0, 3.0, 0.1, 10.0, 50.0], dtype=torch.float64)
    free = (params / scale).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, q: apply_ctf(x, q * scale), (images, free))


def test_a_particle_near_the_edge_is_filtered_without_wrapping_round() -> None:
    """The answer of a box four times as large, cropped; a periodic transform is far from it."""
    n, far = 32, 128
    params = rows([4.0, 30000.0, 29000.0, 20.0, 300.0, 2.7, 0.1, 0.0, 0.0])
    y, x = torch.meshgrid(*[torch.arange(far, dtype=torch.float64)] * 2, indexing="ij")
    large = torch.exp(-((x - 6) ** 2 + (y - 20) ** 2) / (2 * 1.5**2))
    exact = torch.fft.ifft2(torch.fft.fft2(large) * ctf_2d(params, (far, far), rfft=False)[0]).real
    image = large[None, None, :n, :n]
    periodic = torch.fft.irfft2(torch.fft.rfft2(image) * ctf_2d(params, (n, n))[:, None], s=(n, n))
    ours = (apply_ctf(image, params)[0, 0] - exact[:n, :n]).abs().max() / exact.abs().max()
    wrapped = (periodic[0, 0] - exact[:n, :n]).abs().max() / exact.abs().max()
    assert ours < 0.01
    assert wrapped > 5 * ours


def test_a_constant_image_keeps_its_level_times_the_amplitude_contrast() -> None:
    image = torch.full((1, 2, 15, 12), 3.0)
    filtered = apply_ctf(image, rows(TYPICAL, dtype=torch.float32))
    torch.testing.assert_close(filtered, torch.full_like(image, 0.3))


def test_each_image_gets_its_own_ctf_and_channels_share_it() -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(3, 2, 16, 16, generator=generator)
    params = rows(
        TYPICAL, [2.0, 9e3, 9e3, 0.0, 200.0, 1.4, 0.1, 0.0, 0.0], TYPICAL, dtype=torch.float32
    )
    together = apply_ctf(images, params)
    for i in range(3):
        for channel in range(2):
            alone = apply_ctf(images[i : i + 1, channel : channel + 1], params[i : i + 1])
            torch.testing.assert_close(together[i, channel], alone[0, 0])


# --- against RELION ---------------------------------------------------------------------------


def relion_correlation(folder: Path, change: dict[CtfColumn, float]) -> float:
    """Fourier correlation of relion_project's point mass with ours."""
    import mrcfile
    import starfile

    with mrcfile.open(folder / "relion_proj_star.mrcs", permissive=True) as mrc:
        image = np.asarray(mrc.data, float).reshape(64, 64)
    row = starfile.read(folder / "pyem_onerow.star")["particles"].iloc[0]
    a, b, c = (math.radians(float(row[f"rlnAngle{k}"])) for k in ("Rot", "Tilt", "Psi"))

    def z(t: float) -> np.ndarray:
        return np.array([[math.cos(t), math.sin(t), 0], [-math.sin(t), math.cos(t), 0], [0, 0, 1]])

    def y(t: float) -> np.ndarray:
        return np.array([[math.cos(t), 0, -math.sin(t)], [0, 1, 0], [math.sin(t), 0, math.cos(t)]])

    origin = np.array([row["rlnOriginX"], row["rlnOriginY"]], float)
    position = (z(c) @ y(b) @ z(a) @ [17.0, 0, 0])[:2] - origin + 32  # the mass is at x = 49
    params = [3.54, row["rlnDefocusU"], row["rlnDefocusV"], row["rlnDefocusAngle"], 200, 1.4, 0.1]
    params = [*map(float, params), 0.0, 0.0]
    for column, value in change.items():
        params[column] = value
    kx, ky = np.fft.fftfreq(64), np.fft.fftfreq(64)[:, None]
    model = np.exp(-2j * np.pi * (kx * position[0] + ky * position[1]))
    model = model * ctf_2d(rows(params), (64, 64), rfft=False)[0].numpy()
    inside = (kx**2 + ky**2 < 0.25) & (kx**2 + ky**2 > 0)  # RELION leaves the corners empty
    model, data = model[inside], np.fft.fft2(image)[inside]
    return float((model * data.conj()).real.sum() / np.linalg.norm(model) / np.linalg.norm(data))


@pytest.mark.shared
def test_sign_axis_and_contrast_are_those_of_relion(shared_data: Path) -> None:
    folder = shared_data / "spa_sim"
    right = relion_correlation(folder, {})
    assert right > 0.98  # positive: the sign is RELION's
    for change in (
        {CtfColumn.DEFOCUS_ANGLE: -78.297462},
        {CtfColumn.DEFOCUS_ANGLE: 90 - 78.297462},
        {CtfColumn.DEFOCUS_ANGLE: 78.297462 + 20},
        {CtfColumn.DEFOCUS_ANGLE: 78.297462 - 20},
        {CtfColumn.AMPLITUDE_CONTRAST: 0.0},
        {CtfColumn.AMPLITUDE_CONTRAST: 0.2},
        {CtfColumn.CS: 2.7},
        {CtfColumn.VOLTAGE: 300.0},
    ):
        assert relion_correlation(folder, change) < right, change

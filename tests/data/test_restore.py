"""What programs did to images before they came here: undone as the table says, or refused."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
import torch

from modpose.backprojection.halves import open_posed, reconstruct_halves
from modpose.config import DataConfig
from modpose.data.dataset import Dataset
from modpose.data.mrc import write_mrcs
from modpose.data.particles import Particles
from modpose.data.source import Source, open_source
from modpose.data.stack import ArrayStack
from modpose.data.star import write_star
from modpose.data.wedges import open_wedges
from modpose.errors import InputError
from modpose.fourier.fsc import fsc, read_map
from modpose.geometry.windows import soft_window
from modpose.observe.aberrations import zernike_orders
from modpose.observe.ctf import LEAST_GAIN, ctf_2d, electron_wavelength
from modpose.search.alignment import AlignSettings
from modpose.search.run import coefficients_of_source
from modpose.simulate.projections import ProjectionSettings, simulate_projections

PREMULTIPLIED, FLIPPED = "rlnCtfDataAreCtfPremultiplied", "rlnCtfDataArePhaseFlipped"
OPTICS = {
    "rlnVoltage": 300.0,
    "rlnSphericalAberration": 2.7,
    "rlnAmplitudeContrast": 0.1,
    "rlnImagePixelSize": 2.0,
}
ROUNDING = 2e-5
"""Of float32 transforms of a few thousand numbers of size one, over a gain of 0.05: 6e-8 / 0.05,
times ten for the sums."""


def white(n: int = 4, side: int = 24) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(n, side, side)).astype(np.float32)


def source(images: np.ndarray, **columns: object) -> Source:
    n = len(images)
    table = {
        "rlnDefocusU": np.linspace(9000.0, 14000.0, n),
        "rlnDefocusV": np.linspace(9000.0, 14000.0, n),
    }
    table |= {"rlnDefocusAngle": [30.0] * n}
    table |= {k: v if isinstance(v, list) else [v] * n for k, v in (OPTICS | columns).items()}
    return Source(ArrayStack(images), Particles(pd.DataFrame(table), format="star", name="p.star"))


def filtered(images: np.ndarray, factor: torch.Tensor) -> np.ndarray:
    spectrum = torch.fft.rfftn(torch.from_numpy(images), dim=(1, 2)) * factor
    return torch.fft.irfftn(spectrum, s=images.shape[1:], dim=(1, 2)).numpy()


def seen(of: Source) -> tuple[np.ndarray, torch.Tensor]:
    """Return images and CTF parameters as a model gets them."""
    batch = Dataset(of, DataConfig(), seed=0, ctf=True).batch(np.arange(of.n))
    return batch.image[:, 0].numpy(), batch.ctf


# --- multiplied by the CTF, phases flipped ------------------------------------------------------


def test_premultiplied_images_get_white_noise_and_the_transfer_that_is_left():
    plain = white()
    images, ctf = seen(source(plain))
    np.testing.assert_array_equal(images, plain)
    c = ctf_2d(ctf, plain.shape[1:])
    multiplied = source(filtered(plain, c), **{PREMULTIPLIED: 1})
    images, params = seen(multiplied)
    gain = torch.sqrt(c.square() + LEAST_GAIN**2)
    np.testing.assert_allclose(images, filtered(plain, c / gain), atol=ROUNDING)
    torch.testing.assert_close(ctf_2d(params, plain.shape[1:]), c.square() / gain)


def test_the_likelihood_of_a_premultiplied_image_is_that_of_the_plain_one():
    """c² F + c noise, over the gain, misses the prediction by what c F + noise does."""
    signal, noise = white(), 0.3 * white()[::-1].copy()
    _, ctf = seen(source(signal))
    c = ctf_2d(ctf, signal.shape[1:])
    recorded = filtered(signal, c) + noise
    images, params = seen(source(filtered(recorded, c), **{PREMULTIPLIED: 1}))
    left = images - filtered(signal, ctf_2d(params, signal.shape[1:]))
    gain = torch.sqrt(c.square() + LEAST_GAIN**2)
    np.testing.assert_allclose(left, filtered(noise, c / gain), atol=ROUNDING)
    # Of white noise, only coefficients that hold next to no signal are damped.
    assert left.var() == pytest.approx(noise.var(), rel=3 * LEAST_GAIN)


def test_flipped_phases_make_the_ctf_positive():
    plain = white()
    _, ctf = seen(source(plain))
    images, params = seen(source(plain, **{FLIPPED: 1}))
    np.testing.assert_array_equal(images, plain)
    torch.testing.assert_close(ctf_2d(params, (24, 24)), ctf_2d(ctf, (24, 24)).abs())


def test_the_map_of_premultiplied_or_flipped_images_is_that_of_plain_ones():
    made = simulate_projections(
        ProjectionSettings(n=120, box=32, pixel_size=5.0, snr=1.0, ctf=True, seed=2)
    )
    c = ctf_2d(torch.from_numpy(made.ctf), (32, 32)).float()
    columns = ["rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"]
    table = {name: made.ctf[:, i + 1] for i, name in enumerate(columns)}
    table |= {"rlnVoltage": made.ctf[:, 4], "rlnSphericalAberration": made.ctf[:, 5]}
    table |= {"rlnAmplitudeContrast": made.ctf[:, 6], "rlnImagePixelSize": made.ctf[:, 0]}

    def map_of(images: np.ndarray, **flag: int) -> np.ndarray:
        frame = pd.DataFrame(table | {k: [v] * len(images) for k, v in flag.items()})
        poses = (made.rotation, made.shift)
        particles = Particles(frame, format="star", name="p.star", given_poses=poses)
        halves = reconstruct_halves(open_posed(Source(ArrayStack(images), particles)), quiet=True)
        return 0.5 * (halves.first + halves.second)

    plain = map_of(made.images)
    for name, images in (
        (PREMULTIPLIED, filtered(made.images, c)),
        (FLIPPED, filtered(made.images, torch.sign(c))),
    ):
        same = fsc(map_of(images, **{name: 1}), plain, soft_window((32,) * 3, 0.7, 0.85), 5.0)
        # The window on images and the flip of phases do not commute; signal is left aside.
        assert same.correlation[:8].min() > 0.98, name
        ignored = fsc(map_of(images), plain, soft_window((32,) * 3, 0.7, 0.85), 5.0)
        assert ignored.correlation[:12].min() < 0.5, name


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({PREMULTIPLIED: 1, FLIPPED: 1}, "row 1 are both 1"),
        ({PREMULTIPLIED: [0, 0, 2, 0]}, "PREMULTIPLIED in row 3 is 2, expected 0 or 1"),
        ({FLIPPED: [0, -1, 0, 0]}, "in row 2 is -1, expected 0 or 1"),
    ],
)
def test_flags_that_cannot_be(columns, said):
    with pytest.raises(InputError, match=said.replace("PREMULTIPLIED", PREMULTIPLIED)):
        seen(source(white(), **columns))


def test_premultiplied_images_without_their_ctf_are_refused():
    of = source(white(), **{PREMULTIPLIED: 1})
    table = of.particles.table.drop(columns=["rlnDefocusU"])
    bare = Source(of.stack, Particles(table, format="star", name="p.star"))
    with pytest.raises(InputError, match=r"multiplied by is not given, expected .*--ctf"):
        Dataset(bare, DataConfig(), seed=0)


def test_an_incomplete_ctf_that_is_not_asked_for_is_no_matter():
    of = source(white())
    table = of.particles.table.drop(columns=["rlnVoltage"])
    bare = Source(of.stack, Particles(table, format="star", name="p.star"))
    assert Dataset(bare, DataConfig(), seed=0).ctf is None


def test_images_without_a_ctf_any_more_are_not_given_one():
    with pytest.raises(InputError, match=r"rlnCtfDataAreCtfCorrected in row 2 is 1, expected 0"):
        seen(source(white(), rlnCtfDataAreCtfCorrected=[0, 1, 1, 1]))


def test_the_scale_of_the_ctf_counts():
    _, ctf = seen(source(white()))
    _, params = seen(source(white(), rlnCtfScalefactor=0.5))
    torch.testing.assert_close(ctf_2d(params, (8, 8)), 0.5 * ctf_2d(ctf, (8, 8)))


# --- sign and aberrations -----------------------------------------------------------------------


def test_dark_particles_of_cryosparc_are_made_bright(caplog):
    images = white(3)
    table = pd.DataFrame({"blob/sign": [-1.0, 1.0, -1.0]})
    of = Source(ArrayStack(images), Particles(table, format="cs", name="p.cs"))
    found = Dataset(of, DataConfig(), seed=0).batch(np.arange(3)).image[:, 0].numpy()
    np.testing.assert_array_equal(found, images * np.array([-1, 1, -1], np.float32)[:, None, None])
    assert caplog.text.count("blob/sign is -1") == 1
    wrong = Particles(pd.DataFrame({"blob/sign": [1.0, 0.0]}), format="cs", name="p.cs")
    with pytest.raises(InputError, match="blob/sign in row 2 is 0, expected 1 or -1"):
        Dataset(Source(ArrayStack(images[:2]), wrong), DataConfig(), seed=0)


def test_the_order_of_zernike_polynomials_is_that_of_relion():
    assert zernike_orders(6, 1) == [(-1, 1), (1, 1), (-3, 3), (-1, 3), (1, 3), (3, 3)]
    assert zernike_orders(4, 0) == [(0, 0), (-2, 2), (0, 2), (2, 2)]


def turned(images: np.ndarray, phase: torch.Tensor) -> np.ndarray:
    """Turn phases but at Nyquist's frequency, where k and -k are one."""
    turn = torch.polar(torch.ones_like(phase), phase)
    half = images.shape[-1] // 2
    turn[half], turn[:, half] = 1.0, 1.0
    return filtered(images, turn)


def lattice(side: int, pixel_size: float) -> tuple[torch.Tensor, torch.Tensor]:
    ky, kx = torch.fft.fftfreq(side)[:, None] / pixel_size, torch.fft.rfftfreq(side) / pixel_size
    return kx.expand(side, -1), ky.expand(-1, side // 2 + 1)


def test_beam_tilt_and_odd_aberrations_are_taken_off():
    plain = white()
    x, y = lattice(24, 2.0)
    wavelength = electron_wavelength(torch.tensor(300.0))
    tilt = -2 * np.pi * 2.7e7 * wavelength**2 * 1e-3 * (0.4 * x - 0.2 * y) * (x**2 + y**2)
    radius, angle = torch.hypot(x, y), torch.atan2(y, x)
    threefold = 40.0 * radius**3 * torch.cos(3 * angle)
    assert (tilt + threefold).abs().max() > 0.5
    images, _ = seen(
        source(
            turned(plain, tilt + threefold),
            rlnBeamTiltX=0.4,
            rlnBeamTiltY=-0.2,
            rlnOddZernike="[0,0,0,0,0,40]",
        )
    )
    np.testing.assert_allclose(images, plain, atol=ROUNDING)


def test_aberrations_come_with_the_table_of_the_ctf(tmp_path):
    write_mrcs(tmp_path / "p.mrcs", white(), 2.0)
    table = source(white()).particles.table.assign(rlnBeamTiltX=0.5)
    table["rlnImageName"] = [f"{i + 1:06d}@p.mrcs" for i in range(4)]
    write_star(tmp_path / "run_data.star", table[::-1])
    joined = open_source(tmp_path / "p.mrcs", ctf=tmp_path / "run_data.star", index=np.arange(3))
    write_star(tmp_path / "own.star", table)
    own = open_source(tmp_path / "own.star", index=np.arange(3))
    np.testing.assert_array_equal(seen(joined)[0], seen(own)[0])
    assert np.abs(seen(joined)[0] - white()[:3]).max() > 0.1


def test_even_aberrations_are_refused_where_they_matter(caplog):
    of = source(white(), rlnEvenZernike="[0,0,0,0,200,0,0,0,0]")
    with pytest.raises(InputError, match=r"rlnEvenZernike changes phases by .* degrees at 2 A"):
        Dataset(of, DataConfig(), seed=0, ctf=True)
    constant = source(white(), rlnEvenZernike="[3]")
    with pytest.raises(InputError, match=r"which is not modelled$"):
        Dataset(constant, DataConfig(), seed=0, ctf=True)
    small = source(white(), rlnEvenZernike="[0,0,0,0,5,0,0,0,0]")
    with caplog.at_level(logging.INFO):
        Dataset(small, DataConfig(), seed=0, ctf=True)
    assert "rlnEvenZernike is ignored" in caplog.text
    with pytest.raises(InputError, match=r"rlnEvenZernike is '\[1,x\]', expected numbers"):
        seen(source(white(), rlnEvenZernike="[1,x]"))


def test_an_anisotropic_magnification_is_refused_where_it_matters(caplog):
    names = ("rlnMagMat00", "rlnMagMat01", "rlnMagMat10", "rlnMagMat11")
    with pytest.raises(InputError, match=r"moves the edge of the box by 1\.2 pixels"):
        seen(source(white(), **dict(zip(names, (1.1, 0.0, 0.0, 1.0), strict=True))))
    seen(source(white(), **dict(zip(names, (1.01, 0.0, 0.0, 1.0), strict=True))))
    assert "moves nothing by more than 0.12 pixels" in caplog.text


def test_aberrations_of_cryosparc_are_bounded():
    cs = {
        "ctf/df1_A": [9000.0] * 2,
        "ctf/df2_A": [9000.0] * 2,
        "ctf/df_angle_rad": [0.0] * 2,
        "ctf/accel_kv": [300.0] * 2,
        "ctf/cs_mm": [2.7] * 2,
        "ctf/amp_contrast": [0.1] * 2,
        "blob/psize_A": [2.0] * 2,
    }
    tilt = {"ctf/tilt_A_0": [0.0, 5e4], "ctf/tilt_A_1": [0.0] * 2}
    for extra, refused in (({}, False), (tilt, True)):
        particles = Particles(pd.DataFrame(cs | extra), format="cs", name="p.cs")
        of = Source(ArrayStack(white(2)), particles)
        if refused:
            with pytest.raises(InputError, match=r"ctf/tilt_A, .* changes phases by up to"):
                Dataset(of, DataConfig(), seed=0, ctf=True)
        else:
            Dataset(of, DataConfig(), seed=0, ctf=True)


# --- volumes ------------------------------------------------------------------------------------


def volumes_of(tmp_path, weights: np.ndarray, volumes: np.ndarray, flag: int) -> Source:
    for i, one in enumerate(weights):
        write_mrcs(tmp_path / f"w{i}.mrc", one[None].astype(np.float32), 7.0, overwrite=True)
    table = pd.DataFrame({"rlnCtfImage": [f"w{i}.mrc" for i in range(len(weights))]})
    table[PREMULTIPLIED] = flag
    particles = Particles(table, format="star", name=str(tmp_path / "p.star"))
    return Source(ArrayStack(volumes, "volumes"), particles, tmp_path / "p.star")


def test_pseudo_subtomograms_are_weighted_by_the_sums_of_their_squared_ctf(tmp_path):
    side = 16
    rng = np.random.default_rng(0)
    sums = torch.from_numpy(rng.uniform(0.5, 4.0, (2, side, side, side // 2 + 1))).float()
    # W(-k) = W(k), as sums of CTF² are
    sums = torch.fft.rfftn(torch.fft.irfftn(sums, s=(side,) * 3, dim=(1, 2, 3)), dim=(1, 2, 3)).real
    sums[:, 5:9] = 0.0
    sums[:, side - 8 : side - 4] = 0.0
    doubled = torch.cat([sums, torch.full_like(sums, 40.0)], 1).numpy()
    plain = torch.from_numpy(rng.normal(size=(2, side, side, side)))
    spectrum = torch.fft.rfftn(plain, dim=(1, 2, 3))
    given = torch.fft.irfftn(spectrum * sums, s=(side,) * 3, dim=(1, 2, 3)).float().numpy()
    (tmp_path / "alone").mkdir()
    alone = open_wedges(volumes_of(tmp_path / "alone", sums.numpy(), given, 1))
    of = volumes_of(tmp_path, doubled, given, 1)
    wedges = open_wedges(of)
    np.testing.assert_array_equal(alone.gain(np.arange(2)), wedges.gain(np.arange(2)))
    root = sums.clamp(min=0).sqrt()
    np.testing.assert_allclose(wedges.read(np.arange(2)), root, atol=1e-6)
    data = Dataset(of, DataConfig(), seed=0, wedge="auto")
    found = torch.fft.rfftn(data.batch(np.arange(2)).image[:, 0], dim=(1, 2, 3))
    expected = (spectrum * root).to(found)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    with pytest.raises(
        InputError, match=r"multiplied by is not given, expected their rlnCtfImage .--wedge"
    ):
        Dataset(of, DataConfig(), seed=0)


def test_weights_and_flag_that_do_not_fit_are_refused(tmp_path):
    weights = np.random.default_rng(0).uniform(0.5, 2, (2, 16, 16, 9))
    volumes = np.random.default_rng(1).normal(size=(2, 16, 16, 16)).astype(np.float32)
    doubled = np.concatenate([weights, weights], 1)
    with pytest.raises(InputError, match="holds sums of CTF"):
        open_wedges(volumes_of(tmp_path, doubled, volumes, 0))
    mixed = volumes_of(tmp_path, doubled, volumes, 1)
    mixed.particles.table.loc[0, PREMULTIPLIED] = 0
    with pytest.raises(InputError, match="1 for some particles and 0 for others"):
        open_wedges(mixed)
    wedges = open_wedges(volumes_of(tmp_path, weights - 1.5, volumes, 1))
    with pytest.raises(InputError, match=r"a sum of CTF\^2 is -.*, expected at least 0"):
        wedges.read(np.arange(1))


def test_a_ctf_image_is_the_ctf_of_its_volume(tmp_path):
    weights = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 9)).astype(np.float32)
    volumes = np.random.default_rng(1).normal(size=(2, 16, 16, 16)).astype(np.float32)
    wedges = open_wedges(volumes_of(tmp_path, weights, volumes, 0))
    found = wedges.read(np.arange(2))
    measured = found != 0
    # In the first and last column the weights of k and -k are averaged, or one is taken
    np.testing.assert_allclose(found[..., 1:8], (weights * measured)[..., 1:8], atol=1e-6)
    assert (found < 0).any()
    of = volumes_of(tmp_path, weights, volumes, 0)
    of.particles.table[FLIPPED] = 1
    np.testing.assert_array_equal(open_wedges(of).read(np.arange(2)), np.abs(found))


# --- files that users brought -------------------------------------------------------------------


@pytest.mark.shared
def test_the_map_of_shared_premultiplied_images_is_as_sharp_as_that_of_plain_ones(shared_data):
    folder = shared_data.parent / "cases" / "ctf_state"
    truth, size = read_map(folder / "true_map.mrc")
    halves = reconstruct_halves(open_posed(open_source(folder / "premultiplied.star")), quiet=True)
    made = 0.5 * (halves.first + halves.second)
    curve = fsc(made, truth, soft_window((48,) * 3, 0.7, 0.85), size)
    # 200 images of this noise make no more; with the flag ignored the shells 8 to 14 are negative.
    assert curve.correlation[:10].min() > 0.85
    ball = soft_window((48,) * 3, 0.7, 0.85)
    assert (made * truth * ball).sum() / (truth**2 * ball).sum() == pytest.approx(1.0, abs=0.1)


@pytest.mark.shared
def test_shared_pseudo_subtomograms_are_weighted(shared_data):
    of = open_source(shared_data.parent / "cases" / "relion4" / "particles.star")
    wedges = open_wedges(of)
    assert wedges.premultiplied
    found = wedges.read(np.array([0, 5]))
    assert set(np.unique(found)) == {0.0, np.sqrt(np.float32(2.5))}
    data = coefficients_of_source(of, wedges, AlignSettings())
    assert len(data) == 6

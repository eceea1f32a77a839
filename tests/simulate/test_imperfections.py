"""Uneven views, junk, contrast and coloured noise of simulated projections."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

from modpose.cli import app
from modpose.data.source import open_source
from modpose.errors import InputError
from modpose.simulate import imperfections
from modpose.simulate.projections import ProjectionSettings, simulate_projections


def made(**changes):
    settings = {"n": 300, "box": 24, "pixel_size": 7.0, "seed": 3, **changes}
    return simulate_projections(ProjectionSettings(**settings))


def test_a_share_of_the_views_is_near_one_axis():
    simulated = made(n=2000, views=(0.8, 30.0))
    tilt = np.rad2deg(np.arccos(simulated.rotation[:, 2, 2]))
    # of uniform views 6.7 % are in the cone, too; three standard deviations of a binomial share
    assert (tilt < 30).mean() == pytest.approx(0.8 + 0.2 * 0.067, abs=0.027)
    inside = simulated.rotation[tilt < 30]
    unit = np.broadcast_to(np.eye(3), inside.shape)
    np.testing.assert_allclose(inside @ inside.transpose(0, 2, 1), unit, atol=1e-12)
    in_plane = np.arctan2(inside[:, 1, 2], inside[:, 0, 2])
    assert abs(np.exp(1j * in_plane).mean()) < 0.08


def test_junk_is_named_and_shows_no_molecule():
    plain, simulated = made(snr=4.0), made(snr=4.0, junk=0.5)
    kind = simulated.truth["junk"].to_numpy()
    assert set(kind) == {"no", "noise", "object"}
    assert (kind != "no").mean() == pytest.approx(0.5, abs=0.09)
    empty = simulated.images[kind == "noise"]
    assert empty.var() == pytest.approx(1.0, abs=0.05)
    assert simulated.images[kind == "object"].var() > 2.0
    # the others show what they would show without junk, but for the scale that gives the SNR
    change = simulated.scale / plain.scale
    signal = plain.images - made(snr=1e-9).images
    expected = change * signal + made(snr=1e-9).images
    np.testing.assert_allclose(simulated.images[kind == "no"], expected[kind == "no"], atol=2e-4)
    only = made(junk=0.5, junk_kind="object").truth["junk"]
    assert set(only) == {"no", "object"}


def test_contrast_scales_the_signal():
    simulated = made(n=2000, contrast=0.2, snr=1e6)
    factor = simulated.truth["contrast"].to_numpy()
    assert factor.mean() == pytest.approx(1.0, abs=0.015)
    assert factor.std() == pytest.approx(0.2, abs=0.015)
    plain = made(n=2000, snr=1e6)
    ratio = (simulated.images * plain.images).sum((1, 2)) / (plain.images**2).sum((1, 2))
    np.testing.assert_allclose(ratio, factor, rtol=1e-2)


def test_noise_has_the_spectrum_that_was_asked_for():
    noise = made(n=1500, snr=1e-9, noise_spectrum=20.0).images
    assert noise.var() == pytest.approx(1.0, abs=0.01)
    found = (np.abs(np.fft.rfft2(noise)) ** 2).mean(0) / 24**2
    power = imperfections.noise_power(24, 20.0)
    # 1,500 exponential numbers: 2.6 %, and real ones, of twice the variance, where k = -k
    np.testing.assert_allclose(found, power, rtol=0.17)
    assert power[0, 0] / power[0, 12] == pytest.approx(20.0)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"views": (1.2, 30.0)}, "views is"),
        ({"junk": 1.0}, "junk is 1.0, expected 0 to less than 1"),
        ({"junk_kind": "ice"}, "noise, object or both"),
        ({"contrast": -0.1}, "contrast is"),
        ({"noise_spectrum": float("nan")}, "noise_spectrum is"),
    ],
)
def test_impossible_imperfections_are_refused(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        made(**changes)


def test_views_beside_given_poses_are_refused():
    poses = np.broadcast_to(np.eye(3), (5, 3, 3)), np.zeros((5, 2))
    with pytest.raises(InputError, match="expected one of the two"):
        simulate_projections(
            ProjectionSettings(n=5, box=24, pixel_size=7.0, views=(0.8, 30.0)), poses=poses
        )


def test_the_command_writes_what_is_wrong_with_each_image(tmp_path):
    command = "simulate projections --images 60 --box 24 --pixel-size 7 --views 0.8 30 --junk 0.3"
    command += f" --junk-kind noise --contrast 0.2 --noise-spectrum 5 -o {tmp_path}"
    done = CliRunner().invoke(app, command.split())
    assert done.exit_code == 0, done.output
    truth = open_source(tmp_path / "particles.star").particles.truth()
    assert truth is not None
    assert set(truth["junk"]) == {"no", "noise"}
    assert truth["contrast"].between(0.3, 3).all()

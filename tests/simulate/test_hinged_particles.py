from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile
from scipy.ndimage import map_coordinates

from modpose.data.source import open_source
from modpose.errors import InputError
from modpose.simulate.microscope import draw_ctf_parameters
from modpose.simulate.molecules import hinged_molecule, project
from modpose.simulate.particles import (
    HingeSettings,
    Simulated,
    simulate_particles,
    write_particles,
)

SMALL = HingeSettings(n=60)


@pytest.fixture(scope="module")
def simulated() -> Simulated:
    return simulate_particles(SMALL)


@pytest.mark.parametrize(("mirrored", "scale_std"), [(0.0, 0.0), (0.5, 0.0), (0.5, 0.1)])
def test_images_are_the_upright_signal_at_the_posed_coordinates(
    mirrored: float, scale_std: float
) -> None:
    """signal(x) = f(Mᵐ Rᵀ(x − t) / s), R = [[cos, −sin], [sin, cos]], from a fine raster of f."""
    simulated = simulate_particles(replace(SMALL, mirrored=mirrored, scale_std=scale_std))
    assert ("mirrored" in simulated.truth) == (mirrored > 0)
    assert ("scale" in simulated.truth) == (scale_std > 0)
    m = hinged_molecule()
    scale = None
    y, x = np.mgrid[:40, :40] - 20.0
    for i in range(5):
        row = simulated.truth.iloc[i]
        fine = project(
            m.conformations(np.array([row.hinge_deg])),
            m.sigmas,
            m.masses,
            np.eye(3)[None],
            np.zeros((1, 2)),
            400,
            0.5,
        )[0]
        c, s = np.cos(np.deg2rad(row.angle_deg)), np.sin(np.deg2rad(row.angle_deg))
        size = row.get("scale", 1.0)
        dx, dy = (x - row.shift_x) / size, (y - row.shift_y) / size
        u, v = c * dx + s * dy, -s * dx + c * dy
        v = -v if row.get("mirrored", 0) else v
        expected = map_coordinates(fine, [200 + 8 * v, 200 + 8 * u], order=1)
        scale = simulated.clean[i].sum() / expected.sum() if scale is None else scale
        np.testing.assert_allclose(simulated.clean[i], scale * expected, atol=0.02)


def test_signal_to_noise_ratio_and_unit_noise(simulated: Simulated) -> None:
    noise = simulated.images - simulated.clean
    assert simulated.clean.var() == pytest.approx(0.5, rel=1e-3)
    n = noise.size
    assert abs(noise.mean()) < 5 / np.sqrt(n)
    assert abs(noise.var() - 1) < 5 * np.sqrt(2 / n)
    # white: neighbours do not know of each other
    assert abs((noise[:, :, 1:] * noise[:, :, :-1]).mean()) < 5 / np.sqrt(n)
    assert abs((noise[:, 1:] * noise[:, :-1]).mean()) < 5 / np.sqrt(n)


def test_truth_follows_the_settings() -> None:
    settings = replace(
        SMALL,
        n=2000,
        box=16,
        pixel_size=10.0,
        shift_std_px=0.5,
        seed=3,
        hinge_range_deg=(-5.0, 15.0),
    )
    truth = simulate_particles(settings).truth
    assert list(truth.columns) == ["angle_deg", "shift_x", "shift_y", "hinge_deg"]
    assert truth.hinge_deg.between(-5, 15).all()
    assert abs(truth.hinge_deg.mean() - 5) < 5 * 20 / np.sqrt(12 * 2000)
    assert ((truth.angle_deg > -180) & (truth.angle_deg <= 180)).all()
    assert abs(np.exp(1j * np.deg2rad(truth.angle_deg)).mean()) < 5 / np.sqrt(2 * 2000)
    assert truth[["shift_x", "shift_y"]].std().to_numpy() == pytest.approx(0.5, rel=0.08)
    assert abs(truth.corr().to_numpy() - np.eye(4)).max() < 5 / np.sqrt(2000)


def test_a_seed_is_a_data_set() -> None:
    first, again, other = (simulate_particles(replace(SMALL, n=4, seed=s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.images, again.images)
    assert not np.allclose(first.clean, other.clean)


def test_ctf_filters_the_signal_before_the_ratio_is_set() -> None:
    settings = replace(SMALL, ctf=True, snr=0.1)
    filtered, plain = simulate_particles(settings), simulate_particles(replace(settings, ctf=False))
    assert filtered.ctf is not None
    assert filtered.ctf.shape == (60, 9)
    assert filtered.clean.var() == pytest.approx(0.1, rel=1e-3)
    # the amplitude contrast is all that is left of the mean, and bright stays bright
    correlations = [
        np.corrcoef(a.ravel(), b.ravel())[0, 1]
        for a, b in zip(filtered.clean, plain.clean, strict=True)
    ]
    assert min(correlations) > 0.4
    assert abs(filtered.clean.mean()) < 0.5 * plain.clean.mean()


def test_ctf_parameters_are_drawn_as_asked() -> None:
    rows = draw_ctf_parameters(500, 3.0, (9e3, 1.5e4), np.random.default_rng(0))
    mean = rows[:, 1:3].mean(axis=1)
    assert mean.min() >= 9e3
    assert mean.max() <= 1.5e4
    assert (rows[:, 1] >= rows[:, 2]).all()
    np.testing.assert_array_equal(rows[:, 0], 3.0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"n": 0}, "n is 0, expected at least 1"),
        ({"box": 4}, "box is 4, expected at least 8 pixels"),
        ({"pixel_size": 0.0}, "pixel_size is 0.0, expected more than 0 Å"),
        ({"pixel_size": float("nan")}, "pixel_size is nan"),
        ({"snr": 0.0}, "snr is 0.0, expected more than 0"),
        ({"shift_std_px": -1.0}, "shift_std_px is -1.0, expected 0 or more"),
        ({"hinge_range_deg": (20.0, -20.0)}, "expected two finite numbers, the smaller first"),
        ({"defocus_range": (1.0, float("inf"))}, "defocus_range is"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_refuses_settings_out_of_range(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence.replace("(", r"\(")):
        replace(SMALL, **change)  # type: ignore[arg-type]


def test_refuses_a_box_that_cuts_the_molecule_and_proposes_a_pixel_size() -> None:
    with pytest.raises(InputError, match=r"64 Å, expected at least 14. Å") as caught:
        simulate_particles(replace(SMALL, box=16))
    proposed = float(str(caught.value).split("pixel size of ")[1].split(" ")[0])
    simulate_particles(replace(SMALL, n=1, box=16, pixel_size=proposed))


# --- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ctf", [False, True])
def test_other_programs_read_what_is_written(tmp_path: Path, ctf: bool) -> None:
    made = simulate_particles(replace(SMALL, n=12, ctf=ctf))
    star = write_particles(made, tmp_path / "new" / "folder")
    assert star == tmp_path / "new" / "folder" / "particles.star"
    with mrcfile.open(star.with_suffix(".mrcs")) as mrc:
        assert mrc.is_image_stack()
        assert mrc.voxel_size.x == pytest.approx(4.0)
        np.testing.assert_array_equal(mrc.data, made.images)
    tables = starfile.read(star)
    particles, optics = tables["particles"], tables["optics"]
    assert list(particles.rlnImageName[:2]) == ["000001@particles.mrcs", "000002@particles.mrcs"]
    assert float(np.ravel(optics["rlnImagePixelSize"])[0]) == 4.0
    np.testing.assert_allclose(particles.modposeTruthHinge, made.truth.hinge_deg, atol=1e-5)
    given = {c for c in particles.columns if c.startswith(("rlnAngle", "rlnOrigin"))}
    assert given == set()  # truth never sits in the pose columns
    assert ("rlnDefocusU" in particles) is ctf


def test_our_own_reader_gives_back_images_truth_and_ctf(tmp_path: Path) -> None:
    made = simulate_particles(replace(SMALL, n=12, ctf=True))
    source = open_source(write_particles(made, tmp_path))
    assert source.pixel_size == 4.0
    truth = source.particles.truth()
    assert truth is not None
    np.testing.assert_allclose(truth[made.truth.columns], made.truth, atol=1e-5)
    np.testing.assert_allclose(source.particles.ctf(), made.ctf, rtol=1e-6, atol=1e-5)
    assert source.particles.poses() is None


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    first = simulate_particles(replace(SMALL, n=2))
    star = write_particles(first, tmp_path)
    before = star.read_bytes()
    other = simulate_particles(replace(SMALL, n=3))
    with pytest.raises(InputError, match=r"particles\.mrcs: already exists"):
        write_particles(other, tmp_path)
    star.with_suffix(".mrcs").unlink()
    with pytest.raises(InputError, match=r"particles\.star: already exists"):
        write_particles(other, tmp_path)
    assert star.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["particles.star"]
    write_particles(other, tmp_path, overwrite=True)
    assert len(starfile.read(star)["particles"]) == 3


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        write_particles(simulate_particles(replace(SMALL, n=1)), tmp_path / "file" / "out")

"""Simulated subtomograms against brute force, scipy and a second simulator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
import starfile
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from modpose.cli import app
from modpose.data.inspect import describe
from modpose.data.mrc import write_mrcs
from modpose.data.source import Source, open_source
from modpose.data.star import write_star
from modpose.data.wedges import open_wedges
from modpose.errors import InputError
from modpose.simulate.atoms import Atoms
from modpose.simulate.density import AtomDensity
from modpose.simulate.molecules import blob_assembly, density
from modpose.simulate.species import built_in_species, hinged_species, species_of_files
from modpose.simulate.subtomogram_files import write_subtomograms
from modpose.simulate.subtomogram_settings import SubtomogramSettings
from modpose.simulate.subtomograms import Subtomograms, simulate_subtomograms
from modpose.simulate.tilt_series import back_project, compare, noise_gain, tilt_angles

SMALL = SubtomogramSettings(n=8, box=16, pixel_size=12.0, seed=1)
NONE_MISSING = (-90.0, 90.0)


@pytest.fixture(scope="module")
def simulated() -> Subtomograms:
    return simulate_subtomograms(SMALL, built_in_species(2))


# --- densities --------------------------------------------------------------------------------


def test_densities_are_sums_of_gaussians_at_the_posed_voxels() -> None:
    m, rng = blob_assembly(0), np.random.default_rng(0)
    rotation, shift = Rotation.random(rng=rng).as_matrix(), np.array([1.3, -0.7, 2.1])
    volume = density(m.centers[None], m.sigmas, m.masses, rotation[None], shift[None], 9, 14.0)[0]
    for z, y, x in [(4, 4, 4), (0, 3, 8), (5, 2, 6)]:
        voxel = 14.0 * (np.array([x, y, z]) - 4 - shift)
        own = rotation.T @ voxel  # signal(x) = f(R^T (x - t))
        squared = ((own - m.centers) ** 2).sum(1) / m.sigmas**2
        heights = m.masses / (2 * np.pi * m.sigmas**2) ** 1.5
        assert volume[z, y, x] == pytest.approx((heights * np.exp(-squared / 2)).sum(), rel=1e-4)


@pytest.mark.parametrize(("box", "pixel_size"), [(28, 7.0), (15, 14.0)])
def test_the_raster_of_atoms_is_exact_enough(box: int, pixel_size: float) -> None:
    rng = np.random.default_rng(0)
    positions = 12.0 * rng.standard_normal((4000, 3)) * np.array([1.0, 2.0, 0.7])
    atoms = Atoms(positions, rng.uniform(6, 8, 4000), 3.4)
    raster = AtomDensity(atoms)
    rotation, shift = Rotation.random(rng=rng).as_matrix(), rng.uniform(-2, 2, 3)
    found = raster.place(rotation, shift, box, pixel_size)
    widths = np.full(len(atoms.masses), atoms.sigma)
    exact = density(
        atoms.positions[None], widths, atoms.masses, rotation[None], shift[None], box, pixel_size
    )[0]
    assert np.abs(found - exact).max() < 0.01 * exact.max()


def test_assemblies_fit_differ_and_stay_the_same() -> None:
    for number in range(8):
        m = blob_assembly(number)
        assert 50 < m.radius(np.zeros(1)) < 85  # Å, of 98 in 28 voxels of 7 Å
        np.testing.assert_allclose(m.masses @ m.centers, 0, atol=1e-9)
        np.testing.assert_array_equal(m.centers, blob_assembly(number).centers)
    assert not np.allclose(blob_assembly(0).centers, blob_assembly(1).centers)


# --- the set ----------------------------------------------------------------------------------


def test_without_a_wedge_volumes_are_the_density(simulated: Subtomograms) -> None:
    whole = simulate_subtomograms(replace(SMALL, tilt_range_deg=NONE_MISSING), built_in_species(2))
    for row in (0, 3):
        truth = whole.truth.iloc[row]
        m = blob_assembly(int(truth["class"]))
        rotation = truth[[f"r{i}{j}" for i in range(3) for j in range(3)]].to_numpy(float)
        shift = truth[["shift_x", "shift_y", "shift_z"]].to_numpy(float)
        expected = density(
            m.centers[None], m.sigmas, m.masses, rotation.reshape(1, 3, 3), shift[None], 16, 12.0
        )[0]
        np.testing.assert_allclose(
            whole.clean(np.array([row]))[0], whole.scale * expected, atol=1e-5
        )
    # and with one, that density filtered in a wider box
    axes = np.meshgrid(*[np.fft.fftfreq(64)] * 3, indexing="ij")
    tilt = np.degrees(np.arctan2(axes[0], axes[2]))
    seen = (np.abs(tilt) <= 60) | (np.abs(tilt) >= 120) | ((axes[0] == 0) & (axes[2] == 0))
    wide = density(
        m.centers[None], m.sigmas, m.masses, rotation.reshape(1, 3, 3), shift[None], 64, 12.0
    )[0]
    filtered = np.fft.ifftn(np.fft.fftn(wide) * seen).real[24:40, 24:40, 24:40]
    found = simulated.clean(np.array([row]))[0]
    assert np.corrcoef(found.ravel(), filtered.ravel())[0, 1] > 0.995


@pytest.mark.parametrize("noise", ["white", "wedge", "coloured"])
def test_noise_and_ratio_are_as_asked(noise: Any) -> None:
    made = simulate_subtomograms(replace(SMALL, n=16, snr=0.3, noise=noise), built_in_species(1))
    clean = made.clean()
    noise_only = made.volumes() - clean
    assert clean.var() == pytest.approx(0.3, rel=1e-3)
    assert made.signal_variance == pytest.approx(0.3, rel=1e-3)
    assert noise_only.var() == pytest.approx(1.0, rel=0.03)
    window = np.hanning(16)
    window = window[:, None, None] * window[:, None] * window
    power = (np.abs(np.fft.fftn(noise_only * window, axes=(1, 2, 3))) ** 2).mean(0)
    k = np.fft.fftfreq(16)
    along_z = power[np.abs(k) > 0.2][:, 0, 0].mean()  # deep in the wedge
    along_x, along_y = power[0, 0, np.abs(k) > 0.2].mean(), power[0, np.abs(k) > 0.2, 0].mean()
    assert bool(along_z < 0.1 * along_x) == (noise != "white")
    assert bool(along_y < 0.5 * along_x) == (noise == "coloured")


def test_the_other_definition_is_easier_by_the_empty_space() -> None:
    box = simulate_subtomograms(replace(SMALL, tilt_range_deg=NONE_MISSING))
    other = simulate_subtomograms(replace(SMALL, tilt_range_deg=NONE_MISSING, snr_over="tomogram"))
    clean = box.clean().astype(float)
    inside = clean.var()
    mean_square, mean = (clean**2).mean(), clean.mean()
    share = (16 / 300) ** 3
    over_all = share * mean_square - (share * mean) ** 2
    assert other.signal_variance == pytest.approx(0.1 * inside / over_all, rel=0.02)


def test_poses_classes_and_abundances() -> None:
    settings = replace(SMALL, n=2200, box=8, pixel_size=24.0, abundances=(10.0, 1.0))
    made = simulate_subtomograms(settings, built_in_species(2))
    truth = made.truth
    assert truth["class"].value_counts().to_dict() == {0: 2000, 1: 200}
    assert (truth.template == "assembly" + truth["class"].astype(str)).all()
    rotations = truth[[f"r{i}{j}" for i in range(3) for j in range(3)]].to_numpy()
    rotations = rotations.reshape(-1, 3, 3)
    np.testing.assert_allclose(
        rotations @ rotations.transpose(0, 2, 1), [np.eye(3)] * 2200, atol=1e-9
    )
    pairs = Rotation.from_matrix(rotations[::2]).inv() * Rotation.from_matrix(rotations[1::2])
    assert np.degrees(pairs.magnitude()).mean() == pytest.approx(126.5, abs=4)  # Haar
    shifts = truth[["shift_x", "shift_y", "shift_z"]].to_numpy()
    assert np.abs(shifts).max() <= 2
    assert shifts.std(0) == pytest.approx(2 / np.sqrt(3), rel=0.06)


def test_rows_are_the_same_however_they_are_read(simulated: Subtomograms) -> None:
    everything = simulated.volumes()
    np.testing.assert_array_equal(simulated.volumes(np.array([5, 2])), everything[[5, 2]])
    again = simulate_subtomograms(SMALL, built_in_species(2))
    np.testing.assert_array_equal(again.volumes(), everything)
    simulated._cache, kept = None, simulated._cache  # a set too large to keep
    np.testing.assert_allclose(simulated.volumes(), everything, atol=1e-6)
    simulated._cache = kept


def test_hinge_and_ctf() -> None:
    settings = replace(SMALL, hinge_range_deg=(-20.0, 20.0), ctf=True, snr=1.0)
    made = simulate_subtomograms(settings, hinged_species())
    assert made.truth.hinge_deg.between(-20, 20).all()
    assert made.truth.hinge_deg.std() > 5
    assert made.ctf is not None
    plain = simulate_subtomograms(replace(settings, ctf=False), hinged_species())
    assert made.clean().var() == pytest.approx(1.0, rel=1e-3)
    assert abs(made.clean().mean()) < abs(plain.clean().mean())  # low frequencies are taken away


def test_templates_are_upright() -> None:
    made = simulate_subtomograms(SMALL, built_in_species(2))
    m = blob_assembly(1)
    expected = density(
        m.centers[None], m.sigmas, m.masses, np.eye(3)[None], np.zeros((1, 3)), 16, 12.0
    )
    np.testing.assert_allclose(made.templates()[1], made.scale * expected[0], atol=1e-5)


# --- the second simulator ---------------------------------------------------------------------


def test_tilt_series_agree() -> None:
    made = simulate_subtomograms(SubtomogramSettings(n=4, seed=2), built_in_species(2))
    found = compare(made, np.arange(4), step_deg=3.0)
    assert found.correlation > 0.997
    assert found.strength == pytest.approx(1, abs=0.02)
    assert found.missing < 0.03
    assert found.snr == pytest.approx(found.wanted, rel=0.03)
    assert "gives the same volumes" in str(found)


def test_tilt_series_agree_about_the_sense_of_an_uneven_range() -> None:
    settings = replace(SMALL, n=3, tilt_range_deg=(-20.0, 65.0))
    made = simulate_subtomograms(settings, built_in_species(1))
    found = compare(made, np.arange(3), step_deg=3.0)
    assert found.correlation > 0.985
    assert found.strength == pytest.approx(1, abs=0.04)
    mirrored = replace(settings, tilt_range_deg=(-65.0, 20.0))
    wrong = simulate_subtomograms(mirrored, built_in_species(1)).clean()
    assert np.corrcoef(wrong.ravel(), made.clean().ravel())[0, 1] < 0.97


def test_tilt_series_with_a_ctf_in_every_tilt_agree() -> None:
    settings = SubtomogramSettings(n=2, box=24, pixel_size=8.0, ctf=True, seed=3)
    found = compare(simulate_subtomograms(settings, built_in_species(1)), np.arange(2), 3.0)
    assert found.correlation > 0.99
    assert found.strength == pytest.approx(1, abs=0.03)


def test_noise_through_the_tilts_has_the_strength_of_theory() -> None:
    tilts = tilt_angles((-60.0, 60.0), 4.0)
    assert len(tilts) == 30 and tilts[0] == -58
    images = np.random.default_rng(0).standard_normal((30, 64, 64)).astype(np.float32)
    volume = back_project(images, tilts, 16, 5.0)
    assert volume.std() == pytest.approx(noise_gain(tilts, 64, 5.0), rel=0.05)
    with pytest.raises(InputError, match="the step is 0"):
        tilt_angles((-60.0, 60.0), 0.0)


def test_atoms_agree_too() -> None:
    atoms = Atoms(
        np.array([[30.0, 0, 0], [-10, 20, 0], [-20, -20, 25]]), np.array([3.0, 2, 1]), 12.0
    )
    from modpose.simulate.species import Species

    made = simulate_subtomograms(replace(SMALL, n=2), [Species("three", atoms)])
    found = compare(made, np.arange(2), step_deg=3.0)
    assert found.correlation > 0.985
    assert found.strength == pytest.approx(1, abs=0.03)


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n": 0}, "n is 0, expected at least 1"),
        ({"box": 4}, "box is 4"),
        ({"pixel_size": float("nan")}, "pixel_size is nan"),
        ({"snr": 0.0}, "snr is 0.0, expected more than 0"),
        ({"snr": -1.0}, "snr is -1.0"),
        ({"snr_over": "image"}, "snr_over is image, expected box or tomogram"),
        ({"tilt_range_deg": (60.0, -60.0)}, "this wedge hides everything"),
        ({"tilt_range_deg": (-100.0, 60.0)}, "expected two angles from -90 to 90"),
        ({"max_shift_px": -1.0}, "max_shift_px is -1.0"),
        ({"defocus_range": (2.0, 1.0)}, "defocus_range is"),
        ({"noise": "pink"}, "noise is pink, expected white, wedge, coloured or none"),
        ({"abundances": (1.0, 0.0)}, "expected positive numbers"),
        ({"abundances": (1.0, 2.0)}, "abundances is 2 numbers, expected 1"),
        ({"hinge_range_deg": (-10.0, 10.0)}, "expected a molecule with a hinge"),
        ({"seed": -1}, "seed is -1"),
        ({"box": 10}, "does not fit into a box of 10 voxels of 12 Å, expected a box of at least"),
    ],
)
def test_refuses(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        simulate_subtomograms(replace(SMALL, **change))


# --- files ------------------------------------------------------------------------------------


def test_other_programs_read_what_is_written(tmp_path: Path, simulated: Subtomograms) -> None:
    star = write_subtomograms(simulated, tmp_path / "set")
    tables = starfile.read(star, always_dict=True)
    particles = tables["particles"]
    assert int(np.ravel(tables["optics"]["rlnImageDimensionality"])[0]) == 3
    with mrcfile.open(star.parent / particles.rlnImageName[3]) as mrc:
        assert mrc.is_volume()
        assert float(mrc.voxel_size.x) == pytest.approx(12.0)
        np.testing.assert_array_equal(mrc.data, simulated.volumes(np.array([3]))[0])
    assert not {c for c in particles.columns if c.startswith(("rlnAngle", "rlnOrigin"))}
    np.testing.assert_allclose(particles.modposeTruthR12, simulated.truth.r12, atol=1e-5)
    np.testing.assert_allclose(particles.modposeTruthShiftZ, simulated.truth.shift_z, atol=1e-5)
    with mrcfile.open(star.parent / "wedge.mrc") as mrc:
        centre = mrc.data[8]  # k_z = 0 is measured throughout
        assert (centre == 1).all() and (mrc.data[12, :, 8] == 0).all()
    assert {p.name for p in (star.parent / "templates").iterdir()} == {
        "assembly0.mrc",
        "assembly1.mrc",
    }
    with pytest.raises(InputError, match="already exists"):
        write_subtomograms(simulated, tmp_path / "set")
    write_subtomograms(simulated, tmp_path / "set", overwrite=True)


def test_our_reader_gives_back_volumes_truth_and_wedge(
    tmp_path: Path, simulated: Subtomograms
) -> None:
    star = write_subtomograms(simulated, tmp_path)
    source = open_source(star)
    assert source.stack.shape == (16, 16, 16) and source.pixel_size == 12.0
    np.testing.assert_array_equal(source.stack.read(np.array([1]))[0, 0], simulated.volumes()[1])
    truth = source.particles.truth()
    assert truth is not None and set(truth.columns) == set(simulated.truth.columns)
    of_range, of_file = open_wedges(source), open_wedges(source, star.parent / "wedge.mrc")
    assert of_range is not None and of_file is not None
    assert of_range.shared and of_file.shared
    masks = of_range.read(np.array([0, 5]))
    assert masks.shape == (2, 16, 16, 9)
    np.testing.assert_array_equal(masks, of_file.read(np.array([0, 5])))
    in_memory = open_wedges(simulated.source())
    assert in_memory is not None
    np.testing.assert_array_equal(in_memory.read(np.array([0])), masks[:1])
    described = str(describe(star))
    assert "a RELION table of subtomograms" in described
    assert "outside tilts of -60 to 60 degrees" in described


def volumes_with(tmp_path: Path, n: int = 3, box: int = 8, **columns: Any) -> Source:
    import pandas as pd

    rng = np.random.default_rng(0)
    for i in range(n):
        write_mrcs(tmp_path / f"{i}.mrc", rng.standard_normal((1, box, box, box)), 5.0, True)
    table = pd.DataFrame({"rlnImageName": [f"{i}.mrc" for i in range(n)], **columns})
    write_star(tmp_path / "p.star", table, overwrite=True)
    return open_source(tmp_path / "p.star")


def test_a_mask_for_each_volume_from_relions_ctf_images(tmp_path: Path) -> None:
    import torch

    from modpose.observe.wedge import wedge_mask

    limits = torch.tensor([[-60.0, 60.0], [-40.0, 50.0], [-60.0, 60.0]])
    whole, half = wedge_mask(limits, (8, 8, 8), rfft=False), wedge_mask(limits, (8, 8, 8))
    centred = 3.0 * np.fft.fftshift(whole.numpy(), axes=(1, 2, 3))
    for i in range(2):
        write_mrcs(tmp_path / f"c{i}.mrc", centred[i : i + 1], 5.0)
    write_mrcs(tmp_path / "c2.mrc", -half[2:3].numpy(), 5.0)  # FFT order, a CTF's sign
    source = volumes_with(tmp_path, rlnCtfImage=["c0.mrc", "c1.mrc", "c0.mrc"])
    wedges = open_wedges(source)
    assert wedges is not None and not wedges.shared
    np.testing.assert_array_equal(wedges.read(np.array([1, 0, 2])), half[[1, 0, 0]])
    alone = open_wedges(source, tmp_path / "c2.mrc")
    assert alone is not None
    np.testing.assert_array_equal(alone.read(np.array([0])), half[2:3])
    stack = tmp_path / "masks.npy"
    np.save(stack, centred)
    each = open_wedges(source, stack)
    assert each is not None and not each.shared
    np.testing.assert_array_equal(each.read(np.array([2, 1])), half[[2, 1]])
    np.save(stack, centred[1])
    one = open_wedges(source, stack)
    assert one is not None and one.shared
    np.testing.assert_array_equal(one.read(np.array([2])), half[1:2])


def test_masks_follow_crops() -> None:
    source = open_source(np.ones((2, 16, 16, 16)))
    exact = open_wedges(source, (-60.0, 60.0), shape=(8, 8, 8))
    full = open_wedges(source, (-60.0, 60.0))
    assert exact is not None and full is not None
    half = full.read(np.array([0]))[0]
    import torch

    from modpose.observe.wedge import whole_mask

    whole = np.fft.fftshift(whole_mask(torch.from_numpy(half)[None], 16)[0].numpy())
    fourier = open_wedges(source, whole, shape=(8, 8, 8), pixel_size_factor=2.0)
    cropped = open_wedges(source, whole, shape=(8, 8, 8))
    assert fourier is not None and cropped is not None
    wanted = exact.read(np.array([0]))[0]
    for found in (fourier, cropped):
        mask = found.read(np.array([0]))[0]
        inner = np.s_[[0, 1, 2, 3, 5, 6, 7]]  # without the frequency that stands for two signs
        assert (mask[inner][..., :4] == wanted[inner][..., :4]).all()


def test_tilts_of_tomograms_less_the_frames_not_seen(tmp_path: Path) -> None:
    angles = np.arange(-60.0, 61.0, 30.0)
    rows = "\n".join(
        f"[{np.cos(a):.6f},0,{np.sin(a):.6f},0] [0,1,0,0] "
        f"[{-np.sin(a):.6f},0,{np.cos(a):.6f},0] [0,0,0,1]"
        for a in np.deg2rad(angles)
    )
    tags = "\n".join(f"_rlnTomoProj{axis} #{i}" for i, axis in enumerate("XYZW", 1))
    (tmp_path / "t.star").write_text(f"data_TS_1\n\nloop_\n{tags}\n{rows}\n")
    source = volumes_with(
        tmp_path,
        n=2,
        rlnTomoName=["TS_1", "TS_1"],
    )
    wedges = open_wedges(source, tmp_path / "t.star")
    assert wedges is not None and wedges.tilt_range is not None
    np.testing.assert_allclose(wedges.tilt_range, [[-60, 60]] * 2, atol=1e-3)
    seen = source.particles.table.assign(rlnTomoVisibleFrames=["[1,1,1,1,1]", "[0,1,1,1,0]"])
    partly = Source(source.stack, replace(source.particles, table=seen))
    wedges = open_wedges(partly, tmp_path / "t.star")
    assert wedges is not None and wedges.tilt_range is not None
    np.testing.assert_allclose(wedges.tilt_range, [[-60, 60], [-30, 30]], atol=1e-3)
    hidden = seen.assign(rlnTomoVisibleFrames=["[1,1,1,1,1]", "[0,0,0,0,0]"])
    with pytest.raises(InputError, match="a wedge that hides everything"):
        open_wedges(
            Source(source.stack, replace(source.particles, table=hidden)), tmp_path / "t.star"
        )
    other = source.particles.table.assign(rlnTomoName=["TS_1", "TS_9"])
    with pytest.raises(InputError, match="there is no tomogram TS_9"):
        open_wedges(
            Source(source.stack, replace(source.particles, table=other)), tmp_path / "t.star"
        )


def test_wedges_that_cannot_be(tmp_path: Path) -> None:
    source = volumes_with(tmp_path)
    assert open_wedges(source) is None
    for wedge, said in (
        (np.ones((6, 6, 6)), "is 6 x 6 x 6, expected 8 x 8 x 8 as the volumes, or 8 x 8 x 5"),
        (np.ones((2, 8, 8, 8)), "the number of wedge masks is 2, expected 1 or 3"),
        (np.ones((8, 8)), "the shape of the mask"),
        ((50.0, -50.0), "a wedge that hides everything"),
        (tmp_path / "none.mrc", "no such file of wedge masks"),
        (tmp_path / "p.star", "it names no tilts"),
    ):
        with pytest.raises(InputError, match=said):
            open_wedges(source, wedge)
    empty = open_wedges(source, np.zeros((8, 8, 8)))
    assert empty is not None
    with pytest.raises(InputError, match="hides everything"):
        empty.read(np.array([0]))
    with pytest.raises(InputError, match="expected volumes, which have wedges"):
        open_wedges(open_source(np.ones((3, 8, 8))), (-60.0, 60.0))
    for columns, said in (
        ({"modposeTiltMin": [-60.0] * 3}, "only modposeTiltMin, expected both"),
        (
            {"modposeTiltMin": [0.0] * 3, "modposeTiltMax": [0.0] * 3},
            r"tilt range in row 1 is 0 to 0 degrees",
        ),
        ({"rlnCtfImage": ["gone.mrc"] * 3}, "the file gone.mrc of rlnCtfImage cannot be found"),
    ):
        with pytest.raises(InputError, match=said):
            open_wedges(volumes_with(tmp_path, **columns))


def test_volumes_in_stars_that_say_so_are_not_tilt_stacks(tmp_path: Path) -> None:
    frames = {"rlnTomoVisibleFrames": ["[1,1]"] * 3}
    with pytest.raises(InputError, match="list of tomograms is not known"):
        volumes_with(tmp_path, **frames)
    text = (tmp_path / "p.star").read_text()
    (tmp_path / "p.star").write_text("data_general\n\n_rlnTomoSubTomosAre2DStacks 0\n" + text)
    assert open_source(tmp_path / "p.star").stack.shape == (8, 8, 8)
    optics = "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnImageDimensionality #2\n1 3\n"
    (tmp_path / "p.star").write_text(optics + text)
    assert open_source(tmp_path / "p.star").stack.shape == (8, 8, 8)


def test_boxes_that_differ_are_refused(tmp_path: Path) -> None:
    volumes_with(tmp_path)
    write_mrcs(tmp_path / "1.mrc", np.ones((1, 6, 6, 6)), 5.0, overwrite=True)
    with pytest.raises(InputError, match=r"the box is 8x8x8 .* and 6x6x6"):
        open_source(tmp_path / "p.star")


# --- the command line -------------------------------------------------------------------------


def test_the_verb_makes_a_set_and_checks_it(tmp_path: Path) -> None:
    arguments = ["simulate", "subtomograms", "-o", str(tmp_path / "d"), "--volumes", "3"]
    small = ["--box", "16", "--pixel-size", "12", "--assemblies", "2", "--abundance", "2,1"]
    result = CliRunner().invoke(app, [*arguments, *small, "--check"])
    assert result.exit_code == 0, result.output
    assert "wrote 3 volumes" in result.output
    assert "check: a tilt series" in result.output
    assert (tmp_path / "d" / "subtomograms" / "000003.mrc").is_file()
    again = CliRunner().invoke(app, [*arguments, *small])
    assert "particles.star: already exists" in str(again.exception)
    refused = CliRunner().invoke(app, [*arguments, "--abundance", "many"])
    assert isinstance(refused.exception, InputError)
    assert "the value is 'many'" in str(refused.exception)


def test_molecules_are_named_after_their_files(tmp_path: Path) -> None:
    line = "ATOM      1  CA  ALA A   1      {:6.3f}   0.000   0.000  1.00 10.00           C"
    for name in ("one.pdb", "two.pdb"):
        (tmp_path / name).write_text(line.format(5.0) + "\n" + line.format(9.0) + "\nEND\n")
    found = species_of_files([tmp_path / "one.pdb", tmp_path / "two.pdb"], 20.0)
    assert [one.name for one in found] == ["one", "two"]
    made = simulate_subtomograms(replace(SMALL, n=4), found)
    assert sorted(made.truth.template) == ["one", "one", "two", "two"]
    with pytest.raises(InputError, match="a molecule given twice is one"):
        species_of_files([tmp_path / "one.pdb"] * 2, 20.0)


def test_molecules_of_files(some_data: Path) -> None:
    species = species_of_files([some_data / "pdb" / "4hhb.cif"], 15.0)
    made = simulate_subtomograms(SubtomogramSettings(n=2, box=20), species)
    assert made.clean().var() == pytest.approx(0.1, rel=1e-3)
    with pytest.raises(InputError, match=r"1oel is .* expected a box of at least 3"):
        simulate_subtomograms(
            SubtomogramSettings(n=1), species_of_files([some_data / "pdb" / "1oel.pdb"], 15.0)
        )


def test_tilts_of_a_list_of_tomograms(some_data: Path) -> None:
    from modpose.data.star import read_star
    from modpose.data.tables import particles_of_star
    from modpose.data.tilts import tilt_ranges

    base = some_data / "tomo" / "warptools_test_4-tomos_10-ptcls_box-32_angpix-12"
    star = base.with_name(base.name + ".star")
    particles = particles_of_star(read_star(star), str(star))
    limits = tilt_ranges(particles, base.with_name(base.name + "_tomograms.star"))
    assert ((limits[:, 0] > -80) & (limits[:, 0] < -30)).all()  # pre-tilted, as refined
    assert ((limits[:, 1] > 30) & (limits[:, 1] < 80)).all()

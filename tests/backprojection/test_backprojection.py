"""Maps from images with known poses, and the check of poses spoiled in every usual way."""

from __future__ import annotations

import pickle
from functools import lru_cache

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from modpose.backprojection import check_poses, reconstruct_halves
from modpose.backprojection.halves import open_posed
from modpose.cli import app
from modpose.data.mrc import write_mrcs
from modpose.data.particles import Particles
from modpose.data.source import Source, open_source
from modpose.data.stack import ArrayStack
from modpose.errors import InputError
from modpose.fourier.fsc import fsc, read_map
from modpose.geometry.windows import soft_window
from modpose.simulate.conformations import Conformer, built_in_conformers
from modpose.simulate.projection_files import star_tables, write_projections
from modpose.simulate.projections import Projections, ProjectionSettings, simulate_projections

BALL = soft_window((32,) * 3, 0.7, 0.85)


@lru_cache(maxsize=4)
def rigid(n: int = 500, snr: float = 0.3, ctf: bool = True, box: int = 32) -> Projections:
    settings = ProjectionSettings(
        n=n, box=box, pixel_size=160 / box, snr=snr, ctf=ctf, shift_std_px=1.5
    )
    return simulate_projections(settings, [Conformer("still", built_in_conformers(1)[0].molecule)])


def source(made: Projections, images=None, rotation=None, shift=None) -> Source:
    table, optics = star_tables(made)
    r = made.rotation if rotation is None else rotation
    t = made.shift if shift is None else shift
    stack = ArrayStack(made.images if images is None else images, pixel_size=5.0)
    return Source(stack, Particles(table, optics, "star", "p.star", given_poses=(r, t)))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef((a * BALL).ravel(), (b * BALL).ravel())[0, 1])


# --- the map ----------------------------------------------------------------------------------


def test_without_noise_the_map_is_the_object_in_scale_and_place():
    made = rigid(600, 1e4, False)
    halves = reconstruct_halves(open_posed(source(made)), quiet=True)
    truth = made.volume()
    assert correlation(halves.combined(), truth) > 0.98
    mean = 0.5 * (halves.first + halves.second) * BALL
    assert (mean * truth).sum() / (truth**2 * BALL).sum() == pytest.approx(1.0, abs=0.08)
    assert fsc(mean, truth, BALL).correlation[:8].min() > 0.97


def test_images_that_count_twice_are_said_with_their_number(caplog: pytest.LogCaptureFixture):
    made = source(rigid())
    rows = np.r_[0:50, 0:3]
    images = ArrayStack(made.stack.read(rows)[:, 0], pixel_size=5.0)
    open_posed(made.subset(np.arange(50)))
    assert not caplog.text
    open_posed(Source(images, made.particles.subset(rows)))
    assert "3 rows name the same image at the same pose as an earlier row" in caplog.text


def test_the_ctf_and_shifts_are_undone():
    made = rigid(600, 1e4, True)
    halves = reconstruct_halves(open_posed(source(made)), quiet=True)
    found = fsc(halves.combined(), made.volume(), BALL).correlation
    assert found[:9].min() > 0.95
    wrong = reconstruct_halves(open_posed(source(made, shift=-made.shift)), quiet=True)
    assert fsc(wrong.combined(), made.volume(), BALL).correlation[8] < 0.8


def test_fourier_cropping_gives_the_map_of_the_smaller_box():
    made = rigid(400, 1e4, False, 48)
    large = reconstruct_halves(open_posed(source(made), box=32), quiet=True)
    assert large.first.shape == (32, 32, 32)
    settings = ProjectionSettings(n=1, box=32, pixel_size=5.0)
    small = simulate_projections(settings, made.conformers).volume()
    assert correlation(large.combined(), small) > 0.97


# --- the check --------------------------------------------------------------------------------


def test_a_sound_set_is_called_sound():
    check = check_poses(open_posed(source(rigid())), quiet=True)
    assert check.problems == []
    assert "poses and contrast fit the images" in check.lines()[0]


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda m: {"images": -m.images}, "inverted contrast"),
        (lambda m: {"rotation": m.rotation.transpose(0, 2, 1)}, "rotations are transposed"),
        (lambda m: {"shift": -m.shift}, "the shifts have the wrong sign"),
        (
            lambda m: {"rotation": m.rotation.transpose(0, 2, 1), "shift": -m.shift},
            "transposed and the shifts have the wrong sign",
        ),
        (lambda m: {"images": np.roll(m.images[:, ::-1], 1, 1)}, "rows of the images"),
        (lambda m: {"shift": m.shift[::-1]}, "the shifts do not match the images"),
        (
            lambda m: {"rotation": m.rotation[::-1], "shift": m.shift[::-1]},
            "the poses do not match the images",
        ),
        (lambda m: {"rotation": Rotation.random(500, rng=9).as_matrix()}, "poses do not match"),
    ],
)
def test_every_usual_mistake_is_named(spoil, sentence):
    made = rigid()
    check = check_poses(open_posed(source(made, **spoil(made))), quiet=True)
    assert len(check.problems) == 1, check
    assert sentence in check.problems[0]
    assert check.lines()[0].startswith("problem: ")


def test_what_has_no_3d_poses_is_refused():
    made = rigid()
    flat = np.tile(np.eye(3), (500, 1, 1))
    with pytest.raises(InputError, match="from one direction, as after 2-D classification"):
        reconstruct_halves(open_posed(source(made, rotation=flat)), quiet=True)
    few = source(made).subset(np.arange(3))
    with pytest.raises(InputError, match="at least 4"):
        check_poses(open_posed(few), quiet=True)
    bare = Source(ArrayStack(made.images), Particles(pd.DataFrame(index=range(500))))
    with pytest.raises(InputError, match="there are no poses"):
        open_posed(bare)


# --- the verb ---------------------------------------------------------------------------------


def test_the_verb_writes_half_maps_and_says_what_is_wrong(tmp_path):
    made = rigid(n=300, snr=0.5)
    star = write_projections(made, tmp_path / "data")
    out = tmp_path / "check"
    done = CliRunner().invoke(app, ["backproject", str(star), "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert "poses and contrast fit" in done.output
    volume, size = read_map(out / "map.mrc")
    assert size == 5.0
    assert correlation(volume, made.volume()) > 0.8
    assert {p.name for p in out.iterdir()} == {
        *("half1.mrc", "half2.mrc", "map.mrc", "fsc.csv", "fsc.png")
    }
    dark = ["backproject", str(star), "-o", str(tmp_path / "dark"), "--invert"]
    assert "inverted contrast" in CliRunner().invoke(app, dark).output
    again = CliRunner().invoke(app, ["backproject", str(star), "-o", str(out), "--no-check"])
    assert isinstance(again.exception, InputError)


def test_poses_of_a_pickle_give_the_map(tmp_path):
    """A pickle of cryoDRGN holds rotations as ours and minus the shift in boxes."""
    made = rigid(600, 1e4, False)
    write_mrcs(tmp_path / "a.mrcs", made.images, 5.0)
    poses = made.rotation.astype("f4"), (-made.shift / 32).astype("f4")
    (tmp_path / "p.pkl").write_bytes(pickle.dumps(poses))
    posed = open_source(tmp_path / "a.mrcs", poses=tmp_path / "p.pkl")
    found = reconstruct_halves(open_posed(posed), quiet=True).combined()
    assert correlation(found, made.volume()) > 0.98


# --- other programs' data ---------------------------------------------------------------------


@pytest.mark.shared
def test_the_simulated_ribosomes_give_their_published_maps(shared_data):
    """Noise-free projections made and posed by another program, of two classes."""
    folder = shared_data / "spa_sim" / "10076_DE"
    data = open_posed(open_source(folder / "10076_both_32_clean.star"))
    truth = {c: read_map(folder / f"10076_class{c}_32.mrc")[0] for c in "DE"}
    for of, rows in (("D", np.arange(576)), ("E", np.arange(576, 1296))):
        found = reconstruct_halves(data, rows, quiet=True).combined()
        assert correlation(found, truth[of]) > 0.92
        other = "E" if of == "D" else "D"
        assert correlation(found, truth[of]) > correlation(found, truth[other]) + 0.03


@pytest.mark.shared
def test_noisy_ribosomes_are_dark_under_our_ctf_and_said_to_be(shared_data):
    star = shared_data / "spa_sim" / "10076_DE" / "10076_both_32_sim.star"
    assert "inverted contrast" in check_poses(open_posed(open_source(star)), quiet=True).problems[0]
    data = open_posed(open_source(star), invert=True)
    assert check_poses(data, quiet=True).problems == []
    truth = read_map(star.parent / "10076_classE_32.mrc")[0]
    assert correlation(reconstruct_halves(data, quiet=True).combined(), truth) > 0.75


@pytest.mark.shared
def test_rotations_of_a_cryodrgn_pickle_are_ours(shared_data):
    folder = shared_data / "spa_sim" / "cryodrgn_toy"
    posed = open_source(folder / "toy_projections.mrcs", poses=folder / "toy_angles.pkl")
    found = reconstruct_halves(open_posed(posed), quiet=True).combined()
    truth = read_map(folder / "toymodel_small_nocenter.mrc")[0]
    assert np.corrcoef(found.ravel(), truth.ravel())[0, 1] > 0.97

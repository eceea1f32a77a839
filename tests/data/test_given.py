"""Poses and CTF parameters from files of their own; pickles that want to do more."""

from __future__ import annotations

import os
import pickle
import pickletools
from collections import OrderedDict

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from modpose.backprojection.halves import half_of
from modpose.cli import app
from modpose.config import DataConfig
from modpose.data.dataset import Dataset
from modpose.data.given import read_ctf, read_poses
from modpose.data.mrc import write_mrcs
from modpose.data.particles import Particles
from modpose.data.plain_pickle import read_plain_pickle
from modpose.data.source import Source, open_source
from modpose.data.stack import ArrayStack
from modpose.data.star import write_star
from modpose.data.tables import read_particles
from modpose.errors import InputError
from modpose.jobs.shards import table_for


def pickled(tmp_path, what, protocol=4, name="p.pkl"):
    path = tmp_path / name
    path.write_bytes(pickle.dumps(what, protocol))
    return path


def rotations(n: int, seed: int = 0) -> np.ndarray:
    return Rotation.random(n, rng=seed).as_matrix()


def images(n: int = 5, side: int = 12, size: float | None = 2.0) -> ArrayStack:
    pixels = np.random.default_rng(0).normal(size=(n, side, side)).astype(np.float32)
    return ArrayStack(pixels, pixel_size=size)


# --- pickles ----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    arrays=st.lists(
        hnp.arrays(
            st.sampled_from(["<f4", ">f8", "<i8", "u1", "?", "<f2"]),
            hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
        ),
        min_size=1,
        max_size=3,
    ),
    fortran=st.booleans(),
    protocol=st.integers(0, 5),
)
def test_arrays_come_back_from_every_kind_of_pickle(tmp_path_factory, arrays, fortran, protocol):
    arrays = [np.asfortranarray(a) if fortran else a for a in arrays]
    path = pickled(tmp_path_factory.mktemp("p"), tuple(arrays), protocol)
    for found, expected in zip(read_plain_pickle(path), arrays, strict=True):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype.newbyteorder("=") == expected.dtype.newbyteorder("=")


class Evil:
    """Makes a file when it is unpickled by a reader that runs what it is told."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_malicious_pickle_is_refused_in_one_sentence_and_runs_nothing(tmp_path):
    for what in (Evil(tmp_path / "ran"), (rotations(2), Evil(tmp_path / "ran"))):
        path = pickled(tmp_path, what)
        with pytest.raises(InputError, match=r"asks for posix\.mkdir, expected plain arrays") as e:
            read_plain_pickle(path)
        assert "\n" not in str(e.value)
        assert not (tmp_path / "ran").exists()
    pickle.loads(path.read_bytes())  # the same bytes do run where nobody looks
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ({"R": np.eye(3)}, "asks for a dict"),
        ([1.0, 2.0], "a float"),
        (OrderedDict(), "asks for collections.OrderedDict"),
        (pd.DataFrame({"a": [1]}), "asks for pandas"),
        (np.array([None, "x"], dtype=object), "type of numbers"),
        (np.array(["text"]), "type of numbers"),
        (np.zeros(2, dtype=[("a", "f4")]), "asks for a dict"),
        (np.float64(3.0), "asks for numpy"),
        (print, "asks for builtins.print"),
        (os.system, "asks for posix.system"),
    ],
)
def test_what_is_not_plain_arrays_is_refused(tmp_path, what, sentence):
    with pytest.raises(InputError, match=sentence):
        read_plain_pickle(pickled(tmp_path, what))


def test_a_pickle_cut_anywhere_or_altered_is_refused_or_read_never_more(tmp_path):
    whole = pickle.dumps((rotations(2), np.zeros((2, 2))), 2)
    assert len(list(pickletools.genops(whole))) > 20
    path = tmp_path / "p.pkl"
    rng = np.random.default_rng(0)
    for trial in range(300):
        data = bytearray(whole[: rng.integers(len(whole))] if trial % 2 else whole)
        for _ in range(3):
            if data:
                data[rng.integers(min(len(data), 200))] = rng.integers(256)
        path.write_bytes(data)
        try:
            found = read_plain_pickle(path)
        except InputError:
            continue
        assert all(type(array) is np.ndarray for array in found)


# --- poses ------------------------------------------------------------------------------------


def test_translations_of_a_pickle_are_fractions_of_the_box_with_the_other_sign(tmp_path):
    r, t = rotations(5), np.random.default_rng(1).normal(0, 0.1, (5, 2))
    source = open_source(images(), poses=pickled(tmp_path, (r.astype("f4"), t)))
    batch = Dataset(source, DataConfig(), seed=0, poses=True).batch(np.array([3, 1]))
    np.testing.assert_allclose(batch.pose.rotation, r[[3, 1]], atol=1e-6)
    np.testing.assert_allclose(batch.pose.shift, -12 * t[[3, 1]], rtol=1e-5)
    alone, _ = read_poses(pickled(tmp_path, r), n=5, box=12)
    np.testing.assert_array_equal(alone, r)


def test_shifts_are_in_pixels_of_the_box_that_the_model_sees(tmp_path):
    path = pickled(tmp_path, (rotations(5), np.full((5, 2), 0.25)))
    source = open_source(images(), poses=path)
    data = Dataset(source, DataConfig(crop=8, box=4), seed=0, poses=True)
    assert data.translation.dtype == np.float32
    np.testing.assert_allclose(data.translation, -12 * 0.25 / 2)


def test_index_keeps_poses_and_ctf_beside_their_images(tmp_path):
    r = rotations(5)
    columns = np.tile([12, 2.0, 9e3, 8e3, 30, 300, 2.7, 0.1, 0], (5, 1))
    columns[:, 2] += np.arange(5)
    source = open_source(
        images(),
        poses=pickled(tmp_path, r),
        ctf=pickled(tmp_path, columns, name="c.pkl"),
        index=np.array([4, 2]),
    )
    data = Dataset(source, DataConfig(), seed=0, poses=True, ctf=True)
    np.testing.assert_allclose(data.rotation, r[[4, 2]], atol=1e-6)
    np.testing.assert_allclose(data.ctf[:, 1], [9004, 9002])
    np.testing.assert_allclose(data.ctf[0], [2, 9004, 8e3, 30, 300, 2.7, 0.1, 0, 0])


def test_a_table_of_another_pixel_size_is_scaled(tmp_path):
    r = Rotation.random(5, rng=2)
    euler = -r.as_euler("ZYZ", degrees=True)  # RELION's matrix turns the other way round
    table = pd.DataFrame(
        {
            "rlnImageName": [f"{i + 1}@far.mrcs" for i in range(5)],
            "rlnAnglePsi": euler[:, 0],
            "rlnAngleTilt": euler[:, 1],
            "rlnAngleRot": euler[:, 2],
            "rlnOriginXAngst": np.arange(5.0),
            "rlnOriginYAngst": np.full(5, 3.0),
            "rlnOpticsGroup": 1,
        }
    )
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnImagePixelSize": [0.5]})
    write_star(tmp_path / "far.star", table, optics)
    rotation, shift = read_poses(tmp_path / "far.star", n=5, box=12, pixel_size=2.0)
    np.testing.assert_allclose(rotation, r.as_matrix(), atol=1e-9)
    np.testing.assert_allclose(shift, -np.stack([np.arange(5) / 2, np.full(5, 1.5)], 1))


def test_half_sets_are_those_of_the_table_of_the_poses(tmp_path):
    n = 20
    stack = np.random.default_rng(0).normal(size=(n, 12, 12)).astype(np.float32)
    write_mrcs(tmp_path / "s.mrcs", stack, 2.0)
    half, order = np.random.default_rng(1).integers(1, 3, n), np.arange(n)[::-1]
    table = pd.DataFrame(
        {
            "rlnImageName": [f"{i + 1}@s.mrcs" for i in order],
            "rlnAngleTilt": np.linspace(0, 90, n),
            "rlnRandomSubset": half[order],
        }
    )
    write_star(tmp_path / "refined.star", table)
    write_star(tmp_path / "s.star", table.assign(rlnRandomSubset=3 - half[order]))
    chosen = np.arange(3, n)
    np.savetxt(tmp_path / "index.txt", chosen, fmt="%d")
    for images, rows in (("s.mrcs", chosen), ("s.star", order[chosen])):
        source = open_source(
            tmp_path / images, poses=tmp_path / "refined.star", index=tmp_path / "index.txt"
        )
        data = Dataset(source, DataConfig(), seed=0, poses=True)
        assert half_of(data, np.arange(len(chosen))).tolist() == (half[rows] - 1).tolist()
    written = table_for(source, tmp_path / "out.star").table["rlnRandomSubset"]
    assert written.tolist() == half[order[chosen]].tolist()


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ((rotations(4), np.zeros((4, 2))), r"of shape \(4, 3, 3\) and \(4, 2\), expected \(5, 3"),
        ((rotations(5), np.zeros((5, 3))), r"expected \(5, 3, 3\) and, of shifts, \(5, 2\)"),
        (2 * rotations(5), "the matrix of image 1 is none, expected a rotation"),
        (-rotations(5), "expected a rotation"),
        (np.full((5, 3, 3), np.nan), "expected a rotation"),
        ((rotations(5), np.full((5, 2), np.inf)), "not a finite number"),
    ],
)
def test_poses_that_do_not_fit_are_refused(tmp_path, what, sentence):
    with pytest.raises(InputError, match=sentence):
        read_poses(pickled(tmp_path, what), n=5, box=12)


def test_missing_files_poses_and_ctfs_are_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_poses(tmp_path / "no.pkl", n=5, box=12)
    with pytest.raises(InputError, match=r"expected a \.star, a \.cs, or a \.pkl"):
        read_poses(pickled(tmp_path, 1, name="x.dat"), n=5, box=12)
    with pytest.raises(InputError, match=r"expected \(5, 9\)"):
        read_ctf(pickled(tmp_path, np.zeros((5, 8))), n=5, box=12)
    with pytest.raises(InputError, match="expected finite numbers, positive ones"):
        read_ctf(pickled(tmp_path, np.zeros((5, 9))), n=5, box=12)
    source = Source(images(), Particles(pd.DataFrame(index=range(5)), name="p.star"))
    with pytest.raises(InputError, match=r"p.star: there are no poses .*\(--poses\)"):
        Dataset(source, DataConfig(), seed=0, poses=True)


def test_fit_and_encode_take_both_files_and_a_run_remembers_them(tmp_path):
    np.save(tmp_path / "x.npy", images(20)._stored(0, 20))
    poses = pickled(tmp_path, rotations(19))
    ctf = pickled(
        tmp_path, np.tile([12, 2.0, 9e3, 8e3, 30, 300, 2.7, 0.1, 0], (20, 1)), name="c.pkl"
    )
    arguments = ["fit", str(tmp_path / "x.npy"), "-o", str(tmp_path / "run"), "--recipe", "vae"]
    small = ["--epochs", "1", "--z-dim", "1", "--set", "model.encoder.hidden=4"]
    bad = CliRunner().invoke(app, [*arguments, *small, "--poses", str(poses)])
    assert isinstance(bad.exception, InputError)
    assert "(20, 3, 3)" in str(bad.exception)
    good = pickled(tmp_path, rotations(20))
    files = ["--poses", str(good), "--ctf", str(ctf)]
    made = CliRunner().invoke(app, [*arguments, *small, *files])
    assert made.exit_code == 0, made.output
    from modpose.run import Run

    source = Run.open(tmp_path / "run").dataset().source
    np.testing.assert_array_equal(source.particles.poses()[0], rotations(20))
    assert source.pixel_size == 2.0
    out = ["encode", str(tmp_path / "run"), str(tmp_path / "x.npy"), "-o", str(tmp_path / "z.csv")]
    done = CliRunner().invoke(app, [*out, *files])
    assert done.exit_code == 0, done.output


# --- other programs' files --------------------------------------------------------------------


def test_pickles_say_what_a_cryosparc_table_says(some_data):
    cs = some_data / "cs"
    table = read_particles(cs / "cryosparc_P12_J24_001_particles.cs")
    rotation, shift = read_poses(cs / "pose.cs.pkl", n=table.n, box=180)
    r, t = table.poses()
    np.testing.assert_allclose(rotation, r, atol=1e-5)
    np.testing.assert_allclose(shift, t, atol=1e-4)
    found = read_ctf(cs / "ctf2.pkl", n=table.n, box=180)
    np.testing.assert_allclose(found, table.ctf(), rtol=2e-3, atol=1e-3)


@pytest.mark.shared
def test_pickles_say_what_a_relion_table_says(shared_data):
    both = shared_data / "spa_sim" / "10076_DE"
    source = open_source(both / "10076_both_32_sim.star")
    r, t = source.particles.poses(13.1)
    for part, rows in (("D", slice(0, 576)), ("E", slice(576, None))):
        n = len(r[rows])
        rotation, shift = read_poses(both / f"pose_class{part}.pkl", n=n, box=32)
        np.testing.assert_allclose(rotation, r[rows], atol=1e-5)
        np.testing.assert_allclose(shift, t[rows], atol=1e-3)
        found = read_ctf(both / f"ctf_class{part}.pkl", n=n, box=32)
        np.testing.assert_allclose(found[:, 1:8], source.particles.ctf(13.1)[rows, 1:8], rtol=1e-4)


def test_the_seven_particles_without_poses_say_what_is_missing(some_data):
    for name in ("empiar_10076_7.star", "empiar_10076_7.cs"):
        source = open_source(some_data / "spa" / name)
        with pytest.raises(InputError, match="there are no poses") as caught:
            Dataset(source, DataConfig(), seed=0, poses=True, ctf=True)
        assert name in str(caught.value)
        assert Dataset(source, DataConfig(box=64), seed=0, ctf=True).batch(np.arange(7)).ctf.all

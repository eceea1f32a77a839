"""Tables of tilt series: poses behind angles, tables of M, refusals, the command line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from modpose.cli import app
from modpose.data.source import open_source
from modpose.data.star import read_star, write_blocks, write_star
from modpose.data.tilt_posing import tilts_of_images, with_tilt_poses
from modpose.data.tilt_series import open_tilt_series
from modpose.errors import InputError
from modpose.search.abinitio.settings import AbInitioSettings
from modpose.search.tilts.images import read_tilts
from modpose.search.tilts.run import find_tilt_maps
from tests.search.tilt_set import BOX, grouped


def test_poses_behind_the_angles_of_a_subtomogram_mean_the_same(made, table):
    # R = R_subtomogram R_particle: the particle's angles are what is left
    blocks = read_star(table.with_name("particles.star"))
    angles = {"rlnTomoSubtomogramRot": 30.0, "rlnTomoSubtomogramTilt": 40.0}
    blocks["particles"] = blocks["particles"].assign(**angles, rlnTomoSubtomogramPsi=-50.0)
    path = table.with_name("turned.star")
    write_blocks(path, blocks)
    tomograms = table.with_name("tomograms.star")
    opened = open_tilt_series(path, tomograms)
    zero = np.zeros(opened.n, np.int64)
    posed = with_tilt_poses(opened, made.rotation, made.shift, zero, zero)
    write_star(table.with_name("posed.star"), posed.table, posed.optics, form=posed.form)
    again = open_tilt_series(table.with_name("posed.star"), tomograms)
    np.testing.assert_allclose(again.rotation, made.rotation, atol=1e-5)
    np.testing.assert_allclose(again.shift, made.shift, atol=1e-5)


def test_a_table_of_m_gives_the_same_coefficients_in_the_frame_of_the_first_image(made, table):
    path = grouped(made, table, "m")
    series = open_tilt_series(path)
    whole = open_tilt_series(table)
    ours, theirs = (read_tilts(one, 8.0, quiet=True) for one in (series, whole))
    still = torch.eye(3).expand(series.n, 3, 3)
    torch.testing.assert_close(ours.tilt[:, 0], still, atol=1e-5, rtol=0)
    seen = theirs.row >= 0
    first = theirs.tilt[torch.arange(series.n), seen.int().argmax(1)][:, None]
    expected = (theirs.tilt @ first.transpose(2, 3))[seen]
    torch.testing.assert_close(ours.tilt[ours.row >= 0], expected, atol=1e-4, rtol=0)
    # poses in that frame, written back, are those of the images
    turn = first[:, 0].double().numpy()
    zero = np.zeros(series.n, np.int64)
    posed = with_tilt_poses(series, turn @ made.rotation, np.zeros((series.n, 3)), zero, zero)
    before, after = series.images.particles.poses(10.0), posed.poses(10.0)
    np.testing.assert_allclose(after[0], before[0], atol=1e-4)
    np.testing.assert_allclose(after[1], before[1], atol=1e-4)
    # as volumes: one row per particle, written with one row per image
    chosen = open_source(path, tilt_series=True, index=np.array([7, 2]))
    assert (chosen.n, chosen.stack.shape) == (2, (BOX, BOX, BOX))
    names = chosen.written().column("rlnGroupName").tolist()
    counts = np.bincount(series.particle)[[7, 2]]
    expected = chosen.particles.column("rlnGroupName")
    assert names == np.repeat(expected, counts).tolist()
    entries = chosen.written_tilts().posed(np.tile(np.eye(3), (2, 1, 1)), np.zeros((2, 3)), 10.0)
    rows = np.concatenate([np.flatnonzero(series.particle == one) for one in (7, 2)])
    np.testing.assert_allclose(entries.poses(10.0)[0], tilts_of_images(series)[rows], atol=1e-5)


# --- refusals and the command line --------------------------------------------------------------


def test_what_cannot_be_searched_is_refused_in_a_sentence(made, series, table, tmp_path):
    few = AbInitioSettings(classes=7, box=BOX)
    with pytest.raises(InputError, match="48, expected at least 56, 8 for each of 7"):
        find_tilt_maps(series, tmp_path, few)
    with pytest.raises(InputError, match="symmetry is C2, expected C1"):
        find_tilt_maps(series, tmp_path, AbInitioSettings(symmetry="C2"))
    with pytest.raises(InputError, match="--similar is given, expected structures that differ"):
        find_tilt_maps(series, tmp_path, AbInitioSettings(classes=2, similar=True))
    path = grouped(made, table, "refused")
    whole = next(iter(read_star(path).values()))
    without = whole.drop(columns=["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"])
    write_star(path, without, overwrite=True)
    with pytest.raises(InputError, match="no angles, expected those of each image"):
        read_tilts(open_tilt_series(path), 8.0)
    twice = whole.assign(rlnAngleTilt=np.where(np.arange(len(whole)) % 2, 170.0, 0.0))
    write_star(path, twice, overwrite=True)
    with pytest.raises(InputError, match="degrees apart, expected the tilts of one particle"):
        read_tilts(open_tilt_series(path), 8.0)


def test_memory_that_will_not_suffice_is_said_before_images_are_read(series, monkeypatch):
    monkeypatch.setattr("modpose.search.tilts.images.memory_needed", lambda *_: 2**50)
    monkeypatch.setattr("modpose.search.tilts.images.read_images", None)
    with pytest.raises(InputError, match="does not fit: it needs 3,145,728 GiB of memory"):
        find_tilt_maps(series, None, AbInitioSettings())


def test_options_that_tilt_series_do_not_take_are_refused(table, tmp_path):
    arguments = ["abinitio", str(table), "-o", str(tmp_path / "o"), "--index", "1.txt"]
    made = CliRunner().invoke(app, arguments)
    assert "none of them for tilt series" in str(made.exception)


def test_align_takes_tilt_series_from_the_command_line(made, table, tmp_path):
    out = tmp_path / "aligned"
    arguments = f"align {table} -o {out} --rounds 12 --rotations 400 --refine-rounds 2"
    done = CliRunner().invoke(app, arguments.split())
    assert done.exit_code == 0, done.output
    assert "class 1: 48 volumes" in done.output
    lost = float(done.output.split("% lost")[0].split()[-1])
    assert lost < 30
    written = read_star(out / "particles.star")
    assert str(written["general"]["rlnTomoSubTomosAre2DStacks"]) == "1"
    assert {"rlnAngleRot", "rlnOriginZAngst", "modposeScore"} <= set(written["particles"])
    halves = open_tilt_series(table).particles.table["rlnRandomSubset"].to_numpy(np.int64)
    mine = written["particles"]["rlnRandomSubset"].to_numpy(np.int64)
    np.testing.assert_array_equal(mine, halves)
    assert (out / "index.html").exists()
    chosen = CliRunner().invoke(
        app, ["select", str(out), "--class", "1", "-o", str(out / "a.star")]
    )
    assert chosen.exit_code == 0, chosen.output
    assert open_source(out / "a.star", datadir=table.parent).n == 48

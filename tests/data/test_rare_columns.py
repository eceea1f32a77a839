"""Columns that few tables have: what they mean, and what follows them to other tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from modpose.data.mrc import write_mrcs
from modpose.data.optics import aberrations
from modpose.data.particles import Particles
from modpose.data.plain_pickle import write_plain_pickle
from modpose.data.renamed import with_images
from modpose.data.source import open_source
from modpose.data.star import write_star
from modpose.jobs.positions import centres
from modpose.jobs.unbin import unbinned
from modpose.observe.ctf import CtfColumn, CtfState

N, SIZE = 4, 2.0
PLAIN = [SIZE, 1e4, 9e3, 30.0, 300.0, 2.7, 0.1, 0.0, 0.0]


def cs(**fields: object) -> Particles:
    """A table of cryoSPARC; ``__`` stands for the slash."""
    known: dict[str, object] = {"uid": np.arange(N, dtype=np.uint64) + 5}
    known |= {"blob/psize_A": SIZE, "blob/path": "s.mrcs", "blob/idx": np.arange(N)}
    known |= {name.replace("__", "/"): value for name, value in fields.items()}
    return Particles(pd.DataFrame(known), None, "cs", "p.cs")


def star(**columns: object) -> Particles:
    names = [f"{k + 1}@s.mrcs" for k in range(N)]
    table = pd.DataFrame({"rlnImageName": names, "rlnPixelSize": SIZE, **columns})
    return Particles(table, None, "star", "p.star")


def test_every_number_of_a_cryosparc_ctf() -> None:
    found = cs(
        ctf__df1_A=1e4,
        ctf__df2_A=9e3,
        ctf__df_angle_rad=np.pi / 6,
        ctf__accel_kv=300.0,
        ctf__cs_mm=2.7,
        ctf__amp_contrast=0.1,
        ctf__phase_shift_rad=np.pi / 2,
        ctf__bfactor=50.0,
    ).ctf()
    assert found is not None
    expected = np.array(PLAIN)
    expected[[CtfColumn.PHASE_SHIFT, CtfColumn.B_FACTOR]] = 90.0, 50.0
    np.testing.assert_allclose(found, np.tile(expected, (N, 1)), rtol=1e-6)


def test_tilt_and_trefoil_of_cryosparc_add_up() -> None:
    tilt = {"ctf__tilt_A_0": 3e4, "ctf__tilt_A_1": 4e4, "ctf__accel_kv": 300.0}
    trefoil = {"ctf__trefoil_A_0": 0.0, "ctf__trefoil_A_1": 1e5}
    one, both = (aberrations(cs(**fields)).phases for fields in (tilt, tilt | trefoil))
    assert one is not None
    assert both is not None
    np.testing.assert_allclose(both[:, 1], 3 * one[:, 1])


@pytest.mark.parametrize("said", [False, True])
def test_scale_and_state_of_a_given_ctf_yield_to_those_of_the_table(said: bool) -> None:
    given = np.tile([*PLAIN, 0.5, float(CtfState.FLIPPED)], (N, 1))
    columns = {"rlnCtfScalefactor": 0.8, "rlnCtfDataAreCtfPremultiplied": 1} if said else {}
    found = replace(star(**columns), given_ctf=given).ctf()
    assert found is not None
    expected = (0.8, CtfState.PREMULTIPLIED) if said else (0.5, CtfState.FLIPPED)
    np.testing.assert_allclose(found[:, CtfColumn.SCALE], expected[0])
    np.testing.assert_allclose(found[:, CtfColumn.STATE], expected[1])


def test_beam_tilt_of_a_ctf_in_another_order(tmp_path: Path) -> None:
    order, tilt = np.array([2, 0, 3, 1]), np.array([0.1, 0.2, 0.3, 0.4])
    write_mrcs(tmp_path / "s.mrcs", np.random.default_rng(0).random((N, 8, 8)), SIZE)
    ctf = star(
        rlnDefocusU=1e4,
        rlnVoltage=300.0,
        rlnSphericalAberration=2.7,
        rlnAmplitudeContrast=0.1,
        rlnBeamTiltX=tilt,
    ).subset(order)
    write_star(tmp_path / "ctf.star", ctf.table)
    found = aberrations(open_source(tmp_path / "s.mrcs", ctf=tmp_path / "ctf.star").particles).odd
    assert found is not None
    np.testing.assert_allclose(found[:, 1] / found[0, 1], tilt / tilt[0])


def test_the_pixel_size_of_a_table_counts_beside_a_pickle(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_mrcs(tmp_path / "s.mrcs", np.random.default_rng(0).random((N, 8, 8)), SIZE)
    write_star(tmp_path / "p.star", star().table)
    columns = np.tile([8.0, 3.0, *PLAIN[1:8]], (N, 1))
    write_plain_pickle(tmp_path / "ctf.pkl", columns)
    found = open_source(tmp_path / "p.star", ctf=tmp_path / "ctf.pkl").particles.ctf()
    assert found is not None
    np.testing.assert_allclose(found[:, CtfColumn.PIXEL_SIZE], SIZE)
    assert "its pixel size is 3 Å" in caplog.text


# --- tables of other images of the particles ----------------------------------------------------


@pytest.mark.parametrize("group", ["alignments3D", "alignments2D"])
def test_a_particle_is_where_the_shift_of_its_own_pixels_says(group: str) -> None:
    place = {"location__center_x_frac": 0.5, "location__center_y_frac": 0.25}
    place |= {"location__micrograph_shape_0": 400, "location__micrograph_shape_1": 600}
    shift = {f"{group}__shift_0": 2.0, f"{group}__shift_1": -1.0, f"{group}__psize_A": 3.0}
    found = centres(cs(**place, **shift, location__micrograph_psize_A=1.5))
    np.testing.assert_allclose(found, np.tile([300 * 1.5 - 6.0, 100 * 1.5 + 3.0], (N, 1)))


def test_sign_and_shifts_of_a_cs_follow_its_new_images() -> None:
    about = {"blob__sign": -1.0, "alignments2D__shift_0": 4.0, "alignments2D__shift_1": -2.0}
    about |= {"alignments3D__shift_0": 4.0, "alignments3D__psize_A": SIZE}
    made = with_images(
        cs(**about), ["new.mrcs"] * N, np.arange(N), 8, pixels_grew=2.0, inverted=True
    ).table
    assert (made["blob/sign"] == 1).all()
    assert (made["blob/psize_A"] == 2 * SIZE).all()
    assert (made["alignments2D/shift_0"] == 2.0).all()  # in pixels of the images
    assert (made["alignments2D/shift_1"] == -1.0).all()
    assert (made["alignments3D/shift_0"] == 4.0).all()  # in pixels of its own size


def test_classes_of_relion_become_those_of_cryosparc() -> None:
    poses = {f"rlnAngle{name}": 10.0 for name in ("Rot", "Tilt", "Psi")}
    found = star(rlnClassNumber=[1, 2, 3, 1], rlnRandomSubset=[1, 2, 2, 1], **poses)
    made = unbinned(found, cs()).table
    assert made["alignments3D/class"].tolist() == [0, 1, 2, 0]
    assert made["alignments3D/split"].tolist() == [0, 1, 1, 0]

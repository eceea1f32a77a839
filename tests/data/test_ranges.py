"""Numbers that no experiment has are refused; bytes, blocks and units mean what they say."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from modpose.cli import main
from modpose.data.given import read_ctf, read_poses
from modpose.data.inspect import describe
from modpose.data.mrc import open_mrc, write_mrcs
from modpose.data.particles import Particles
from modpose.data.poses import given_poses
from modpose.data.source import Source
from modpose.data.stack import ArrayStack
from modpose.data.star import write_star
from modpose.data.tables import read_particles
from modpose.errors import InputError

GOOD = {
    "rlnVoltage": 300.0,
    "rlnSphericalAberration": 2.7,
    "rlnAmplitudeContrast": 0.1,
    "rlnDefocusU": 15000.0,
    "rlnDefocusV": 14000.0,
    "rlnDefocusAngle": 30.0,
    "rlnPhaseShift": 0.0,
    "rlnImagePixelSize": 1.5,
    "rlnAngleRot": 10.0,
    "rlnAngleTilt": 20.0,
    "rlnAnglePsi": 30.0,
}


def table(**changes: float) -> Particles:
    """Return a table of three particles, the second of which differs."""
    columns = {name: [value] * 3 for name, value in GOOD.items()}
    for name, value in changes.items():
        columns[name][1] = value
    return Particles(pd.DataFrame(columns), name="p.star")


@pytest.mark.parametrize(
    ("column", "value", "unit"),
    [
        ("rlnVoltage", 300_000.0, "kilovolts"),
        ("rlnVoltage", 0.3, "kilovolts"),
        ("rlnAmplitudeContrast", 10.0, "fraction"),
        ("rlnAmplitudeContrast", -0.1, "fraction"),
        ("rlnSphericalAberration", 2700.0, "millimetres"),
        ("rlnSphericalAberration", 0.0027, "millimetres"),
        ("rlnDefocusU", 1.5e7, "angstrom"),
        ("rlnDefocusV", -1e6, "angstrom"),
        ("rlnDefocusAngle", 1e4, "degrees"),
        ("rlnPhaseShift", -800.0, "degrees"),
        ("rlnImagePixelSize", 1e-10, "angstrom"),
    ],
)
def test_impossible_ctf_values_are_refused_by_column_and_row(column, value, unit):
    with pytest.raises(InputError, match=rf"p.star: {column} in row 2 is .*, expected .*{unit}"):
        table(**{column: value}).ctf()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("rlnVoltage", 80.0),
        ("rlnVoltage", 1000.0),
        ("rlnAmplitudeContrast", 0.0),
        ("rlnSphericalAberration", 0.0),
        ("rlnSphericalAberration", 0.001),
        ("rlnDefocusU", -3000.0),
        ("rlnDefocusAngle", -270.0),
        ("rlnPhaseShift", 120.0),
    ],
)
def test_uncommon_values_are_read(column, value):
    assert value in table(**{column: value}).ctf()[1].astype(float).round(4)


def test_a_defocus_in_micrometres_is_refused():
    micro = {"rlnDefocusU": [1.5, 1.6], "rlnDefocusV": [1.4, 1.5]}
    rest = {name: [value] * 2 for name, value in GOOD.items() if "DefocusU" not in name}
    with pytest.raises(InputError, match=r"the defocus of all images is at most 1.6, .*angstrom"):
        Particles(pd.DataFrame(rest | micro), name="p.star").ctf()


def test_a_pixel_in_nanometres_beside_a_ctf_is_refused():
    columns = {name: [value] * 2 for name, value in GOOD.items()} | {"rlnImagePixelSize": [0.1] * 2}
    with pytest.raises(InputError, match=r"the pixel size in row 1 is 0.1, expected .*angstrom"):
        Particles(pd.DataFrame(columns), name="p.star").ctf()


@pytest.mark.parametrize("column", ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"])
def test_angles_out_of_all_proportion_are_refused(column):
    with pytest.raises(InputError, match=rf"{column} in row 2 is 4500, expected degrees"):
        table(**{column: 4500.0}).poses()


def test_angles_that_may_be_radians_are_named(caplog):
    angles = np.random.default_rng(0).uniform(-np.pi, np.pi, (3, 40))
    names = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
    for scale, count in ((180 / np.pi, 0), (1.0, 1)):
        columns = dict(zip(names, scale * angles, strict=True))
        Particles(pd.DataFrame(columns), name="p.star").poses()
        assert caplog.text.count("the angles look like radians") == count


def many(**changes: float) -> Particles:
    columns = {name: np.full(40, value) for name, value in (GOOD | changes).items()}
    return Particles(pd.DataFrame(columns), name="p.star")


@pytest.mark.parametrize(
    ("columns", "note"),
    [
        ({"rlnDefocusU": -15000.0, "rlnDefocusV": -14000.0}, "of all images is negative"),
        ({"rlnPhaseShift": np.pi / 2}, "the phase shifts look like radians"),
        ({"rlnPhaseShift": 90.0}, ""),
    ],
)
def test_ctf_values_of_another_convention_are_named(columns, note, caplog):
    many(**columns).ctf()
    assert (note in caplog.text) if note else not caplog.text


def test_a_pose_without_one_of_its_columns_is_named(caplog):
    whole = many(rlnOriginXAngst=3.0, rlnOriginYAngst=2.0)
    whole.poses()
    assert not caplog.text
    for name in ("rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst"):
        replace(whole, table=whole.table.drop(columns=name), _notes=set()).poses()
        assert f"there is no {name}, which is taken as 0" in caplog.text


def test_cryosparc_vectors_and_angles_in_degrees_are_refused():
    pose = {f"alignments3D/pose_{i}": [0.1, 90.0] for i in range(3)}
    with pytest.raises(InputError, match=r"pose_0 in row 2 is 90, expected radians"):
        Particles(pd.DataFrame(pose), format="cs", name="p.cs").poses()


def test_a_shift_beyond_the_box_is_refused():
    columns = {name: [value] * 3 for name, value in GOOD.items()}
    columns |= {"rlnOriginX": [0.0, 0.0, 20.0], "rlnOriginY": [0.0] * 3}
    particles = Particles(pd.DataFrame(columns), name="p.star")
    source = Source(ArrayStack(np.zeros((3, 16, 16), np.float32)), particles)
    with pytest.raises(
        InputError, match=r"the shift in pixels in row 3 is 20, expected at most 16"
    ):
        given_poses(source)


def test_volumes_without_an_origin_along_z_have_no_shift_there(caplog):
    columns = {name: [value] * 2 for name, value in GOOD.items()}
    columns |= {"rlnOriginX": [1.0, 2.0], "rlnOriginY": [3.0, 4.0]}
    volumes = ArrayStack(np.zeros((2, 8, 8, 8), np.float32))
    shift = given_poses(Source(volumes, Particles(pd.DataFrame(columns), name="p.star")))[1]
    assert shift.tolist() == [[-1, -3, 0], [-2, -4, 0]]
    assert "p.star: it gives no shift along z (rlnOriginZAngst), which is taken as 0" in caplog.text


@pytest.mark.parametrize("count", [29, 30])
def test_few_small_angles_are_no_radians(count, caplog):
    columns = {"rlnAngleRot": np.linspace(0, 6.2, count), "rlnAngleTilt": 0.0}
    Particles(pd.DataFrame(columns), name="p.star").poses()
    assert ("radians" in caplog.text) == (count == 30)


def test_inspect_names_a_shift_beyond_the_box_as_a_problem(tmp_path):
    write_mrcs(tmp_path / "s.mrcs", np.random.default_rng(0).random((3, 16, 16)), 1.5)
    columns = {"rlnImageName": [f"{i + 1}@s.mrcs" for i in range(3)], "rlnAngleTilt": [0.0] * 3}
    columns |= {"rlnOriginX": [0.0, 0.0, 20.0], "rlnOriginY": [0.0] * 3}
    write_star(tmp_path / "p.star", pd.DataFrame(columns))
    assert any("row 3 is 20" in problem for problem in describe(tmp_path / "p.star").problems)


def test_voxels_of_another_depth_are_named(tmp_path, caplog):
    write_mrcs(tmp_path / "v.mrc", np.random.default_rng(0).random((1, 8, 8, 8)), 2.0)
    raw = bytearray((tmp_path / "v.mrc").read_bytes())
    raw[48:52] = np.float32(8 * 3.0).tobytes()  # the cell along z
    (tmp_path / "v.mrc").write_bytes(raw)
    assert open_mrc(tmp_path / "v.mrc").pixel_size == 2.0
    assert "2 by 2 by 3 A" in caplog.text


def pickled(path, arrays):
    path.write_bytes(pickle.dumps(arrays))
    return path


def test_cryodrgn_pickles_pass_the_same_checks(tmp_path):
    row = [64, 1.5, 15000, 14000, 30, 300, 2.7, 0.1, 0]
    for column, value in ((0, 0.5), (2, 1e7), (5, 300_000), (6, 2700), (7, 10), (8, 4000)):
        wrong = np.array([row, row], np.float32)
        wrong[1, column] = value
        with pytest.raises(InputError, match=r"in row 2 is .*, expected"):
            read_ctf(pickled(tmp_path / "c.pkl", wrong), n=2, box=64)
    rotation = np.repeat(np.eye(3)[None], 2, 0)
    shift = np.array([[0.0, 0.1], [12.0, 0.0]])
    with pytest.raises(InputError, match=r"translation in row 2 is 12, expected .*fractions"):
        read_poses(pickled(tmp_path / "p.pkl", (rotation, shift)), n=2, box=64)


@pytest.mark.parametrize(
    ("stamp", "flags", "value"), [(1146047817, 0, 200), (1146047817, 1, -56), (0, 0, -56)]
)
def test_imod_says_whether_bytes_have_a_sign(tmp_path, stamp, flags, value):
    path = tmp_path / "bytes.mrcs"
    write_mrcs(path, np.ones((2, 4, 4), np.float32), 1.0)
    header = np.frombuffer(path.read_bytes()[:1024], "<i4").copy()
    header[3], header[38], header[39] = 0, stamp, flags
    path.write_bytes(header.tobytes() + np.full((2, 4, 4), 200, np.uint8).tobytes())
    assert (open_mrc(path, "images").read(np.array([1])) == value).all()


@pytest.mark.shared
@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("amplitude_contrast_percent.star", "rlnAmplitudeContrast in row 1 is 10, expected a frac"),
        ("star_optics_block_missing.star", "the block data_optics, which holds rlnVoltage"),
    ],
)
def test_shared_cases_are_refused_in_a_sentence(shared_data, tmp_path, capsys, case, said):
    table = shared_data.parent / "cases" / case
    with pytest.raises(SystemExit) as leaving:
        main(["backproject", str(table), "-o", str(tmp_path / "out")])
    assert leaving.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in last
    assert len(last) < 400
    assert not (tmp_path / "out").exists()


@pytest.mark.shared
def test_shared_cases_are_read_right(shared_data):
    cases = shared_data.parent / "cases"
    assert read_particles(cases / "star_empty_first_block.star").pixel_size() == 5.0
    stack = open_mrc(cases / "imod_unsigned_bytes.mrcs")
    assert stack.dtype == np.uint8
    assert stack.read(np.arange(stack.n)).max() > 127


OPTICS = """data_optics

loop_
_rlnOpticsGroup #1
_rlnVoltage #2
_rlnSphericalAberration #3
_rlnAmplitudeContrast #4
_rlnImagePixelSize #5
1 300.0 2.7 0.1 5.0

"""
PARTICLES = """data_particles

loop_
_rlnImageName #1
_rlnOpticsGroup #2
_rlnDefocusU #3
000001@p.mrcs 1 15000
000002@p.mrcs 1 16000
"""


def test_an_empty_block_leaves_the_others_as_they_are(tmp_path):
    path = tmp_path / "p.star"
    path.write_text("data_general\n\n" + OPTICS + "data_empty\n\n" + PARTICLES)
    assert read_particles(path).ctf()[0].tolist()[:5] == [5, 15000, 15000, 0, 300]


@pytest.mark.parametrize("optics", ["", "data_optics\n\n"])
def test_a_missing_optics_block_is_named(tmp_path, caplog, optics):
    path = tmp_path / "p.star"
    path.write_text(optics + PARTICLES)
    particles = read_particles(path)
    with pytest.raises(InputError, match=r"data_optics, which holds rlnVoltage, .* is missing"):
        particles.ctf(5.0)
    assert "data_optics is missing or empty, and with it the pixel size" not in caplog.text
    assert particles.pixel_size() is None
    assert caplog.text.count("data_optics is missing or empty, and with it the pixel size") == 1

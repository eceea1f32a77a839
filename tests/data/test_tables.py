"""Particle tables: STAR and .cs, what their columns mean, writing them again."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pandas as pd
import pytest
import starfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modpose.data.cryosparc import read_cs
from modpose.data.particles import Particles
from modpose.data.source import open_source
from modpose.data.star import other_kind, particle_blocks, read_star, write_star
from modpose.data.tables import particles_of_star, read_csv, read_particles
from modpose.data.unopened import read_input
from modpose.errors import InputError

SHARED_TMP = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

LOOP = "data_particles\n\nloop_\n_rlnImageName #1\n_rlnAnglePsi #2\n"


def star(tmp_path, text: str):
    path = tmp_path / "t.star"
    path.write_text(text)
    return path


def particles(optics: dict | None = None, **columns) -> Particles:
    table = pd.DataFrame(columns)
    return Particles(table, None if optics is None else pd.DataFrame(optics), "star", "p.star")


class NumpyOnly(pickle.Unpickler):
    """For the expected results of another program; refuses everything but arrays."""

    def find_class(self, module, name):
        if (module.split(".")[0], name) in {
            ("numpy", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("numpy", "scalar"),
            ("_codecs", "encode"),
        }:
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        raise pickle.UnpicklingError(f"{module}.{name}")


def unpickle(path):
    return NumpyOnly(io.BytesIO(path.read_bytes())).load()


# --- reading STAR -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (LOOP + "1@a.mrcs 10 7\n", "line 6: a row of data_particles has 3 values, expected 2"),
        (LOOP + "1@a.mrcs\n", "line 6: a row of data_particles has 1 values, expected 2"),
        (LOOP + "1@a.mrcs 10\n\nloop_\n_x\n1\n", "line 8: data_particles has a second loop_"),
        (LOOP + "_rlnAnglePsi #3\n1@a.mrcs 1 2\n", "column rlnAnglePsi is in data_particles twice"),
        (LOOP + "1@a.mrcs 10\n\n" + LOOP + "1@a.mrcs 10\n", "block data_particles already exi"),
        ("hello\n", "line 1: the text is 'hello', expected a block (data_...)"),
        ("", "not readable as STAR (it has no block data_...)"),
        ("data_x\n\nvalue\n", "line 3: the text is 'value', expected loop_ or a _tag"),
        ("data_x\n\n_tag one two\n", "line 3: the text is '_tag one two', expected a _tag and its"),
        (LOOP + "_a one\n", "line 6: the text is '_a one', expected one _tag a line"),
        (LOOP + "it's.mrcs 1\n", "the word 'it's.mrcs' has a quotation mark within it"),
        (LOOP + "1@a.mrcs 10\n_b #3\n", "line 7: a row begins with _, expected a value"),
        (LOOP + "1@a.mrcs 1\n1@a.mrcs\n1@a.mrcs 1 2\n", "line 7: a row of data_particles has 1"),
        (LOOP + "1@a.mrcs \x01\n", "line 6: a character cannot be printed"),
        ("data_" + "x" * 9999 + "\nvalue", "line 2: the text is 'value'"),
    ],
)
def test_malformed_star_is_refused_in_one_sentence(tmp_path, text, sentence):
    path = star(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_star(path)
    assert str(path) in str(caught.value)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_text_or_absent(tmp_path):
    path = tmp_path / "t.star"
    path.write_bytes(b"data_\xff\xfe\x00")
    with pytest.raises(InputError, match="line 1 is not text in UTF-8"):
        read_star(path)
    with pytest.raises(InputError, match="no such file or folder"):
        open_source(tmp_path / "absent.star")


def test_values_that_look_like_blocks_comments_or_blanks(tmp_path):
    rows = 'data_set/1@a.mrcs 1\n"with blank.mrcs" 2\nwith#hash.mrcs 3\n000004@a.mrcs 4 # why\n'
    table = read_star(star(tmp_path, "# version 30001\n\n" + LOOP + rows + "\n"))["particles"]
    assert table["rlnImageName"].tolist() == [
        "data_set/1@a.mrcs",
        "with blank.mrcs",
        "with#hash.mrcs",
        "000004@a.mrcs",
    ]
    assert table["rlnAnglePsi"].tolist() == [1, 2, 3, 4]


def test_a_corrected_file_of_the_same_name_is_read_anew(tmp_path):
    path = star(tmp_path, "data_x\n\n_tag one two\n")
    with pytest.raises(InputError):
        read_star(path)
    path.write_text(LOOP + "1@a.mrcs 10\n")
    assert len(read_star(path)["particles"]) == 1


def test_names_that_are_numbers_stay_text(tmp_path):
    text = "data_\nloop_\n_rlnImageName\n_rlnGroupName\n_rlnMicrographName\n1@a.mrcs 007 012\n"
    table = read_star(star(tmp_path, text))[""]
    assert table.iloc[0].tolist() == ["1@a.mrcs", "007", "012"]


def test_what_other_files_are(tmp_path):
    with pytest.raises(InputError, match="this is the MTF curve of a detector; it lists no parti"):
        read_particles(
            star(tmp_path, "data_m\nloop_\n_rlnResolutionInversePixel\n_rlnMtfValue\n0 1\n")
        )
    with pytest.raises(InputError, match="data_particles has no column rlnImageName, only rlnAngl"):
        read_particles(star(tmp_path, "data_particles\nloop_\n_rlnAnglePsi\n1\n"))
    with pytest.raises(InputError, match="both data_a and data_b list particles"):
        read_particles(
            star(tmp_path, "".join(f"data_{n}\nloop_\n_rlnImageName\n1@a.mrcs\n" for n in "ab"))
        )
    with pytest.raises(InputError, match="number of particles is 0"):
        read_particles(star(tmp_path, LOOP + "\n"))
    flag = "data_general\n_rlnTomoSubTomosAre2DStacks 1\n\n"
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
    tables = [star(tmp_path / name, flag + LOOP + "a.mrcs 1\n") for name in ("one", "two")]
    with pytest.raises(InputError, match="2-D tilt-series stacks"):
        read_input(tables)


def test_numbers_of_very_many_digits_are_text(tmp_path):
    for digits in ("18446744073709551616", "9" * 400):
        table = read_star(star(tmp_path, LOOP + f"1@a.mrcs {digits}\n2@a.mrcs 3\n"))["particles"]
        assert table["rlnAnglePsi"].tolist() == [digits, "3"]


# --- writing STAR -----------------------------------------------------------------------------

TEXT = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="'\"#"),
    min_size=1,
    max_size=12,
).filter(lambda t: t.lower() not in ("nan", "<na>"))
ROWS = st.lists(
    st.tuples(TEXT, st.floats(-1e12, 1e12), st.integers(-(2**53), 2**53)), min_size=1, max_size=8
)


@SHARED_TMP
@given(rows=ROWS)
def test_a_table_written_is_the_table_read(tmp_path, rows):
    table = pd.DataFrame(rows, columns=["rlnImageName", "rlnCoordinateX", "rlnClassNumber"])
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnOpticsGroupName": ["of one"]})
    path = tmp_path / "w.star"
    write_star(path, table, optics, overwrite=True)
    blocks = read_star(path)
    pd.testing.assert_frame_equal(blocks["particles"], table, check_dtype=False)
    pd.testing.assert_frame_equal(blocks["optics"], optics, check_dtype=False)
    simple = not any(name.startswith(("data_", "_")) for name, *_ in rows)
    if simple:  # an independent program reads the same
        other = starfile.read(path, parse_as_string=["rlnImageName"])["particles"]
        pd.testing.assert_frame_equal(other, table, check_dtype=False)


def test_writing_never_overwrites_unasked(tmp_path):
    path = star(tmp_path, "precious")
    with pytest.raises(InputError, match="already exists"):
        write_star(path, pd.DataFrame({"rlnImageName": ["1@a.mrcs"]}))
    assert path.read_text() == "precious"


# --- columns, optics, subsets -----------------------------------------------------------------


def test_columns_come_from_the_table_or_the_optics_groups():
    p = particles(
        {"rlnOpticsGroup": [7, 3], "rlnVoltage": [300.0, 200.0]},
        rlnOpticsGroup=[3, 7, 7],
        rlnImageName=list("abc"),
    )
    assert p.column("_rlnVoltage").tolist() == [200.0, 300.0, 300.0]
    assert p.column("rlnImageName").tolist() == ["a", "b", "c"]
    less = p.subset(np.array([2, 0]))
    assert less.column("rlnVoltage").tolist() == [300.0, 200.0]
    assert less.column("rlnImageName").tolist() == ["c", "a"]
    with pytest.raises(InputError, match="no column 'rlnVoltag', did you mean rlnVoltage"):
        p.column("rlnVoltag")
    lost = particles({"rlnOpticsGroup": [1], "rlnVoltage": [300.0]}, rlnOpticsGroup=[1, 2])
    with pytest.raises(InputError, match=r"rlnOpticsGroup is 2, expected one of data_optics \(1\)"):
        lost.column("rlnVoltage")


@pytest.mark.parametrize(
    ("columns", "optics", "expected"),
    [
        ({"rlnMagnification": [40000.0], "rlnDetectorPixelSize": [5.0]}, None, 1.25),
        ({"rlnDetectorPixelSize": [13.1]}, None, 13.1),
        ({"rlnOpticsGroup": [1]}, {"rlnOpticsGroup": [1], "rlnImagePixelSize": [2.5]}, 2.5),
        ({"rlnPixelSize": [1.96]}, None, 1.96),
        ({"blob/psize_A": [0.75]}, None, 0.75),
        (
            {"rlnOpticsGroup": [1]},
            {
                "rlnOpticsGroup": [1],
                "rlnTomoTiltSeriesPixelSize": [1.5],
                "rlnTomoSubtomogramBinning": [4.0],
            },
            6.0,
        ),
        ({"rlnImageName": ["a"]}, None, None),
    ],
)
def test_pixel_sizes(columns, optics, expected):
    assert particles(optics, **columns).pixel_size() == (expected and pytest.approx(expected))


@pytest.mark.parametrize("bad", [0.0, -1.0])
def test_a_pixel_size_that_is_not_positive_is_refused(bad):
    with pytest.raises(InputError, match=r"rlnImagePixelSize in row 2 is .*, expected a positive"):
        particles(rlnImagePixelSize=[1.0, bad]).pixel_size()


def test_differing_pixel_sizes_are_refused():
    with pytest.raises(InputError, match="1 A for some particles and 2 A for others"):
        particles(rlnImagePixelSize=[1.0, 2.0]).pixel_size()


# --- CTF --------------------------------------------------------------------------------------

CTF = {
    "rlnDefocusU": [1e4, 2e4],
    "rlnDefocusV": [0.9e4, 2.1e4],
    "rlnDefocusAngle": [10.0, 20.0],
    "rlnVoltage": [300.0, 200.0],
    "rlnSphericalAberration": [2.7, 2.0],
    "rlnAmplitudeContrast": [0.1, 0.07],
    "rlnPhaseShift": [90.0, 0.0],
    "rlnCtfBfactor": [50.0, -30.0],
    "rlnImagePixelSize": [1.5, 1.5],
}


def test_ctf_parameters_in_their_order(caplog):
    p = particles(**CTF)
    expected = [
        [1.5, 1e4, 0.9e4, 10, 300, 2.7, 0.1, 90, 50],
        [1.5, 2e4, 2.1e4, 20, 200, 2, 0.07, 0, 30],
    ]
    np.testing.assert_allclose(p.ctf(), np.array(expected, np.float32))
    assert p.ctf().dtype == np.float32
    assert caplog.text.count("rlnCtfBfactor is negative") == 1
    less = {
        k: v
        for k, v in CTF.items()
        if k not in ("rlnCtfBfactor", "rlnPhaseShift", "rlnDefocusV", "rlnDefocusAngle")
    }
    np.testing.assert_allclose(
        particles(**less).ctf()[0], np.array([1.5, 1e4, 1e4, 0, 300, 2.7, 0.1, 0, 0], np.float32)
    )


def test_incomplete_ctf_parameters():
    assert particles(rlnImageName=["a"]).ctf() is None
    with pytest.raises(InputError, match="no column 'rlnAmplitudeContrast'"):
        particles(**{k: v for k, v in CTF.items() if k != "rlnAmplitudeContrast"}).ctf()
    unsized = particles(**{k: v for k, v in CTF.items() if k != "rlnImagePixelSize"})
    with pytest.raises(InputError, match="a defocus but no pixel size"):
        unsized.ctf()
    assert unsized.ctf(pixel_size=3.0)[:, 0].tolist() == [3.0, 3.0]
    with pytest.raises(InputError, match="rlnDefocusU is 'far', expected a number"):
        particles(**{**CTF, "rlnDefocusU": [1.0, "far"]}).ctf()
    with pytest.raises(InputError, match="rlnDefocusV in row 2 is nan, expected a number"):
        particles(**{**CTF, "rlnDefocusV": [1.0, np.nan]}).ctf()


# --- poses ------------------------------------------------------------------------------------

ANGLES = st.floats(-360, 360)


def test_psi_is_minus_the_angle_in_the_plane():
    rotation, shift = particles(rlnAnglePsi=[-30.0]).poses()
    cos, sin = np.cos(np.pi / 6), np.sin(np.pi / 6)
    np.testing.assert_allclose(rotation[0], [[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], atol=1e-12)
    assert shift.tolist() == [[0.0, 0.0]]


def test_shifts_in_pixels_from_either_column_and_in_3d():
    assert particles(rlnAnglePsi=[0.0], rlnOriginX=[3.0], rlnOriginY=[-2.0]).poses()[
        1
    ].tolist() == [[-3, 2]]
    columns = {
        "rlnAnglePsi": [0.0],
        "rlnOriginX": [9.0],
        "rlnOriginXAngst": [3.0],
        "rlnOriginYAngst": [-6.0],
    }
    assert particles(**columns, rlnImagePixelSize=[1.5]).poses()[1].tolist() == [[-2, 4]]
    with pytest.raises(InputError, match="rlnOriginXAngst needs a pixel size"):
        particles(**columns).poses()
    assert particles(**columns).poses(pixel_size=3.0)[1].tolist() == [[-1, 2]]
    tomo = particles(**columns, rlnOriginZAngst=[1.5], rlnImagePixelSize=[1.5])
    assert tomo.poses()[1].tolist() == [[-2, 4, -1]]
    assert particles(rlnImageName=["a"]).poses() is None


def test_truth_is_renamed_and_only_what_is_there():
    p = particles(
        modposeTruthAngle=[10.0],
        modposeTruthShiftX=[1.0],
        modposeTruthClass=[2],
        modposeTruthHinge=[30.0],
        modposeTruthR00=[1.0],
        modposeTruthTemplate=["t"],
    )
    assert list(p.truth().columns) == [
        "angle_deg",
        "r00",
        "shift_x",
        "class",
        "hinge_deg",
        "template",
    ]
    assert particles(rlnImageName=["a"]).truth() is None


# --- cryoSPARC and CSV ------------------------------------------------------------------------


def test_cs_files_that_cannot_be_used(tmp_path):
    path = tmp_path / "a.cs"
    for records, sentence in (
        (np.zeros(3), "of plain float64, expected named fields"),
        (np.array([{}], dtype=object), "not readable as a cryoSPARC table"),
        (np.zeros(0, dtype=[("uid", "u8")]), "number of particles is 0"),
    ):
        with path.open("wb") as file:
            np.save(file, records)
        with pytest.raises(InputError, match=sentence):
            read_cs(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="not readable as a cryoSPARC table"):
        read_cs(path)


def test_a_csv_that_is_not_one(tmp_path):
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(InputError, match="the file is empty"):
        read_csv(tmp_path / "a.csv")


# --- real tables ------------------------------------------------------------------------------


def test_cryosparc_poses_and_ctf_are_those_that_cryodrgn_parses(some_data):
    p = read_cs(some_data / "cs/cryosparc_P12_J24_001_particles.cs")
    rotation, shift = p.poses()
    expected_rotation, expected_shift = unpickle(some_data / "cs/pose.cs.pkl")
    np.testing.assert_allclose(rotation, expected_rotation, atol=1e-6)
    # cryoDRGN gives +shift as a fraction of the box (as RELION's origin); ours is where the
    # object is, in pixels.
    np.testing.assert_allclose(-shift / 180, expected_shift, atol=1e-6)
    expected_ctf = unpickle(some_data / "cs/ctf2.pkl")
    np.testing.assert_allclose(p.ctf()[:, :8], expected_ctf[:, 1:], rtol=1e-5, atol=1e-4)


@pytest.mark.shared
def test_relion_poses_are_those_that_cryodrgn_parses(shared_data):
    folder = shared_data / "spa_sim/10076_DE"
    p = read_particles(folder / "10076_both_32_sim.star")
    rotation, shift = p.poses()
    for name, rows in (("D", slice(0, 576)), ("E", slice(576, 1296))):
        expected_rotation, expected_shift = unpickle(folder / f"pose_class{name}.pkl")
        np.testing.assert_allclose(rotation[rows], expected_rotation, atol=2e-6)
        np.testing.assert_allclose(-shift[rows] / 32, expected_shift, atol=1e-6)
        expected_ctf = unpickle(folder / f"ctf_class{name}.pkl")
        np.testing.assert_allclose(p.ctf()[rows, :8], expected_ctf[:, 1:], rtol=1e-5)


@pytest.mark.shared
def test_a_point_mass_lies_where_the_pose_says(shared_data):
    p = read_particles(shared_data / "spa_sim/pyem_onerow.star")
    rotation, shift = p.poses()
    point = np.array([49 - 32, 0, 0])  # x, y, z from the centre of the map
    found = 32 + (rotation[0] @ point)[:2] + shift[0]
    image = open_source(shared_data / "spa_sim/relion_proj_star.mrcs").stack.read(np.array([0]))
    row, column = np.unravel_index(np.argmax(np.abs(image[0, 0])), (64, 64))
    np.testing.assert_allclose(found, [column, row], atol=0.5)


def test_the_same_particles_from_star_and_cs(some_data):
    a = open_source(some_data / "spa/empiar_10076_7.star")
    b = open_source(some_data / "spa/empiar_10076_7.cs")
    rows = np.arange(7)
    np.testing.assert_array_equal(a.stack.read(rows), b.stack.read(rows))
    np.testing.assert_allclose(a.particles.ctf(), b.particles.ctf(), rtol=1e-5, atol=1e-3)
    assert a.pixel_size == pytest.approx(b.pixel_size, rel=1e-6)


def test_every_particle_table_survives_a_round_trip(some_data, tmp_path):
    count = 0
    for path in sorted(some_data.rglob("*.star")):
        if path.name.startswith("malformed"):
            with pytest.raises(InputError):
                read_star(path)
            continue
        blocks = read_star(path)
        if len(particle_blocks(blocks)) != 1:
            assert other_kind(blocks)
            continue
        p = particles_of_star(blocks, str(path))
        write_star(tmp_path / "w.star", p.table, p.optics, overwrite=True)
        again = particles_of_star(read_star(tmp_path / "w.star"), "w.star")
        pd.testing.assert_frame_equal(again.table, p.table, check_dtype=False)
        if p.optics is not None:
            pd.testing.assert_frame_equal(again.optics, p.optics, check_dtype=False)
        count += 1
    assert count >= 8


def test_a_long_table_is_written_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("modpose.data.star.CHUNK", 3)
    table = pd.DataFrame({"rlnImageName": [f"{k}@a.mrcs" for k in range(8)], "x": np.arange(8) / 7})
    write_star(tmp_path / "long.star", table)
    read = starfile.read(tmp_path / "long.star")
    pd.testing.assert_frame_equal(read, table, check_exact=True)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, 1], [0, 1, 0]),
        ([0, 1, 1], [0, 1, 1]),
        ([2, 2, 2], [1, 1, 1]),
        ([1, 1, 1], [0, 0, 0]),
        ([2, np.nan, 2], [1, 0, 1]),
        ([0, np.nan, 1], [0, 0, 1]),
    ],
)
def test_half_sets_may_be_counted_from_0_or_1(values: list[float], expected: list[int]) -> None:
    found = particles(rlnImageName=["1@a", "2@a", "3@a"], rlnRandomSubset=values).half_sets()
    assert found is not None
    assert found.tolist() == expected
    two = particles(**{"alignments3D/split": [2, 1, 2]}).half_sets()
    assert two is not None
    assert two.tolist() == [1, 0, 1]

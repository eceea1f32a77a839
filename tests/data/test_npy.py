"""Headers of NumPy files and cryoSPARC tables, and what they may say."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modpose.data.cryosparc import read_cs, write_cs_records
from modpose.data.npy import read_npy, read_npy_header
from modpose.errors import InputError

TYPES = st.sampled_from(["<f4", ">f8", "<f2", "|u1", ">i2", "<i8", "|b1", "<c8", "|S3", "<U2"])


@given(
    data=st.data(),
    type_=TYPES,
    shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3),
    version=st.sampled_from([(1, 0), (2, 0), (3, 0)]),
    fortran=st.booleans(),
)
def test_arrays_are_read_as_numpy_reads_them(
    tmp_path_factory, data, type_, shape, version, fortran
):
    array = data.draw(hnp.arrays(type_, shape))
    path = tmp_path_factory.mktemp("a") / "a.npy"
    with path.open("wb") as file:
        np.lib.format.write_array(file, np.asarray(array, order="F" if fortran else "C"), version)
    found, expected = read_npy(path), np.load(path)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


FIELDS = st.lists(st.tuples(TYPES, st.sampled_from([(), (2,), (3, 2)])), min_size=1, max_size=6)


@given(fields=FIELDS, align=st.booleans())
def test_tables_are_read_as_numpy_reads_them(tmp_path_factory, fields, align):
    types = [(f"group/f{i}", type_, shape) for i, (type_, shape) in enumerate(fields)]
    table = np.zeros(3, np.dtype(types, align=align))
    for name in table.dtype.names:
        table[name] = np.arange(table[name].size).reshape(table[name].shape).astype("S3") != b"1"
    path = tmp_path_factory.mktemp("a") / "a.npy"
    np.save(path, table)
    found, expected = read_npy(path), np.load(path)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def header(descr: str, shape: str = "(2,)", order: str = "False", more: str = "") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, {more}}}\n".encode()
    return b"\x93NUMPY\x02\x00" + len(text).to_bytes(4, "little") + text


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "it does not begin as NPY files do"),
        (b"\x93NUMPY\x09\x00", "its version is 9.0, expected 1.0, 2.0 or 3.0"),
        (header("'<f4'")[:30], "it ends within its header"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "its header is 4294967295 bytes long"),
        (header("'|O'"), "object (pickled)"),
        (header("[('a', '<f4'), ('b', '|O')]"), "the field 'b' is object (pickled)"),
        (header("'<f3'"), "the type is '<f3', expected plain numbers or text"),
        (header("'<f4'", shape="(-1,)"), "its shape is not a tuple of numbers from 0"),
        (header("'<f4'", shape="(2.5,)"), "not what NumPy writes"),
        (header("'<f4'", shape="5"), "its shape is not a tuple"),
        (header("'<f4'", shape="(4611686018427387904, 4)"), "larger than any array"),
        (header("'<f4'", order="'F'"), "its order is neither True nor False"),
        (header("'<f4'", more="'shape': (1,)"), "names something twice"),
        (header("'<f4'", more="'extra': 1"), "does not name descr, fortran_order and shape"),
        (header("[('a', '<f4'), ('a', '<f4')]"), "the name of a field is 'a'"),
        (header("[('', '<f4')]"), "the name of a field is ''"),
        (header("[('a', [('b', '<f4')])]"), "the type of the field 'a' is nested"),
        (header("[('a', '<f4', (2147483647, 2147483647))]"), "larger than any table"),
        (header("__import__('os').system('true')"), "not what NumPy writes"),
        (header("[" * 100_000 + "]" * 100_000), "not what NumPy writes"),
        (header("(" + "1," * 100_000 + ")"), "the type is nested"),
        (header("'|S0'"), "its entries take no bytes"),
    ],
)
def test_bad_headers_are_answered_in_one_sentence(raw, words):
    with pytest.raises(InputError) as refused:
        read_npy_header(io.BytesIO(raw), "a.npy")
    assert words in str(refused.value)
    assert len(str(refused.value)) < 240


def wide(path: Path, classes: int, rows: int) -> np.ndarray:
    """Write a table as after a classification into many classes; its header has 60 kB and more."""
    types = [("uid", "<u8"), ("blob/path", "S9"), ("blob/idx", "<u4"), ("blob/psize_A", "<f4")]
    for i in range(classes):
        names = ("alpha", "pose", "shift", "class_posterior", "error", "psize_A")
        types += [(f"alignments_class_{i}/{name}", "<f4", (1 + i % 3,)) for name in names]
    table = np.zeros(rows, np.dtype(types))
    table["uid"], table["blob/psize_A"] = np.arange(rows), 1.5
    write_cs_records(path, table)
    return table


def test_a_table_of_any_width_is_read(tmp_path):
    table = wide(tmp_path / "a.cs", 300, 4)
    assert len((tmp_path / "a.cs").read_bytes()) - table.nbytes > 60_000
    particles = read_cs(tmp_path / "a.cs")
    assert particles.n == 4
    np.testing.assert_array_equal(particles.column("uid"), np.arange(4))
    assert particles.table.shape[1] == 4 + 300 * 12


def test_a_table_without_rows_or_of_another_shape_is_answered_by_a_sentence(tmp_path):
    wide(tmp_path / "a.cs", 1, 0)
    with pytest.raises(InputError, match="the number of particles is 0, expected at least one"):
        read_cs(tmp_path / "a.cs")
    with (tmp_path / "a.cs").open("wb") as file:
        np.save(file, np.zeros((2, 2), [("uid", "<u8")]))
    with pytest.raises(InputError, match=r"the shape of the table is \(2, 2\)"):
        read_cs(tmp_path / "a.cs")


@pytest.mark.parametrize(
    ("types", "words"),
    [
        ([("a", "<f4", (2,)), ("a_0", "<f4")], "'a_0' appears twice"),
        ([("a", "<c8")], "the field 'a' is of type complex64, expected numbers or text"),
        ([("a", "<U1")], None),
        ([("a", ">f4")], None),
    ],
)
def test_fields_of_a_table(tmp_path, types, words):
    with (tmp_path / "a.cs").open("wb") as file:
        np.save(file, np.zeros(2, types))
    if words is None:
        assert read_cs(tmp_path / "a.cs").column("a").dtype.isnative
        return
    with pytest.raises(InputError, match=words):
        read_cs(tmp_path / "a.cs")

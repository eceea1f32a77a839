"""Labels, row numbers, CSV tables and contents in text files, as users have them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from modpose.data.csv_reader import read_csv_table
from modpose.data.index import select_rows
from modpose.data.label_lines import read_label_lines
from modpose.data.labels import read_labels
from modpose.data.particles import Particles
from modpose.data.source import open_source
from modpose.errors import InputError
from modpose.outputs.volumes import at_file


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "labels"),
    [
        ("l.txt", "class a\nclass b\nclass a\n", ["class a", "class b", "class a"]),
        ("l.txt", "a\r\nb\r\na", ["a", "b", "a"]),
        ("l.txt", "\ufeffa\nb\n\na\n\n", ["a", "b", "a"]),
        ("l.txt", "0 1 1", ["0", "1", "1"]),
        ("l.txt", "0,1,1\n", ["0", "1", "1"]),
        ("l.txt", "1.0\n1\n2.0\n", ["1", "1", "2"]),
        ("l.txt", "01\n1\n2\n", ["01", "1", "2"]),
        ("l.txt", "a\nnan\nb\n", ["a", "nan", "b"]),
        ("l.txt", "é\nß, and more\nα\n", ["é", "ß, and more", "α"]),
        ("l.txt", '"a, b"\n"c, d"\n"a, b"\n', ["a, b", "c, d", "a, b"]),
        ("l.csv", "class\na\nb\na\n", ["a", "b", "a"]),
        ("l.csv", '"a b"\nb\na\n', ["a b", "b", "a"]),
    ],
)
def test_one_label_a_line(tmp_path, name, content, labels) -> None:
    path = written(tmp_path, name, content)
    assert read_label_lines(path, {3}).tolist() == labels
    source = open_source(np.zeros((3, 4, 4), np.float32))
    assert read_labels(path, source).tolist() == labels


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("l.txt", "class\na\nb\na\n", "4 labels for 3 images.*the first one, 'class', a header"),
        ("l.txt", "x.png,a\ny.png,b\nz.png,a\n", "every line is separated by commas"),
        ("l.txt", "x;a\ny;b\nz;a\n", "every line is separated by semicolons"),
        ("l.csv", "x,a\ny,b\nz,a\n", "line 1 is 2 values long"),
        ("l.txt", b"\xe9\nb\na\n", "line 1 is not text in UTF-8"),
        ("l.txt", "a\nb\n", r"the shape is \(2,\)"),
        ("l.txt", "", r"the shape is \(0,\)"),
        ("l.txt", "a\nb\x1b[1m\na\n", "line 2 is .*, expected a label that can be printed"),
        ("l.txt", "a\nb\n" + "x" * 9999 + "\n", "line 3 is 9999 characters long"),
    ],
)
def test_files_that_are_not_one_label_a_line(tmp_path, name, content, sentence) -> None:
    path = written(tmp_path, name, content)
    source = open_source(np.zeros((3, 4, 4), np.float32))
    with pytest.raises(InputError, match=sentence) as refused:
        read_labels(path, source)
    assert len(str(refused.value).replace(str(tmp_path), "")) < 240


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ("0\n2\n1\n", [0, 2, 1]),
        ("index\n0\n2\n", [0, 2]),
        ("0, 2, 1", [0, 2, 1]),
        ("\ufeff0\r\n2\r\n", [0, 2]),
        ("0 1\n2\n", [0, 1, 2]),
    ],
)
def test_row_numbers(tmp_path, content, rows) -> None:
    path = written(tmp_path, "i.txt", content)
    assert select_rows(path, Particles(pd.DataFrame(index=range(3)))).tolist() == rows


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("1\n2\n3\n", r"a row number is 3, expected 0 to 2 \(row numbers start at 0, not 1\)"),
        ("1.5\n2\n", "an entry is '1.5'"),
        ("1.0\n2\n", "an entry is '1.0'"),
        (",0\n0,5\n1,7\n", "of several columns"),
        ("-1\n", "a row number is -1"),
        ("9" * 5000, "an entry is '9999"),
        ("99999999999999999999", "an entry is 99999999999999999999|an entry is '9999"),
        ("", "the number of rows is 0"),
        ("nan\n1\n", "an entry|number"),
        ("0\nx\n", "an entry is 'x'"),
    ],
)
def test_files_that_are_no_row_numbers(tmp_path, content, sentence) -> None:
    path = written(tmp_path, "i.txt", content)
    with pytest.raises(InputError, match=sentence):
        select_rows(path, Particles(pd.DataFrame(index=range(3))))


def test_csv_tables_are_what_another_reader_reads(tmp_path) -> None:
    text = 'image,label,"x, y"\na b.png,1,"2,5"\n\n"c.png",0,"3\n4"\n'
    path = written(tmp_path, "t.csv", text)
    with path.open(newline="") as file:
        rows = [row for row in csv.reader(file) if row]
    table = read_csv_table(path)
    assert table.columns.tolist() == rows[0]
    assert table.astype(str).to_numpy().tolist() == rows[1:]
    plain = written(tmp_path, "p.csv", "\ufeffa,b\r\n1,\r\n2.5,x\r\n")
    assert read_csv_table(plain)["a"].tolist() == [1.0, 2.5]
    assert read_csv_table(plain)["b"].isna().tolist() == [True, False]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a,b\n1\n", "line 2 is 1 values long, expected 2"),
        ("a,b\n1,2,\n3,4,\n", "line 2 is 3 values long, expected 2"),
        ("a,b\n1,2,3\n4\n", "line 2 is 3 values long"),
        ("a,a\n1,2\n", "the column 'a' appears twice"),
        ("a,\n1,2\n", "the name of column 2 is empty"),
        ("1,2\n3,4\n", "line 1 is '1', expected the names of the columns"),
        ("a;b\n1;2\n", "separated by semicolons, expected commas"),
        ("a\tb\n1\t2\n", "separated by tabs, expected commas"),
        ('a,b\n"1,2\n', "not readable as CSV"),
        ('a,b\n"1"x,2\n', "not readable as CSV"),
        ("", "the file is empty"),
        ("\n\n", "the file is empty"),
    ],
)
def test_csv_tables_that_would_be_misread(tmp_path, text, sentence) -> None:
    with pytest.raises(InputError, match=sentence):
        read_csv_table(written(tmp_path, "t.csv", text))


def test_contents_to_draw(tmp_path) -> None:
    path = written(tmp_path, "at.csv", "z_0,z_1\n1,2\n\n-1e-1, .5\n")
    np.testing.assert_array_equal(at_file(path, 2).z, [[1, 2], [-0.1, 0.5]])
    for text in ("1 2\nx y\n", "1 2 3\n", "nan 1\n", "1_0 2\n", "a b\nc d\n1 2\n", "1e999 1"):
        with pytest.raises(InputError, match=r"at\.csv: line \d"):
            at_file(written(tmp_path, "at.csv", text), 2)
    with pytest.raises(InputError, match="the number of rows is 0"):
        at_file(written(tmp_path, "at.csv", ""), 2)

"""Selections against brute force, and nothing but comparisons ever evaluated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modpose.cli import main
from modpose.errors import InputError
from modpose.outputs.select import choose, evaluate_where, in_clusters, in_region, none_left
from modpose.outputs.selected import export_selection
from tests.outputs.test_export import N, star_run


@pytest.fixture
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "index": np.arange(50),
            "z_0": rng.normal(size=50),
            "z_1": rng.normal(size=50),
            "elbo": rng.normal(-700, 10, size=50),
            "cluster": rng.integers(1, 4, size=50),
            "ctf/df1_A": rng.uniform(5e3, 3e4, size=50),
            "split": rng.choice(["train", "val"], size=50),
        }
    )


def test_where_means_what_pandas_says(table: pd.DataFrame) -> None:
    cases = {
        "elbo > -700 and z_0 < 1": (table.elbo > -700) & (table.z_0 < 1),
        "not z_0 > 0 or z_1 >= 0.5": ~(table.z_0 > 0) | (table.z_1 >= 0.5),
        "-1 < z_0 <= 1": (table.z_0 > -1) & (table.z_0 <= 1),
        "z_0 < z_1": table.z_0 < table.z_1,
        "cluster in (1, 3)": table.cluster.isin([1, 3]),
        "cluster not in [2]": table.cluster != 2,
        "split == 'val'": table.split == "val",
        "split in ('val', 'test')": table.split == "val",
        "cluster != 2": table.cluster != 2,
        "abs(z_0) < 0.5 and abs(-2) > 1": table.z_0.abs() < 0.5,
        "z_0 between -1 and 0.5": table.z_0.between(-1, 0.5),
        "z_0 not between -1 and 0.5": ~table.z_0.between(-1, 0.5),
        "z_0.between(-1, 0.5)": table.z_0.between(-1, 0.5),
        "z_0 between -1 and 0.5 and z_1 > 0": table.z_0.between(-1, 0.5) & (table.z_1 > 0),
        "(abs(z_0) between 0.1 and abs(z_1)) or split == 'between'": (
            (table.z_0.abs() >= 0.1) & (table.z_0.abs() <= table.z_1.abs())
        ),
        "`ctf/df1_A` > 15e3 or `split` == 'a`b`'": table["ctf/df1_A"] > 15e3,
        "ctf/df1_A between 1e4 and 2e4": table["ctf/df1_A"].between(1e4, 2e4),
        "1 < 2": np.ones(len(table), dtype=bool),
    }
    for expression, expected in cases.items():
        found = evaluate_where(expression, table)
        assert found.dtype == bool
        assert found.shape == (50,)
        np.testing.assert_array_equal(found, np.asarray(expected), err_msg=expression)


def test_conditions_that_no_image_meets_are_answered_with_the_ranges(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = star_run(tmp_path, "3.1")
    z = run.latents()["z_0"]
    where = "z_0 > 1e6 and rlnCoordinateX > 0 and z_1 < 1e6"
    with pytest.raises(SystemExit) as leaving:
        main(["select", str(run.path), "--where", where, "-o", str(tmp_path / "a.star")])
    assert leaving.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("modpose: select: no image meets the conditions, expected at least one")
    assert f"z_0 is between {z.min():.4g} and {z.max():.4g}" in said
    assert f"rlnCoordinateX is between 0 and {(N - 1) * 1.5:.4g}" in said
    assert str(none_left(run, None)).endswith("expected at least one")


def test_where_treats_missing_values_as_false() -> None:
    table = pd.DataFrame({"z_0": [np.nan, 1.0]})
    assert evaluate_where("z_0 < 2", table).tolist() == [False, True]
    assert evaluate_where("not z_0 >= 2", table).tolist() == [True, True]


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('true')",
        "@x > 1",
        "z_0.__class__ == 1",
        "abs(split) > 1",
        "abs(z_0, 1) > 1",
        "z_0 between 1",
        "z_0 between 'a' and 1",
        "between(z_0, 1) > 0",
        "`z_0 > 1",
        "`` > 1",
        "z_0[0] > 1",
        "(lambda: 1)() > 0",
        "[z_0 for z_0 in z_1] == 1",
        "z_0 + 1 > 0",
        "z_0",
        "z_0 is 1",
        "z_0 in z_1",
        "f'{z_0}' == 'a'",
        "z_0 := 1",
        "z_0 >",
        "",
        "z_0 > 1; z_1 < 0",
        "split > 3",
        "z_0 ** 9 > 1",
        "None == z_0",
        "\x00",
        "(" * 1000,
    ],
)
def test_where_refuses_anything_else_in_one_sentence(table: pd.DataFrame, expression: str) -> None:
    with pytest.raises(InputError, match="--where") as caught:
        evaluate_where(expression, table)
    assert "expected" in str(caught.value)


def test_where_names_the_nearest_columns(table: pd.DataFrame) -> None:
    with pytest.raises(InputError, match=r"no column 'elbw', did you mean elbo"):
        evaluate_where("elbw > 1", table)


def test_where_knows_the_columns_of_the_input(tmp_path: Path) -> None:
    run = star_run(tmp_path, "3.1")
    number = np.arange(N)
    np.testing.assert_array_equal(
        choose(run, where="rlnCoordinateX >= 30 and abs(z_0) >= 0"), number * 1.5 >= 30
    )
    np.testing.assert_array_equal(
        choose(run, where="rlnOpticsGroupName == 'second'"), number % 2 == 1
    )
    np.testing.assert_array_equal(choose(run, where="`rlnOpticsGroup` in (2,)"), number % 2 == 1)
    with pytest.raises(
        InputError, match=r"no column 'rlnCoordinateZ', did you mean .*rlnCoordinateX"
    ):
        choose(run, where="rlnCoordinateZ > 1")


@given(st.text(max_size=30))
def test_where_never_raises_anything_but_an_input_error(expression: str) -> None:
    table = pd.DataFrame({"z_0": [0.0, 1.0]})
    try:
        mask = evaluate_where(expression, table)
    except InputError:
        return
    assert mask.shape == (2,)


def test_clusters(table: pd.DataFrame) -> None:
    np.testing.assert_array_equal(in_clusters(table, "1,3"), table.cluster.isin([1, 3]))
    with pytest.raises(InputError, match="cluster is 7, expected one of 1, 2, 3"):
        in_clusters(table, "1,7")
    with pytest.raises(InputError, match="whole numbers"):
        in_clusters(table, "one")
    with pytest.raises(InputError, match="no clusters"):
        in_clusters(table.drop(columns="cluster"), "1")


def test_box_and_polygon_agree_with_brute_force(table: pd.DataFrame, tmp_path: Path) -> None:
    inside = (table.z_0.between(-0.5, 1.0) & table.z_1.between(-1.0, 0.25)).to_numpy()
    np.testing.assert_array_equal(in_region(table, "-0.5,-1,1,0.25"), inside)
    np.testing.assert_array_equal(in_region(table, "1,0.25,-0.5,-1"), inside)
    corners = "-0.5,-1\n1,-1\n1,0.25\n-0.5,0.25\n"
    (tmp_path / "box.csv").write_text(corners)
    np.testing.assert_array_equal(in_region(table, str(tmp_path / "box.csv")), inside)
    (tmp_path / "swapped.csv").write_text("z_1,z_0\n-1,-0.5\n-1,1\n0.25,1\n0.25,-0.5\n")
    np.testing.assert_array_equal(in_region(table, str(tmp_path / "swapped.csv")), inside)


def test_concave_polygon_leaves_its_notch_out(tmp_path: Path) -> None:
    (tmp_path / "notch.csv").write_text("0,0\n4,0\n4,4\n2,1\n0,4\n")
    table = pd.DataFrame({"z_0": [2.0, 0.5, 3.5], "z_1": [2.0, 2.0, 2.0]})
    assert in_region(table, str(tmp_path / "notch.csv")).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("0,0\n1,1\n", "number of corners is 2, expected three"),
        ("0,0\n1\n2,2\n", "line 2 is '1', expected two numbers"),
        ("0,0\nnan,1\n2,2\n", "line 2"),
        ("z_0,z_9\n0,0\n1,1\n2,0\n", "no column 'z_9'"),
    ],
)
def test_a_bad_polygon_is_refused(
    table: pd.DataFrame, tmp_path: Path, content: str, sentence: str
) -> None:
    (tmp_path / "bad.csv").write_text(content)
    with pytest.raises(InputError, match=sentence):
        in_region(table, str(tmp_path / "bad.csv"))


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", "1,2,3,inf", "nowhere.csv"])
def test_a_bad_region_is_refused(table: pd.DataFrame, text: str) -> None:
    with pytest.raises(InputError, match=r"--region|nowhere\.csv"):
        in_region(table, text)


def test_a_region_needs_two_axes() -> None:
    with pytest.raises(InputError, match="no column 'z_1'"):
        in_region(pd.DataFrame({"z_0": [0.0]}), "0,0,1,1")


def test_a_table_of_another_kind_is_refused_and_the_right_one_named(tmp_path: Path) -> None:
    run = star_run(tmp_path, "3.1")
    with pytest.raises(InputError, match=r"is no \.cs file, expected box\.star"):
        export_selection(run, np.arange(N) < 2, tmp_path / "box.cs")

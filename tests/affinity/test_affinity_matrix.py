"""Affinity matrices: files in both layouts, validation, projection, class means, the figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from modpose.affinity import Affinity, nearest_correlation, read_affinity, write_affinity
from modpose.affinity.figure import draw_affinity, write_figure
from modpose.affinity.files import read_matrix
from modpose.affinity.matrix import class_means, class_names
from modpose.errors import InputError


def cosine_matrix(count: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    values = vectors @ vectors.T
    values = (values + values.T) / 2
    np.fill_diagonal(values, 1)
    return values


NAMES = st.lists(
    st.text(st.characters(exclude_categories=("Cs", "Cc", "Cf", "Zs", "Zl", "Zp")), min_size=1),
    min_size=1,
    max_size=5,
    unique=True,
)


# --- files ------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(names=NAMES, seed=st.integers(0, 1000), layout=st.sampled_from(["named", "header"]))
def test_a_matrix_reads_back_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], seed: int, layout: str
) -> None:
    path = tmp_path_factory.mktemp("round") / "a.csv"
    affinity = Affinity(cosine_matrix(len(names), seed), tuple(names))
    write_affinity(affinity, path, layout)  # type: ignore[arg-type]
    back = read_affinity(path)
    assert back.names == affinity.names
    np.testing.assert_array_equal(back.values, affinity.values)


def test_the_header_layout_is_that_of_the_reference_program(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    values = cosine_matrix(3, 0)
    write_affinity(Affinity(values, ("a", "b", "2")), tmp_path / "a.csv", "header")
    table = pd.read_csv(tmp_path / "a.csv", header=0)  # as that program reads it
    assert list(table.columns) == ["a", "b", "2"]
    np.testing.assert_allclose(table.to_numpy(), values, rtol=0, atol=0)


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    affinity = Affinity(np.eye(2), ("a", "b"))
    write_affinity(affinity, tmp_path / "a.csv")
    with pytest.raises(InputError, match="already exists"):
        write_affinity(affinity, tmp_path / "a.csv")
    write_affinity(affinity, tmp_path / "a.csv", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("a,b\n1,0\n", "number of rows is 1 under 2 names"),
        ("1,0.5\n0.5,1\n", "first line is numbers"),
        ("a,b\n1,0,0\n0,1\n", "row 1 is 3 numbers long"),
        ("a,b\n1,x\n0,1\n", "row 1, column 2 is 'x'"),
        ("a,b\n1,nan\nnan,1\n", "row 1, column 2 is 'nan'"),
        (",a,b\na,1,0\nc,0,1\n", "row 2 is named 'c'"),
        ("a,a\n1,0\n0,1\n", "the name 'a' appears twice"),
        ("a,b\n1,0.2\n0.3,1\n", "symmetry"),
        ("a,b\n1,0.2\n0.2,0.9\n", "1 on the diagonal"),
        ("a,b\n1,1.2\n1.2,1\n", "a number from -1 to 1"),
    ],
)
def test_bad_files_are_refused_in_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        read_affinity(path)
    assert words in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_missing_file_and_a_binary_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_affinity(tmp_path / "none.csv")
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputError, match="not readable as an affinity matrix"):
        read_affinity(tmp_path / "x.csv")


def test_a_matrix_of_differences_is_read_but_is_no_affinity(tmp_path: Path) -> None:
    write_affinity(Affinity(np.array([[0, 1], [-1, 0]]), ("a", "b")), tmp_path / "d.csv")
    assert read_matrix(tmp_path / "d.csv").values[0, 1] == 1
    with pytest.raises(InputError, match="symmetry"):
        read_affinity(tmp_path / "d.csv")


def test_a_matrix_is_square() -> None:
    with pytest.raises(InputError, match="a square"):
        Affinity(np.ones((2, 3)), ("a", "b"))
    with pytest.raises(InputError, match="number of names is 1 for 2 rows"):
        Affinity(np.eye(2), ("a",))


def test_a_subset_keeps_names_and_values_together() -> None:
    affinity = Affinity(cosine_matrix(4, 1), tuple("abcd"))
    some = affinity.subset(["d", "b"])
    assert some.names == ("d", "b")
    assert some.values[0, 1] == affinity.values[3, 1]
    with pytest.raises(InputError, match="'x'"):
        affinity.subset(["x"])


# --- projection -------------------------------------------------------------------------------


def test_the_nearest_correlation_matrix_is_that_of_higham() -> None:
    """Higham (2002), section 4: the tridiagonal example, to the printed digits."""
    broken = np.array([[1.0, 1, 0], [1, 1, 1], [0, 1, 1]])
    nearest = nearest_correlation(broken)
    assert nearest[0, 1] == pytest.approx(0.7607, abs=1e-4)
    assert nearest[0, 2] == pytest.approx(0.1573, abs=1e-4)
    assert np.linalg.norm(nearest - broken) == pytest.approx(0.5278, abs=1e-4)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), count=st.integers(2, 6))
def test_the_projection_is_valid_and_nearer_than_any_other(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    broken = rng.uniform(-1, 1, (count, count))
    broken = (broken + broken.T) / 2
    np.fill_diagonal(broken, 1)
    projected = Affinity(broken, tuple(map(str, range(count)))).projected()
    projected.validate()
    assert projected.is_positive()
    far = np.linalg.norm(projected.values - broken)
    for other in range(20):
        valid = cosine_matrix(count, other + 100 * seed)
        mixed = 0.1 * valid + 0.9 * projected.values  # the set is convex
        assert np.linalg.norm(mixed - broken) >= far - 1e-6
    if Affinity(broken, projected.names).is_positive():
        assert far < 1e-4


def test_a_positive_matrix_is_its_own_projection() -> None:
    values = cosine_matrix(5, 3)
    np.testing.assert_allclose(nearest_correlation(values), values, atol=1e-9)
    assert Affinity(values, tuple("abcde")).is_positive()


def test_the_summary_tells_what_is_not_positive() -> None:
    broken = Affinity(np.array([[1.0, 1, 0], [1, 1, 1], [0, 1, 1]]), tuple("abc"))
    assert "not positive semi-definite (smallest eigenvalue -0.414)" in broken.summary()
    assert broken.projected().summary().endswith("; positive semi-definite")


# --- classes ----------------------------------------------------------------------------------


def test_class_means_are_means_over_pairs() -> None:
    rng = np.random.default_rng(0)
    values, labels = rng.normal(size=(7, 7)), ["b", "a", "b", "c", "a", "a", "b"]
    names, member = class_names(labels)
    means = class_means(values, member)
    assert names == ["a", "b", "c"]
    for i, a in enumerate(names):
        for j, b in enumerate(names):
            pairs = [
                values[p, q] for p in range(7) for q in range(7) if (labels[p], labels[q]) == (a, b)
            ]
            assert means[i, j] == pytest.approx(np.mean(pairs))


def test_class_names_are_in_natural_order_and_whole_numbers_stay_whole() -> None:
    assert class_names(["img10", "img2", "img2"])[0] == ["img2", "img10"]
    assert class_names(np.array([3.0, 10.0, 2.0]))[0] == ["2", "3", "10"]


@pytest.mark.parametrize("labels", [["a", ""], [1.0, float("nan")], np.array(["a", None], object)])
def test_missing_labels_are_refused(labels: object) -> None:
    with pytest.raises(InputError, match="missing"):
        class_names(labels)  # type: ignore[arg-type]


# --- the figure -------------------------------------------------------------------------------


def test_the_heat_map_brings_alike_rows_together(tmp_path: Path) -> None:
    values = np.eye(4)
    values[0, 2] = values[2, 0] = 0.9
    values[1, 3] = values[3, 1] = 0.8
    affinity = Affinity(values, tuple("abcd"))
    figure = draw_affinity(affinity)
    names = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert abs(names.index("a") - names.index("c")) == 1
    assert abs(names.index("b") - names.index("d")) == 1
    drawn = figure.axes[0].images[0].get_array()
    order = [list(affinity.names).index(name) for name in names]
    np.testing.assert_array_equal(drawn, values[np.ix_(order, order)])
    write_figure(affinity, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    with pytest.raises(InputError, match="already exists"):
        write_figure(affinity, tmp_path / "a.png")


def test_long_names_are_drawn_whole(tmp_path: Path) -> None:
    sizes = []
    for name in ("a", "a name that is much longer"):
        write_figure(Affinity(np.eye(2), (name, "b")), tmp_path / f"{len(name)}.png")
        with Image.open(tmp_path / f"{len(name)}.png") as picture:
            sizes.append(picture.size)
    (short_width, short_height), (long_width, long_height) = sizes
    assert long_height > short_height + 100 and long_width > short_width


def test_one_class_alone_is_drawn_too() -> None:
    assert len(draw_affinity(Affinity(np.eye(1), ("only",))).axes) == 2


# --- the reference program's own files --------------------------------------------------------


def test_published_matrices_are_read(some_data: Path) -> None:
    for name, count in (("affinity_alphanumeric.csv", 36), ("affinity_mnist.csv", 10)):
        affinity = read_affinity(some_data / "affinity" / name)
        table = np.genfromtxt(some_data / "affinity" / name, delimiter=",", skip_header=1)
        np.testing.assert_array_equal(affinity.values, table)
        assert len(affinity.names) == count

"""From files to matrices: names, classes, folders of volumes, refusals, and the verb."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import pytest
from affinity_phantoms import chain, draw

from modpose.affinity import (
    METRICS,
    Affinity,
    Fsc,
    MeanDifference,
    compute_affinity,
    read_affinity,
    write_affinity,
)
from modpose.affinity.files import read_matrix
from modpose.cli import main
from modpose.cli.affinity import FLAGS
from modpose.cli.affinity import affinity as verb
from modpose.data.mrc import write_mrcs
from modpose.errors import InputError


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    def run(*arguments: object) -> Result:
        with pytest.raises(SystemExit) as leaving:
            main(["affinity", *map(str, arguments)])
        code = leaving.value.code
        return Result(code if isinstance(code, int) else -1, *capsys.readouterr())

    return run


def refused(result: Result, *words: str) -> None:
    assert result.code == 2, result
    last = result.err.strip().splitlines()[-1]
    assert last.startswith("modpose: ")
    assert "Traceback" not in result.err
    for word in words:
        assert word in last


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.stack([draw(chain(seed, 2), 16) for seed in range(4)])


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of volumes, a file each, with the extension that the reference program uses."""
    folder = tmp_path_factory.mktemp("volumes")
    for name, seed in (("1b23_10", 0), ("1b23_2", 0), ("1dfo_1", 1)):
        write_mrcs(folder / f"{name}.mrcs", draw(chain(seed), 12)[None], 4.0)
    return folder


# --- Python -----------------------------------------------------------------------------------


def test_each_image_is_one_of_its_own_without_labels(pictures: np.ndarray) -> None:
    affinity = compute_affinity(pictures)
    assert affinity.names == ("0", "1", "2", "3")
    some = compute_affinity(pictures, index=np.array([3, 1]))
    assert some.names == ("3", "1")
    assert some.values[0, 1] == pytest.approx(affinity.values[3, 1], abs=1e-6)


def test_labels_make_classes_of_mean_descriptors(pictures: np.ndarray) -> None:
    labels = ["b", "a", "b", "a"]
    metric = Fsc(kmax=4)
    affinity = compute_affinity(pictures, metric, labels=labels)
    assert affinity.names == ("a", "b")
    import torch

    features = metric.describe(torch.from_numpy(pictures)).numpy()
    a, b = features[[1, 3]].mean(axis=0), features[[0, 2]].mean(axis=0)
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert affinity.values[0, 1] == pytest.approx(cosine, abs=1e-5)
    assert (np.diag(affinity.values) == 1).all()


def test_labels_that_are_all_different_name_templates(pictures: np.ndarray) -> None:
    affinity = compute_affinity(pictures, labels=["d", "c", "b", "a"])
    assert affinity.names == ("a", "b", "c", "d")
    plain = compute_affinity(pictures).values
    np.testing.assert_allclose(affinity.values, plain[::-1, ::-1], atol=1e-6)


def test_raw_differences_are_averaged_and_not_scaled(pictures: np.ndarray) -> None:
    labels = [0, 0, 1, 1]
    means = pictures.mean(axis=(1, 2))
    found = compute_affinity(pictures, MeanDifference(raw=True), labels=labels).values
    assert found[0, 1] == pytest.approx(means[:2].mean() - means[2:].mean(), abs=1e-6)
    assert found[0, 0] == pytest.approx(0, abs=1e-7)


def test_samples_in_different_poses_are_told_of(
    pictures: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    noise = np.random.default_rng(0).normal(size=(6, 16, 16))
    with caplog.at_level("WARNING", "modpose"):
        compute_affinity(noise, labels=[0, 0, 0, 1, 1, 1])
        assert "different poses" in caplog.text
        caplog.clear()
        twice = np.concatenate([pictures, pictures])
        compute_affinity(twice, labels=[*range(4), *range(4)])
        assert not caplog.text


def test_a_stack_is_read_once(pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    from modpose.affinity import compute
    from modpose.data.stack import ArrayStack

    asked: list[int] = []

    class Counting(ArrayStack):
        def read(self, index: Any) -> Any:
            asked.extend(index.tolist())
            return super().read(index)

    monkeypatch.setattr(compute, "BLOCK", 3 * 16 * 16)
    blocks = compute_affinity(Counting(pictures))
    assert asked == [0, 1, 2, 3]
    monkeypatch.undo()
    np.testing.assert_allclose(blocks.values, compute_affinity(pictures).values, atol=1e-6)


def test_volumes_in_a_folder_are_named_by_their_files(volumes: Path) -> None:
    affinity = compute_affinity(volumes, kind="volumes")
    assert affinity.names == ("1b23_2", "1b23_10", "1dfo_1")
    # three single-precision sums of 16³ terms, in pairs: 3 × 12 roundings of 1.2e-7
    assert affinity.values[0, 1] == pytest.approx(1, abs=1e-5)
    assert affinity.values[0, 2] < 0.9


@pytest.mark.parametrize(
    ("value", "words"), [(0.0, "flat"), (np.nan, "not all finite"), (np.inf, "not all finite")]
)
def test_empty_and_broken_images_are_named(pictures: np.ndarray, value: float, words: str) -> None:
    broken = pictures.copy()
    broken[2] = 0
    broken[2, 3, 3] = value
    with pytest.raises(InputError, match=f"image 3: the image is {words}"):
        compute_affinity(broken)


def test_colour_is_refused() -> None:
    with pytest.raises(InputError, match="channels is 3"):
        compute_affinity(np.random.default_rng(0).random((2, 8, 8, 3)))


# --- the verb ---------------------------------------------------------------------------------


def test_the_verb_knows_every_metric_and_every_setting_of_each() -> None:
    assert set(get_args(inspect.get_annotations(verb, eval_str=True)["metric"].__origin__)) == set(
        METRICS
    )
    reached = {field.name for kind in METRICS.values() for field in fields(kind)}  # type: ignore[arg-type]
    assert set(FLAGS) <= reached
    assert reached - set(FLAGS) == {"radial", "width"}  # of SOAP, through Python only


def test_templates_to_a_matrix_and_a_figure(
    cli: Callable[..., Result], pictures: np.ndarray, tmp_path: Path
) -> None:
    np.save(tmp_path / "t.npy", pictures)
    out, figure = tmp_path / "a.csv", tmp_path / "a.png"
    done = cli(tmp_path / "t.npy", "-o", out, "--kmax", 5, "--figure", figure)
    assert done.code == 0, done.err
    assert "affinity of 4 x 4" in done.out and "positive semi-definite" in done.out
    np.testing.assert_array_equal(
        read_affinity(out).values, compute_affinity(pictures, Fsc(5)).values
    )
    assert figure.read_bytes().startswith(b"\x89PNG")
    refused(cli(tmp_path / "t.npy", "-o", out), "a.csv", "--overwrite")
    assert cli(tmp_path / "t.npy", "-o", out, "--overwrite", "--layout", "header").code == 0
    assert out.read_text().splitlines()[0] == "0,1,2,3"


@pytest.mark.parametrize("metric", sorted(set(METRICS) - {"soap"}))
def test_every_metric_goes_through_the_verb(
    cli: Callable[..., Result], volumes: Path, tmp_path: Path, metric: str
) -> None:
    (tmp_path / "classes.txt").write_text("1b23\n1b23\n1dfo\n")
    quick = ["--kmax", 3, "--step", 60, "--max-shift", 0] if metric == "aligned-fsc" else []
    labels = ["--labels", tmp_path / "classes.txt"]
    out = tmp_path / "a.csv"
    done = cli(volumes, "--kind", "volumes", "--metric", metric, *labels, *quick, "-o", out)
    assert done.code == 0, done.err
    assert read_affinity(out).names == ("1b23", "1dfo")


def test_raw_differences_are_written_and_said_to_be_no_affinity(
    cli: Callable[..., Result], pictures: np.ndarray, tmp_path: Path
) -> None:
    np.save(tmp_path / "t.npy", pictures)
    out = tmp_path / "d.csv"
    done = cli(tmp_path / "t.npy", "-o", out, "--metric", "mean-difference", "--raw")
    assert done.code == 0 and "not an affinity" in done.out
    values = read_matrix(out).values
    np.testing.assert_allclose(values, -values.T)
    refused(
        cli(tmp_path / "t.npy", "-o", out, "--metric", "mean-difference", "--raw", "--project"),
        "--raw",
        "--project",
    )


def test_a_matrix_is_projected_on_request_and_that_is_said(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    broken = Affinity(np.array([[1.0, 1, 0], [1, 1, 1], [0, 1, 1]]), ("a", "b", "c"))
    write_affinity(broken, tmp_path / "a.csv", "header")
    only = cli("--matrix", tmp_path / "a.csv")
    assert only.code == 0 and "not positive semi-definite" in only.out
    done = cli("--matrix", tmp_path / "a.csv", "--project", "-o", tmp_path / "b.csv")
    assert done.code == 0 and "entries change by up to 0.239" in done.out
    assert read_affinity(tmp_path / "b.csv").is_positive()
    again = cli("--matrix", tmp_path / "b.csv", "--project")
    assert "not projected" in again.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["INPUT is missing"]),
        (["t.npy"], ["-o CSV is missing"]),
        (["t.npy", "--matrix", "a.csv"], ["INPUT", "--matrix"]),
        (["--matrix", "a.csv", "--kmax", 3], ["--matrix", "--kmax"]),
        (["--matrix", "a.csv", "--labels", "x"], ["--labels", "only with INPUT"]),
        (["--matrix", "a.csv", "--metric", "fsc"], ["--metric", "only with INPUT"]),
        (["--matrix", "a.csv", "--kind", "images"], ["--kind", "only with INPUT"]),
        (["--matrix", "a.csv", "--index", "i.txt"], ["--index", "only with INPUT"]),
        (["--matrix", "a.csv", "--datadir", "."], ["--datadir", "only with INPUT"]),
        (["--matrix", "a.csv", "--partial"], ["--partial", "only with INPUT"]),
        (["t.npy", "-o", "a.csv", "--lmax", 3], ["--lmax", "only --kmax with --metric fsc"]),
        (["t.npy", "-o", "a.csv", "--kmax", 99], ["99", "1 to 8"]),
        (["t.npy", "-o", "a.csv", "--metric", "cosine"], ["cosine"]),
        (["t.npy", "-o", "a.csv", "--metric", "power-spectrum", "--zeta", 0], ["zeta"]),
        (["none.npy", "-o", "a.csv"], ["none.npy"]),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    cli: Callable[..., Result],
    pictures: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[object],
    words: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("t.npy", pictures)
    refused(cli(*arguments), *words)
    assert not Path("a.csv").exists()

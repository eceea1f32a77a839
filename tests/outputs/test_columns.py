"""Columns added to a finished run: clusters and embeddings, used by the other commands."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import starfile
from numpy.typing import NDArray

from modpose import PoseModel, Run
from modpose.cli import main
from modpose.content.embedding import embed
from modpose.errors import InputError
from modpose.outputs.columns import cluster_run, embed_run
from modpose.outputs.export import export_run
from modpose.outputs.select import choose
from modpose.report.gather import gather
from modpose.run.added import add_columns
from modpose.run.folder import stage_copy
from tests.outputs.test_export import N, star_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = star_run(tmp_path_factory.mktemp("columns"), "3.1")
    run.write_latents(run.latents().assign(angle_std_deg=1.0, split="train"))
    run.write_metrics([{"epoch": k, "train_elbo": 0.0, "val_elbo": 0.0} for k in (1, 2)])
    return run.path


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Run:
    shutil.copytree(made, tmp_path / "run")
    return Run.open(tmp_path / "run")


def ones(run: Run) -> NDArray[np.float64]:
    return np.ones(len(run.latents()))


def code_of(*arguments: str) -> int:
    with pytest.raises(SystemExit) as leaving:
        main(list(arguments))
    return int(leaving.value.code or 0)


def test_clusters_hide_those_of_the_fit_and_every_command_uses_them(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted = (run.path / "latents.parquet").read_bytes()
    command = ["cluster", str(run.path), "--k", "5", "--method", "kmeans"]
    assert code_of(*command) == 2
    assert "the column cluster already exists" in capsys.readouterr().err
    assert code_of(*command, "--overwrite") == 0
    labels = run.latents()["cluster"].to_numpy()
    sizes = np.bincount(labels)
    assert len(sizes) == 5 and list(sizes) == sorted(sizes, reverse=True)
    assert (run.path / "latents.parquet").read_bytes() == fitted
    assert np.array_equal(choose(run, cluster="1,4"), np.isin(labels, [1, 4]))
    export_run(run, tmp_path / "out.star")
    *_, table = starfile.read(tmp_path / "out.star", always_dict=True).values()
    assert np.array_equal(table["rlnClassNumber"], labels + 1)
    assert code_of("inspect", str(run.path)) == 0
    assert "kmeans, 5 clusters" in capsys.readouterr().out


def test_an_embedding_is_that_of_the_function_and_goes_to_star(run: Run, tmp_path: Path) -> None:
    assert code_of("embed", str(run.path), "--dims", "1") == 0
    assert embed_run(run, "tsne", name="map", seed=3) == ["map_0", "map_1"]
    latents = run.latents()
    assert np.array_equal(latents["pca_0"], embed(run.content(), "pca", 1)[:, 0])
    assert np.array_equal(latents[["map_0", "map_1"]], embed(run.content(), "tsne", 2, 3))
    assert np.array_equal(choose(run, where="pca_0 > 0"), latents["pca_0"] > 0)
    export_run(run, tmp_path / "out.star")
    *_, table = starfile.read(tmp_path / "out.star", always_dict=True).values()
    assert np.allclose(table["modposePca0"], latents["pca_0"], atol=1e-5)
    assert np.array_equal(PoseModel.load(run.path).latents()["pca_0"], latents["pca_0"])


def test_principal_components_refuse_a_seed(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("embed", str(run.path), "--seed", "3") == 2
    assert "--seed: the seed is 3, expected none: pca draws no" in capsys.readouterr().err
    embed_run(run)
    assert "pca_0" in run.latents()


def test_the_report_colours_by_an_added_column(run: Run) -> None:
    cluster_run(run, 3, name="three")
    embed_run(run, dims=1)
    material = gather(run, run.latents())
    assert material.columns is not None
    assert list(material.columns) == ["cluster", "three", "pca_0"]


def test_several_names_live_side_by_side_and_keep_how_they_were_made(run: Run) -> None:
    assert sum(cluster_run(run, 2, name="two")) == N
    cluster_run(run, 4, method="gmm", name="four")
    assert run.latents()["two"].nunique() == 2 and run.latents()["four"].nunique() == 4
    with pytest.raises(InputError, match="column two already exists"):
        cluster_run(run, 3, name="two")
    assert run.latents()["two"].nunique() == 2
    assert sum(cluster_run(run, 2, method="motion", name="beside")) == N


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("z_0", "one that no fit writes"),
        ("angle_deg", "one that no fit writes"),
        ("elbo", "one that no fit writes"),
        ("two words", "a word such as"),
        ("and", "a word such as"),
        ("", "a word such as"),
    ],
)
def test_refuses_names_that_mean_something_else(run: Run, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        add_columns(run, {name: ones(run)}, overwrite=True)
    assert not (run.path / "added.parquet").exists()


def test_a_hundred_columns_are_added_and_replaced_without_a_warning(run: Run) -> None:
    many = {f"c{k}": k * ones(run) for k in range(120)}
    add_columns(run, many)
    add_columns(run, {"c7": -ones(run), "last": ones(run)}, overwrite=True)
    latents = run.latents()
    assert len(latents) == N
    assert latents["c119"].eq(119).all() and latents["c7"].eq(-1).all()
    assert not latents.columns.duplicated().any()


def test_refuses_a_column_of_another_length(run: Run) -> None:
    with pytest.raises(InputError, match=r"expected \(60,\)"):
        add_columns(run, {"extra": np.ones(3)})


def test_columns_of_other_latents_are_refused_and_do_not_outlive_a_longer_fit(run: Run) -> None:
    add_columns(run, {"extra": ones(run)})
    assert not (stage_copy(run.path) / "added.parquet").exists()
    table = run.latents().drop(columns="extra")
    table["z_0"] += 1
    run.write_latents(table)
    with pytest.raises(InputError, match="belongs to other latents"):
        run.latents()


def test_a_damaged_table_is_one_sentence(run: Run) -> None:
    (run.path / "added.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match="not readable as Parquet"):
        run.latents()

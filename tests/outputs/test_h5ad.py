"""Content as AnnData: the file's layout, and what the library itself reads where it is there."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from modpose.outputs.h5ad import write_h5ad


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "index": [0, 1, 2],
            "name": ["1@a.mrcs", "2@a.mrcs", "b/c.png"],
            "z_0": [0.5, -1.0, 2.0],
            "z_1": [0.0, 1.0, 0.25],
            "elbo": [-3.0, -2.0, np.nan],
            "split": ["train", "val", "train"],
            "cluster": [1, 0, 1],
            "remark": ["x", None, "z"],
        }
    )


def test_content_is_x_and_the_rest_is_obs(table: pd.DataFrame, tmp_path: Path) -> None:
    write_h5ad(table, tmp_path / "out.h5ad", {"recipe": "modpose"})
    with h5py.File(tmp_path / "out.h5ad") as file:
        assert dict(file.attrs) == {"encoding-type": "anndata", "encoding-version": "0.1.0"}
        assert np.array_equal(file["X"], table[["z_0", "z_1"]].to_numpy(np.float32))
        obs = file["obs"]
        columns = ["index", "elbo", "split", "cluster", "remark"]
        assert list(obs.attrs["column-order"]) == columns
        assert list(obs["_index"].asstr()) == list(table["name"])
        assert list(file["var/_index"].asstr()) == ["z_0", "z_1"]
        assert list(obs["remark"].asstr()) == ["x", "", "z"]
        codes, names = obs["split/codes"][:], obs["split/categories"].asstr()[:]
        assert list(names[codes]) == list(table["split"])
        assert list(obs["cluster/categories"]) == [0, 1]
        assert file["uns/recipe"].asstr()[()] == "modpose"


def test_repeated_names_give_way_to_positions(table: pd.DataFrame, tmp_path: Path) -> None:
    write_h5ad(table.assign(name="1@a.mrcs"), tmp_path / "out.h5ad", {})
    with h5py.File(tmp_path / "out.h5ad") as file:
        assert list(file["obs/_index"].asstr()) == ["0", "1", "2"]


def test_anndata_reads_it(table: pd.DataFrame, tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata", reason="needs anndata, which modpose does not")
    write_h5ad(table, tmp_path / "out.h5ad", {"recipe": "modpose"})
    found = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert found.shape == (3, 2) and list(found.obs_names) == list(table["name"])
    assert np.array_equal(found.obs["elbo"], table["elbo"], equal_nan=True)

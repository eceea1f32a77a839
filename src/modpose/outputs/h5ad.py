"""The content of a run as ``.h5ad``, the file of AnnData, for scanpy and its kin.

The layout is that of AnnData's on-disk format 0.1.0: every object carries its ``encoding-type``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modpose.files.extras import extra
from modpose.infer.latents import content_columns, content_of_table

if TYPE_CHECKING:
    import pandas as pd

EMPTY = ("layers", "obsm", "obsp", "varm", "varp")
CATEGORIES = ("cluster", "label", "split")
"""Columns that are written as categories, as programs colour by them."""


def write_h5ad(table: pd.DataFrame, path: Path, about: Mapping[str, str]) -> None:
    """Write latents: content as ``X`` (N, z_dim), every other column in ``obs``.

    Parameters
    ----------
    table
        Of :meth:`modpose.run.Run.latents`.
    path
        The file to write.
    about
        Texts for ``uns``, such as the recipe.

    Raises
    ------
    InputError
        If h5py is not installed.
    """
    h5py = extra("h5py", "hdf5", path)
    content = content_columns(table)
    names = table["name"].to_numpy(object) if "name" in table else np.empty(0, object)
    if len(set(names)) < len(table):  # repeated, or none
        names = np.arange(len(table)).astype(str).astype(object)
    others = {str(c): table[c].to_numpy() for c in table if str(c) not in (*content, "name")}
    with h5py.File(path, "w") as file:
        _mark(file, "anndata", "0.1.0")
        _array(file, "X", content_of_table(table).astype(np.float32))
        _frame(file, "obs", names, others)
        _frame(file, "var", np.array(content, object), {})
        for name in EMPTY:
            _mark(file.create_group(name), "dict", "0.1.0")
        _mark(file.create_group("uns"), "dict", "0.1.0")
        for name, text in about.items():
            file["uns"][name] = text
            _mark(file["uns"][name], "string", "0.2.0")


def _mark(place: Any, kind: str, version: str) -> None:
    place.attrs["encoding-type"], place.attrs["encoding-version"] = kind, version


def _array(group: Any, name: str, values: NDArray[Any]) -> None:
    """Write numbers, or texts (an array of objects; a missing one is empty)."""
    if values.dtype.kind not in "biuf":
        texts = np.array(["" if v is None or v != v else str(v) for v in values], object)
        group[name] = texts
        _mark(group[name], "string-array", "0.2.0")
        return
    group[name] = values
    _mark(group[name], "array", "0.2.0")


def _frame(
    file: Any, name: str, index: NDArray[np.object_], columns: Mapping[str, NDArray[Any]]
) -> None:
    import pandas as pd

    group = file.create_group(name)
    _mark(group, "dataframe", "0.2.0")
    group.attrs["_index"] = "_index"
    # an empty list of strings has no type of its own
    group.attrs["column-order"] = np.array(list(columns), dtype=object if columns else "S1")
    _array(group, "_index", index)
    for column, values in columns.items():
        if column not in CATEGORIES:
            _array(group, column, values)
            continue
        codes, known = pd.factorize(values, sort=True)
        inside = group.create_group(column)
        _mark(inside, "categorical", "0.2.0")
        inside.attrs["ordered"] = False
        _array(inside, "codes", codes.astype(np.int32))
        _array(inside, "categories", np.asarray(known))

"""HDF5 files and Zarr stores, where the extras are installed."""

from __future__ import annotations

import importlib.util
import io
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.fuzz.binary import GREY, REAL, arranged, read_all
from tests.fuzz.judge import Format, Seed


def _hdf5_seed(array: NDArray[np.generic], compression: str | None) -> Seed:
    import h5py

    file = io.BytesIO()
    with h5py.File(file, "w") as store:
        chunks = None if compression is None else (1, *array.shape[1:])
        store.create_dataset("x", data=array, compression=compression, chunks=chunks)
    return Seed(file.getvalue())


def _hdf5(path: Path) -> NDArray[np.float32]:
    import h5py

    with h5py.File(path, "r") as store:
        return arranged(store["x"][...])


def _store(folder: Path, version: int) -> None:
    import zarr

    compressors = None if version == 2 else "auto"
    zarr.create_array(
        folder / "x.zarr",
        data=REAL,
        chunks=(1, *REAL.shape[1:]),
        zarr_format=version,
        compressors=compressors,
        overwrite=True,
    )


def _zarr(path: Path) -> NDArray[np.float32]:
    import zarr

    return arranged(zarr.open(path, mode="r")[...])


def _zarr_format(version: int, name: str, tokens: tuple[bytes, ...]) -> Format:
    with tempfile.TemporaryDirectory() as folder:
        _store(Path(folder), version)
        data = (Path(folder) / "x.zarr" / name).read_bytes()

    def store_of(path: Path) -> Path:
        return next(p for p in path.parents if p.suffix == ".zarr")

    return Format(
        f"zarr{version}-{name.rpartition('/')[2].strip('.')}",
        f"x.zarr/{name}",
        [Seed(data)],
        lambda path: read_all(store_of(path)),
        lambda path: _zarr(store_of(path)),
        tokens,
        partial(_store, version=version),
    )


def formats() -> list[Format]:
    """Return what can be damaged with the extras that are there."""
    found = []
    if importlib.util.find_spec("h5py"):
        seeds = [_hdf5_seed(REAL, None), _hdf5_seed(GREY, "gzip")]
        ours = partial(read_all, name="x")
        found.append(Format("hdf5", "x.h5", seeds, ours, _hdf5, (b"OHDR", b"TREE", b"SNOD", b"x")))
    if importlib.util.find_spec("zarr"):
        tokens = (b"null", b"true", b'"<f4"', b'"<i8"', b'"float32"', b'"pickle"', b'"gzip"')
        words = (*tokens, b'"shape"', b'"chunks"', b'"codecs"', b'"bytes"', b'"zstd"')
        found += [_zarr_format(2, ".zarray", words), _zarr_format(3, "zarr.json", words)]
        found += [_zarr_format(3, "c/1/0/0", ())]
    return found

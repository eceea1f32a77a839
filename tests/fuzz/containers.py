"""Tables, pickles and the files of a run."""

from __future__ import annotations

import io
import pickle
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from modpose.config import Config
from modpose.data.cryosparc import read_cs
from modpose.data.image_files import image_references
from modpose.data.inspect import describe
from modpose.data.plain_pickle import read_plain_pickle
from modpose.estimator import PoseModel
from modpose.model.vae import Vae
from modpose.run import Run
from modpose.train.checkpoint import newest_checkpoint
from modpose.train.learner import set_up
from tests.fuzz.binary import NPY_TOKENS, npy
from tests.fuzz.judge import Format, Seed

RUN = Path(__file__).parents[1] / "stored_runs" / "vae"


def records(n: int = 4) -> NDArray[Any]:
    """Make a small cryoSPARC table."""
    types = [("uid", "<u8"), ("blob/path", "S24"), ("blob/idx", "<u4"), ("blob/shape", "<u4", (2,))]
    types += [("blob/psize_A", "<f4"), ("alignments3D/pose", "<f4", (3,))]
    types += [("alignments3D/shift", "<f4", (2,)), ("alignments3D/psize_A", "<f4")]
    names = ("df1_A", "df2_A", "df_angle_rad", "accel_kv", "cs_mm", "amp_contrast")
    types += [(f"ctf/{name}", "<f4") for name in names]
    table = np.zeros(n, np.dtype(types))
    table["uid"] = np.arange(n) + 2**60
    table["blob/path"] = b"J1/x.mrc"
    table["blob/idx"], table["blob/shape"], table["blob/psize_A"] = np.arange(n), 32, 1.5
    table["alignments3D/psize_A"] = 1.5
    table["alignments3D/pose"] = np.arange(3 * n).reshape(n, 3) / 10
    values = (15000, 14000, 0.5, 300, 2.7, 0.1)
    for name, value in zip(names, values, strict=True):
        table[f"ctf/{name}"] = value
    return table


def _cs(path: Path) -> dict[str, Any]:
    str(describe(path))
    particles = read_cs(path)
    if particles.has("blob/path") and particles.has("blob/idx"):
        image_references(particles)
    particles.poses()
    particles.ctf()
    return {str(name): np.asarray(particles.table[name]) for name in particles.table}


def _load_cs(path: Path) -> dict[str, Any]:
    array = np.load(path, allow_pickle=False, max_header_size=2**24)
    found = {}
    for name in array.dtype.names:
        values = array[name]
        if values.dtype.kind == "S":
            values = np.array([v.decode("utf-8", "replace") for v in values.tolist()], object)
        if values.ndim == 1:
            found[name] = values
        else:
            flat = values.reshape(len(values), -1)
            found |= {f"{name}_{i}": flat[:, i] for i in range(flat.shape[1])}
    return found


def _load_pickle(path: Path) -> list[NDArray[Any]]:
    class _Numpy(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if module.split(".")[0] not in ("numpy", "_codecs"):
                raise ValueError(module)
            return super().find_class(module, name)

    with path.open("rb") as file:
        found = _Numpy(file).load()
    return list(found) if isinstance(found, (tuple, list)) else [found]


def _run_folder(folder: Path) -> None:
    shutil.copytree(RUN, folder / "run", dirs_exist_ok=True)


def _weights(path: Path) -> dict[str, Any]:
    model = PoseModel.load(Run.open(path.parents[1]).path)
    return {name: value.numpy() for name, value in model.vae.state_dict().items()}


def _load_weights(path: Path) -> dict[str, Any]:
    from safetensors.numpy import load

    return dict(load(path.read_bytes()))


def _state(path: Path) -> dict[str, Any]:
    found = newest_checkpoint(path.parent)
    assert found is not None
    learner = set_up(*_vae())
    learner.load_training_state(found[1], path)
    return _flat(found[1])


@cache
def _vae() -> tuple[Vae, Config]:
    run = Run.open(RUN)
    return PoseModel.load(run.path).vae, run.config


def _load_state(path: Path) -> dict[str, Any]:
    return _flat(torch.load(path, weights_only=True))


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key in value for k, v in _flat(value[key], f"{name}.{key}").items()}
    if isinstance(value, (list, tuple)):
        return {k: v for i, part in enumerate(value) for k, v in _flat(part, f"{name}.{i}").items()}
    return {name: value.numpy() if isinstance(value, torch.Tensor) else value}


def _latents(path: Path) -> dict[str, Any]:
    run = Run.open(path.parent)
    run.content()
    table = run.latents()
    return {str(name): np.asarray(table[name]) for name in table}


def _load_latents(path: Path) -> dict[str, Any]:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    return {name: table[name].to_numpy() for name in table.column_names}


def formats() -> list[Format]:
    """Return tables, pickles and the files of a run."""
    table = records()
    tables = [npy(table), npy(table, (2, 0)), npy(table[["uid", "blob/path", "blob/idx"]].copy())]
    words = [repr(name).encode() for name in table.dtype.names]
    arrays = (np.eye(3)[None].repeat(2, 0), np.zeros((2, 2)))
    pickles = [pickle.dumps(arrays, protocol) for protocol in (1, 2, 4, 5)]
    pickles.append(pickle.dumps(arrays[0].astype(np.float32), 4))
    names = (
        b"numpy",
        b"ndarray",
        b"dtype",
        b"_reconstruct",
        b"builtins",
        b"eval",
        b"os",
        b"system",
    )
    opcodes = (
        b"2",
        b"t",
        b"a",
        b"e",
        b"q\x00",
        b"h\x00",
        b"r\xff\xff\xff\x7f",
        b"]",
        b"}",
        b"\x94",
    )
    checkpoints = RUN / "checkpoints"
    best = (checkpoints / "best.safetensors").read_bytes()
    state = (checkpoints / "epoch-00002.state").read_bytes()
    file = io.BytesIO()
    torch.save(torch.load(io.BytesIO(state), weights_only=True), file)
    return [
        Format("cs", "x.cs", [Seed(t) for t in tables], _cs, _load_cs, (*words, *NPY_TOKENS)),
        Format(
            *("pickle", "x.pkl", [Seed(p) for p in pickles], read_plain_pickle, _load_pickle),
            *((*names, *opcodes),),
        ),
        Format(
            *("weights", "run/checkpoints/best.safetensors", [Seed(best)], _weights, _load_weights),
            *((b"F32", b"F64", b"I64", b"BF16", b'"shape"', b'"dtype"', b"[0,"), _run_folder),
        ),
        Format(
            *("state", "run/checkpoints/epoch-00002.state", [Seed(state), Seed(file.getvalue())]),
            *(_state, _load_state, (b"storage", b"cpu", b"FloatStorage"), _run_folder),
        ),
        Format(
            *("latents", "run/latents.parquet", [Seed((RUN / "latents.parquet").read_bytes())]),
            *(_latents, _load_latents, (b"PAR1", b"z_0", b"DOUBLE"), _run_folder),
        ),
    ]

"""Checkpoints: weights as safetensors, and the optimiser's state beside them.

A checkpoint is complete once both its files are there (the state is written last), so a run that
is killed at any moment leaves at least the one before.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from modpose.data.files import replace_atomically
from modpose.errors import InputError

_NAME = re.compile(r"epoch-(\d+)\.safetensors")


def save_checkpoint(
    folder: Path, epoch: int, weights: dict[str, Tensor], state: dict[str, Any], *, best: bool
) -> None:
    """Write one checkpoint, then drop the older ones; ``best`` keeps a copy of the weights."""
    name = folder / f"epoch-{epoch:05d}.safetensors"
    save_weights(name, weights)
    if best:
        save_weights(folder / "best.safetensors", weights)
    replace_atomically(
        name.with_suffix(".state"), lambda file: torch.save(state, file), overwrite=True
    )
    for older in _complete(folder)[:-1]:
        older.unlink()
        older.with_suffix(".state").unlink()


def save_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Write tensors as safetensors, in one step."""
    content = save({key: value.detach().cpu().contiguous() for key, value in weights.items()})
    replace_atomically(path, lambda file: file.write(content), overwrite=True)


def newest_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Read weights and state of the newest complete checkpoint, or None."""
    complete = _complete(folder)
    if not complete:
        return None
    path = complete[-1].with_suffix(".state")
    try:
        state = torch.load(path, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError):
        raise InputError(f"{path}: the checkpoint cannot be read safely") from None
    return read_weights(complete[-1]), state


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path}: the checkpoint is missing") from None
    except SafetensorError as error:
        raise InputError(f"{path}: the checkpoint cannot be read ({error})") from None


def put_weights(network: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Give a network the weights that were read from ``path``.

    Raises
    ------
    InputError
        Where they are of another network, as those of another version of modpose may be.
    """
    own = network.state_dict()
    strange = [name for name, value in own.items() if _shape(weights.get(name)) != value.shape]
    strange += [name for name in weights if name not in own]
    if strange:
        raise InputError(
            f"{path}: the weights are not those of the network that config.yaml describes "
            f"({len(strange)} differ, among them {strange[0]}); a run of another version of "
            "modpose has to be fitted again, or read with that version (see environment.json)"
        )
    network.load_state_dict(weights)


def _shape(value: Tensor | None) -> torch.Size | None:
    return None if value is None else value.shape


def _complete(folder: Path) -> list[Path]:
    weights = sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))
    return [path for path in weights if path.with_suffix(".state").is_file()]

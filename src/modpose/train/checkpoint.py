"""Checkpoints: weights as safetensors, and the optimiser's state in a second file.

A checkpoint is complete when both files exist (the state is written last), so a run that is killed
at any moment leaves at least the previous one.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from modpose.errors import InputError, shown
from modpose.files.reading import open_regular, regular_file
from modpose.files.writing import replace_atomically

_NAME = re.compile(r"epoch-\d+(-\d+)?\.safetensors")


def save_checkpoint(
    folder: Path,
    epoch: int,
    weights: dict[str, Tensor],
    state: dict[str, Any],
    *,
    best: bool = False,
    batches: int = 0,
) -> None:
    """Write one checkpoint, then drop the older ones.

    Parameters
    ----------
    folder
        The folder of checkpoints.
    epoch, batches
        Number of epochs that are done, and of batches of the next one.
    weights, state
        The model's, and what else resuming needs.
    best
        Keep a copy of the weights as the best.
    """
    part = f"-{batches:09d}" if batches else ""
    name = folder / f"epoch-{epoch:05d}{part}.safetensors"
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
    return read_weights(complete[-1]), read_state(complete[-1].with_suffix(".state"))


def read_state(path: Path) -> dict[str, Any]:
    """Read the state that :func:`save_checkpoint` wrote; it cannot execute code.

    Raises
    ------
    InputError
        If the file is damaged (its checksums differ), or is not a state of a training.
    """
    damaged = InputError(f"{path}: the checkpoint is damaged, expected the state of a training")
    try:
        if not _parts_are_whole(path):
            raise damaged
        state = torch.load(path, weights_only=True)
    except InputError:
        raise
    except Exception:  # a damaged file can cause any error in zipfile and torch
        raise damaged from None
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise damaged
    return state


def _parts_are_whole(path: Path) -> bool:
    """Return whether an archive has the form that torch writes: plain parts with checksums."""
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
        plain = min((part.header_offset for part in parts), default=1) == 0
        plain &= not any(part.compress_type or part.external_attr for part in parts)
        plain &= sum(part.file_size for part in parts) <= path.stat().st_size
        return plain and archive.testzip() is None


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises
    ------
    InputError
        If the file is missing or damaged, or a weight is not a finite number.
    """
    regular_file(path)
    try:
        weights = load_file(path)
    except Exception:  # a damaged file can cause any error in safetensors and torch
        raise InputError(f"{path}: the checkpoint is damaged, expected weights") from None
    bad = next((name for name, value in weights.items() if not value.isfinite().all()), None)
    if bad is not None:
        raise InputError(f"{path}: a weight of {shown(bad)} is not a finite number")
    return weights


def put_weights(network: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Load the weights that were read from ``path`` into a network.

    Raises
    ------
    InputError
        If they are of another network, as those of another version of modpose may be.
    """
    own = network.state_dict()
    strange = [name for name, value in own.items() if _shape(weights.get(name)) != value.shape]
    strange += [name for name in weights if name not in own]
    if strange:
        raise InputError(
            f"{path}: the weights are not those of the network that config.yaml describes "
            f"({len(strange)} differ, among them {shown(strange[0])}); a run of another version of "
            "modpose has to be fitted again, or read with that version (see environment.json)"
        )
    network.load_state_dict(weights)


def _shape(value: Tensor | None) -> torch.Size | None:
    return None if value is None else value.shape


def _complete(folder: Path) -> list[Path]:
    """Return the checkpoints whose two files are there, the newest last."""
    weights = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    weights.sort(key=lambda path: [int(number) for number in re.findall(r"\d+", path.name)])
    return [path for path in weights if path.with_suffix(".state").is_file()]

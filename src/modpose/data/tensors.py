"""Tensors saved by PyTorch (``.pt``), read without executing anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modpose.data.chunked import choose
from modpose.data.stack import ArrayStack, Kind, Stack
from modpose.errors import InputError
from modpose.files.reading import check_memory, regular_file

SUFFIXES = (".pt", ".pth")


def open_tensor(path: Path, array: str | None = None, kind: Kind = "auto") -> Stack:
    """Open a tensor, or one of a dictionary of tensors (``images.pt:name``).

    It is read into memory once.

    Parameters
    ----------
    path
        The file.
    array
        Name of the tensor, if the file has a dictionary.
    kind
        Meaning of the axes.

    Raises
    ------
    InputError
        If the file has anything but tensors.
    """
    import torch

    check_memory(path, 2 * regular_file(path).stat().st_size)
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a damaged file, or one that would execute code, fails in many ways
        raise InputError(
            f"{path}: not readable as a file of tensors (it is damaged, or has other content)"
        ) from None
    name = str(path)
    if isinstance(found, dict):
        tensors = {str(k): v for k, v in found.items() if isinstance(v, torch.Tensor)}
        array = choose(path, array, list(tensors))
        found, name = tensors[array], f"{path}:{array}"
    if not isinstance(found, torch.Tensor) or found.layout != torch.strided:
        raise InputError.of(path, "the content", type(found).__name__, "a tensor of numbers")
    if found.numel() * found.element_size() > found.untyped_storage().nbytes():
        shape = " x ".join(map(str, found.shape))
        raise InputError.of(name, "the size", shape, "no more numbers than the file holds")
    if found.dtype == torch.bfloat16:
        found = found.float()
    try:
        pixels = found.detach().resolve_conj().resolve_neg().numpy()
    except (RuntimeError, TypeError):
        dtype = str(found.dtype).removeprefix("torch.")
        raise InputError.of(name, "the type of the numbers", dtype, "integers or reals") from None
    return ArrayStack(pixels, kind, name)

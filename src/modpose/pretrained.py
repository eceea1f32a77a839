"""What one run hands to another that is fitted to the same images."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import torch

from modpose.config import Config
from modpose.errors import InputError
from modpose.run import Run

if TYPE_CHECKING:
    from modpose.data.source import Source


def fingerprint(source: Source) -> str:
    """Hash the number of images, their shape and up to 16 of them."""
    stack = source.stack
    few = np.linspace(0, stack.n - 1, min(stack.n, 16)).astype(np.int64)
    digest = hashlib.sha256(repr((stack.n, stack.shape, stack.channels)).encode())
    digest.update(np.ascontiguousarray(stack.read(few)).tobytes())
    return digest.hexdigest()


def content_of(
    folder: str | None, source: Source, config: Config
) -> tuple[torch.Tensor, torch.Tensor]:
    """Means and log s.d. of content that another run found for the same images, (N, z_dim)."""
    where = f"recipe {config.recipe}: model.encoder.run"
    if folder is None:
        raise InputError(f"{where} is missing, expected the run that content is taken from")
    run = Run.open(folder)
    if run.environment["fingerprint"] != fingerprint(source):
        raise InputError(f"{where}: {folder} was fitted to other images")
    if run.config.model.z_dim != config.model.z_dim:
        raise InputError.of(where, "z_dim", run.config.model.z_dim, str(config.model.z_dim))
    latents, k = run.latents(), range(config.model.z_dim)
    columns = [[f"z_{i}" for i in k], [f"z_{i}_std" for i in k]]
    mean, std = (torch.from_numpy(np.array(latents[names], np.float32)) for names in columns)
    return mean, std.log()

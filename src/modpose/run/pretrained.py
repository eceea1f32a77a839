"""Results of one run that another run uses, fitted to the same images."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from modpose.config import Config
from modpose.data.recognise import SAME, check_pixels, places_in
from modpose.data.record import image_fingerprint, used_of
from modpose.data.stack import subset
from modpose.errors import InputError
from modpose.run import Run

if TYPE_CHECKING:
    from modpose.data.dataset import Dataset
    from modpose.data.record import Record
    from modpose.data.source import Source


def first_fingerprint(source: Source) -> str:
    """Hash as version 0.1 did: the number of images, their shape and up to 16 of them."""
    stack = source.stack
    few = np.linspace(0, stack.n - 1, min(stack.n, 16)).astype(np.int64)
    digest = hashlib.sha256(repr((stack.n, stack.shape, stack.channels)).encode())
    digest.update(np.ascontiguousarray(stack.read(few)).tobytes())
    return digest.hexdigest()


def is_fitted_to(environment: dict[str, Any], record: Record | None, dataset: Dataset) -> bool:
    """Return whether a set holds the images of a fit in the same order, used in the same way."""
    if record is None:
        return first_fingerprint(dataset.source) == environment.get("fingerprint")
    if image_fingerprint(dataset.source.stack) != environment.get("images"):
        return False
    now = used_of(dataset)
    return all(
        (then := record.used(name)) is None
        or (
            name in now
            and then.shape == now[name].shape
            and np.allclose(now[name], then, *limits, equal_nan=True)
        )
        for name, limits in SAME.items()
    )


def content_of(
    folder: str | None, source: Source, config: Config
) -> tuple[torch.Tensor, torch.Tensor]:
    """Means and log s.d. of content that another run found for the same images, (N, z_dim)."""
    where = f"recipe {config.recipe}: model.encoder.run"
    if folder is None:
        raise InputError(f"{where} is missing, expected the run that content is taken from")
    run = Run.open(folder)
    if run.config.model.z_dim != config.model.z_dim:
        raise InputError.of(where, "z_dim", run.config.model.z_dim, str(config.model.z_dim))
    rows = _rows_of(run, source, f"{where}: {folder} was fitted to other images")
    latents, k = run.latents(), range(config.model.z_dim)
    columns = [[f"z_{i}" for i in k], [f"z_{i}_std" for i in k]]
    mean, std = (torch.from_numpy(np.array(latents[names], np.float32)[rows]) for names in columns)
    return mean, std.log()


def _rows_of(run: Run, source: Source, refusal: str) -> NDArray[np.int64]:
    """Find the row of a run for each image of a source, in any order."""
    record = run.record()
    if record is None:
        if run.environment.get("fingerprint") != first_fingerprint(source):
            raise InputError(refusal)
        return np.arange(source.n)
    if image_fingerprint(source.stack) == run.environment.get("images"):
        return np.arange(source.n)
    try:
        places = places_in(record, source.particles)
        check_pixels(record, subset(source.stack, places))
    except InputError as error:
        raise InputError(f"{refusal} ({error})") from None
    rows = np.full(source.n, -1, np.int64)
    rows[places] = np.arange(record.n)
    if record.n != source.n or (rows < 0).any():
        raise InputError(refusal)
    return rows

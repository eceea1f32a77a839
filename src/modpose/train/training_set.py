"""Images to be trained on, with what is known of them; what does not fit together is refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modpose.affinity.known import known_affinity
from modpose.config import Config
from modpose.data.dataset import Dataset, dataset_of
from modpose.errors import InputError
from modpose.progress import Progress

if TYPE_CHECKING:
    from modpose.affinity.matrix import Affinity
    from modpose.data.source import Source

LOOKED_AT = 32
"""Images of a stack too large for memory that are read before a fit begins."""


def open_dataset(
    source: Source,
    config: Config,
    labels: NDArray[Any] | None = None,
    affinity: str | Path | Affinity | None = None,
    sample_affinity: str | Path | ArrayLike | Affinity | None = None,
) -> Dataset:
    """Prepare images to be trained on, with what is known of how alike they are.

    Raises
    ------
    InputError
        Where there is nothing to train on, or the affinities do not fit the images or the options.
    """
    table = config.model.encoder.kind == "table"
    if table and config.data.val_fraction > 0:
        raise InputError.of(
            f"recipe {config.recipe}",
            "data.val_fraction",
            config.data.val_fraction,
            "0 with a lookup table, which has nothing to say of images it was not fitted to",
        )
    _check_affinity(config, affinity is not None or sample_affinity is not None)
    known = None
    if config.train.gamma.used:
        known = known_affinity(source, labels, affinity, sample_affinity)
    dataset = dataset_of(source, config, affinity=known)
    if not len(dataset.train):
        raise InputError.of(source.stack.name, "the number of images", dataset.n, "at least 2")
    _check_augment(config, dataset)
    return dataset


def _check_augment(config: Config, dataset: Dataset) -> None:
    """Refuse to move images of which something is known that would have to move with them."""
    augment = config.train.augment
    if not augment.moves_images:
        return
    option, found, expected = "train.augment.shift_px", str(augment.shift_px), "0"
    if augment.rotate != "none":
        option, found, expected = "train.augment.rotate", augment.rotate, "none"
    turns = augment.rotate != "none"  # neither turns with the image
    bound = {
        "a lookup table of their posteriors": config.model.encoder.kind == "table",
        "a contrast transfer function": turns and dataset.ctf is not None,
        "a missing wedge": turns and dataset.wedges is not None,
        "given poses": dataset.rotation is not None,
        "twins": dataset.twins.kind != "none",
    }
    for reason, holds in bound.items():
        if holds:
            where, expected = f"recipe {config.recipe}", f"{expected} for images with {reason}"
            raise InputError.of(where, option, found, expected)


def _check_affinity(config: Config, given: bool) -> None:
    """Refuse an affinity that nothing weighs, and a weight without an affinity."""
    gamma = config.train.gamma
    where = f"recipe {config.recipe}"
    if given and not gamma.used:
        raise InputError.of(
            where, "train.gamma.end", gamma.end, "a weight for the affinity that is given (--gamma)"
        )
    if gamma.used and not given:
        expected = "--affinity with --labels, --sample-affinity, or --gamma 0"
        raise InputError(f"{where}: the affinity matrix is missing, expected {expected}")


def check_images(dataset: Dataset, quiet: bool) -> None:
    """Read what is kept in memory anyway, else a few, so that bad images are named at once."""
    if not dataset.cached:
        few = np.linspace(0, dataset.n - 1, min(dataset.n, LOOKED_AT))
        dataset.batch(few.astype(np.int64))
        return
    with Progress("read", dataset.n, quiet=quiet) as progress:
        for batch in dataset.batches(np.arange(dataset.n), 1024):
            progress.advance(len(batch), 0.0)

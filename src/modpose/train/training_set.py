"""Training images with their known affinities; contradictions are refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modpose.affinity.known import known_affinity
from modpose.backprojection.halves import check_views
from modpose.config import Config
from modpose.config.facts import Facts, check_config
from modpose.data.dataset import Dataset, dataset_of
from modpose.errors import InputError
from modpose.progress import Progress

if TYPE_CHECKING:
    from modpose.affinity.matrix import Affinity
    from modpose.data.source import Source

LOOKED_AT = 32
"""Number of images that are checked before a fit, if the stack does not fit into memory."""


def open_dataset(
    source: Source,
    config: Config,
    labels: NDArray[Any] | None = None,
    affinity: str | Path | Affinity | None = None,
    sample_affinity: str | Path | ArrayLike | Affinity | None = None,
) -> Dataset:
    """Prepare training images with their known affinities.

    Raises
    ------
    InputError
        If there is nothing to train on, or the affinities do not fit the images or the options.
    """
    given = affinity is not None or sample_affinity is not None
    check_config(Facts(config, affinity=given))
    known = None
    if config.train.gamma.used:
        known = known_affinity(source, labels, affinity, sample_affinity)
    dataset = dataset_of(source, config, affinity=known)
    if dataset.n < 2 or not len(dataset.train):
        raise InputError.of(source.stack.name, "the number of images", dataset.n, "at least 2")
    facts = Facts(
        config,
        dataset.shape,
        dataset.channels,
        n_train=len(dataset.train),
        ctf=dataset.ctf is not None,
        wedge=dataset.wedges is not None,
        poses=dataset.rotation is not None,
        affinity=given,
        name=source.stack.name,
    )
    check_config(facts)
    return dataset


def check_given_views(dataset: Dataset, config: Config) -> None:
    """Refuse a model of volumes for projections that all show one view."""
    if config.model.field.spectral:
        check_views(dataset)


def check_images(dataset: Dataset, quiet: bool) -> None:
    """Read a set that is kept in memory, else a few images, to refuse bad images early."""
    if not dataset.cached:
        few = np.linspace(0, dataset.n - 1, min(dataset.n, LOOKED_AT))
        dataset.batch(few.astype(np.int64))
        return
    with Progress("read", dataset.n, quiet=quiet) as progress:
        for batch in dataset.batches(np.arange(dataset.n), 1024):
            progress.advance(len(batch), 0.0)

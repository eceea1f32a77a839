"""Images without poses for a model of given poses: they are found first, as by modpose abinitio."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from modpose.config import Config
from modpose.data import preprocess
from modpose.data.dataset import Dataset, dataset_of
from modpose.data.source import Source
from modpose.search.abinitio.moving import KEPT
from modpose.search.abinitio.run import find_maps
from modpose.search.abinitio.saved import begun_settings, is_unfinished
from modpose.search.abinitio.settings import AbInitioSettings
from modpose.train.checkpoint import read_weights, save_weights

logger = logging.getLogger("modpose")

KEPT_FILE, NAMES = "kept_poses.safetensors", ("rotation", "shift", "number")
MOTIONS, STARTS = 3, 2
"""Principal motions with which poses are found, and random starts."""


def lacks_poses(source: Source, config: Config) -> bool:
    """Return whether a model needs poses that images came without."""
    needed = config.model.poses == "given" and len(source.stack.shape) == 2
    return needed and source.particles.poses(source.stack.pixel_size) is None


def with_unknown_poses(source: Source) -> Source:
    """Return the same images with poses that mean nothing, until :func:`find_poses` is called."""
    return source.with_poses(np.tile(np.eye(3), (source.n, 1, 1)), np.zeros((source.n, 2)))


def keeping_poses(config: Config) -> Config:
    """Return the same configuration for a model that takes one of several poses of an image."""
    return config.model_copy(update={"model": config.model.model_copy(update={"kept_poses": KEPT})})


def find_poses(dataset: Dataset, config: Config, folder: Path | None, quiet: bool) -> Dataset:
    """Find the poses of images without poses.

    Parameters
    ----------
    dataset
        The images.
    config
        The run's configuration.
    folder
        Folder for what ``modpose abinitio`` writes, and for going on after an interruption; None
        writes nothing.
    quiet
        No progress bars.

    Returns
    -------
    Dataset
        The same images, with the poses found.
    """
    logger.info("step 1 of 2: poses, as by modpose abinitio")
    source = dataset.source
    begun = folder is not None and is_unfinished(folder)
    settings = AbInitioSettings(motions=MOTIONS, starts=STARTS, seed=config.seed)
    found = find_maps(
        source,
        folder,
        begun_settings(folder) if folder is not None and begun else settings,
        invert=config.data.invert,
        overwrite=True,
        resume=begun,
        device=config.train.accelerator,
        quiet=quiet,
    )
    for line in found.lines():
        logger.info(line)
    posed = dataset_of(
        source.with_poses(*found.poses),
        config,
        value_range=dataset.value_range,
        affinity=dataset.affinity,
    )
    if found.refined.several is not None:
        rotation, shift, number = found.refined.several
        grown = preprocess.geometry(source.stack.shape, config.data, source.stack.name)
        posed.kept = rotation, shift * (found.binning / grown.pixel_size_factor), number
        count = int((number > 1).sum())
        logger.info("%s images have several nearly equal poses; these are kept", f"{count:,}")
        if folder is not None:
            save_weights(folder / KEPT_FILE, dict(zip(NAMES, posed.kept, strict=True)))
    logger.info("step 2 of 2: conformations, with these poses")
    return posed


def with_kept_poses(dataset: Dataset, folder: Path) -> Dataset:
    """Give a data set the poses that :func:`find_poses` kept in a folder, if it kept any."""
    path = folder / KEPT_FILE
    if path.is_file():
        kept = read_weights(path)
        dataset.kept = (kept[NAMES[0]], kept[NAMES[1]], kept[NAMES[2]])
    return dataset

"""Images without poses for a model of given poses: they are found first, as by modpose abinitio."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from modpose.config import Config, PrincipalFieldConfig
from modpose.data.dataset import Dataset
from modpose.data.preprocess import geometry
from modpose.data.source import Source
from modpose.search.abinitio.checks import FAR, far_share
from modpose.search.abinitio.found import FoundMaps
from modpose.search.abinitio.run import find_maps
from modpose.search.abinitio.saved import Saved, begun_settings, is_unfinished
from modpose.search.abinitio.scores import SeveralPoses
from modpose.search.abinitio.settings import AbInitioSettings
from modpose.train.better_poses import PosePlan, posed_again, with_better_poses
from modpose.train.checkpoint import read_weights, save_weights

logger = logging.getLogger("modpose")

FOUND_FILE = "kept_poses.safetensors"
BETTER_FILE = "better_poses.safetensors"
MOTIONS, STARTS = 3, 2
"""Principal motions with which poses are found, and random starts."""
FAR_SHIFT = 0.16
"""Largest shift, as a fraction of the box, where many particles are near the usual one."""


def lacks_poses(source: Source, config: Config) -> bool:
    """Return whether a model needs poses that images came without."""
    needed = config.model.poses == "given" and len(source.stack.shape) == 2
    return needed and source.particles.poses(source.stack.pixel_size) is None


def with_unknown_poses(source: Source) -> Source:
    """Return the same images with poses that mean nothing, until :func:`find_poses` is called."""
    return source.with_poses(np.tile(np.eye(3), (source.n, 1, 1)), np.zeros((source.n, 2)))


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
    logger.info("step 1 of 3: poses, as by modpose abinitio")
    kept = _searched(dataset, config, folder, quiet)
    posed = posed_again(dataset, config, kept.rotation[:, 0], kept.shift[:, 0])
    if config.model.kept_poses:
        posed.kept = kept
    elif isinstance(config.model.field, PrincipalFieldConfig):
        logger.info("step 2 of 3: better poses, with the conformations that a model learns")
        saved = Saved(None if folder is None else folder / BETTER_FILE)
        posed = with_better_poses(posed, config, PosePlan(), quiet, saved)
    logger.info("step 3 of 3: conformations, with these poses")
    return posed


def _searched(dataset: Dataset, config: Config, folder: Path | None, quiet: bool) -> SeveralPoses:
    """Poses from a search, or from one that has ended; shifts in pixels of the model."""
    source = dataset.source
    begun = folder is not None and is_unfinished(folder)
    if folder is not None and not begun and (folder / FOUND_FILE).is_file():
        return _read(folder / FOUND_FILE)
    settings = AbInitioSettings(motions=MOTIONS, starts=STARTS, seed=config.seed)
    if folder is not None and begun:
        settings = begun_settings(folder)
    found = _found(source, config, folder, settings, begun, quiet)
    largest = settings.max_shift * min(source.stack.shape) / found.binning
    if settings.max_shift < FAR_SHIFT and far_share(found.refined.shift, largest) > FAR:
        logger.info("poses are searched again, with shifts up to %g of the box", FAR_SHIFT)
        wider = replace(settings, max_shift=FAR_SHIFT)
        found = _found(source, config, folder, wider, False, quiet)
    for line in found.lines():
        logger.info(line)
    several = found.refined.several
    assert several is not None, "a search with motions keeps several poses of an image"
    grown = geometry(source.stack.shape, config.data, source.stack.name)
    factor = found.binning / grown.pixel_size_factor
    kept = several._replace(shift=several.shift * factor)
    if folder is not None:
        save_weights(folder / FOUND_FILE, kept._asdict())
    return kept


def _found(
    source: Source,
    config: Config,
    folder: Path | None,
    settings: AbInitioSettings,
    begun: bool,
    quiet: bool,
) -> FoundMaps:
    """Search, or go on with a search that was begun."""
    return find_maps(
        source,
        folder,
        settings,
        invert=config.data.invert,
        overwrite=True,
        resume=begun,
        device=config.train.accelerator,
        quiet=quiet,
    )


def with_kept_poses(dataset: Dataset, folder: Path) -> Dataset:
    """Give a data set the poses that a search kept in a folder, if it kept any."""
    if (folder / FOUND_FILE).is_file():
        dataset.kept = _read(folder / FOUND_FILE)
    return dataset


def _read(path: Path) -> SeveralPoses:
    return SeveralPoses(**read_weights(path))

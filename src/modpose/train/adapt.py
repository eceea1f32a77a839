"""A configuration fitted to the time and the processes of a training."""

from __future__ import annotations

import logging

from modpose import ranks
from modpose.config import AlignmentStartConfig, Config
from modpose.data.source import Source
from modpose.search.pipeline import PER_CLASS

logger = logging.getLogger("modpose")

ALL_ALIGNED, LEAST_ALIGNED = 1000, 32
"""Volumes that are aligned before a training, however short it is: up to so many all, or at least.
"""
VOXELS_A_SECOND = 4e6
"""Voxels that a round of an alignment takes a second for, on one core (64^3: 15 volumes)."""


def dealt(config: Config) -> Config:
    """Cut batches into chunks, at least one for each process (:mod:`modpose.ranks`).

    Numbers depend on the size of a chunk, and so not on the number of processes that resume.
    """
    train, size = config.train, ranks.place().size
    chunk = min(train.chunk or train.batch_size, -(-train.batch_size // size))
    if size == 1 or chunk == train.chunk:
        return config
    logger.info("%s processes: batches of %s in chunks of %s", size, train.batch_size, chunk)
    return config.model_copy(update={"train": train.model_copy(update={"chunk": chunk})})


def in_time(config: Config, source: Source, max_minutes: float | None) -> Config:
    """Let an alignment before the training take about half of the time of a short fit.

    Of many volumes, as many are chosen (``train.start.volumes``) as one core is likely to align in
    this time.
    """
    start, n = config.train.start, source.n
    if max_minutes is None or n <= ALL_ALIGNED or not isinstance(start, AlignmentStartConfig):
        return config
    rounds = start.refine_rounds + (0 if start.poses == "given" else start.rounds)
    work = rounds * (config.data.box or source.stack.shape[0]) ** 3
    most = max(int(30 * max_minutes * VOXELS_A_SECOND / work), LEAST_ALIGNED)
    most = max(most, 2 * PER_CLASS * start.classes)
    if start.volumes is not None or most >= n:
        return config
    logger.warning(
        "%s of %s volumes, chosen at random, are aligned and trained on in this time; the others "
        "are only encoded (--set train.start.volumes=N chooses how many)",
        f"{most:,}",
        f"{n:,}",
    )
    start = start.model_copy(update={"volumes": most})
    return config.model_copy(update={"train": config.train.model_copy(update={"start": start})})

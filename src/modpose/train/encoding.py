"""The latents of a fit: of all images, or first of a sample and later of the rest."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modpose import ranks
from modpose.data.dataset import Dataset
from modpose.files.locks import writing
from modpose.files.writing import replace_atomically
from modpose.infer.encode import encode_dataset
from modpose.infer.latents import complete_table
from modpose.model.image_rows import rows_trained_in
from modpose.run.folder import read_table
from modpose.train.checkpoint import put_weights, read_weights
from modpose.train.learner import Learner, set_up
from modpose.train.session import build, contrast_spread

if TYPE_CHECKING:
    from modpose.run import Run

logger = logging.getLogger("modpose")

SAMPLE, LEAST = 10_000, 200
"""Where all images would take too long, so many are encoded at most and at least: as many as fit
into half of the time.
"""
TIMED = 64
"""Images whose encoding tells the time of all."""
BLOCK = 50_000
"""Images that are encoded, and written, at once when the rest is encoded."""


def sample_rows(
    learner: Learner, dataset: Dataset, seed: int, most_seconds: float | None
) -> NDArray[np.int64] | None:
    """Choose the images to encode after a fit.

    Parameters
    ----------
    learner
        The trained model.
    dataset
        All images.
    seed
        Chooses the sample.
    most_seconds
        Longest time for the encoding of all images; None: any.

    Returns
    -------
    Sorted positions of a random sample; None: all images.
    """
    if most_seconds is None or dataset.n <= 2 * SAMPLE or rows_trained_in(learner.vae):
        return None
    rows = np.random.default_rng([seed, SAMPLE]).choice(dataset.n, SAMPLE, replace=False)
    begun, device = time.perf_counter(), learner.placement.device
    few = np.sort(rows[:TIMED]).astype(np.int64)
    how: dict[str, Any] = {"device": device, "seed": seed, "quiet": True, "shared": True}
    encode_dataset(learner.vae, dataset, rows=few, **how)
    seconds = ranks.once(lambda: (time.perf_counter() - begun) * dataset.n / len(few))
    if seconds <= most_seconds:
        return None
    count = min(SAMPLE, max(LEAST, int(dataset.n * most_seconds / seconds / 2)))
    logger.warning(
        "encoding all %s images would take about %s: %s of them are encoded now; "
        "commands that need all encode the rest first, and so does modpose resume",
        f"{dataset.n:,}",
        "a minute" if seconds < 90 else f"{seconds / 60:,.0f} minutes",
        f"{count:,}",
    )
    return np.sort(rows[:count]).astype(np.int64)


def encode_rest(run: Run, dataset: Dataset, *, quiet: bool = False) -> None:
    """Encode every image of a run of which only a sample was encoded.

    Blocks of images are kept in ``checkpoints/`` until all are done, so an interrupted call goes
    on where it stopped.

    Parameters
    ----------
    run
        A finished run.
    dataset
        Its images.
    quiet
        No progress bars.
    """
    import pandas as pd

    config, environment = run.config, run.environment
    with writing(run.path):
        blocks = encode_blocks(run, dataset, quiet=quiet)
        labels = environment["labels"]
        table = complete_table(
            pd.concat([read_table(block) for block in blocks], ignore_index=True),
            dataset,
            None if labels is None else np.asarray(labels),
            environment["clusters"],
            config.seed,
            contrast_spread(config),
        )
        run.write_latents(table)
        run.update_environment(encoded=None)
        for block in blocks:
            block.unlink()


def encode_blocks(run: Run, dataset: Dataset, *, quiet: bool = False) -> list[Path]:
    """Encode every image; return the files of the blocks.  Several processes share each block."""
    learner = set_up(build(dataset, run.config), run.config)
    best = run.path / "checkpoints" / "best.safetensors"
    put_weights(learner.vae, read_weights(best), best)
    return [
        _block(run.path, learner, dataset, first, run.config.seed, quiet)
        for first in range(0, dataset.n, BLOCK)
    ]


def _block(
    folder: Path, learner: Learner, dataset: Dataset, first: int, seed: int, quiet: bool
) -> Path:
    """Encode the images from ``first`` on, unless that was done; return their file."""
    path = folder / "checkpoints" / f"rest-{first // BLOCK:05d}.parquet"
    if not ranks.once(path.is_file):
        rows = np.arange(first, min(first + BLOCK, dataset.n))
        device = learner.placement.device
        how: dict[str, Any] = {"device": device, "seed": seed + 1 + first, "quiet": quiet}
        found = encode_dataset(learner.vae, dataset, rows=rows, shared=True, **how)
        if ranks.leads():
            replace_atomically(path, found.to_dataframe(rows).to_parquet, overwrite=True)
    return path

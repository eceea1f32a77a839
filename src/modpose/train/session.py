"""Training without a folder: start, train, finish, and the record of it."""

from __future__ import annotations

import copy
import logging
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from modpose.config import Config, TableEncoderConfig
from modpose.data.dataset import Dataset
from modpose.data.record import Record, described
from modpose.errors import TrainingError
from modpose.files.writing import check_space
from modpose.infer.encode import encode_dataset
from modpose.infer.encoded import Encoded
from modpose.infer.judge import judge_fit
from modpose.infer.latents import complete_table, savable_labels
from modpose.model.build import build_vae
from modpose.model.encoders.table import TableEncoder
from modpose.model.terms.affinity import AffinityTerm
from modpose.model.vae import Vae
from modpose.progress import Progress, in_words
from modpose.run import Run
from modpose.run.pretrained import content_of
from modpose.train.checkpoint import read_weights, save_checkpoint
from modpose.train.learner import Learner, cpu_threads, set_up
from modpose.train.loop import run_epochs
from modpose.train.placement import Placement
from modpose.train.starts import prepare
from modpose.train.sums import what_is_seen

if TYPE_CHECKING:
    import pandas as pd

    from modpose.affinity.known import KnownAffinity

logger = logging.getLogger("modpose")

RESTART_STRIDE = 7919
"""Difference of the seeds of restarts, so that seeds 0, 1, 2... share none."""
COPIES = 4
"""Weights on the disk at a time: of the last epoch, the one before, the best, and the new best."""
BYTES_A_ROW = 256
"""Of an image in the tables of a run."""


def announce(
    config: Config, *, max_minutes: float | None, rows: Sequence[dict[str, float]] = ()
) -> None:
    """Log the device, the precision and, if it is known, the time of a fit.

    Parameters
    ----------
    config
        The configuration.
    max_minutes
        Largest training time.
    rows
        Metrics of the finished epochs, which tell the time of an epoch.

    Raises
    ------
    InputError
        If this machine lacks the device.
    """
    placement, epochs, time_left = Placement.of(config.train), config.train.epochs, ""
    left = max(0, epochs - int(rows[-1]["epoch"])) if rows else epochs
    if max_minutes is not None:
        time_left = f", at most {max_minutes:g} min of training"
    elif rows and "seconds" in rows[-1]:
        minutes = left * rows[-1]["seconds"] / rows[-1]["epoch"] / 60
        time_left = f", {in_words(minutes)}"
    epochs_left = f"{left}{' more' if rows else ''} epoch{'' if left == 1 else 's'}"
    logger.info("%s; %s%s", placement, epochs_left, time_left)


def start(
    dataset: Dataset,
    config: Config,
    *,
    max_minutes: float | None,
    quiet: bool = False,
    folder: Path | None = None,
) -> tuple[Learner, list[dict[str, float]]]:
    """Make a learner; of several restarts, the one with the best validation ELBO.

    ``folder`` is where the run is written, if it is; a disk without space is refused first.

    Returns
    -------
    tuple
        The learner, and the metrics of its finished epochs.
    """
    train = config.train
    if train.restarts == 1:
        return _new(dataset, config, quiet, folder), []
    starts: list[tuple[Learner, list[dict[str, float]]]] = []
    images = train.restarts * train.restart_epochs * len(dataset.train)
    with cpu_threads(train.threads), Progress("restarts", images, quiet=quiet) as progress:
        for k in range(train.restarts):
            seeded = config.model_copy(update={"seed": config.seed + RESTART_STRIDE * k})
            learner = _new(dataset, seeded, quiet=True, folder=folder)
            rows: list[dict[str, float]] = []
            run_epochs(
                learner,
                what_is_seen(learner, dataset, quiet=True),
                seeded,
                epochs=train.restart_epochs,
                max_minutes=None if max_minutes is None else 0.5 * max_minutes / train.restarts,
                progress=progress,
                record=rows.append,
            )
            starts.append((learner, [row | {"start": k} for row in rows]))
    best, rows = max(starts, key=lambda pair: pair[1][-1].get("val_elbo", pair[1][-1]["elbo"]))
    best.state.seconds = sum(learner.state.seconds for learner, _ in starts)
    best.state.stopped = ""
    return best, rows


def train_model(
    learner: Learner,
    dataset: Dataset,
    config: Config,
    *,
    run: Run | None,
    rows: list[dict[str, float]],
    max_minutes: float | None,
    quiet: bool,
) -> None:
    """Train to the end; leaves the weights of the best validation ELBO in the learner."""
    best_weights: dict[str, torch.Tensor] = {}

    def record(metrics: dict[str, float]) -> None:
        rows.append(metrics)
        is_best = learner.state.best_epoch == learner.state.epoch
        if run is not None:
            run.write_metrics(rows)
            save_checkpoint(
                run.path / "checkpoints",
                learner.state.epoch,
                learner.vae.state_dict(),
                learner.training_state(),
                best=is_best,
            )
        elif is_best:
            best_weights.update(copy.deepcopy(learner.vae.state_dict()))

    def save() -> None:
        if run is not None and learner.begun is not None:
            save_checkpoint(
                run.path / "checkpoints",
                learner.state.epoch,
                learner.vae.state_dict(),
                learner.training_state(),
                batches=learner.begun["batches"],
            )

    with cpu_threads(config.train.threads):
        dataset = what_is_seen(learner, dataset, quiet)
    images = (config.train.epochs - learner.state.epoch) * len(dataset.train)
    seconds = None if max_minutes is None else 60 * max_minutes
    try:
        with (
            cpu_threads(config.train.threads),
            Progress(
                "fit", images, seconds=seconds, quiet=quiet, foretell=not rows and seconds is None
            ) as progress,
        ):
            run_epochs(
                learner,
                dataset,
                config,
                epochs=config.train.epochs,
                max_minutes=max_minutes,
                progress=progress,
                record=record,
                save=save,
            )
    except TrainingError as error:
        kept = "" if run is None else f"; the last good checkpoint is in {run.path}/checkpoints"
        raise TrainingError(f"{error}{kept}") from None
    if run is not None and (run.path / "checkpoints" / "best.safetensors").is_file():
        best_weights = read_weights(run.path / "checkpoints" / "best.safetensors")
    if best_weights:
        learner.vae.load_state_dict(best_weights)


def finish(
    learner: Learner,
    dataset: Dataset,
    config: Config,
    environment: dict[str, Any],
    rows: list[dict[str, float]],
    *,
    quiet: bool,
    sample: NDArray[np.int64] | None = None,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Infer the latents of the images with the trained model, and check the result.

    Parameters
    ----------
    learner
        At the end of training.
    dataset, config
        The training data, and the configuration.
    environment
        From :func:`describe_fit`, with the ``alarms`` before training.
    rows
        Metrics, one row per epoch.
    quiet
        No progress bar.
    sample
        Positions of the images to encode; None: all.

    Returns
    -------
    tuple
        The table of latents, and the entries of ``environment.json`` about the end.
    """
    device, stopped = learner.placement.device, learner.state.stopped
    encoded = infer(learner, dataset, config, sample, quiet=quiet)
    labels = None if environment["labels"] is None else np.asarray(environment["labels"])
    table = complete_table(
        encoded.to_dataframe(sample),
        dataset,
        labels,
        environment["clusters"],
        config.seed,
        contrast_spread(config),
    )
    return table, {
        "encoded": None if sample is None else len(sample),
        "finished": _now(),
        "stopped": stopped,
        "device": str(device),
        "training_seconds": learner.state.seconds,
        "best_epoch": learner.state.best_epoch,
        "alarms": judge_fit(environment, dataset, rows, table, learner.vae, stopped),
    }


def infer(
    learner: Learner,
    dataset: Dataset,
    config: Config,
    rows: NDArray[np.int64] | None,
    *,
    quiet: bool,
) -> Encoded:
    """Encode images, shared by all processes; arguments as in :func:`finish`."""
    device, seed = learner.placement.device, config.seed
    with cpu_threads(config.train.threads):
        dataset = what_is_seen(learner, dataset, quiet)
    return encode_dataset(
        learner.vae, dataset, device=device, seed=seed, quiet=quiet, rows=rows, shared=True
    )


def describe_fit(
    dataset: Dataset,
    config: Config,
    labels: NDArray[Any] | None,
    clusters: int | None,
    record: Record,
) -> dict[str, Any]:
    """Collect the entries of ``environment.json`` about a fit: versions, seed, data."""
    source = dataset.source
    return {
        "modpose": version("modpose"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "threads": config.train.threads,
        "seed": config.seed,
        "input": source.places,
        **described(record, source),
        "n": dataset.n,
        "shape": list(dataset.shape),
        "channels": dataset.channels,
        "pixel_size": dataset.pixel_size,
        "value_range": dataset.value_range,
        "labels": None if labels is None else savable_labels(labels),
        "clusters": clusters or _classes_searched(config),
        "started": _now(),
    }


def _classes_searched(config: Config) -> int | None:
    """Number of classes of the search before training."""
    start = config.train.start
    return start.classes if start is not None and start.classes > 1 else None


def _new(dataset: Dataset, config: Config, quiet: bool, folder: Path | None) -> Learner:
    """Make a learner; its start counts as training time."""
    began = time.perf_counter()
    vae = build(dataset, config)
    if folder is not None:
        weights = sum(part.numel() * part.element_size() for part in vae.state_dict().values())
        check_space(folder, COPIES * weights + BYTES_A_ROW * dataset.n)
    with cpu_threads(config.train.threads):
        prepare(vae, dataset, config, quiet)
    learner = set_up(vae, config)
    learner.state.seconds = time.perf_counter() - began
    return learner


def build(dataset: Dataset, config: Config) -> Vae:
    """Build the model for a data set and its known affinities."""
    known = cast("KnownAffinity | None", dataset.affinity)
    train = config.train
    term = None if known is None else AffinityTerm(known, train.affinity, train.gamma)
    vae = build_vae(
        config, shape=dataset.shape, channels=dataset.channels, n_images=dataset.n, affinity=term
    )
    encoder = config.model.encoder
    if isinstance(encoder, TableEncoderConfig) and encoder.init == "pretrained":
        assert isinstance(vae.encoder, TableEncoder)
        vae.encoder.set_content(*content_of(encoder.run, dataset.source, config))
    if vae.kept is not None and dataset.kept is not None:
        vae.kept.set(*dataset.kept)
    return vae


def contrast_spread(config: Config) -> float:
    """Return the prior standard deviation of the contrast; 0 if it is not inferred."""
    return float(getattr(config.model.likelihood, "contrast", 0.0))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

"""From data and a configuration to a finished run: start, resume, and finish."""

from __future__ import annotations

import copy
import os
import platform
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from modpose.affinity.known import KnownAffinity
from modpose.alarms.images import warn_before
from modpose.config import Config, TableEncoderConfig
from modpose.data.dataset import Dataset
from modpose.data.inputs import files_of_source
from modpose.data.labels import read_labels
from modpose.data.record import Record, described, record_of
from modpose.errors import InputError, TrainingError
from modpose.infer.encode import encode_dataset
from modpose.infer.judge import judge_fit
from modpose.infer.latents import latents_table, savable_labels
from modpose.limits import check_clusters, check_epochs, check_minutes
from modpose.model.build import build_vae
from modpose.model.encoders.table import TableEncoder
from modpose.model.terms.affinity import AffinityTerm
from modpose.model.vae import Vae
from modpose.progress import Progress
from modpose.run import Run
from modpose.run.folder import check_not_an_input, check_target, sha256, staged
from modpose.run.pretrained import content_of
from modpose.train.checkpoint import (
    newest_checkpoint,
    put_weights,
    read_weights,
    save_checkpoint,
)
from modpose.train.loop import Learner, cpu_threads, run_epochs, set_up
from modpose.train.starts import prepare
from modpose.train.training_set import check_images, open_dataset

if TYPE_CHECKING:
    from modpose.affinity.matrix import Affinity
    from modpose.data.source import Source
    from modpose.data.stack import Stack


RESTART_STRIDE = 7919
"""What separates the seeds of restarts, so that seeds 0, 1, 2... share none."""


def fit_run(
    source: Source,
    config: Config,
    out: str | Path,
    *,
    datadir: Path | None = None,
    index: Path | None = None,
    poses: Path | None = None,
    ctf: Path | None = None,
    partial: bool = False,
    labels: str | Path | ArrayLike | None = None,
    affinity: str | Path | Affinity | None = None,
    sample_affinity: str | Path | ArrayLike | Affinity | None = None,
    clusters: int | None = None,
    max_minutes: float | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> Run:
    """Fit a model and leave everything about it in a run folder.

    Parameters
    ----------
    source
        The opened input (:func:`modpose.data.source.open_source`).
    config
        The complete configuration.
    out
        The run folder to make.
    datadir, index, poses, ctf
        How the input was opened, remembered so that it can be opened again.
    partial
        Leave images without a label that a table of labels does not have.
    labels
        (N,) known classes, a column or a file; kept in ``latents.parquet`` to colour and score,
        trained on only with ``affinity``.
    affinity, sample_affinity
        How alike classes, or the images themselves, are; see
        :func:`modpose.affinity.known.known_affinity`.
    clusters
        Number of clusters of content to find, kept there too.
    max_minutes
        Stop training after this long; the run is then a finished one.
    overwrite
        Replace a run that already exists.
    quiet
        No progress bar.

    Raises
    ------
    InputError
        If the data or the folder cannot be used.
    TrainingError
        If the loss is not finite.
    """
    check_minutes(max_minutes)
    check_clusters(clusters, source.n)
    given = (index, poses, ctf, labels, affinity, sample_affinity)
    inputs = _files_read(source, config, *given)
    check_target(Path(out), overwrite)  # before the work, not after
    check_not_an_input(Path(out), inputs)
    known = None if labels is None else read_labels(labels, source, partial=partial)
    dataset = open_dataset(source, config, known, affinity, sample_affinity)
    check_images(dataset, quiet)
    column = str(labels) if isinstance(labels, str | Path) else None
    record = record_of(dataset, column if source.particles.has(column or "") else None)
    environment = describe_fit(dataset, config, known, clusters, record) | {
        "copied": _checksums(index, labels),
        "command": sys.argv[1:],
        "alarms": warn_before(dataset),
        **{
            name: None if path is None else os.fspath(path.absolute())
            for name, path in {
                "datadir": datadir,
                "index": index,
                "poses": poses,
                "ctf": ctf,
            }.items()
        },
    }
    with Run.begin(
        out, config, environment, record=record, overwrite=overwrite, inputs=inputs
    ) as run:
        if dataset.affinity is not None:
            cast(KnownAffinity, dataset.affinity).save(run.path)
        learner, rows = start(dataset, config, max_minutes=max_minutes, quiet=quiet)
        _go_on(run, learner, dataset, rows, max_minutes=max_minutes, quiet=quiet)
    return Run.open(out)


def _files_read(source: Source, config: Config, *given: object) -> list[Path]:
    """Collect the files that a fit reads; none of them may lie in its run folder."""
    encoder = config.model.encoder
    pretrained = encoder.run if isinstance(encoder, TableEncoderConfig) else None
    named = [config.model.wedge, pretrained, *given]
    texts = [str(text) for text in named if isinstance(text, str | Path)]
    paths = [Path(part) for text in texts for part in (text, text.rpartition(":")[0])]
    others = [path for path in paths if path.name and path.exists()]
    return list(files_of_source(source, *others))


def resume_run(
    path: str | Path,
    *,
    epochs: int | None = None,
    max_minutes: float | None = None,
    input: str | Path | NDArray[Any] | Stack | None = None,
    datadir: str | Path | None = None,
    quiet: bool = False,
) -> Run:
    """Go on with a run from its last completed epoch, to the numbers that it would have had.

    Parameters
    ----------
    path
        The run folder.
    epochs
        New total of epochs; with it a finished run, too, can go on.
    max_minutes
        Stop once the run has trained for so long in all, what is done included.
    input, datadir
        Where the images are now, if they have moved (:meth:`modpose.run.Run.dataset`).
    quiet
        No progress bar.
    """
    check_minutes(max_minutes)
    check_epochs(epochs)
    opened = Run.open(path)
    if opened.finished and epochs is None and staged(opened.path) is None:
        raise InputError(f"{path}: the run is finished; give --epochs N to train it for longer")
    if opened.finished and epochs is not None and staged(opened.path) is None:
        done = int(opened.epochs()[-1]["epoch"])
        if epochs <= done:
            raise InputError.of(path, "--epochs", epochs, f"more than the {done} that it has")
    with Run.going_on(path) as run:
        if epochs is not None:
            train = run.config.train.model_copy(update={"epochs": epochs})
            run = run.reconfigured(run.config.model_copy(update={"train": train}))
        dataset = run.dataset(input, datadir=datadir)
        moved = {"input": input, "datadir": datadir}
        places = {k: Path(v) for k, v in moved.items() if isinstance(v, str | Path)}
        if places:
            run.update_environment(**{k: os.fspath(v.absolute()) for k, v in places.items()})
        if run.record() is None:  # of version 0.1
            run.remember(dataset)
        saved = newest_checkpoint(run.path / "checkpoints")
        if saved is None:
            learner, rows = start(dataset, run.config, max_minutes=max_minutes, quiet=quiet)
        else:
            learner = set_up(_build(dataset, run.config), run.config)
            put_weights(learner.vae, saved[0], run.path / "checkpoints")
            learner.load_training_state(saved[1], run.path / "checkpoints")
            if epochs is not None or max_minutes is not None:
                learner.state.stopped = ""
            rows = [row for row in run.epochs() if row["epoch"] <= learner.state.epoch]
        _go_on(run, learner, dataset, rows, max_minutes=max_minutes, quiet=quiet)
    return Run.open(path)


def start(
    dataset: Dataset, config: Config, *, max_minutes: float | None, quiet: bool = False
) -> tuple[Learner, list[dict[str, float]]]:
    """Make a learner; of several restarts, the one with the best validation ELBO.

    Returns
    -------
    tuple
        The learner, and the metrics of the epochs that it has behind it.
    """
    train = config.train
    if train.restarts == 1:
        return _new(dataset, config, quiet), []
    starts: list[tuple[Learner, list[dict[str, float]]]] = []
    images = train.restarts * train.restart_epochs * len(dataset.train)
    with cpu_threads(train.threads), Progress("restarts", images, quiet=quiet) as progress:
        for k in range(train.restarts):
            seeded = config.model_copy(update={"seed": config.seed + RESTART_STRIDE * k})
            learner = _new(dataset, seeded, quiet=True)
            rows: list[dict[str, float]] = []
            run_epochs(
                learner,
                dataset,
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

    images = (config.train.epochs - learner.state.epoch) * len(dataset.train)
    seconds = None if max_minutes is None else 60 * max_minutes
    try:
        with (
            cpu_threads(config.train.threads),
            Progress("fit", images, seconds=seconds, quiet=quiet) as progress,
        ):
            run_epochs(
                learner,
                dataset,
                config,
                epochs=config.train.epochs,
                max_minutes=max_minutes,
                progress=progress,
                record=record,
            )
    except TrainingError as error:
        kept = "" if run is None else f"; the last good checkpoint is in {run.path}/checkpoints"
        raise TrainingError(f"{error}{kept}") from None
    if run is not None and (run.path / "checkpoints" / "best.safetensors").is_file():
        best_weights = read_weights(run.path / "checkpoints" / "best.safetensors")
    if best_weights:
        learner.vae.load_state_dict(best_weights)


def _go_on(
    run: Run,
    learner: Learner,
    dataset: Dataset,
    rows: list[dict[str, float]],
    *,
    max_minutes: float | None,
    quiet: bool,
) -> None:
    """Train to the end, then write what the model infers of its images."""
    config = run.config
    train_model(learner, dataset, config, run=run, rows=rows, max_minutes=max_minutes, quiet=quiet)
    device = learner.placement.device
    encoded = encode_dataset(learner.vae, dataset, device=device, seed=config.seed, quiet=quiet)
    environment = run.environment
    labels = None if environment["labels"] is None else np.asarray(environment["labels"])
    table = latents_table(encoded, dataset, labels, environment["clusters"], config.seed)
    run.update_environment(
        finished=_now(),
        stopped=learner.state.stopped,
        device=str(device),
        training_seconds=learner.state.seconds,
        best_epoch=learner.state.best_epoch,
        alarms=judge_fit(environment, dataset, rows, table, learner.vae, learner.state.stopped),
    )
    run.write_latents(table)


def _checksums(*files: object) -> dict[str, str]:
    """Checksums of files of which the run keeps a copy, so that a change can be told."""
    paths = [Path(file).absolute() for file in files if isinstance(file, str | Path)]
    return {os.fspath(path): sha256(path) for path in paths if path.is_file()}


def describe_fit(
    dataset: Dataset,
    config: Config,
    labels: NDArray[Any] | None,
    clusters: int | None,
    record: Record,
) -> dict[str, Any]:
    """Collect what ``environment.json`` says of a fit: versions, seed, data."""
    source = dataset.source
    return {
        "modpose": version("modpose"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "threads": config.train.threads,
        "seed": config.seed,
        "input": None if source.path is None else os.fspath(source.path.absolute()),
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
    """How many classes were told apart before training, which content then shows."""
    start = config.train.start
    return start.classes if start is not None and start.classes > 1 else None


def _new(dataset: Dataset, config: Config, quiet: bool) -> Learner:
    """Make a learner; what its start takes counts as training time."""
    began = time.perf_counter()
    vae = _build(dataset, config)
    with cpu_threads(config.train.threads):
        prepare(vae, dataset, config, quiet)
    learner = set_up(vae, config)
    learner.state.seconds = time.perf_counter() - began
    return learner


def _build(dataset: Dataset, config: Config) -> Vae:
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
    return vae


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

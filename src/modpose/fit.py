"""From data and a configuration to a finished run: start, resume, and finish."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modpose import ranks
from modpose.affinity.known import KnownAffinity
from modpose.alarms.images import warn_before
from modpose.config import Config, TableEncoderConfig, merge, parse_config
from modpose.data.dataset import Dataset
from modpose.data.inputs import files_of_source
from modpose.data.labels import read_labels
from modpose.data.record import record_of
from modpose.errors import InputError
from modpose.limits import check_clusters, check_epochs, check_minutes
from modpose.run import Run
from modpose.run.folder import SEARCH, check_not_an_input, check_target, sha256, staged
from modpose.train.adapt import dealt, in_time
from modpose.train.checkpoint import (
    newest_checkpoint,
    put_weights,
)
from modpose.train.encoding import encode_blocks, encode_rest, sample_rows
from modpose.train.learner import Learner, set_up
from modpose.train.session import (
    announce,
    build,
    describe_fit,
    finish,
    infer,
    start,
    train_model,
)
from modpose.train.training_set import check_given_views, check_images, open_dataset
from modpose.train.unposed import (
    find_poses,
    lacks_poses,
    with_kept_poses,
    with_unknown_poses,
)

if TYPE_CHECKING:
    from modpose.affinity.matrix import Affinity
    from modpose.data.source import Source
    from modpose.data.stack import Stack
    from modpose.data.unopened import Input

LEAST_ENCODING = 60.0
"""Seconds that the encoding of all images may take after any fit; more only if the fit is long."""


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
    tomograms: Path | None = None,
    tilt_series: bool = False,
    labels: str | Path | ArrayLike | None = None,
    affinity: str | Path | Affinity | None = None,
    sample_affinity: str | Path | ArrayLike | Affinity | None = None,
    clusters: int | None = None,
    max_minutes: float | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> Run:
    """Fit a model and write everything about it into a run folder.

    Parameters
    ----------
    source
        The opened input (:func:`modpose.data.source.open_source`).
    config
        The complete configuration.
    out
        The run folder to make.
    datadir, index, poses, ctf, tomograms, tilt_series
        Options for opening the input, recorded so that it can be opened again.
    partial
        Images that are missing in a table of labels get no label.
    labels
        (N,) known classes, a column or a file; saved in ``latents.parquet`` for colours and
        scores, used in training only with ``affinity``.
    affinity, sample_affinity
        Similarities of classes, or of the images; see
        :func:`modpose.affinity.known.known_affinity`.
    clusters
        Number of clusters of content to find, saved there too.
    max_minutes
        Largest training time; the run is then finished.
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
    if not ranks.leads():
        return follow(None if source.places else source.stack)
    config = in_time(dealt(config), source, max_minutes)
    given = (index, poses, ctf, tomograms, labels, affinity, sample_affinity)
    inputs = _files_read(source, config, *given)
    check_target(Path(out), overwrite)  # check before the work, not after
    check_not_an_input(Path(out), inputs)
    announce(config, max_minutes=max_minutes)
    known = None if labels is None else read_labels(labels, source, partial=partial)
    unposed = lacks_poses(source, config)
    if unposed:
        source = with_unknown_poses(source)
    dataset = open_dataset(source, config, known, affinity, sample_affinity)
    if not unposed:
        check_given_views(dataset, config)
    check_images(dataset, quiet)
    column = str(labels) if isinstance(labels, str | Path) else None
    record = record_of(dataset, column if source.particles.has(column or "") else None)
    environment = describe_fit(dataset, config, known, clusters, record) | {
        "copied": _checksums(index, labels),
        "command": sys.argv[1:],
        "alarms": [] if unposed else warn_before(dataset, config.model.field.point_group),
        "poses_found": False if unposed else None,
        "tilt_series": tilt_series,
        **{
            name: None if path is None else os.fspath(path.absolute())
            for name, path in {
                "datadir": datadir,
                "index": index,
                "poses": poses,
                "ctf": ctf,
                "tomograms": tomograms,
            }.items()
        },
    }
    with Run.begin(
        out, config, environment, record=record, overwrite=overwrite, inputs=inputs
    ) as run:
        if dataset.affinity is not None:
            cast(KnownAffinity, dataset.affinity).save(run.path)
        if unposed:
            dataset = _find_poses(run, dataset, quiet)
        _go_on(run, dataset, None, [], max_minutes=max_minutes, quiet=quiet)
    return Run.open(out)


def _files_read(source: Source, config: Config, *given: object) -> list[Path]:
    """Collect the files that a fit reads; none of them may lie in its run folder."""
    encoder = config.model.encoder
    pretrained = encoder.run if isinstance(encoder, TableEncoderConfig) else None
    named = [config.model.wedge, getattr(config.model.field, "mask", None), pretrained, *given]
    texts = [str(text) for text in named if isinstance(text, str | Path)]
    paths = [Path(part) for text in texts for part in (text, text.rpartition(":")[0])]
    others = [path for path in paths if path.name and path.exists()]
    return list(files_of_source(source, *others))


def resume_run(
    path: str | Path,
    *,
    epochs: int | None = None,
    max_minutes: float | None = None,
    input: Input | NDArray[Any] | Stack | None = None,
    datadir: str | Path | None = None,
    device: str | None = None,
    quiet: bool = False,
) -> Run:
    """Continue a run from its last checkpoint; the result is as without interruption.

    If a finished run encoded only a sample of its images, the others are encoded now.

    Parameters
    ----------
    path
        The run folder.
    epochs
        New total number of epochs; with it also a finished run can continue.
    max_minutes
        Largest total training time, including the earlier part.
    input, datadir
        New place of the images, if they were moved (:meth:`modpose.run.Run.dataset`).
    device
        New device: ``auto``, ``cpu``, ``cuda`` or ``mps`` (the option ``train.accelerator``).
    quiet
        No progress bar.
    """
    check_minutes(max_minutes)
    check_epochs(epochs)
    if not ranks.leads():
        return follow(input)
    opened = Run.open(path)
    if opened.partial and epochs is None and staged(opened.path) is None:
        with ranks.joined():
            ranks.once(lambda: _Task(os.fspath(opened.path), only_encode=True))
            run = whole_run(path, input=input, datadir=datadir, quiet=quiet)
            ranks.gathered(None)
        return run
    if opened.finished and epochs is None and staged(opened.path) is None:
        raise InputError(f"{path}: the run is finished; give --epochs N to train it for longer")
    if opened.finished and epochs is not None and staged(opened.path) is None:
        done = int(opened.epochs()[-1]["epoch"])
        if epochs <= done:
            raise InputError.of(path, "--epochs", epochs, f"more than the {done} that it has")
    with Run.going_on(path) as run:
        given = {"epochs": epochs, "accelerator": device}
        changed = {name: value for name, value in given.items() if value is not None}
        config = run.config
        if changed:
            values = merge(config.model_dump(mode="json"), {"train": changed})
            config = parse_config(values, "--device")
        config = dealt(config)
        announce(config, max_minutes=max_minutes, rows=run.epochs() if run.begun else ())
        if config != run.config:
            run = run.reconfigured(config)
        dataset = run.dataset(input, datadir=datadir)
        if input is not None and dataset.source.places is not None:
            run.update_environment(input=dataset.source.places)
        if datadir is not None:
            run.update_environment(datadir=os.fspath(Path(datadir).absolute()))
        if run.record() is None:  # of version 0.1
            run.remember(dataset)
        if run.environment.get("poses_found") is False:
            dataset = _find_poses(run, dataset, quiet)
        saved, learner, rows = newest_checkpoint(run.path / "checkpoints"), None, []
        if saved is not None:
            learner = set_up(build(dataset, run.config), run.config)
            put_weights(learner.vae, saved[0], run.path / "checkpoints")
            learner.load_training_state(saved[1], run.path / "checkpoints")
            if epochs is not None or max_minutes is not None:
                learner.state.stopped = ""
            ended = run.epochs() if run.begun else []
            rows = [row for row in ended if row["epoch"] <= learner.state.epoch]
        elif run.config.model.kept_poses:
            dataset = with_kept_poses(dataset, run.path / SEARCH)
        _go_on(run, dataset, learner, rows, max_minutes=max_minutes, quiet=quiet)
    return Run.open(path)


def _find_poses(run: Run, dataset: Dataset, quiet: bool) -> Dataset:
    """Find poses for a run whose images have none, and record them."""
    posed = find_poses(dataset, run.config, run.path / SEARCH, quiet)
    run.remember(posed)
    run.update_environment(
        poses_found=True, alarms=warn_before(posed, run.config.model.field.point_group)
    )
    return posed


def whole_run(
    path: str | Path,
    *,
    input: Input | NDArray[Any] | Stack | None = None,
    datadir: str | Path | None = None,
    quiet: bool = False,
) -> Run:
    """Open a run; if only a sample of its images is encoded, encode the rest first.

    Parameters
    ----------
    path
        The run folder.
    input, datadir
        New place of the images, if they were moved (:meth:`modpose.run.Run.dataset`).
    quiet
        No progress bar.
    """
    opened = Run.open(path, input=input, datadir=datadir)
    if opened.partial:
        encode_rest(opened, opened.dataset(), quiet=quiet)
    return Run.open(path, input=input, datadir=datadir)


def _go_on(
    run: Run,
    dataset: Dataset,
    learner: Learner | None,
    rows: list[dict[str, float]],
    *,
    max_minutes: float | None,
    quiet: bool,
) -> None:
    """Train to the end, from a start if there is no learner, then write the inferred latents.

    Other processes :func:`follow`.
    """
    with ranks.joined():
        ranks.once(lambda: _Task(os.fspath(run.path), max_minutes, fresh=learner is None))
        if learner is None:
            learner, rows = start(
                dataset, run.config, max_minutes=max_minutes, quiet=quiet, folder=run.path
            )
        _start_alike(learner)
        sample = _train(learner, dataset, run, rows, max_minutes=max_minutes, quiet=quiet)
        table, ending = finish(
            learner, dataset, run.config, run.environment, rows, quiet=quiet, sample=sample
        )
        run.update_environment(**ending)
        run.write_latents(table)
        ranks.gathered(None)  # the others wait for the files


def follow(input: Input | NDArray[Any] | Stack | None = None) -> Run:
    """Take part in a fit that the leading process starts or resumes (:mod:`modpose.ranks`).

    Parameters
    ----------
    input
        The images, if the leader has them in memory; otherwise they are where the run says.
    """
    with ranks.joined():
        task = ranks.once(lambda: _Task(""))
        run = Run(Path(task.path))
        dataset = run.dataset(input)
        if task.only_encode:
            encode_blocks(run, dataset, quiet=True)
        else:
            minutes = task.max_minutes
            if task.fresh:
                learner, _ = start(dataset, run.config, max_minutes=minutes, quiet=True)
            else:
                learner = set_up(build(dataset, run.config), run.config)
            _start_alike(learner)
            sample = _train(learner, dataset, run, [], max_minutes=minutes, quiet=True)
            infer(learner, dataset, run.config, sample, quiet=True)
        ranks.gathered(None)
    return run


class _Task(NamedTuple):
    """A fit that the leading process asks the others to join."""

    path: str
    max_minutes: float | None = None
    fresh: bool = False
    only_encode: bool = False


def _start_alike(learner: Learner) -> None:
    """Give all processes the weights and the state of the leading one."""
    weights, state = ranks.once(lambda: (learner.vae.state_dict(), learner.training_state()))
    if not ranks.leads():
        learner.vae.load_state_dict(weights)
        learner.load_training_state(state, Path("the leading process"))


def _train(
    learner: Learner,
    dataset: Dataset,
    run: Run,
    rows: list[dict[str, float]],
    *,
    max_minutes: float | None,
    quiet: bool,
) -> NDArray[np.int64] | None:
    """Train to the end; return the images to encode."""
    config, own = run.config, run if ranks.leads() else None
    train_model(learner, dataset, config, run=own, rows=rows, max_minutes=max_minutes, quiet=quiet)
    learner.vae.load_state_dict(ranks.once(learner.vae.state_dict))
    most = None if max_minutes is None else max(LEAST_ENCODING, 60 * max_minutes / 4)
    return sample_rows(learner, dataset, config.seed, most)


def _checksums(*files: object) -> dict[str, str]:
    """Checksums of files that the run copies, to detect changes."""
    paths = [Path(file).absolute() for file in files if isinstance(file, str | Path)]
    return {os.fspath(path): sha256(path) for path in paths if path.is_file()}

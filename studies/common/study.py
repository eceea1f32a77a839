"""What every experiment does: named fits of named samples, each a run folder, fitted once.

A fit that is finished is never repeated, one that was interrupted goes on, and so an experiment
that is started again with the same arguments continues where it was.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import numpy as np
import torch
from tqdm import tqdm

from modpose.config import Config, merge, parse_config
from modpose.data.dataset import split
from modpose.errors import InputError, TrainingError
from modpose.estimator import PoseModel
from modpose.files.writing import replace_atomically
from modpose.fit import fit_run, resume_run
from modpose.recipes import recipe_config
from modpose.run import Run
from studies.common.samples import Sample

if TYPE_CHECKING:
    import pandas as pd


Budget = Literal["smoke", "scaled", "printed", "full"]
Options = Mapping[str, Any]
P = TypeVar("P")

RECORD = "experiment.json"
EVALUATION = "evaluation.json"
HELD_OUT = "held_out.parquet"


@dataclass(frozen=True)
class Setting(Generic[P]):
    """What an experiment was requested.

    Attributes
    ----------
    plan
        Sizes and training.
    samples
        Folder for prepared images.
    data
        Folder of real data sets, or None.
    seed
        Of everything random.
    """

    plan: P
    samples: Path
    data: Path | None
    seed: int

    @property
    def runs(self) -> Path:
        """Folder of the fits, beside that of the prepared images."""
        return self.samples.parent / "runs"

    def find(self, name: str) -> Path | None:
        """Return the path of a real data set, None if it is not there."""
        path = None if self.data is None else self.data / name
        return path if path is not None and path.is_file() else None


# --- fits -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fit:
    """One fit of one sample.

    Attributes
    ----------
    name
        Of its run folder.
    sample
        The images.
    recipe, options, seed
        The configuration: a recipe, options laid on it, the seed.
    max_minutes
        Training stops there; None trains for the configured epochs.
    importance
        Number of held-out images and of samples per image for the importance-weighted bound.
    labels
        Column of the sample's truth that the fit is told; None if it is told nothing.
    affinity
        CSV that says how alike these classes are.
    table_images
        Held-out images that are scored where a lookup table has to be fitted to each: the first
        so many; None: all.
    """

    name: str
    sample: Sample
    recipe: str
    options: Options
    seed: int
    max_minutes: float | None
    importance: tuple[int, int]
    labels: str | None = None
    affinity: Path | None = None
    table_images: int | None = None

    def config(self) -> Config:
        """Resolve the complete configuration."""
        values = merge(recipe_config(self.recipe), dict(self.options))
        return parse_config(values | {"seed": self.seed}, f"fit {self.name}")


@dataclass(frozen=True)
class Score:
    """How well a fit explains images that it never saw, nats per image.

    Attributes
    ----------
    elbo, elbo_se
        Mean single-sample evidence lower bound with the exact KL, and its standard error over
        images.
    recon, kl_pose, kl_content
        Its parts.
    importance_bound, importance_images, importance_samples
        Mean importance-weighted bound of the first so many images with K samples each.
        These are NaN where a lookup table says nothing of the held-out images.
    images
        Number of held-out images.
    seconds, epochs, stopped
        Training time, passes over the images, and why training ended.
    processor_seconds
        Of the fit: start, training, and the images that were fitted once more; NaN where it was
        interrupted.
    """

    elbo: float
    elbo_se: float
    recon: float
    kl_pose: float
    kl_content: float
    importance_bound: float
    importance_images: int
    importance_samples: int
    images: int
    seconds: float
    epochs: int
    stopped: str
    processor_seconds: float = math.nan


@dataclass(frozen=True)
class Result:
    """A finished fit, scored."""

    fit: Fit
    run: Run
    score: Score

    def model(self) -> PoseModel:
        """Load the trained model."""
        return PoseModel.load(self.run.path)

    def held_out(self) -> pd.DataFrame:
        """Read content and pose of the held-out images, one row per image."""
        import pandas as pd

        return pd.read_parquet(self.run.path / HELD_OUT)

    @classmethod
    def read(cls, fit: Fit, path: Path) -> Result:
        """Read what :func:`carry_out` left."""
        return cls(fit, Run.open(path), Score(**json.loads((path / EVALUATION).read_text())))


def learning_curve(result: Result) -> tuple[list[float], list[float]]:
    """Return, after each epoch, the images that training has seen, and the validation ELBO."""
    seen, _ = training_curve(result)
    bounds = [e.get("val_elbo") for e in result.run.epochs() if "start" not in e]
    known = [(n, bound) for n, bound in zip(seen, bounds, strict=True) if bound is not None]
    return [n for n, _ in known], [bound for _, bound in known]


def training_curve(result: Result, column: str = "elbo") -> tuple[list[float], list[float]]:
    """Return, after each epoch, the images that training has seen, and a column of its metrics.

    Parameters
    ----------
    result
        A fit.
    column
        Mean over the fitted images of one epoch.
    """
    config = result.run.config
    train, _ = split(int(result.run.environment["n"]), config.data.val_fraction, config.seed)
    epochs = [e for e in result.run.epochs() if "start" not in e]
    return [len(train) * e["epoch"] for e in epochs], [e[column] for e in epochs]


def processor_minutes(result: Result) -> float | None:
    """Return the processor time of a fit, for a table; None if it is not known."""
    seconds = result.score.processor_seconds
    return None if math.isnan(seconds) else seconds / 60


def carry_out(fit: Fit, folder: Path) -> Path:
    """Fit and score, or do what is left of it; return the run folder.

    Raises
    ------
    InputError
        If there is a run of that name with another configuration.
    TrainingError
        If the loss is not finite.
    """
    path, config = folder / fit.name, fit.config()
    processor_seconds = math.nan
    if (path / "environment.json").is_file():
        run = Run.open(path)
        if run.config != config:
            raise InputError(
                f"{path}: this run was fitted with other options than the experiment asks for; "
                "remove it, or give another -o"
            )
        if not run.finished:
            run = resume_run(path, max_minutes=fit.max_minutes, quiet=True)
    else:
        began = time.process_time()
        run = fit_run(
            fit.sample.open_train(),
            config,
            path,
            index=fit.sample.train,
            labels=None if fit.labels is None else fit.sample.truth_of_train()[fit.labels],
            affinity=fit.affinity,
            max_minutes=fit.max_minutes,
            overwrite=True,  # at most the beginnings of this very run are there
            quiet=True,
        )
        processor_seconds = time.process_time() - began
    if not (path / EVALUATION).is_file():
        score = replace(evaluate(fit, run), processor_seconds=processor_seconds)
        text = json.dumps(asdict(score), indent=2).encode()
        replace_atomically(path / EVALUATION, lambda file: file.write(text), overwrite=True)
    return path


def evaluate(fit: Fit, run: Run) -> Score:
    """Score a run on the held-out images, and keep what it infers of them."""
    model, images = PoseModel.load(run.path), fit.sample.open_test()
    model.quiet = True
    table = run.config.model.encoder.kind == "table"
    if table and fit.table_images is not None:
        images = images.subset(np.arange(min(fit.table_images, images.n)))
    names = ("elbo", "recon", "kl_pose", "kl_content")
    nats = dict.fromkeys((*names, "elbo_se", "importance_bound"), math.nan)
    count, samples = fit.importance
    few = images.subset(np.arange(min(count, images.n)))
    # A lookup table has no rows for other images; where only content is asked, it is fitted.
    if not table or run.config.model.poses == "given":
        encoded = model.encode(images, search=table)
        latents = encoded.to_dataframe()
        replace_atomically(run.path / HELD_OUT, latents.to_parquet, overwrite=True)
        nats |= {name: float(getattr(encoded, name).mean(dtype=np.float64)) for name in names}
        nats["elbo_se"] = float(encoded.elbo.std(dtype=np.float64) / np.sqrt(images.n))
    if not table:
        bound = model.importance_bound(few, samples)
        nats["importance_bound"] = float(bound.mean(dtype=np.float64))
    return Score(
        **nats,
        importance_images=few.n,
        importance_samples=samples,
        images=images.n,
        seconds=float(run.epochs()[-1]["seconds"]),
        epochs=int(run.epochs()[-1]["epoch"]),
        stopped=str(run.environment["stopped"]),
    )


# --- many fits --------------------------------------------------------------------------------


def usable_cores() -> int:
    """Count the processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def carry_out_all(fits: Sequence[Fit], folder: Path, jobs: int) -> Iterator[Result | TrainingError]:
    """Carry fits out, ``jobs`` side by side, and yield what became of them in the order given.

    With one job they run in this process on all its threads; with more, each runs in a process
    of its own on one thread.  A fit whose loss is not finite gives its error and the others go
    on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tqdm(total=len(fits), desc="fits", unit="fit", dynamic_ncols=True) as bar:
        for fit, outcome in zip(fits, _outcomes(fits, folder, jobs, bar), strict=True):
            if isinstance(outcome, TrainingError):
                yield outcome
            else:
                yield Result.read(fit, outcome)


def _outcomes(
    fits: Sequence[Fit], folder: Path, jobs: int, bar: tqdm[Any]
) -> Iterator[Path | TrainingError]:
    if jobs == 1:
        for fit in fits:
            bar.set_postfix_str(fit.name)
            outcome = _outcome(fit, folder)
            bar.update()
            yield outcome
        return
    with _pool(jobs) as pool:
        futures = [pool.submit(_outcome, fit, folder) for fit in fits]
        for future in futures:
            future.add_done_callback(lambda done: None if done.cancelled() else bar.update())
        for fit, future in zip(fits, futures, strict=True):
            bar.set_postfix_str(f"waiting for {fit.name}")
            yield future.result()


@contextmanager
def _pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Start single-threaded workers; stop them at once when something goes wrong here."""
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, context, initializer=_start_worker)
    try:
        yield pool
    except BrokenProcessPool:
        raise TrainingError(
            "a fit was killed by the system (out of memory?); start the experiment again to go on"
        ) from None
    except BaseException:
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()  # every finished epoch is saved
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent sees Ctrl-C and stops the workers
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    torch.set_num_threads(1)


def _leave_with_parent() -> None:
    """End this worker when the parent is killed: nobody else would."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _outcome(fit: Fit, folder: Path) -> Path | TrainingError:
    try:
        return carry_out(fit, folder)
    except TrainingError as error:
        return error


# --- the experiment's folder ------------------------------------------------------------------


def open_folder(path: Path, record: Mapping[str, object]) -> None:
    """Make the folder of an experiment, or open it again with the same arguments.

    Parameters
    ----------
    path
        The folder.
    record
        What must be the same when the experiment is continued; kept in ``experiment.json``.

    Raises
    ------
    InputError
        If the folder holds something else, or an experiment with other arguments.
    """
    kept = path / RECORD
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: a file stands where the experiment's folder should go")
    if kept.is_file():
        found = json.loads(kept.read_text())
        for name, value in record.items():
            if found.get(name) != value:
                raise InputError.of(
                    path, f"{name} of the experiment in it", found.get(name), f"{value}"
                )
    elif path.is_dir() and any(path.iterdir()):
        raise InputError(f"{path}: the folder is not empty and holds no modpose experiment")
    path.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=2).encode()
    replace_atomically(kept, lambda file: file.write(text), overwrite=True)

"""The training loop: set-up, then epochs of training and validation, each recorded.

All random numbers of epoch n come from generators seeded by (seed, n), so a run that is resumed
after epoch n continues exactly as without the interruption.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose import ranks
from modpose.config import Config, TrainConfig
from modpose.data.batches import Batch
from modpose.data.dataset import Dataset, cut
from modpose.errors import InputError, TrainingError
from modpose.memory import keep_freed_memory
from modpose.model.image_rows import rows_trained_in
from modpose.model.objective import WHOLE, Estimate, Objective
from modpose.model.terms.affinity import AffinityTerm
from modpose.model.vae import Vae
from modpose.progress import Progress
from modpose.train.augment import augmented
from modpose.train.gradients import add_up_gradients, average_statistics
from modpose.train.placement import Placement
from modpose.train.schedules import rate_factor

VALIDATION_STREAM = 1 << 31
AUGMENT_STREAM = 1 << 32
LONGEST_DELAY = 0.25
SAVE_EVERY = 300.0
"""Seconds of training after which a checkpoint is saved within an epoch."""
VALIDATED = 4_000
"""Largest number of held-out images whose bound is computed after each epoch."""
COMPARED = 1000
"""Largest number of validation images for the affinity term."""


@dataclass
class TrainState:
    """The state of a training; saved with every checkpoint.

    ``freed`` is the step from which content is decoded (see ``train.delay_z_steps``).
    """

    epoch: int = 0
    step: int = 0
    freed: int = 0
    best_elbo: float = -math.inf
    best_epoch: int = 0
    halvings: int = 0
    seconds: float = 0.0
    stopped: str = ""


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Let torch use ``count`` CPU threads inside this context."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass
class Learner:
    """A model with its optimisers, on its device."""

    placement: Placement
    vae: Vae
    optimizers: list[torch.optim.Optimizer]
    state: TrainState
    begun: dict[str, Any] | None = None
    """The part of an epoch that was done when the checkpoint was saved, which training continues:
    ``batches``, ``count`` and ``sums`` of its metrics, states of the generators."""

    def objective(
        self, batch: Batch, generator: torch.Generator, how: Estimate = WHOLE
    ) -> Objective:
        """Evaluate the model with its precision; arguments as for :meth:`Vae.forward`."""
        with self.placement.autocast():
            found: Objective = self.vae(batch, generator=generator, how=how)
        return found.float()

    def training_state(self) -> dict[str, Any]:
        """Return everything besides the weights that resuming needs."""
        optimizers = [optimizer.state_dict() for optimizer in self.optimizers]
        begun = {} if self.begun is None else {"begun": self.begun}
        return {"state": asdict(self.state), "optimizers": optimizers} | begun

    def load_training_state(self, saved: dict[str, Any], path: Path) -> None:
        """Continue from a :meth:`training_state`; ``path`` is its file.

        Raises
        ------
        InputError
            If it is the state of another training.
        """
        try:
            self.state = TrainState(**saved["state"])
            for optimizer, values in zip(self.optimizers, saved["optimizers"], strict=True):
                optimizer.load_state_dict(values)
            fits = _is_state(self.state) and all(map(_moments_fit, self.optimizers))
            self.begun = saved.get("begun")
            if self.begun is not None:
                _Epoch(replace(self), seed=0)  # raises where it is not what an epoch saves
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError):
            fits = False
        if not fits:
            raise InputError(f"{path}: the checkpoint is of another training, or damaged")


def _is_state(state: TrainState) -> bool:
    """Return whether every value has the type, and the range, of those of a training."""
    values = asdict(state)
    typed = all(type(values[f.name]) is type(f.default) for f in fields(TrainState))
    numbers = [value for name, value in values.items() if name not in ("stopped", "best_elbo")]
    return typed and all(0 <= n < math.inf for n in numbers) and not math.isnan(state.best_elbo)


def _moments_fit(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether an optimiser's moments have the shapes of its parameters and are finite."""
    return all(
        value.isfinite().all() and value.shape == (parameter.shape if name != "step" else ())
        for parameter, moments in optimizer.state.items()
        for name, value in moments.items()
        if isinstance(value, Tensor)
    )


def set_up(vae: Vae, config: Config) -> Learner:
    """Put a model on its device, with Adam for networks and sparse Adam for per-image rows."""
    keep_freed_memory()
    train = config.train
    placement = Placement.of(train)
    vae.to(placement.device)
    rows = rows_trained_in(vae)
    networks = [p for p in vae.parameters() if p not in rows and p.requires_grad]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(networks, lr=train.lr, fused=True)]
    optimizers += [torch.optim.SparseAdam([row], lr=rate) for row, rate in rows.items()]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
    return Learner(placement, vae, optimizers, TrainState())


def run_epochs(
    learner: Learner,
    dataset: Dataset,
    config: Config,
    *,
    epochs: int,
    max_minutes: float | None,
    progress: Progress,
    record: Callable[[dict[str, float]], None],
    save: Callable[[], None] | None = None,
) -> None:
    """Train until ``epochs`` are done, the time limit, or the validation ELBO no longer rises.

    Parameters
    ----------
    learner
        Changed in place; ``learner.state.stopped`` says why training ended.
    dataset
        Its ``train`` and ``val`` parts are used.
    config
        The run's configuration.
    epochs
        Total number of epochs, those already done included.
    max_minutes
        Stop at the next step after this much training time.
    progress
        The progress bar.
    record
        Called with the metrics of each epoch, after ``learner.state`` has been updated.
    save
        Called within an epoch every five minutes, with the learner ready to be saved.
    """
    state = learner.state
    budget = math.inf if max_minutes is None else 60 * max_minutes
    while state.epoch < epochs and not state.stopped:
        clock = _Clock(state.seconds)
        metrics = _train_epoch(learner, dataset, config, epochs, budget, progress, save)
        average_statistics(learner.vae)
        metrics |= ranks.once(lambda: _validate(learner, dataset, config))
        state.seconds = clock()
        state.epoch += 1
        judged = _judge(metrics, config)
        if judged > state.best_elbo and state.step > state.freed:
            state.best_elbo, state.best_epoch = judged, state.epoch
        metrics["seconds"] = state.seconds
        state.stopped = _why_stop(config, state, budget)
        progress.show(val_elbo=judged)
        record({"epoch": state.epoch} | metrics)
    state.stopped = state.stopped or "epochs"


class _Clock:
    """Seconds of training, as the leading process measures them."""

    def __init__(self, before: float) -> None:
        self._zero = time.perf_counter() - before

    def __call__(self) -> float:
        return ranks.once(lambda: time.perf_counter() - self._zero)


class _Epoch:
    """What one epoch of training has done, and its random numbers.

    The first chunk of each batch draws from generators that run through the epoch, and every other
    chunk from its own; so numbers do not depend on which process computes a chunk.
    """

    def __init__(self, learner: Learner, seed: int) -> None:
        self.device, self.seed, self.epoch = learner.placement.device, seed, learner.state.epoch
        self.first = self._generators((self.epoch,), (AUGMENT_STREAM + self.epoch,))
        self.totals = Totals()
        self.batches = self.images = 0
        if learner.begun is not None:
            self._go_on(learner.begun)
            learner.begun = None

    def _generators(
        self, noise: tuple[int, ...], moves: tuple[int, ...]
    ) -> tuple[torch.Generator, torch.Generator]:
        on_host = torch.device("cpu")
        return _generator(self.device, self.seed, *noise), _generator(on_host, self.seed, *moves)

    def generators(self, chunk: int) -> tuple[torch.Generator, torch.Generator]:
        """Return those of the model's noise and of the moves of a chunk's images."""
        if chunk == 0:
            return self.first
        streams = ((self.epoch, which, self.batches, chunk) for which in (0, 1))
        return self._generators(*streams)

    def _go_on(self, begun: dict[str, Any]) -> None:
        for generator, name in zip(self.first, ("generator", "moves"), strict=True):
            generator.set_state(begun[name])
        self.batches, self.images = begun["batches"], begun["count"]
        if ranks.leads():
            self.totals.sums = dict(begun["sums"])

    def so_far(self) -> dict[str, Any]:
        """Return what :class:`Learner` keeps as ``begun``."""
        noise, moves = self.first
        return {
            "batches": self.batches,
            "count": self.images,
            "sums": self.totals.of_all(),
            "generator": noise.get_state(),
            "moves": moves.get_state(),
        }


def _train_epoch(
    learner: Learner,
    dataset: Dataset,
    config: Config,
    epochs: int,
    budget: float,
    progress: Progress,
    save: Callable[[], None] | None,
) -> dict[str, float]:
    train, state = config.train, learner.state
    learner.vae.train()
    epoch = _Epoch(learner, config.seed)
    already, n = epoch.images, len(dataset.train)
    order = np.random.default_rng([config.seed, state.epoch]).permutation(dataset.train)
    clock, saved, start = _Clock(state.seconds), state.seconds, time.perf_counter()
    for size, chunks in chunked(dataset, order, train, epoch.batches):
        seconds = clock()
        if seconds >= budget and epoch.images:
            break
        if save is not None and seconds - saved >= SAVE_EVERY:
            learner.begun, state.seconds = epoch.so_far(), seconds
            save()
            learner.begun, saved = None, clock()
        done = max((state.epoch + epoch.images / n) / epochs, seconds / budget)
        if state.step < train.delay_z_steps and done < LONGEST_DELAY:
            state.freed = state.step + 1
        beta = train.beta.at(state.step - state.freed)
        weights = {term.name: term.weight(state.step) for term in learner.vae.terms}
        _set_rate(learner, rate_factor(train, state.step, done, state.halvings))
        how = Estimate(
            pixels=train.pixels,
            decoded_images=train.decoded_images,
            augment=train.augment.rotate == "encoder-input",
            angle_prior=train.angle_prior.at(state.step),
            hold_content=state.step < state.freed,
        )
        for chunk, part in chunks:
            noise, moves = epoch.generators(chunk)
            moved = augmented(part, train.augment, moves).to(learner.placement.device)
            objective = learner.objective(moved, noise, how)
            _backward(learner, -objective.value(beta, weights).sum() / size)
            epoch.totals.add(objective)
        _step(learner, train.max_grad_norm)
        state.step += 1
        epoch.batches += 1
        epoch.images += size
        progress.advance(size, seconds)
    metrics = means(epoch.totals.of_all(), epoch.images)
    metrics["images_per_second"] = (epoch.images - already) / (time.perf_counter() - start)
    if AffinityTerm.name in weights:
        metrics["gamma"] = weights[AffinityTerm.name]
    return metrics | {"beta": beta, "lr": learner.optimizers[0].param_groups[0]["lr"]}


def chunked(
    dataset: Dataset, order: NDArray[np.int64], train: TrainConfig, done: int
) -> Iterator[tuple[int, Iterator[tuple[int, Batch]]]]:
    """Iterate over the steps of an epoch.

    Parameters
    ----------
    dataset
        The images.
    order
        Those to train on, shuffled.
    train
        Sizes of batch and chunk.
    done
        Steps that are left out at the start.

    Yields
    ------
    tuple
        Images of the whole batch, and of its chunks those that this process computes, with their
        numbers.
    """
    batches = cut(order, train.batch_size)[done:]
    whole = train.batch_size
    own = [ranks.share(list(enumerate(cut(rows, train.chunk or whole)))) for rows in batches]
    read = dataset.each([rows for chunks in own for _, rows in chunks])
    for rows, chunks in zip(batches, own, strict=True):
        yield len(rows), ((number, next(read)) for number, _ in chunks)


def _backward(learner: Learner, loss: Tensor) -> None:
    """Accumulate the gradients."""
    if not torch.isfinite(loss):
        raise TrainingError(
            f"the loss became {loss.item()} in epoch {learner.state.epoch + 1}: a smaller "
            "train.lr or train.max_grad_norm=10 usually helps"
        )
    loss.backward()  # type: ignore[no-untyped-call]


def _step(learner: Learner, max_grad_norm: float | None) -> None:
    """Take an optimiser step with the gradients of all processes, and clear them."""
    add_up_gradients(learner.optimizers)
    if max_grad_norm is not None:
        dense = [p for p in learner.vae.parameters() if p.grad is not None and not p.grad.is_sparse]
        torch.nn.utils.clip_grad_norm_(dense, max_grad_norm)
    for optimizer in learner.optimizers:
        optimizer.step()
        optimizer.zero_grad()


def _judge(metrics: dict[str, float], config: Config) -> float:
    """Score of an epoch: the bound, minus the affinity term at its last weight."""
    judged = metrics.get("val_elbo", metrics["elbo"])
    affinity = metrics.get("val_affinity", metrics.get("affinity", 0.0))
    return judged - config.train.gamma.end * affinity


@torch.no_grad()
def _validate(learner: Learner, dataset: Dataset, config: Config) -> dict[str, float]:
    """Single-sample ELBO of validation images, the same with the same noise every epoch."""
    if not len(dataset.val):
        return {}
    learner.vae.eval()
    generator = _generator(learner.placement.device, config.seed, VALIDATION_STREAM)
    totals, rows = Totals(), _evenly(dataset.val, VALIDATED)
    for batch in dataset.batches(rows, learner.vae.whole_batch):
        totals.add(learner.objective(batch.to(learner.placement.device), generator))
    metrics = means(totals.sums, len(rows)) | _validate_affinity(learner, dataset, config)
    return {f"val_{name}": value for name, value in metrics.items()}


def _validate_affinity(learner: Learner, dataset: Dataset, config: Config) -> dict[str, float]:
    """Affinity term of the validation images, for batches of the training's size."""
    terms = [term for term in learner.vae.terms if isinstance(term, AffinityTerm)]
    if not terms:
        return {}
    few = _evenly(dataset.val, COMPARED)
    batches, contents = [], []
    for batch in dataset.batches(few, learner.vae.whole_batch):
        ready = batch.to(learner.placement.device)
        with learner.placement.autocast():
            contents.append(learner.vae.posterior(ready).content_mean())
        batches.append(ready)
    together = Batch(
        index=torch.cat([batch.index for batch in batches]),
        image=contents[0].new_zeros(len(few), 0),
        label=torch.cat([batch.label for batch in batches if batch.label is not None]),
    )
    size = min(config.train.chunk or config.train.batch_size, len(dataset.train))
    return {"affinity": float(terms[0].expected(torch.cat(contents), together, size))}


def _evenly(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Choose at most this number of rows, evenly spread."""
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(np.int64)]


class Totals:
    """Sums of the parts of the ELBO and of the other terms, over an epoch."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}

    def add(self, objective: Objective) -> None:
        """Count one batch."""
        parts = objective.elbo._asdict() | dict(objective.terms)
        if objective.first_pass is not None:
            parts["first_pass"] = objective.first_pass.value()
        for name, part in parts.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(part.detach().double().sum())

    def of_all(self) -> dict[str, float]:
        """Return the sums over the images of all processes."""
        parts = ranks.gathered(self.sums)
        names = dict.fromkeys(name for part in parts for name in part)
        return {name: math.fsum(part.get(name, 0.0) for part in parts) for name in names}


def means(sums: dict[str, float], count: int) -> dict[str, float]:
    """Return nats per image, and the mean of each term."""
    mean = {name: total / count for name, total in sums.items()}
    return {"elbo": mean["recon"] - mean["kl_pose"] - mean["kl_content"]} | mean


def _why_stop(config: Config, state: TrainState, budget: float) -> str:
    train = config.train
    if state.step <= state.freed:
        state.best_epoch = state.epoch
    stale = state.epoch - state.best_epoch
    if train.schedule == "plateau" and stale and stale % train.plateau_epochs == 0:
        state.halvings += 1
    if state.seconds >= budget:
        return "max-minutes"
    if train.stop_epochs is not None and stale >= train.stop_epochs:
        return "validation"
    return ""


def _set_rate(learner: Learner, factor: float) -> None:
    for optimizer in learner.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor


def _generator(device: torch.device, seed: int, *stream: int) -> torch.Generator:
    mixed = np.random.SeedSequence([seed, *stream]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(mixed >> np.uint64(1)))

"""The training loop: set-up, then epochs of training and validation, each recorded.

All random numbers of epoch n come from generators seeded by (seed, n), so a run that is resumed
after epoch n continues exactly as without the interruption.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose import ranks
from modpose.config import Config, TrainConfig
from modpose.data.batches import Batch
from modpose.data.dataset import Dataset, cut
from modpose.errors import TrainingError
from modpose.model.objective import Estimate
from modpose.model.terms.affinity import AffinityTerm
from modpose.progress import Progress
from modpose.train.augment import augmented
from modpose.train.epoch import Epoch, means
from modpose.train.gradients import add_up_gradients, average_statistics
from modpose.train.kept_poses import take_best_poses
from modpose.train.learner import Learner, TrainState
from modpose.train.schedules import rate_factor
from modpose.train.validation import validate

LONGEST_DELAY = 0.25
SAVE_EVERY = 300.0
"""Seconds of training after which a checkpoint is saved within an epoch."""


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
        if learner.begun is None:
            take_best_poses(learner, dataset)
        metrics, images = _train_epoch(learner, dataset, config, epochs, budget, progress, save)
        average_statistics(learner.vae)
        metrics |= ranks.once(partial(validate, learner, dataset, config, images // 4))
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
        here = time.perf_counter() - self._zero if ranks.leads() else 0.0
        return float(ranks.sum(torch.tensor(here, dtype=torch.float64)))


def _train_epoch(
    learner: Learner,
    dataset: Dataset,
    config: Config,
    epochs: int,
    budget: float,
    progress: Progress,
    save: Callable[[], None] | None,
) -> tuple[dict[str, float], int]:
    """Train until the end of an epoch or of the time; metrics, and how many images it saw."""
    train, state = config.train, learner.state
    learner.vae.train()
    epoch = Epoch(learner.placement.device, config.seed, state.epoch, learner.begun)
    learner.begun = None
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
    metrics |= {"beta": beta, "lr": learner.optimizers[0].param_groups[0]["lr"]}
    return metrics, epoch.images


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
    loss.backward()  # type: ignore[no-untyped-call]
    if not torch.isfinite(loss):  # looked at last: a GPU computes gradients while it is read
        raise TrainingError(
            f"the loss became {loss.item()} in epoch {learner.state.epoch + 1}: a smaller "
            "train.lr or train.max_grad_norm=10 usually helps"
        )


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

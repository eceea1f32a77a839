"""What changes as training goes on: the learning rate, and the weights of the loss's terms."""

from __future__ import annotations

import math

from modpose.config import Schedule, TrainConfig

SIGMOID_REACH = 3.0
"""A sigmoid rise is the logistic function from -6 to 6, stretched to go from 0 to 1 exactly."""


def weight_at(schedule: Schedule, step: int) -> float:
    """Weight of a term of the loss ``step`` steps after it began to rise."""
    if schedule.kind == "constant":
        return schedule.end
    done = step / schedule.steps
    if schedule.kind != "linear":  # each cycle rises over its first half, then stays
        done = 2 * (done % 1.0)
    risen = min(1.0, done)
    if schedule.kind == "cyclic-sigmoid":
        risen = 0.5 + 0.5 * math.tanh(SIGMOID_REACH * (2 * risen - 1)) / math.tanh(SIGMOID_REACH)
    elif schedule.kind == "cyclic-cosine":
        risen = 0.5 - 0.5 * math.cos(math.pi * risen)
    return schedule.start + (schedule.end - schedule.start) * risen


def rate_factor(train: TrainConfig, step: int, progress: float, halvings: int) -> float:
    """Factor on the learning rate.

    Parameters
    ----------
    train
        Names the schedule.
    step
        Steps taken so far.
    progress
        Fraction of the run that is done, by epochs or by time, whichever is further.
    halvings
        Plateaus of the validation ELBO so far.
    """
    warm = min(1.0, (step + 1) / (train.warmup_steps + 1))
    if train.schedule == "cosine":
        return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    if train.schedule == "plateau":
        return float(warm * 0.5**halvings)
    return warm

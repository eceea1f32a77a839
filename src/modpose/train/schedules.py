"""What changes as training goes on: the learning rate, and the weight of the content KL."""

from __future__ import annotations

import math

from modpose.config import BetaSchedule, TrainConfig


def beta_at(schedule: BetaSchedule, epoch: float) -> float:
    """Weight of the content KL after ``epoch`` (fractional) epochs."""
    if schedule.kind == "constant":
        return schedule.end
    done = epoch / schedule.epochs
    if schedule.kind == "cyclic":  # each cycle rises over its first half, then stays
        done = min(1.0, 2 * (done % 1.0))
    return schedule.start + (schedule.end - schedule.start) * min(1.0, done)


def rate_factor(train: TrainConfig, progress: float, halvings: int) -> float:
    """Factor on the learning rate.

    Parameters
    ----------
    train
        Names the schedule.
    progress
        Fraction of the run that is done, by epochs or by time, whichever is further.
    halvings
        Plateaus of the validation ELBO so far.
    """
    if train.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    if train.schedule == "plateau":
        return float(0.5**halvings)
    return 1.0

"""What changes as training goes on: the learning rate, and the weight of the content KL."""

from __future__ import annotations

import math

from modpose.config import BetaSchedule, TrainConfig


def beta_at(schedule: BetaSchedule, step: int) -> float:
    """Weight of the content KL, ``step`` steps after content was let go."""
    if schedule.kind == "constant":
        return schedule.end
    done = step / schedule.steps
    if schedule.kind == "cyclic":  # each cycle rises over its first half, then stays
        done = min(1.0, 2 * (done % 1.0))
    return schedule.start + (schedule.end - schedule.start) * min(1.0, done)


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

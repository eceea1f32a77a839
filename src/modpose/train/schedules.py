"""Schedules of the learning rate."""

from __future__ import annotations

import math

from modpose.config import TrainConfig


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

"""A fit that ended while it was still improving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from modpose.alarms.sample import Floats
from modpose.run.alarm import Alarm

FEWEST = 4
"""Smallest number of epochs for judging a curve."""
LATE = 0.25
"""Fraction of the epochs, at the end, whose gain counts."""
OF_CLIMB, NATS = 0.02, 0.5
"""Gains below this fraction of the total gain, or below this many nats, are ignored."""
CERTAIN = 4.0
"""Number of standard errors that a gain must exceed."""
SHORT, STEPS = 12, 5
"""A curve with at most this many epochs is short, and judged differently."""
HOT, OF_SHORT_CLIMB = 0.5, 0.1
"""For a short curve: only epochs with at least this fraction of the largest learning rate count,
and the last of them must not gain more than this fraction of the total.
"""
LAST_NATS = 1.0
"""With fewer than four epochs: gain of the last one, in nats, that raises the alarm."""


def convergence_alarm(rows: Sequence[Mapping[str, float]], stopped: str = "") -> Alarm | None:
    """Check whether the bound was still rising when training stopped.

    Parameters
    ----------
    rows
        The metrics, one mapping an epoch.
    stopped
        Why training ended.
    """
    curve, name = _curve(rows)
    if len(curve) < FEWEST:
        return _after_few(curve, stopped)
    gain, error = late_gain(curve)
    climb = float(curve.max() - curve[0])
    steady = len(curve) <= SHORT and bool((np.diff(curve[-STEPS:]) > 0).all())
    if len(curve) <= SHORT and (alarm := _cut_short(curve, rows)) is not None:
        return alarm
    if gain < max(NATS, OF_CLIMB * climb, 0.0 if steady else CERTAIN * error):
        return None
    return Alarm(
        "convergence",
        f"The fit had not converged: the {name} ELBO rose by {gain:.1f} nats over the last "
        "quarter of the epochs. Train for longer: modpose resume RUN --epochs N.",
    )


def _cut_short(curve: Floats, rows: Sequence[Mapping[str, float]]) -> Alarm | None:
    """Judge a short fit by its last epoch at a high learning rate; a low one flattens a curve."""
    rates = np.array([row.get("lr", np.nan) for row in rows], np.float64)
    if not np.isfinite(rates).all() or rates.max() <= 0:
        return None
    last = int(np.flatnonzero(rates >= HOT * rates.max())[-1])
    if last == 0:
        return None
    gain = float(curve[last] - curve[last - 1])
    if gain < max(NATS, OF_SHORT_CLIMB * float(curve.max() - curve[0])):
        return None
    return Alarm(
        "convergence",
        f"The fit had not converged: it still gained {gain:.1f} nats per epoch when the learning "
        f"rate began to fall, after {last + 1} of {len(curve)} epochs. Train for longer: modpose "
        "resume RUN --epochs N.",
    )


def _after_few(curve: Floats, stopped: str) -> Alarm | None:
    """Judge a fit of very few epochs."""
    epochs = f"{len(curve)} epoch{'s' if len(curve) > 1 else ''}"
    if len(curve) and stopped == "max-minutes":
        return Alarm(
            "convergence",
            f"The time limit ended the fit after {epochs}, too early for a good model. Train for "
            "longer: modpose resume RUN --epochs N.",
        )
    if len(curve) < 2 or curve[-1] - curve[-2] < LAST_NATS:
        return None
    return Alarm(
        "convergence",
        f"The fit had not converged after {epochs}: the last one still gained "
        f"{curve[-1] - curve[-2]:.1f} nats. Train for longer: modpose resume RUN --epochs N.",
    )


def _curve(rows: Sequence[Mapping[str, float]]) -> tuple[Floats, str]:
    """Return the ELBO curve of the held-out images, else of the training images, and its name."""
    for key, name in (("val_elbo", "validation"), ("elbo", "training")):
        values = np.array([row.get(key, np.nan) for row in rows], np.float64)
        values = values[np.isfinite(values)]
        if len(values) == len(rows) and len(values):
            return values, name
    return np.empty(0), ""


def late_gain(curve: Floats) -> tuple[float, float]:
    """Return the rise of a line through the last quarter of a curve, and its standard error."""
    count = max(3, round(LATE * len(curve)))
    late = curve[-count:]
    x = np.arange(count) - (count - 1) / 2
    slope = float((x * late).sum() / (x**2).sum())
    rest = late - late.mean() - slope * x
    error = float(np.sqrt((rest**2).sum() / max(1, count - 2) / (x**2).sum()))
    return slope * count, error * count

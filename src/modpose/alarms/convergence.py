"""A fit that ended while it was still getting better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from modpose.alarms.sample import Floats
from modpose.run.alarm import Alarm

FEWEST = 4
"""Epochs from which a curve can be judged."""
LATE = 0.25
"""Part of the epochs, the last, whose gain counts."""
OF_CLIMB, NATS = 0.02, 0.5
"""Gains below both this fraction of all that was gained and this many nats are no matter."""
CERTAIN = 4.0
"""Standard errors that a gain must exceed."""
SHORT, STEPS = 12, 5
"""A curve of no more epochs is judged by whether the last few of them all rose."""
HOT, OF_SHORT_CLIMB = 0.5, 0.1
"""In a short curve: epochs whose learning rate is at least this part of the largest, of which the
last must not gain more than this part of the climb."""
LAST_NATS = 1.0
"""Where epochs are fewer than four: what the last one must gain."""


def convergence_alarm(rows: Sequence[Mapping[str, float]], stopped: str = "") -> Alarm | None:
    """Tell whether the bound was still rising when training stopped.

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
    """Judge a short fit by its last epoch at a high learning rate: a falling rate ends any rise."""
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
        f"The fit had not converged: it still gained {gain:.1f} nats an epoch when the learning "
        f"rate began to fall, after {last + 1} of {len(curve)} epochs. Train for longer: modpose "
        "resume RUN --epochs N.",
    )


def _after_few(curve: Floats, stopped: str) -> Alarm | None:
    """Judge a fit of very few epochs."""
    epochs = f"{len(curve)} epoch{'s' if len(curve) > 1 else ''}"
    if len(curve) and stopped == "max-minutes":
        return Alarm(
            "convergence",
            f"Time was up after {epochs}, which is too early for a good model. Go on with modpose "
            "resume RUN and a larger --max-minutes.",
        )
    if len(curve) < 2 or curve[-1] - curve[-2] < LAST_NATS:
        return None
    return Alarm(
        "convergence",
        f"The fit had not converged after {epochs}: the last one still gained "
        f"{curve[-1] - curve[-2]:.1f} nats. Train for longer: modpose resume RUN --epochs N.",
    )


def _curve(rows: Sequence[Mapping[str, float]]) -> tuple[Floats, str]:
    """Return the ELBO of the held-out images where there are some, and what to call it."""
    for key, name in (("val_elbo", "validation"), ("elbo", "training")):
        values = np.array([row.get(key, np.nan) for row in rows], np.float64)
        values = values[np.isfinite(values)]
        if len(values) == len(rows) and len(values):
            return values, name
    return np.empty(0), ""


def late_gain(curve: Floats) -> tuple[float, float]:
    """Return what a line through the last quarter of a curve rises by, and its standard error."""
    count = max(3, round(LATE * len(curve)))
    late = curve[-count:]
    x = np.arange(count) - (count - 1) / 2
    slope = float((x * late).sum() / (x**2).sum())
    rest = late - late.mean() - slope * x
    error = float(np.sqrt((rest**2).sum() / max(1, count - 2) / (x**2).sum()))
    return slope * count, error * count

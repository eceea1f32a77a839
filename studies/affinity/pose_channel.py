"""Does the pose channel follow the angle?  Figure 6 of affinity-VAE's paper."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from modpose.affinity.matrix import class_names
from modpose.evaluate.metrics import multiple_correlation, pearson


@dataclass(frozen=True)
class Linearity:
    """How nearly a pose channel is a linear function of the true angle, within one class.

    Attributes
    ----------
    component
        Of the channel, the one that correlates most.
    pearson
        Its correlation with the angle, with its sign.
    slope
        Units of the channel a degree, by least squares.
    multiple
        Correlation of the angle with its best linear fit by the whole channel.
    """

    component: int
    pearson: float
    slope: float
    multiple: float


def linearity(channel: ArrayLike, angle_deg: ArrayLike) -> Linearity:
    """Compare a pose channel (N, p) with angles (N,) in degrees that do not wrap around."""
    values, angle = np.asarray(channel, float), np.asarray(angle_deg, float)
    correlations = [pearson(column, angle) if np.ptp(column) > 0 else 0.0 for column in values.T]
    best = int(np.argmax(np.abs(correlations)))
    centred = angle - angle.mean()
    slope = float(centred @ values[:, best] / (centred @ centred))
    return Linearity(best, correlations[best], slope, multiple_correlation(values, angle))


def linearity_by_class(
    channel: ArrayLike, angle_deg: ArrayLike, labels: ArrayLike
) -> dict[str, Linearity]:
    """Do so for each class: every one may have an angle of its own that the channel calls zero.

    Classes with fewer than three different angles are left out.
    """
    names, member = class_names(labels)
    values, angle = np.asarray(channel, float), np.asarray(angle_deg, float)
    return {
        name: linearity(values[member == k], angle[member == k])
        for k, name in enumerate(names)
        if len(np.unique(angle[member == k])) >= 3
    }

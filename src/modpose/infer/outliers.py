"""Images that hardly show the object, or fit far worse than others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from modpose.run.alarm import Alarm

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.floating]

OUTLIER = 3.0
"""Robust standard deviations above which an image counts as an outlier; of normal values 0.1 %."""
MANY = 0.01
"""Share of outliers that raises an alarm."""
TO_DEVIATION = 1.4826
"""Median absolute deviation of normal values to their standard deviation."""


def outlier_score(table: pd.DataFrame, spread: float) -> Floats | None:
    """Score images of given pose by their likelihood.

    Parameters
    ----------
    table
        Results of inference: ``contrast``, ``contrast_std``, ``recon``.
    spread
        Prior standard deviation of the contrast.

    Returns
    -------
    array
        (N,) robust standard deviations from the median, the larger of two: by how much less the
        image shows of the object (its contrast; near 0 there is no particle, or another one), and
        by how much less likely it is.  About N(0, 1) for most images.  None if no contrast is
        inferred.
    """
    if "contrast" not in table or "contrast_std" not in table:
        return None
    contrast, std = table["contrast"].to_numpy(), table["contrast_std"].to_numpy()
    # posterior means of contrasts spread by the variance that the image took from the prior's
    taken = np.sqrt(np.maximum(spread**2 - std**2, 1e-3 * spread**2))
    faint = -_robust((contrast - np.median(contrast)) / taken)
    return np.maximum(faint, -_robust(table["recon"].to_numpy()))


def _robust(values: Floats) -> Floats:
    middle = np.median(values)
    deviation = TO_DEVIATION * np.median(np.abs(values - middle))
    return np.asarray((values - middle) / max(float(deviation), 1e-12), np.float64)


def outlier_alarm(score: Floats) -> Alarm | None:
    """Warn if many images are outliers.

    Parameters
    ----------
    score
        (N,) from :func:`outlier_score`.
    """
    count = int((score > OUTLIER).sum())
    if count <= MANY * len(score):
        return None
    return Alarm(
        "outliers",
        f"{count:,} of {len(score):,} images hardly show the object or fit far worse than the "
        f"others. To leave them out: modpose select RUN --where 'outlier < {OUTLIER:g}' -o "
        "good.star, and fit again.",
    )

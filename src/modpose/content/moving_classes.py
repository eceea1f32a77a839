"""Classes that share a motion: an image's content is that of its class plus a step of the motion.

k-means and mixtures of Gaussians divide the widest variation of content.  Where classes lie side by
side along a motion that is wider than the distance between them, that is the motion.  Here content
is a mixture of k classes times m steps,

    z = class offset + step of the motion + noise,

with one covariance of the noise, fitted by expectation and maximisation.  A class is then the same
shift at every step, however the motion bends.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from modpose.content.embedding import principal_axes

Floats = NDArray[np.float64]

STEPS = 12
"""Steps of the motion."""
ITERATIONS, SETTLED = 100, 1e-5
"""Largest number of iterations, and the gain in log-likelihood an image at which they end."""
SWEEPS = 3
"""Times that offsets and steps are solved for in turn, in an iteration."""
FLAT = 1e-6
"""Spread along an axis, over the largest, below which content does not vary."""


def classes_along_motion(z: Floats, k: int, seed: int = 0) -> NDArray[np.int64]:
    """Find k classes that share a motion.

    Parameters
    ----------
    z
        (N, d) content.
    k
        Number of classes, at least 2.
    seed
        Of the starts.

    Returns
    -------
    array
        (N,) labels, of the most likely fit: one start takes the first principal axis for the motion
        and divides the others into classes, the next one takes the first two, and so on to k.
    """
    from sklearn.cluster import KMeans

    mean, axes, spread = principal_axes(z)
    along = (z - mean) @ axes[spread > FLAT * spread[0]].T
    best, labels = -np.inf, np.zeros(len(z), np.int64)
    for first in range(1, max(2, min(k + 1, along.shape[1]))):
        rest = along[:, first:] if along.shape[1] > first else along
        steps = min(STEPS, len(np.unique(along[:, :first], axis=0)))
        divided = KMeans(k, n_init=10, random_state=seed).fit_predict(rest)
        step = KMeans(steps, n_init=3, random_state=seed).fit_predict(along[:, :first])
        start = np.zeros((len(z), k, steps))
        start[np.arange(len(z)), divided, step] = 1
        found, share = _fitted(along, start)
        if found > best:
            best, labels = found, share.sum(2).argmax(1)
    return labels


def _fitted(z: Floats, share: Floats) -> tuple[float, Floats]:
    """Fit the mixture from shares (N, k, m); its log-likelihood an image, and the shares."""
    last, step = -np.inf, np.zeros((share.shape[2], z.shape[1]))
    for _ in range(ITERATIONS):
        of_class, of_step, both = share.sum(2), share.sum(1), share.sum(0)
        in_class, in_step = np.maximum(both.sum(1), 1e-9), np.maximum(both.sum(0), 1e-9)
        for _ in range(SWEEPS):
            offset = (of_class.T @ z - both @ step) / in_class[:, None]
            offset -= in_class @ offset / len(z)
            step = (of_step.T @ z - both.T @ offset) / in_step[:, None]
        means = (offset[:, None] + step).reshape(-1, z.shape[1])
        flat = share.reshape(len(z), -1)
        cross = z.T @ (flat @ means)
        covariance = z.T @ z - cross - cross.T + (means * flat.sum(0)[:, None]).T @ means
        covariance = covariance / len(z) + FLAT * z.var(0).max() * np.eye(z.shape[1])
        lower = np.linalg.cholesky(covariance)
        white, centre = (np.linalg.solve(lower, part.T).T for part in (z, means))
        away = (white**2).sum(1)[:, None] + (centre**2).sum(1) - 2 * white @ centre.T
        prior = np.log(np.outer(in_class, in_step).reshape(-1) / len(z) ** 2)
        log = prior - 0.5 * away - np.log(np.diag(lower)).sum()
        total = logsumexp(log, axis=1)
        share = np.exp(log - total[:, None]).reshape(share.shape)
        now = float(total.mean())
        if now - last < SETTLED:
            break
        last = now
    return now, share

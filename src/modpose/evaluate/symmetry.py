"""Which rotational symmetry a class has, from the angles that a model infers of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modpose.errors import InputError
from modpose.evaluate.metrics import wrap_deg

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Symmetry:
    """What the distribution of angular errors says of a class.

    Attributes
    ----------
    order
        The errors gather at multiples of 360° / order; 1 where they gather in one place, None
        where they gather nowhere (a disc, or a model that does not find the angle).
    weights
        Share of the errors at each of those places, from the first (near the reference) on; their
        sum and ``background`` make 1.
    spread_deg
        Standard deviation about each place.
    background
        Share that is spread over the whole circle.
    """

    order: int | None
    weights: tuple[float, ...]
    spread_deg: float
    background: float


def symmetry(errors: ArrayLike, max_order: int = 8, least: float = 0.05) -> Symmetry:
    """Find the rotational symmetry of a class from the errors of the angles inferred of it.

    For each order n a mixture of n von Mises distributions at 360°/n from each other, of one width
    and free weights, and of a uniform background is fitted (EM); the order with the smallest BIC
    is chosen, and the uniform distribution competes.  Free weights let an ambiguity show that the
    model mostly settles one way.

    Parameters
    ----------
    errors
        (N,) degrees, of any offset.
    max_order
        Largest order considered.
    least
        An order counts only where each of its places holds at least this share of the errors, so
        that a few blunders by half a turn make no symmetry.

    Returns
    -------
    Symmetry
        The order and the mixture.
    """
    angles = np.deg2rad(np.asarray(errors, float).ravel())
    if len(angles) < 2:
        raise InputError.of("symmetry", "the number of errors", len(angles), "at least 2")
    best, best_bic = Symmetry(None, (), float("nan"), 1.0), 2 * len(angles) * np.log(2 * np.pi)
    for order in range(1, max_order + 1):
        found, log_likelihood = _fit_order(angles, order)
        parameters = order + 2  # a place, a width, n weights
        bic = parameters * np.log(len(angles)) - 2 * log_likelihood
        if bic < best_bic and min(found.weights) >= least:
            best, best_bic = found, bic
    return best


def _fit_order(angles: Array, order: int, rounds: int = 60) -> tuple[Symmetry, float]:
    """Fit the mixture of one order from the offset that gathers the angles best."""
    from scipy.special import i0e

    place = np.angle(np.exp(1j * order * angles).mean()) / order
    apart = 2 * np.pi / order
    places = place + apart * np.arange(order)
    # Widest so that neighbours stay apart by four standard deviations.
    least = (4 / apart) ** 2 if order > 1 else 0.5
    concentration = max(2 * least, (12 / apart) ** 2)
    weights = np.full(order + 1, 1.0 / (order + 1))
    total = 0.0
    for _ in range(rounds):
        turn = angles[:, None] - places
        density = np.exp(concentration * (np.cos(turn) - 1)) / (2 * np.pi * i0e(concentration))
        density = np.column_stack([density, np.full(len(angles), 1 / (2 * np.pi))]) * weights
        mass = density.sum(1, keepdims=True)
        total = float(np.log(mass).sum())
        share = density / mass
        weights = share.mean(0)
        gathered = (share[:, :-1] * np.exp(1j * turn)).sum()
        places = places + np.angle(gathered)
        mean_length = np.abs(gathered) / max(share[:, :-1].sum(), 1e-12)
        concentration = float(np.clip(_concentration(mean_length), least, 1e5))
    first = int(np.argmin(np.abs(wrap_deg(np.rad2deg(places)))))
    shares = np.roll(weights[:-1], -first)
    spread = float(np.rad2deg(concentration**-0.5))
    return Symmetry(order, tuple(shares.tolist()), spread, float(weights[-1])), total


def _concentration(mean_length: float) -> float:
    """Concentration of a von Mises distribution of a mean resultant length (Fisher 1993, 4.41)."""
    r = min(mean_length, 1 - 1e-9)
    if r < 0.53:
        return 2 * r + r**3 + 5 * r**5 / 6
    if r < 0.85:
        return -0.4 + 1.39 * r + 0.43 / (1 - r)
    return 1 / (r**3 - 4 * r**2 + 3 * r)


def fold_deg(errors: ArrayLike, order: int) -> Array:
    """Take errors modulo a symmetry: into (−180/order, 180/order]."""
    return wrap_deg(order * np.asarray(errors, float)) / order

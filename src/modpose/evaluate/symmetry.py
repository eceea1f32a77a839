"""Rotational symmetry of an image or a class, from the angles that a model infers.

:func:`image_order` finds the symmetry of one image from the modes of its posterior.
:func:`class_symmetry` finds that of a class from the likelihood that its images lose by rotations.
:func:`symmetry` needs only errors of the angle, and no posterior.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modpose.errors import InputError
from modpose.geometry.degrees import wrap_deg

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

MAX_ORDER = 8
"""Largest order of symmetry that is tested."""
COMPARABLE = 0.1
"""Modes are comparable where one has at least this part of the other's weight."""
TOLERANCE_DEG = 10.0
"""How far from a multiple of 360° / order a mode may stand."""
SAME = 0.15
"""A rotation is a symmetry of a class if it costs less than this part of the average rotation."""
ROUND_NATS = 0.5
"""An image is round where its posterior of the angle is so near the uniform one (or nearer)."""

# --- from the errors of angles ----------------------------------------------------------------


@dataclass(frozen=True)
class Symmetry:
    """The symmetry of a class, from the distribution of angular errors.

    Attributes
    ----------
    order
        The errors cluster at multiples of 360° / order; 1 if they cluster in one place, None if
        they do not cluster (a disc, or a model that does not find the angle).
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


def symmetry(errors: ArrayLike, max_order: int = MAX_ORDER, least: float = 0.05) -> Symmetry:
    """Find the rotational symmetry of a class from the errors of its inferred angles.

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
    """Reduce errors modulo a symmetry, to (−180/order, 180/order]."""
    return wrap_deg(order * np.asarray(errors, float)) / order


# --- from the modes of posteriors -------------------------------------------------------------


def relative_deg(angle_deg: ArrayLike) -> Array:
    """Angles (N, K) relative to the first of each row, in (−180, 180]."""
    angles = np.asarray(angle_deg, float)
    return wrap_deg(angles - angles[:, :1])


def angle_posterior(
    relative: ArrayLike, weight: ArrayLike, std_deg: ArrayLike, bins: int = 72
) -> Array:
    """Return the posterior probability of each bin of the circle.

    Parameters
    ----------
    relative, weight, std_deg
        (N, K) angles, weights and widths of the modes, each a wrapped Gaussian; the weights of a
        row sum to one.
    bins
        Number of bins, of 360°/bins each; bin b is centred on 360° b / bins − 180°.

    Returns
    -------
    array
        (N, bins), each row sums to one.
    """
    from scipy.special import ndtr

    width = 360.0 / bins
    edges = width * (np.arange(bins + 1) - 0.5) - 180.0
    spread = np.maximum(np.asarray(std_deg, float), 1e-3)[..., None]
    centre = wrap_deg(relative)[..., None]
    share: Array = np.zeros((*centre.shape[:2], bins))
    for turn in (-720.0, -360.0, 0.0, 360.0, 720.0):
        share += np.diff(ndtr((edges + turn - centre) / spread), axis=-1)
    share /= share.sum(-1, keepdims=True)
    posterior: Array = (share * np.asarray(weight, float)[..., None]).sum(1)
    return posterior


def is_round(relative: ArrayLike, weight: ArrayLike, std_deg: ArrayLike) -> NDArray[np.bool_]:
    """Tell which images prefer no angle: their posterior spreads over (nearly) the whole circle.

    The parameters are those of :func:`angle_posterior`.  Its entropy is compared with the
    uniform distribution's: one Gaussian counts as round from a width of 53° on, two at half a
    turn from each other from 26° on.
    """
    from scipy.special import xlogy

    posterior = angle_posterior(relative, weight, std_deg, bins=360)
    told: Array = np.log(360.0) + xlogy(posterior, posterior).sum(1)
    return np.asarray(told < ROUND_NATS)


def place_weights(relative: ArrayLike, weight: ArrayLike, order: int) -> Array:
    """Return the weight of the modes near each multiple of 360° / order, (N, order).

    ``relative`` and ``weight`` are (N, K); a mode counts where it stands within
    :data:`TOLERANCE_DEG` of the place.
    """
    places = 360.0 / order * np.arange(order)
    near = np.abs(wrap_deg(np.asarray(relative, float)[..., None] - places)) <= TOLERANCE_DEG
    weights: Array = (near * np.asarray(weight, float)[..., None]).sum(1)
    return weights


def image_order(
    relative: ArrayLike, weight: ArrayLike, std_deg: ArrayLike, max_order: int = MAX_ORDER
) -> Integers:
    """Find the order of the rotational symmetry of each image, according to a model.

    Parameters
    ----------
    relative
        (N, K) degrees, the modes' angles relative to the most probable one, which is the first.
    weight, std_deg
        (N, K) posterior weights and widths (degrees) of the modes.
    max_order
        Largest order considered.

    Returns
    -------
    array
        (N,) the largest n such that modes of comparable weight stand at every multiple of 360°/n
        from the best: 1 where there is only that one, 0 where no angle is preferred
        (:func:`is_round`).
    """
    orders = np.ones(len(np.asarray(weight)), np.int64)
    for order in range(2, max_order + 1):
        places = place_weights(relative, weight, order)
        orders[(places >= COMPARABLE * places[:, :1]).all(1)] = order
    orders[is_round(relative, weight, std_deg)] = 0
    return orders


def turn_costs(relative: ArrayLike, weight: ArrayLike, order: int, average: ArrayLike) -> Array:
    """Return how many nats each image loses by the worst rotation of a cyclic group.

    Parameters
    ----------
    relative, weight
        (N, K) angles relative to the best mode's and weights of the modes.
    order
        Of the group, at least 2: the turns are the multiples of 360° / order.
    average
        (N,) nats that the average turn costs, at most which a turn counts; a turn with no mode
        near it costs as much.

    Returns
    -------
    array
        (N,) nats, of (near) zero where the image looks the same after all these turns.
    """
    places = place_weights(relative, weight, order)
    most = np.maximum(np.asarray(average, float), 0.0)
    with np.errstate(divide="ignore"):
        lost = np.log(places[:, :1]) - np.log(places[:, 1:])
    costs: Array = np.clip(lost.max(1), 0.0, most)
    return costs


@dataclass(frozen=True)
class ClassSymmetry:
    """The rotational symmetry of a class of images.

    Attributes
    ----------
    images
        Number of images.
    shares
        Share of the images of order 0 (round), 1, 2, ... up to the largest order considered.
    order
        Of the class's cyclic group; 0 where it is round.
    costs
        What the turns of the cyclic groups of order 2, 3, ... cost, of what the average turn
        costs: 0 for a perfect symmetry.
    weights
        Mean posterior weight of the mode at each multiple of 360° / order from the best one; of
        the best one alone where the order is 0.
    """

    images: int
    shares: tuple[float, ...]
    order: int
    costs: tuple[float, ...]
    weights: tuple[float, ...]

    @property
    def group(self) -> str:
        """Name of the symmetry group, in Schoenflies's notation."""
        return f"C{self.order}" if self.order else "none found (a disc)"

    @property
    def nearest(self) -> tuple[int, float]:
        """Order and cost of the class's group, or of the nearest one if that is trivial."""
        order = self.order if self.order > 1 else 2 + int(np.argmin(self.costs))
        return order, self.costs[order - 2]


def class_symmetry(
    orders: ArrayLike,
    relative: ArrayLike,
    weight: ArrayLike,
    average: ArrayLike,
    max_order: int = MAX_ORDER,
) -> ClassSymmetry:
    """Find the symmetry group of a class from the posteriors of its images.

    It is that of the largest order whose turns cost less than :data:`SAME` of what the average
    turn costs (sums over the images).  Weights alone will not do: where noise is low, detail that
    hardly shows decides between two ways up by many nats.

    Parameters
    ----------
    orders
        (N,) of :func:`image_order`.
    relative, weight
        (N, K) angles relative to the best mode's and weights of the modes.
    average
        (N,) nats by which the likelihood falls from the best angle to the average one.
    max_order
        That of :func:`image_order`.
    """
    found, all_turns = np.asarray(orders, np.int64), np.asarray(average, float)
    if not len(found):
        raise InputError.of("symmetry", "the number of images", 0, "at least 1")
    shares = np.bincount(found, minlength=max_order + 1) / len(found)
    total = max(float(np.maximum(all_turns, 0.0).sum()), 1e-12)
    costs = [
        float(turn_costs(relative, weight, order, all_turns).sum()) / total
        for order in range(2, max_order + 1)
    ]
    order = max([1, *(n for n, cost in enumerate(costs, 2) if cost < SAME)])
    if shares[0] >= 0.5:
        order = 0
    weights = place_weights(relative, weight, max(order, 1)).mean(0)
    return ClassSymmetry(
        len(found), tuple(shares.tolist()), order, tuple(costs), tuple(weights.tolist())
    )

"""The latent map: contents of known objects, and the positions of new objects among them.

Section 2.3 of affinity-VAE's paper; the three ways to classify are those of its section 2.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modpose.affinity.matrix import class_names
from modpose.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.neighbors import NearestNeighbors

Floats = NDArray[np.float64]
Index = NDArray[np.int64]
Distance = Literal["euclidean", "cosine"]

HARD_K = 5
"""Neighbours that vote (section 2.4)."""
SOFT_K = 100
"""Neighbours whose classes are counted (section 2.4)."""
NEW_QUANTILE = 0.99
"""Fraction of known samples that :meth:`LatentMap.place` does not call new."""


@dataclass(frozen=True)
class LatentMap:
    """Contents of known samples.

    Attributes
    ----------
    z
        (N, d) contents.
    names
        K classes.
    member
        (N,) class of each sample, 0 to K − 1; every class has one at least.
    distance
        ``euclidean``, as in the paper, or ``cosine``, which is what an affinity is compared with.
    """

    z: Floats
    names: tuple[str, ...]
    member: Index
    distance: Distance = "euclidean"

    @classmethod
    def of(cls, z: ArrayLike, labels: ArrayLike, distance: Distance = "euclidean") -> LatentMap:
        """Make a map of contents (N, d) and their labels (N,).

        Raises
        ------
        InputError
            If there are no samples, the numbers differ, or a content is not finite.
        """
        rows = _rows(z)
        given = np.asarray(labels)
        if len(rows) < 2 or given.shape != (len(rows),):
            expected = f"({len(rows)},), a label for each of at least two contents"
            raise InputError.of("latent map", "the shape of the labels", given.shape, expected)
        names, member = class_names(given)
        return cls(rows, tuple(names), member, distance)

    # --- classifying --------------------------------------------------------------------------

    def nearest(self, z: ArrayLike, k: int = HARD_K) -> Index:
        """Return the class of most of the k nearest samples (hard assignment).

        Parameters
        ----------
        z
            (M, d) other contents.
        k
            Neighbours; all samples where there are fewer.

        Returns
        -------
        array
            (M,) classes; if two have equally many neighbours, the one with nearer neighbours on
            average.
        """
        away, rows = self._neighbours(z, k)
        votes = self._votes(rows)
        summed = np.zeros(votes.shape)
        np.add.at(summed, (np.arange(len(rows))[:, None], self.member[rows]), away)
        mean = np.where(votes > 0, summed / np.maximum(votes, 1), np.inf)
        tied = votes == votes.max(1, keepdims=True)
        return np.asarray(np.where(tied, mean, np.inf).argmin(1), np.int64)

    def fractions(self, z: ArrayLike, k: int = SOFT_K) -> Floats:
        """Return the share of each class among the k nearest samples (soft assignment), (M, K)."""
        _, rows = self._neighbours(z, k)
        return np.asarray(self._votes(rows) / rows.shape[1], np.float64)

    def within(self, z: ArrayLike, sigmas: float = 2.0) -> Index:
        """Return the class whose mean lies within so many standard deviations on every axis.

        Of several, the one nearest in its own standard deviations.

        Returns
        -------
        array
            (M,) classes, −1 where there is none.
        """
        points = _rows(z)
        away = np.full((len(points), len(self.names)), np.inf)
        for k in range(len(self.names)):
            own = self.z[self.member == k]
            spread = np.maximum(own.std(0), np.finfo(float).tiny)
            off = np.abs(points - own.mean(0)) / spread
            inside = (off <= sigmas).all(1)
            away[inside, k] = np.square(off[inside]).sum(1)
        return np.where(np.isfinite(away).any(1), away.argmin(1), -1).astype(np.int64)

    # --- distances ----------------------------------------------------------------------------

    def centroids(self) -> Floats:
        """Return the mean content of each class, (K, d)."""
        return np.stack([self.z[self.member == k].mean(0) for k in range(len(self.names))])

    def centroid_distances(self) -> Floats:
        """Return the distances between the means of classes, (K, K)."""
        from scipy.spatial.distance import cdist

        centres = self.centroids()
        between = np.asarray(cdist(centres, centres, self.distance), np.float64)
        np.fill_diagonal(between, 0.0)
        return between

    def together(self, z: ArrayLike, labels: ArrayLike) -> LatentMap:
        """Return a map that holds other samples, too."""
        known = np.array(self.names)[self.member]
        both = np.concatenate([known, np.asarray(labels).astype(str)])
        return LatentMap.of(np.concatenate([self.z, _rows(z)]), both, self.distance)

    # --- new samples --------------------------------------------------------------------------

    def novelty(self, z: ArrayLike | None = None, k: int = HARD_K) -> Floats:
        """Return how far samples are from all known samples: a score for a new class.

        The mean distance to the k nearest samples, divided by its usual value in the class of the
        nearest one (the median over samples, each left out of its own neighbours).

        Parameters
        ----------
        z
            (M, d) other contents; None for the known ones themselves, each left out.
        k
            Neighbours.

        Returns
        -------
        array
            (M,) about 1 for known classes, larger for new ones.
        """
        own_away, own_rows = self._neighbours(None, k)
        own = own_away.mean(1)
        usual = np.array([np.median(own[self.member == c]) for c in range(len(self.names))])
        usual = np.maximum(usual, np.finfo(float).eps * max(float(own.max()), 1e-300))
        away, rows = (own_away, own_rows) if z is None else self._neighbours(z, k)
        return np.asarray(away.mean(1) / usual[self.member[rows[:, 0]]], np.float64)

    def place(self, z: ArrayLike, soft_k: int = SOFT_K, hard_k: int = HARD_K) -> pd.DataFrame:
        """Find the known class nearest to each sample, the share of votes, and whether it is new.

        Parameters
        ----------
        z
            (M, d) contents that were not in the map.
        soft_k, hard_k
            Neighbours whose classes are counted, and those that vote.

        Returns
        -------
        DataFrame
            One row per sample: ``nearest`` (a class, by vote), ``share`` (its part of ``soft_k``
            neighbours), ``second`` and ``second_share`` (the next class), ``within_2_sigma`` (a
            class, or empty), ``novelty``, and ``new``: whether that is above what 99 % of the
            known samples have.
        """
        import pandas as pd

        shares = self.fractions(z, soft_k)
        names = np.array([*self.names, ""])
        nearest, every = self.nearest(z, hard_k), np.arange(len(shares))
        others = shares.copy()
        others[every, nearest] = -1.0
        second = others.argmax(1) if len(self.names) > 1 else np.full(len(shares), -1)
        novelty = self.novelty(z, hard_k)
        limit = np.quantile(self.novelty(None, hard_k), NEW_QUANTILE)
        columns: dict[str, Any] = {
            "nearest": names[nearest],
            "share": shares[every, nearest],
            "second": names[second],
            "second_share": np.where(second >= 0, shares[every, second], 0.0),
            "within_2_sigma": names[self.within(z)],
            "novelty": novelty,
            "new": novelty > limit,
        }
        return pd.DataFrame(columns)

    # --- neighbours ---------------------------------------------------------------------------

    def _neighbours(self, z: ArrayLike | None, k: int) -> tuple[Floats, Index]:
        """Return distances and rows of the k nearest samples, nearest first; None: of each other.

        With None each sample is left out of its own neighbours.
        """
        if k < 1:
            raise InputError.of("latent map", "the number of neighbours", k, "at least 1")
        found: NearestNeighbors = self._index()
        most = len(self.z) - (z is None)
        if z is None:
            away, rows = found.kneighbors(n_neighbors=min(k, most))
        else:
            points = _rows(z)
            if points.shape[1] != self.z.shape[1]:
                found_dims, expected = points.shape[1], f"{self.z.shape[1]} as in the map"
                raise InputError.of("latent map", "dimensions of content", found_dims, expected)
            away, rows = found.kneighbors(points, n_neighbors=min(k, most))
        return np.asarray(away, np.float64), np.asarray(rows, np.int64)

    def _index(self) -> NearestNeighbors:
        from sklearn.neighbors import NearestNeighbors

        return NearestNeighbors(metric=self.distance).fit(self.z)

    def _votes(self, rows: Index) -> Index:
        votes = np.zeros((len(rows), len(self.names)), np.int64)
        np.add.at(votes, (np.arange(len(rows))[:, None], self.member[rows]), 1)
        return votes


def novelty_auc(known: ArrayLike, unseen: ArrayLike) -> float:
    """Return how often an unseen sample scores above a known one: the area under the ROC curve.

    Parameters
    ----------
    known, unseen
        (N,) and (M,) scores of :meth:`LatentMap.novelty` of samples that the map does not hold.
    """
    from sklearn.metrics import roc_auc_score

    first, second = np.asarray(known, float), np.asarray(unseen, float)
    truth = np.repeat([0, 1], [len(first), len(second)])
    return float(roc_auc_score(truth, np.concatenate([first, second])))


@dataclass(frozen=True)
class Between:
    """Where the mean of an unseen class lies between those of two known ones.

    Attributes
    ----------
    to_first, to_second
        Its distances to both, over the distance between the two.
    """

    to_first: float
    to_second: float

    @property
    def holds(self) -> bool:
        """Whether it is nearer to either than they are to each other."""
        return max(self.to_first, self.to_second) < 1.0

    @classmethod
    def of(cls, whole: LatentMap, unseen: str, first: str, second: str) -> Between:
        """Measure it in a map that holds all three classes."""
        i, j, k = _positions(whole.names, (unseen, first, second))
        distances = whole.centroid_distances()
        return cls(
            float(distances[i, j] / distances[j, k]), float(distances[i, k] / distances[j, k])
        )


def _positions(names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    missing = next((name for name in wanted if name not in names), None)
    if missing is not None:
        raise InputError.of("latent map", "a class", f"'{missing}'", f"one of {', '.join(names)}")
    return [list(names).index(name) for name in wanted]


def _rows(z: ArrayLike) -> Floats:
    rows = np.asarray(z, np.float64)
    rows = rows.reshape(len(rows), -1)
    if not np.isfinite(rows).all():
        raise InputError("latent map: content has values that are not finite, expected numbers")
    return rows

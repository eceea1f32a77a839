"""An affinity matrix: validation, class means, and the nearest valid matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modpose.errors import InputError
from modpose.files.writing import natural_key

Matrix = NDArray[np.float64]

TOLERANCE = 1e-6
"""Tolerance for symmetry, the unit diagonal, the range, and an eigenvalue of zero."""


@dataclass(frozen=True)
class Affinity:
    """Similarities of named objects.

    Attributes
    ----------
    values
        (K, K) float64: 1 for equal, 0 for unrelated, down to -1 for opposite.
    names
        K different names of the classes or samples, in the order of the rows.
    where
        Name of the matrix in messages, usually a path.

    Raises
    ------
    InputError
        If the matrix is not square, has a number that is not finite, or the names do not fit.
    """

    values: Matrix
    names: tuple[str, ...]
    where: str = "affinity"

    def __post_init__(self) -> None:
        values = np.asarray(self.values, dtype=np.float64)
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "names", tuple(str(name) for name in self.names))
        count = len(self.names)
        if values.ndim != 2 or len(set(values.shape)) != 1 or not values.size:
            raise InputError.of(self.where, "the shape of the matrix", values.shape, "a square")
        if values.shape[0] != count:
            found = f"{count} for {values.shape[0]} rows"
            raise InputError.of(self.where, "the number of names", found, "one per row")
        repeated = next((name for name in self.names if self.names.count(name) > 1), None)
        if repeated is not None:
            raise InputError(f"{self.where}: the name '{repeated}' appears twice, expected once")
        if not np.isfinite(values).all():
            i, j = np.argwhere(~np.isfinite(values))[0]
            raise InputError.of(self.where, self._entry(i, j), values[i, j], "a finite number")

    def validate(self) -> None:
        """Check symmetry, the unit diagonal, and the range [-1, 1], to :data:`TOLERANCE`.

        Raises
        ------
        InputError
            If a check fails; the message names the worst entry.
        """
        values = self.values
        i, j = self._worst(np.abs(values - values.T))
        if abs(values[i, j] - values[j, i]) > TOLERANCE:
            expected = f"{values[j, i]:.6g} as at '{self.names[j]}', '{self.names[i]}' (symmetry)"
            raise InputError.of(self.where, self._entry(i, j), f"{values[i, j]:.6g}", expected)
        i, _ = self._worst(np.abs(np.diag(values) - 1)[:, None])
        if abs(values[i, i] - 1) > TOLERANCE:
            found = f"{values[i, i]:.6g}"
            raise InputError.of(self.where, self._entry(i, i), found, "1 on the diagonal")
        i, j = self._worst(np.abs(values))
        if abs(values[i, j]) > 1 + TOLERANCE:
            found = f"{values[i, j]:.6g}"
            raise InputError.of(self.where, self._entry(i, j), found, "a number from -1 to 1")

    def eigenvalues(self) -> Matrix:
        """Return the (K,) eigenvalues of the symmetric part, smallest first."""
        return np.asarray(np.linalg.eigvalsh((self.values + self.values.T) / 2), dtype=np.float64)

    def is_positive(self) -> bool:
        """Return whether it is positive semi-definite, like cosines between vectors."""
        return bool(self.eigenvalues()[0] >= -TOLERANCE * len(self.names))

    def projected(self) -> Affinity:
        """Return the nearest positive semi-definite matrix with a unit diagonal.

        Cosines between latent vectors can match only such a matrix exactly.
        """
        return Affinity(nearest_correlation(self.values), self.names, self.where)

    def subset(self, names: Sequence[str]) -> Affinity:
        """Keep these names, in this order."""
        missing = next((name for name in names if name not in self.names), None)
        if missing is not None:
            expected = f"one of {', '.join(self.names)}"
            raise InputError.of(self.where, "a class", f"'{missing}'", expected)
        rows = [self.names.index(name) for name in names]
        return Affinity(self.values[np.ix_(rows, rows)], tuple(names), self.where)

    def summary(self) -> str:
        """Return one line: size, range off the diagonal, and whether positive semi-definite."""
        off = self.values[~np.eye(len(self.names), dtype=bool)]
        span = f", {off.min():.3g} to {off.max():.3g} off the diagonal" if off.size else ""
        if self.is_positive():
            return f"{len(self.names)} x {len(self.names)}{span}; positive semi-definite"
        return (
            f"{len(self.names)} x {len(self.names)}{span}; not positive semi-definite "
            f"(smallest eigenvalue {self.eigenvalues()[0]:.3g}), so no cosines can meet it exactly"
        )

    def facts(self) -> dict[str, object]:
        """Name the figures of :meth:`summary`."""
        off = self.values[~np.eye(len(self.names), dtype=bool)]
        return {
            "names": self.names,
            "smallest": off.min() if off.size else None,
            "largest": off.max() if off.size else None,
            "smallest_eigenvalue": self.eigenvalues()[0],
            "positive": self.is_positive(),
        }

    def _entry(self, i: int, j: int) -> str:
        return f"the entry '{self.names[i]}', '{self.names[j]}'"

    def _worst(self, off: Matrix) -> tuple[int, int]:
        i, j = np.unravel_index(int(off.argmax()), off.shape)
        return int(i), int(j)


def nearest_correlation(values: Matrix, rounds: int = 1000) -> Matrix:
    """Find the nearest correlation matrix in the Frobenius norm.

    Alternates projections on the positive semi-definite cone (with Dykstra's correction) and on
    the matrices with a unit diagonal (Higham 2002, IMA J. Numer. Anal. 22, 329-343, algorithm
    3.3); a final rescaling to a unit diagonal makes the result exactly valid.

    Parameters
    ----------
    values
        (K, K), symmetric.
    rounds
        Largest number of alternations.

    Returns
    -------
    NDArray
        (K, K), symmetric, positive semi-definite to rounding, 1 on the diagonal.
    """
    target = (values + values.T) / 2
    correction = np.zeros_like(target)
    for _ in range(rounds):
        raised = target - correction
        weights, vectors = np.linalg.eigh(raised)
        positive = (vectors * np.maximum(weights, 0.0)) @ vectors.T
        correction = positive - raised
        previous, target = target, positive.copy()
        np.fill_diagonal(target, 1.0)
        if np.linalg.norm(target - previous) <= 1e-10 * len(target):
            break
    scale = 1 / np.sqrt(np.diag(positive).clip(min=1e-300))
    nearest = positive * scale * scale[:, None]
    nearest = (nearest + nearest.T) / 2
    np.fill_diagonal(nearest, 1.0)
    return np.asarray(nearest.clip(-1.0, 1.0))


def class_names(labels: ArrayLike) -> tuple[list[str], NDArray[np.int64]]:
    """Return the names of the labels in natural order, and the position of each sample's class.

    Parameters
    ----------
    labels
        (N,) numbers or strings, none of them missing.

    Returns
    -------
    names, member
        K names; (N,) positions in them.
    """
    texts = [_text(label) for label in np.asarray(labels).tolist()]
    names = sorted(set(texts), key=lambda name: (natural_key(name), name))
    position = {name: i for i, name in enumerate(names)}
    return names, np.array([position[text] for text in texts], dtype=np.int64)


def class_means(values: Matrix, member: NDArray[np.int64]) -> Matrix:
    """Average a sample x sample matrix over the pairs of each two classes.

    Parameters
    ----------
    values
        (N, N).
    member
        (N,) class of each sample, 0 to K - 1, every class with a sample.

    Returns
    -------
    NDArray
        (K, K).  The pair of a sample with itself counts, so for cosines of descriptors these are
        the inner products of the classes' mean descriptors.
    """
    share = np.eye(int(member.max()) + 1)[member]
    share = share / share.sum(axis=0)
    return np.asarray(share.T @ values @ share)


def label_name(label: Any) -> str | None:
    """Return the class name of a label, 2.0 as 2; None if the label is missing."""
    if label is None or str(label).strip().lower() in ("", "nan", "<na>"):
        return None
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    return str(label)


def _text(label: Any) -> str:
    name = label_name(label)
    if name is None:
        raise InputError.of("labels", "a label", "missing", "a class for every image")
    return name

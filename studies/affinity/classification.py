"""Which classes are taken for which: confusion matrices and F1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modpose.affinity.matrix import class_names


@dataclass(frozen=True)
class Confusion:
    """Counts of true against predicted classes.

    Attributes
    ----------
    true
        R classes, the rows; those that a model never saw may be among them.
    predicted
        C classes, the columns.
    counts
        (R, C).
    """

    true: tuple[str, ...]
    predicted: tuple[str, ...]
    counts: NDArray[np.int64]

    @classmethod
    def of(
        cls, true: ArrayLike, predicted: ArrayLike, known: Sequence[str] | None = None
    ) -> Confusion:
        """Count (N,) true and (N,) predicted classes.

        Parameters
        ----------
        true, predicted
            Names, or numbers that stand for them.
        known
            The columns, in order; by default every class that was predicted.  An empty name is
            allowed for samples that were given none.
        """
        rows, row = class_names(true)
        given = np.asarray(predicted).astype(str)
        columns = sorted(set(given.tolist())) if known is None else list(known)
        extra = [name for name in sorted(set(given.tolist())) if name not in columns]
        columns += extra
        position = {name: i for i, name in enumerate(columns)}
        column = np.array([position[name] for name in given.tolist()], np.int64)
        counts = np.zeros((len(rows), len(columns)), np.int64)
        np.add.at(counts, (row, column), 1)
        return cls(tuple(rows), tuple(columns), counts)

    @property
    def accuracy(self) -> float:
        """Fraction of the samples whose class was predicted."""
        return float(self._right().sum() / self.counts.sum())

    def f1(self) -> dict[str, float]:
        """Return the harmonic mean of precision and recall of each class in the rows."""
        right = self._right()
        called = {name: int(self.counts[:, j].sum()) for j, name in enumerate(self.predicted)}
        total = self.counts.sum(1)
        return {
            name: float(2 * right[i] / (total[i] + called.get(name, 0)))
            for i, name in enumerate(self.true)
        }

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the classes in the rows."""
        return float(np.mean(list(self.f1().values())))

    def most_often(self) -> dict[str, str]:
        """Return what each true class is taken for most often."""
        best = self.counts.argmax(1)
        return {name: self.predicted[j] for name, j in zip(self.true, best, strict=True)}

    def shares(self) -> NDArray[np.float64]:
        """Return (R, C) parts of each true class."""
        return np.asarray(self.counts / self.counts.sum(1, keepdims=True), np.float64)

    def _right(self) -> NDArray[np.int64]:
        columns = {name: j for j, name in enumerate(self.predicted)}
        return np.array(
            [
                self.counts[i, columns[name]] if name in columns else 0
                for i, name in enumerate(self.true)
            ],
            np.int64,
        )

"""Recovery of classes and poses in three dimensions, compared with a known truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from modpose.evaluate.metrics import hungarian_accuracy
from modpose.evaluate.pose_errors import pose_errors

if TYPE_CHECKING:
    import pandas as pd

LOST_DEG = 20.0
"""A pose further off than this counts as lost."""


@dataclass(frozen=True)
class ClassRecovery:
    """Poses of one true class, of its volumes that were put into the class matched with it."""

    name: str
    volumes: int
    """Number of volumes of the true class."""
    found: int
    """Number of these in the matched class."""
    angle_median_deg: float
    """Median geodesic error after one global rotation, modulo symmetry."""
    shift_median_px: float
    lost: float
    """Fraction of poses more than 20 degrees off."""
    bound_median_deg: float | None = None
    """Median error if every pose reached its Cramer-Rao bound."""

    @property
    def times_bound(self) -> float:
        """Median error as a multiple of the bound; NaN where the bound is not known."""
        return self.angle_median_deg / (self.bound_median_deg or float("nan"))

    def line(self) -> str:
        """Say it in words."""
        text = (
            f"{self.name}: {self.found} of {self.volumes} in one class, rotation "
            f"{self.angle_median_deg:.2f}° median"
        )
        if self.bound_median_deg is not None:
            text += f" ({self.times_bound:.2f} × the bound)"
        return f"{text}, {100 * self.lost:.1f} % lost, shift {self.shift_median_px:.3f} voxels"


@dataclass(frozen=True)
class PoseRecovery:
    """Figures against the truth."""

    accuracy: float
    """Fraction of volumes whose class, matched one to one, is the true one."""
    classes: list[ClassRecovery]

    def lines(self) -> list[str]:
        """Say it in words, a line each."""
        first = f"classes: {100 * self.accuracy:.1f} % right after matching one to one"
        return [first, *(one.line() for one in self.classes)]


def recover_poses(
    rotation: Tensor,
    shift: Tensor,
    class_index: Tensor,
    truth: pd.DataFrame,
    symmetries: Sequence[Tensor | None] | None = None,
    bounds: Sequence[float] | None = None,
    motion: Tensor | None = None,
) -> PoseRecovery:
    """Compare classes and poses with the truth.

    Parameters
    ----------
    rotation, shift, class_index
        (N, 3, 3), (N, 3) voxels, and (N,) classes from 0.
    truth
        One row per volume: ``r00`` ... ``r22``, ``shift_x``, ``shift_y``, ``shift_z``; with several
        classes also ``class`` and ``template``.
    symmetries
        Rotations that leave each true object unchanged.
    bounds
        Median error of rotation at the Cramer-Rao bound of each, degrees.
    motion
        (N,) what the frame may rotate and shift with (:func:`pose_errors`).
    """
    entries = truth[[f"r{i}{j}" for i in range(3) for j in range(3)]].to_numpy(np.float64)
    true_rotation = torch.tensor(entries).reshape(-1, 3, 3)
    true_shift = torch.tensor(truth[["shift_x", "shift_y", "shift_z"]].to_numpy(np.float64))
    many = "class" in truth
    classes = truth["class"].to_numpy() if many else np.zeros(len(truth), np.int64)
    accuracy, matched = hungarian_accuracy(classes, class_index.numpy())
    of_class = {int(true): int(cluster) for cluster, true in matched.items()}
    out = []
    for number, value in enumerate(np.unique(classes)):
        members = torch.from_numpy(classes == value)
        own = members & (class_index == of_class.get(int(value), -1))
        if not own.any():
            own = members
        errors = pose_errors(
            rotation[own],
            shift[own],
            true_rotation[own],
            true_shift[own],
            None if symmetries is None else symmetries[number],
            None if motion is None else motion[own],
        )
        name = str(truth["template"][classes == value].iloc[0]) if "template" in truth else ""
        out.append(
            ClassRecovery(
                name=name or f"class {value}",
                volumes=int(members.sum()),
                found=int(own.sum()),
                angle_median_deg=float(errors.angle_deg.median()),
                shift_median_px=float(errors.shift_px.median()),
                lost=float((errors.angle_deg > LOST_DEG).double().mean()),
                bound_median_deg=None if bounds is None else bounds[number],
            )
        )
    return PoseRecovery(float(accuracy), out)

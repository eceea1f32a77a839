"""What a fit says of held-out digits and of their twins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modpose.evaluate import metrics
from modpose.evaluate.equivariance import twin_angle_errors, twin_shift_errors
from modpose.infer.latents import content_of_table
from studies.common.equivariance import infer_poses
from studies.common.study import Result
from studies.target_vae.budgets import Contender
from studies.target_vae.common import (
    MOST_CLUSTERED,
    Linkage,
    clusters,
    kept,
    quiet_model,
)

if TYPE_CHECKING:
    import pandas as pd

LINKAGES: tuple[Linkage, ...] = ("ward", "kmeans", "average", "complete")
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Found:
    """What a fit says of the held-out digits.

    Attributes
    ----------
    contender, result
        The model and its run.
    z
        (N, k) content.
    truth
        ``angle_deg``, ``shift_x``, ``shift_y``, ``label`` of each.
    shift
        (N, 2) inferred of the images; None without pose, as the following.
    angle_errors
        (N,) degrees, against the twin.
    shift_errors
        (N, 2) pixels, against the twin.
    twins
        Makes the twins.
    """

    contender: Contender
    result: Result
    z: Array
    truth: pd.DataFrame
    shift: Array | None
    angle_errors: Array | None
    shift_errors: Array | None
    twins: Callable[[], NDArray[np.uint8]]

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,) digits."""
        return self.truth["label"].to_numpy(np.int64)

    @property
    def angle(self) -> Array:
        """(N,) true angles, degrees."""
        return self.truth["angle_deg"].to_numpy(float)

    def accuracy(self, method: Linkage = "ward") -> tuple[float, NDArray[Any]]:
        """Match ten clusters of content; return the fraction and each image's digit (or −1)."""
        groups = kept(self.result, "clusters", self._clusters)[method].to_numpy()
        accuracy, mapping = metrics.hungarian_accuracy(self.labels[: len(groups)], groups)
        return accuracy, np.array([mapping.get(int(g), -1) for g in groups])

    def _clusters(self) -> pd.DataFrame:
        import pandas as pd

        rows, seed = self.z[:MOST_CLUSTERED], self.result.fit.seed
        return pd.DataFrame({method: clusters(rows, 10, method, seed) for method in LINKAGES})


def find(contender: Contender, result: Result, twins: Callable[[], NDArray[np.uint8]]) -> Found:
    """Infer the poses of the twins, once, and compare."""
    latents, truth = result.held_out(), result.fit.sample.truth_of_test()
    if not contender.has_pose:
        return Found(contender, result, content_of_table(latents), truth, None, None, None, twins)
    still = kept(result, "twins", lambda: _twin_poses(result, twins()))
    axes = ["shift_x", "shift_y"]
    shift, angle = latents[axes].to_numpy(float), truth["angle_deg"].to_numpy(float)
    return Found(
        contender=contender,
        result=result,
        z=content_of_table(latents),
        truth=truth,
        shift=shift,
        angle_errors=twin_angle_errors(latents["angle_deg"], still["angle_deg"], angle),
        shift_errors=twin_shift_errors(
            shift, still[axes].to_numpy(float), truth[axes].to_numpy(float), angle
        ),
        twins=twins,
    )


def _twin_poses(result: Result, images: NDArray[np.uint8]) -> pd.DataFrame:
    import pandas as pd

    poses = infer_poses(quiet_model(result), images.astype(np.float32))
    x, y = poses.shift.T
    return pd.DataFrame({"angle_deg": poses.angle_deg, "shift_x": x, "shift_y": y})

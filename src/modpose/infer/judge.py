"""The alarms of a fit: those of its images, and those of its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from modpose.alarms.content import Decode, content_alarm
from modpose.alarms.convergence import convergence_alarm
from modpose.alarms.images import data_alarms
from modpose.alarms.sample import Floats, take_sample
from modpose.data.dataset import Dataset
from modpose.infer.latents import content_of_table
from modpose.infer.outliers import outlier_alarm
from modpose.model.vae import Vae
from modpose.run.alarm import Alarm, stored_alarms

if TYPE_CHECKING:
    import pandas as pd

OF_RESULT = ("content", "convergence", "outliers")


def result_alarms(
    dataset: Dataset,
    metrics: Sequence[Mapping[str, float]],
    z: Floats,
    decode: Decode | None = None,
    stopped: str = "",
    index: NDArray[np.int64] | None = None,
) -> tuple[Alarm, ...]:
    """Check the result of a fit for signs that it cannot be trusted.

    Parameters
    ----------
    dataset
        The images that were fitted.
    metrics
        One mapping an epoch.
    z
        (N, k) content of the images.
    decode
        From content (n, k) to pictures or volumes; None if they cannot be drawn.
    stopped
        Why training ended.
    index
        (N,) positions of the images that ``z`` belongs to; None: all images.
    """
    if index is not None:
        order = np.argsort(index, kind="stable")  # a table may be sorted by another column
        index, z = index[order], z[order]
    found = (
        content_alarm(take_sample(dataset, among=index), z, decode, index) if z.size else None,
        convergence_alarm(metrics, stopped),
    )
    return tuple(alarm for alarm in found if alarm is not None)


def find_alarms(
    dataset: Dataset,
    metrics: Sequence[Mapping[str, float]] = (),
    latents: pd.DataFrame | None = None,
) -> tuple[Alarm, ...]:
    """Find everything that looks wrong about images and, if it is given, about a fit to them.

    Parameters
    ----------
    dataset
        The images (``model.dataset(x)``, ``run.dataset()``).
    metrics
        The metrics of the fit, one mapping an epoch (``run.epochs()``).
    latents
        Results of inference for these images, one row per image (``model.latents()``).

    Returns
    -------
    An alarm for each thing that looks wrong; empty if nothing does.
    """
    z = np.empty((0, 0)) if latents is None else content_of_table(latents)
    index = None if latents is None else latents["index"].to_numpy()
    return (*data_alarms(dataset), *result_alarms(dataset, metrics, z, index=index))


def judge_fit(
    environment: Mapping[str, Any],
    dataset: Dataset,
    metrics: Sequence[Mapping[str, float]],
    table: pd.DataFrame,
    vae: Vae,
    stopped: str,
) -> list[dict[str, str]]:
    """Return the alarms of a finished fit for the run folder: those of the data, and new ones."""
    of_data = [one for one in stored_alarms(environment) if one.name not in OF_RESULT]
    decode = None if "pose_0" in table else _pictures_of(vae)
    index = table["index"].to_numpy()
    found = result_alarms(dataset, metrics, content_of_table(table), decode, stopped, index)
    outliers = outlier_alarm(table["outlier"].to_numpy()) if "outlier" in table else None
    of_table = () if outliers is None else (outliers,)
    return [alarm.as_dict() for alarm in (*of_data, *found, *of_table)]


def _pictures_of(vae: Vae) -> Decode:
    """Return the function that draws the objects of a model."""

    def decode(z: Floats) -> Floats:
        content = torch.as_tensor(z, dtype=torch.float32, device=vae.coordinates.device)
        with torch.no_grad():
            parts = [vae.decode(one[None]).float().cpu().numpy() for one in content]
        return np.concatenate(parts).astype(np.float64)

    return decode

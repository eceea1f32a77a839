"""All alarms: those of the data alone, before a fit, and those of its result, at its end."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from modpose.config import DataConfig
from modpose.data.dataset import Dataset
from modpose.evaluate.alarms.alarm import Alarm, stored_alarms
from modpose.evaluate.alarms.content import Decode, content_alarm
from modpose.evaluate.alarms.contrast import contrast_alarm
from modpose.evaluate.alarms.convergence import convergence_alarm
from modpose.evaluate.alarms.ctf import ctf_alarm
from modpose.evaluate.alarms.neighbours import neighbours_alarm
from modpose.evaluate.alarms.poses import poses_alarm
from modpose.evaluate.alarms.repeated import constant_alarm, repeated_alarm
from modpose.evaluate.alarms.sample import Floats, take_sample
from modpose.evaluate.alarms.wedge import wedge_alarm

if TYPE_CHECKING:
    import pandas as pd

    from modpose.data.source import Source
    from modpose.vae import Vae

logger = logging.getLogger("modpose")

WEDGE_VOLUMES = 100
"""Volumes that are looked at where a wedge alone is looked for."""
OF_RESULT = ("content", "convergence")
OF_IMAGES = (
    constant_alarm,
    repeated_alarm,
    contrast_alarm,
    ctf_alarm,
    wedge_alarm,
    neighbours_alarm,
    poses_alarm,
)


def data_alarms(dataset: Dataset) -> tuple[Alarm, ...]:
    """Look at a sample of at most 1,000 images for what would spoil a fit.

    Parameters
    ----------
    dataset
        Images as a model would see them.

    Returns
    -------
    An alarm for each thing that looks wrong; none where nothing does.
    """
    sample = take_sample(dataset)
    found = (look(sample) for look in OF_IMAGES)
    return tuple(alarm for alarm in found if alarm is not None)


def result_alarms(
    dataset: Dataset,
    metrics: Sequence[Mapping[str, float]],
    z: Floats,
    decode: Decode | None = None,
    stopped: str = "",
) -> tuple[Alarm, ...]:
    """Look at the result of a fit for what it cannot be trusted for.

    Parameters
    ----------
    dataset
        The images that were fitted.
    metrics
        One mapping an epoch.
    z
        (N, k) content of the images.
    decode
        From content (n, k) to pictures or volumes; None where they cannot be drawn.
    stopped
        Why training ended.
    """
    found = (
        content_alarm(take_sample(dataset), z, decode) if z.size else None,
        convergence_alarm(metrics, stopped),
    )
    return tuple(alarm for alarm in found if alarm is not None)


def find_alarms(
    dataset: Dataset,
    metrics: Sequence[Mapping[str, float]] = (),
    latents: pd.DataFrame | None = None,
) -> tuple[Alarm, ...]:
    """Find everything that looks wrong about images and, where it is given, about a fit to them.

    Parameters
    ----------
    dataset
        The images (``model.dataset(x)``, ``run.dataset()``).
    metrics
        The metrics of the fit, one mapping an epoch (``run.epochs()``).
    latents
        What inference says of these images, a row an image (``model.latents()``).

    Returns
    -------
    An alarm for each thing that looks wrong; none where nothing does.
    """
    from modpose.latents import content_of_table

    z = np.empty((0, 0)) if latents is None else content_of_table(latents)
    return (*data_alarms(dataset), *result_alarms(dataset, metrics, z))


def warn_before(dataset: Dataset) -> list[dict[str, str]]:
    """Find the alarms of the data, log each as a warning, and return them for the run folder."""
    found = data_alarms(dataset)
    for alarm in found:
        logger.warning("warning: %s", alarm.sentence)
    return [alarm.as_dict() for alarm in found]


def warn_of_wedge(source: Source) -> None:
    """Log a warning where volumes have a missing wedge that nothing tells of."""
    dataset = Dataset(source, DataConfig(val_fraction=0), seed=0)
    found = wedge_alarm(take_sample(dataset, most=WEDGE_VOLUMES))
    if found is not None:
        logger.warning("warning: %s", found.sentence)


def judge_fit(
    environment: Mapping[str, Any],
    dataset: Dataset,
    metrics: Sequence[Mapping[str, float]],
    table: pd.DataFrame,
    vae: Vae,
    stopped: str,
) -> list[dict[str, str]]:
    """Return the alarms of a finished fit for the run folder: those of the data, and new ones."""
    from modpose.latents import content_of_table

    of_data = [one for one in stored_alarms(environment) if one.name not in OF_RESULT]
    decode = None if "pose_0" in table else _pictures_of(vae)
    found = result_alarms(dataset, metrics, content_of_table(table), decode, stopped)
    return [alarm.as_dict() for alarm in (*of_data, *found)]


def _pictures_of(vae: Vae) -> Decode:
    """Return what draws the objects of a model."""
    import torch

    def decode(z: Floats) -> Floats:
        content = torch.as_tensor(z, dtype=torch.float32, device=vae.coordinates.device)
        with torch.no_grad():
            parts = [vae.decode(one[None]).float().cpu().numpy() for one in content]
        return np.concatenate(parts).astype(np.float64)

    return decode

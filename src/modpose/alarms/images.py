"""Alarms about the data, checked before a fit."""

from __future__ import annotations

import logging

from modpose.alarms.contrast import contrast_alarm
from modpose.alarms.ctf import ctf_alarm
from modpose.alarms.neighbours import neighbours_alarm
from modpose.alarms.poses import poses_alarm
from modpose.alarms.repeated import constant_alarm, repeated_alarm, repeated_rows_alarm
from modpose.alarms.sample import take_sample
from modpose.alarms.views import views_alarm
from modpose.alarms.wedge import wedge_alarm
from modpose.config import DataConfig
from modpose.data.dataset import Dataset
from modpose.data.source import Source
from modpose.run.alarm import Alarm

logger = logging.getLogger("modpose")

WEDGE_VOLUMES = 100
"""Number of volumes that are checked if only a wedge is searched."""
OF_IMAGES = (
    constant_alarm,
    repeated_rows_alarm,
    repeated_alarm,
    contrast_alarm,
    ctf_alarm,
    wedge_alarm,
    neighbours_alarm,
    poses_alarm,
)


def data_alarms(dataset: Dataset, symmetry: str = "C1") -> tuple[Alarm, ...]:
    """Check a sample of at most 1,000 images for problems that would spoil a fit.

    Parameters
    ----------
    dataset
        Images as a model would see them.
    symmetry
        Point group that a model imposes.

    Returns
    -------
    One alarm for each problem; empty if there is none.
    """
    sample = take_sample(dataset)
    found = [*(look(sample) for look in OF_IMAGES), views_alarm(sample, symmetry)]
    return tuple(alarm for alarm in found if alarm is not None)


def warn_before(dataset: Dataset, symmetry: str) -> list[dict[str, str]]:
    """Find the alarms of the data, log each as a warning, and return them for the run folder."""
    found = data_alarms(dataset, symmetry)
    for alarm in found:
        logger.warning("warning: %s", alarm.sentence)
    return [alarm.as_dict() for alarm in found]


def warn_of_wedge(source: Source) -> None:
    """Log a warning if volumes have a missing wedge that is not declared."""
    dataset = Dataset(source, DataConfig(val_fraction=0), seed=0)
    found = wedge_alarm(take_sample(dataset, most=WEDGE_VOLUMES))
    if found is not None:
        logger.warning("warning: %s", found.sentence)

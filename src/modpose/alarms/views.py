"""Given poses that show the object from too few directions."""

from __future__ import annotations

from modpose.alarms.sample import Sample
from modpose.geometry.groups import point_group
from modpose.geometry.views import Views, directions_of, evenness
from modpose.run.alarm import Alarm

FEWEST = 100
"""Of fewer images, even views leave gaps by chance."""
GAP, WORTH = 0.1, 0.5
"""Share of directions without images, and worth of the images for the others, that are told."""


def views_alarm(sample: Sample, symmetry: str = "C1") -> Alarm | None:
    """Check whether posed projections show an object of a point group from enough directions."""
    rotation = sample.dataset.rotation
    if rotation is None or len(sample.shape) != 2 or len(rotation) < FEWEST:
        return None
    found = sentence_about(evenness(directions_of(rotation, point_group(symmetry))))
    return None if found is None else Alarm("views", found)


def sentence_about(views: Views) -> str | None:
    """Say what uneven views do; None if they are even enough."""
    if views.gap > GAP:
        return (
            f"The views leave gaps: hardly any image tells {views.gap:.0%} of the directions of "
            "Fourier space, so maps are smeared there (unless a symmetry is still to be imposed)."
        )
    if views.worth < WORTH:
        return (
            f"The views are uneven: along the less seen directions, maps are as noisy as from "
            f"{views.worth:.0%} of these images with even views."
        )
    return None

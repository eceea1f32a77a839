"""What is wrong with the images, or with what is asked of them, said before minutes are spent."""

from __future__ import annotations

import logging
import math

import torch
from torch import Tensor

from modpose.alarms.ctf import ctf_alarm
from modpose.alarms.sample import Sample
from modpose.errors import InputError
from modpose.fourier.fsc import fsc_of_classes
from modpose.search.abinitio.images import SearchImages
from modpose.search.abinitio.settings import StartPlan
from modpose.search.abinitio.symmetry import symmetrised

logger = logging.getLogger("modpose")

BLOB = 0.15
"""Standard deviation of a Gaussian that stands for any particle, as a fraction of the box."""
LARGEST_RADIUS = 4.0
DARK = -5.0
"""Standard errors below which particles are called dark."""
DIRECTIONS = 100
"""Cells of the half sphere of views."""
UNEVEN = 0.5
"""Below this share of the cells with images, a warning is printed."""
DOUBTFUL = 0.9
"""Below this share after the random starts, images are also compared with one average: where they
tell little, images of one view are found in most of the directions.
"""
ONE_VIEW = 0.85
"""Images of which one average explains so much of what a map does may show one view only."""
OUTER, FAR = 0.8, 0.25
"""A warning is printed where more shifts than this share (the second) are larger than this fraction
of the largest that is searched.
"""
HAS_NOT = 0.8
"""Mean correlation over low shells below which a map does not have a symmetry."""


BYTES = 12, 160
"""Of a coefficient of an image with its CTF; of all copies of a point of the lattice of a map."""


def memory_needed(count: int, radius: float, classes: int) -> int:
    """Bytes that a search of so many images up to a frequency, cycles a box, will need."""
    of_images = BYTES[0] * count * math.ceil(math.pi / 2 * radius**2)
    return of_images + BYTES[1] * classes * math.ceil(4 * radius + 5) ** 3


def warn_of_dark_particles(images: SearchImages, name: str) -> None:
    """Warn where particles are darker than their surroundings."""
    if brightness(images) < DARK:
        logger.warning(
            "%s: the particles are darker than their surroundings (inverted contrast), so the map "
            "will be negative; --invert makes them bright",
            name,
        )


def warn_of_wrong_ctf(sample: Sample, name: str) -> None:
    """Warn where the power spectra of images do not follow the CTF of the table."""
    wrong = ctf_alarm(sample)
    if wrong is not None:
        logger.warning("%s: %s", name, wrong.sentence)


def brightness(images: SearchImages) -> float:
    """Return how bright the middle of the images is, in standard errors over the images.

    Each image is compared with a Gaussian blob in the middle after its CTF.
    """
    count = int(torch.searchsorted(images.radius, LARGEST_RADIUS + 1e-6))
    radius = images.radius[:count]
    blob = torch.exp(-2 * (math.pi * BLOB * radius) ** 2) / images.noise[images.shell[:count]]
    score = ((images.value[:, :count].real * images.transfer[:, :count]) * blob).sum(1)
    return float(score.mean() / (score.std() / math.sqrt(len(score))).clamp(min=1e-12))


def check_symmetry_of_map(volume: Tensor, group: Tensor, symmetry: str, name: str) -> None:
    """Refuse a map (1, D, D, D) that does not have a symmetry with its main axis along z."""
    if len(group) == 1:
        return
    alike = fsc_of_classes(volume, symmetrised(volume, group))[0]
    value = float(alike[1 : int(StartPlan().radii[1])].mean())
    if value < HAS_NOT:
        found = f"{value:.2f} like its average over {symmetry} about z"
        raise InputError.of(name, "the map", found, f"at least {HAS_NOT}, a map with this symmetry")


def warn_of_few_views(covered: float, alike: float | None = None) -> None:
    """Warn where views come from few directions, or may all be the same.

    Parameters
    ----------
    covered
        Share of the directions.  Poses of few views are also found in directions that no image was
        seen from, so it is an upper limit.
    alike
        After the random starts: how much of what the map explains one average in the plane does.
    """
    if covered >= UNEVEN and (alike is None or alike <= ONE_VIEW):
        return
    limit = f"views cover at most {100 * covered:.0f} % of the directions"
    if alike is None:
        logger.warning("%s: the maps are smeared along the others", limit)
        return
    logger.warning(
        "after the random starts, %s, and one average in the plane explains %.0f %% of what the "
        "map explains%s",
        limit,
        100 * alike,
        ": the images may show one view only, and then this map and its poses mean nothing"
        if alike > ONE_VIEW
        else ": the maps are smeared along the other directions",
    )


def far_share(shift: Tensor, largest: float) -> float:
    """Return the share of shifts (N, 2) that are about as large as the largest, pixels."""
    return float((shift.norm(dim=1) > OUTER * largest).float().mean())


def warn_of_far_shifts(shift: Tensor, largest: float, name: str) -> None:
    """Warn where many shifts (N, 2) are about as large as the largest that is searched, pixels."""
    far = far_share(shift, largest)
    if far > FAR:
        logger.warning(
            "%s: %.0f %% of the particles were found near the largest shift that is searched; if "
            "they may be further off the centre of their images, give modpose abinitio a larger "
            "--max-shift",
            name,
            100 * far,
        )


def covered_directions(rotation: Tensor, group: Tensor) -> float:
    """Return the share of a hundred directions that get at least a tenth of the mean share.

    Parameters
    ----------
    rotation
        (N, 3, 3).
    group
        (G, 3, 3) symmetry of the map: each image shows it from so many directions.
    """
    number = torch.arange(2 * DIRECTIONS) + 0.5
    height = 1 - number / DIRECTIONS
    angle = number * torch.pi * (1 + 5**0.5)
    around = (1 - height.square()).clamp(min=0).sqrt()
    sphere = torch.stack([around * angle.cos(), around * angle.sin(), height], 1)
    view = (rotation[:, None, 2:] @ group).flatten(0, 2)
    cell = (view @ sphere.T).argmax(1)
    opposite = (-view @ sphere.T).argmax(1)
    count = torch.bincount(torch.cat([cell, opposite]), minlength=len(sphere))
    return float((count >= 0.1 * count.float().mean()).float().mean())

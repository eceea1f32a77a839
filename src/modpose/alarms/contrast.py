"""Inverted contrast: particles darker than their surroundings."""

from __future__ import annotations

import numpy as np
import torch

from modpose.alarms.sample import Floats, Sample, smaller
from modpose.observe.ctf import CtfColumn, apply_ctf
from modpose.run.alarm import Alarm

CENTRE, RIM = 0.5, 0.9
"""Radii of the central disc and of its surroundings, in half the shortest side."""
DARK = -5.0
"""Standard errors below which the centre is darker than the rim."""
FEWEST, MOST = 8, 500
"""Number of images that are checked."""


def contrast_alarm(sample: Sample) -> Alarm | None:
    """Check whether the centre of noisy particle images is darker than their rim.

    The mean of the centre minus that of the rim is compared with its standard error over the
    images.  Images with a CTF are filtered with it first, which gives weight to the measured
    frequencies.
    """
    if not sample.particle_like or len(sample.rows) < FEWEST:
        return None
    if darkness(sample) > DARK:
        return None
    return Alarm(
        "contrast",
        "The particles are darker than their surroundings: the contrast looks inverted. If they "
        "should be bright, as RELION and cryoSPARC have them, fit again with --invert.",
    )


def darkness(sample: Sample) -> float:
    """Return the mean of the centre minus that of the rim, in standard errors over the images."""
    sample = smaller(sample, MOST)
    images = _filtered(sample)
    centre, rim = sample.radius <= CENTRE, sample.radius >= RIM
    difference = images[:, centre].mean(axis=1) - images[:, rim].mean(axis=1)
    error = float(difference.std() / np.sqrt(len(difference)))
    return float(difference.mean()) / max(error, 1e-12)


def _filtered(sample: Sample) -> Floats:
    """Multiply the transform of 2-D images by their CTF where it is known."""
    ctf = sample.dataset.ctf
    if ctf is None or len(sample.shape) != 2:
        return np.asarray(sample.images, np.float64)

    filtered = np.empty(sample.images.shape)
    for start in range(0, len(sample.rows), 256):
        part = slice(start, start + 256)
        images = torch.from_numpy(sample.images[part])[:, None]
        parameters = torch.from_numpy(ctf[sample.rows[part]])
        parameters[:, CtfColumn.PIXEL_SIZE] *= sample.dataset.shape[0] / sample.shape[0]
        filtered[part] = apply_ctf(images, parameters)[:, 0].numpy()
    return filtered

"""Slightly rotated letters and digits: the alphanumeric set of affinity-VAE's paper."""

from __future__ import annotations

import numpy as np
import pandas as pd

from modpose.simulate.digits import glyphs, place
from modpose.simulate.particles import Simulated
from modpose.simulate.settings import CHARACTERS as CHARACTERS
from modpose.simulate.settings import CharacterSettings as CharacterSettings

SEEN = "abdeijzk"
"""Training characters of the paper's Figure 3."""
UNSEEN = "2xp"
"""Held-out characters of the paper's Figure 3."""
GLYPH = 0.75
"""Side of the square that a character is drawn in, as a fraction of the box."""


def simulate_alphanumeric(settings: CharacterSettings) -> Simulated:
    """Draw characters in Pillow's own font, each with a random rotation and shift.

    Parameters
    ----------
    settings
        What to draw.

    Returns
    -------
    Simulated
        Images in [0, 1] without noise; the truth has ``class`` (from 0), ``template`` (the
        character), ``angle_deg``, ``shift_x`` and ``shift_y`` (pixels).
    """
    rng = np.random.default_rng(settings.seed)
    n, kinds = settings.n, len(settings.characters)
    classes = rng.permutation(np.arange(n) % kinds)
    most = settings.max_angle_deg - 1
    angle = rng.integers(-most, most + 1, size=n).astype(float)
    shift = rng.uniform(-1.0, 1.0, (n, 2)) * settings.max_shift_px
    upright = glyphs(settings.characters, max(8, round(GLYPH * settings.box)))
    images = place(upright[classes], settings.box, angle, shift)
    if settings.binary:
        images = (images >= 0.5).astype(np.float32)
    truth = pd.DataFrame(
        {
            "class": classes,
            "template": np.array(list(settings.characters))[classes],
            "angle_deg": angle,
            "shift_x": shift[:, 0],
            "shift_y": shift[:, 1],
        }
    )
    return Simulated(images, images, truth, None, 1.0)

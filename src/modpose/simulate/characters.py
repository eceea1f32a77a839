"""Slightly rotated letters and digits: the alphanumeric set of affinity-VAE's paper."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from modpose.errors import InputError
from modpose.limits import check_data_set
from modpose.simulate.digits import glyphs, place
from modpose.simulate.particles import Simulated

CHARACTERS = "aebdpijz2kxu"
"""Characters of the paper's section 2.5."""
SEEN = "abdeijzk"
"""Training characters of the paper's Figure 3."""
UNSEEN = "2xp"
"""Held-out characters of the paper's Figure 3."""
GLYPH = 0.75
"""Side of the square that a character is drawn in, as a fraction of the box."""


@dataclass(frozen=True)
class CharacterSettings:
    """A data set of characters."""

    n: int = 3000
    """Number of images."""
    characters: str = CHARACTERS
    """Classes; equally frequent, up to a remainder."""
    box: int = 64
    """Side of the images, pixels."""
    max_angle_deg: int = 45
    """Angles are whole degrees, uniform between − and + this (both ends excluded)."""
    max_shift_px: float = 0.0
    """Shifts are uniform between − and + this on each axis, pixels."""
    binary: bool = True
    """Pixels are 0 or 1, as in the paper; otherwise the grey values of smooth edges."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        different = len(set(self.characters)) == len(self.characters) > 0
        expectations = (
            ("n", self.n, self.n >= len(self.characters), "at least one of each character"),
            ("characters", repr(self.characters), different, "characters that differ"),
            ("box", self.box, self.box >= 16, "at least 16 pixels"),
            ("max_angle_deg", self.max_angle_deg, 1 <= self.max_angle_deg <= 180, "1 to 180"),
            (
                "max_shift_px",
                self.max_shift_px,
                0 <= self.max_shift_px < float("inf"),
                "0 or more",
            ),
            ("seed", self.seed, self.seed >= 0, "0 or more"),
        )
        for name, value, good, expected in expectations:
            if not good:
                raise InputError.of("alphanumeric", name, value, expected)
        lengths = (self.max_angle_deg, self.max_shift_px)
        check_data_set("alphanumeric", n=self.n, box=self.box, seed=self.seed, lengths=lengths)
        blank = next((one for one in self.characters if one.isspace()), None)
        if blank is not None:
            raise InputError.of("alphanumeric", "a character", repr(blank), "one with ink")


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

"""Do all images show one view?  The poses do not tell.

Images of one view can be arranged as views from many directions that a map explains as well.  But
one average in the plane, at every rotation in it, then explains nearly as much as this map.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from modpose.search.abinitio.images import SearchImages
from modpose.search.abinitio.settings import AbInitioSettings, StartPlan
from modpose.search.abinitio.start import best_start

PLANE = StartPlan(rounds=20, images=1000, memory=0.45, rotations=(48, 48), in_plane=True)


def explained_by_one_average(
    images: SearchImages, settings: AbInitioSettings, score: float
) -> float:
    """Return how much of the score of a random start one average in the plane reaches.

    Parameters
    ----------
    images
        N images.
    settings
        Those of the search.
    score
        Of the start, nats per image.
    """
    asked = replace(settings, classes=1, starts=1)
    flat, _ = best_start(images, asked, torch.eye(3)[None], PLANE, quiet=True)
    return flat.score / score

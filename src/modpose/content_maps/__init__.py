"""Sharp maps of every content: all posed images together, not only a linear model.

The volume is a sum of smooth functions of content, each times a map,

    V(z) = b_1(z) V_1 + ... + b_J(z) V_J,

and every image near z adds detail to V(z).  Sums of the images are kept, not the images.
"""

from __future__ import annotations

from modpose.content_maps.bands import Band
from modpose.content_maps.basis import ContentBasis
from modpose.content_maps.fit import fit_content_maps
from modpose.content_maps.focus import Focus
from modpose.content_maps.settings import ContentMapSettings
from modpose.content_maps.solution import ContentMaps, DrawnMap

__all__ = [
    "Band",
    "ContentBasis",
    "ContentMapSettings",
    "ContentMaps",
    "DrawnMap",
    "Focus",
    "fit_content_maps",
]

"""Settings of the fit of content maps."""

from __future__ import annotations

from dataclasses import dataclass

COUNTS = (1, 2, 3, 5, 9, 13, 17, 25, 50)
"""Numbers of functions that are compared."""
FIRST = 17
"""Largest number of functions of the first content, which no sharp map has told."""
IMAGES_EACH = 16
"""Smallest number of images for each function."""


@dataclass(frozen=True)
class ContentMapSettings:
    """Settings of :func:`modpose.content_maps.fit_content_maps`.

    Attributes
    ----------
    functions
        Number of functions of content; None: chosen by what the maps predict of other images.
    landmarks
        Contents between which the posterior of an image is spread.
    rounds
        How many times content is inferred again from the maps, at most: as long as the maps of
        inferred content predict images that they have not seen clearly better than those before.
    refine_poses
        Correct the given pose of each image a little, from the maps of its content.
    symmetry
        Point group of every map (:func:`modpose.geometry.groups.point_group`), its axes at n // 2.
    seed
        Of random choices.
    """

    functions: int | None = None
    landmarks: int = 300
    rounds: int = 6
    refine_poses: bool = False
    symmetry: str = "C1"
    seed: int = 0

    def most(self, images: int) -> int:
        """Return the largest number of functions for so many images."""
        fitting = (count for count in COUNTS if count == 1 or count * IMAGES_EACH <= images)
        return self.functions or max(fitting)

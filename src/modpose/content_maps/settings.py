"""Settings of the fit of content maps."""

from __future__ import annotations

from dataclasses import dataclass

COUNTS = (1, 2, 3, 5, 9, 13, 17, 25, 50, 75, 100)
"""Numbers of functions that are compared."""
FIRST = 17
"""Largest number of functions of the first content, which no sharp map has told."""
IMAGES_EACH = 16
"""Smallest number of images for each function."""
MOST_FROM_QUARTERS, IMAGES_EACH_MORE = 50, 100
"""Largest number of functions of maps of quarters; and images for each function, with more."""


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
    rounds: int = 8
    refine_poses: bool = False
    symmetry: str = "C1"
    seed: int = 0

    def most(self, images: int) -> int:
        """Return the largest number for maps of quarters of so many images."""
        return self.functions or _fitting(min(images // IMAGES_EACH, MOST_FROM_QUARTERS))

    def widest(self, images: int) -> int:
        """Return the largest number for maps of halves, or all, of so many images."""
        return self.functions or max(self.most(images), _fitting(images // IMAGES_EACH_MORE))


def _fitting(most: int) -> int:
    """Return the largest of the numbers that are compared, up to this one."""
    return max(count for count in COUNTS if count <= max(most, 1))

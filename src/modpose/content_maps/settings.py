"""Settings of the fit of content maps."""

from __future__ import annotations

from dataclasses import dataclass


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
        How many times content is inferred again from the maps, at most: fewer where the maps of
        inferred content predict images that they have not seen no better than those before.
    refine_poses
        Correct the given pose of each image a little, from the maps of its content.
    seed
        Of random choices.
    """

    functions: int | None = None
    landmarks: int = 200
    rounds: int = 2
    refine_poses: bool = False
    seed: int = 0

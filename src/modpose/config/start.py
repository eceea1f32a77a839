"""``train.start``: what is found in the data before the first step of training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from modpose.config.section import Count, Frozen, Scale, Steps


class AlignmentStartConfig(Frozen):
    """Subtomograms: search every pose and class from nothing, average, find motions.

    The field starts as the averages and motions; the poses teach the encoder.
    """

    kind: Literal["alignment"] = "alignment"
    classes: int = Field(1, ge=1, le=1000)
    """How many structures are told apart."""
    motions: int = Field(1, ge=0, le=8)
    """Principal motions within each class that content starts with."""
    rounds: int = Field(40, ge=1, le=100_000)
    """Of the search from a random start."""
    refine_rounds: int = Field(10, ge=1, le=100_000)
    """Of the refinement in two independent halves."""
    rotations: int = Field(1000, ge=24, le=1_000_000)
    """Of the grid."""
    mask_diameter_px: Scale | None = None
    """Averages are zero beyond this sphere, voxels; null: the box less four voxels."""


class SubspacesStartConfig(Frozen):
    """Clear pictures: find classes and angles by aligned linear subspaces, with no network.

    The field starts with each class upright at a place of its own in content space, the polar
    encoder with knowing that place and the centre.  A prior of the angle decides how classes stand.
    """

    kind: Literal["subspaces"] = "subspaces"
    classes: int = Field(10, ge=1, le=1000)
    """How many kinds of object are told apart."""
    images: Count = 8000
    """Images that classes are sought among, at most."""
    steps: Steps = 600
    """Batches from which the model is taught what was found."""


StartConfig = Annotated[AlignmentStartConfig | SubspacesStartConfig, Field(discriminator="kind")]

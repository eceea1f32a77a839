"""``train.start``: searches in the data before the first training step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from modpose.config.fields import BasisFieldConfig
from modpose.config.section import Count, Frozen, Scale, Steps
from modpose.errors import InputError

if TYPE_CHECKING:
    from modpose.config.facts import Facts

LEAST_IMAGES = 20
"""Smallest number of images per class for aligned subspaces."""


class AlignmentStartConfig(Frozen):
    """Subtomograms: find poses and classes, or take those of the table; average, find motions.

    The field starts with the averages and motions; the poses train the encoder.
    """

    kind: Literal["alignment"] = "alignment"
    classes: int = Field(1, ge=1, le=1000)
    """Number of structures."""
    poses: Literal["search", "given"] = "search"
    """``given``: refine the poses and classes of the table, without a search."""
    motions: int = Field(1, ge=0, le=8)
    """Number of principal motions within each class at the start of content."""
    rounds: int = Field(40, ge=1, le=100_000)
    """Rounds of the search from a random start."""
    refine_rounds: int = Field(10, ge=1, le=100_000)
    """Rounds of the refinement in two independent halves."""
    rotations: int = Field(1000, ge=24, le=1_000_000)
    """Number of rotations in the grid."""
    mask_diameter_px: Scale | None = None
    """Diameter of the sphere outside which averages are zero, voxels; null: the box minus four."""
    volumes: Count | None = None
    """Largest number of volumes that are aligned and trained on, chosen at random; the others are
    only encoded.  null: all, or as many as ``--max-minutes`` leaves time for.
    """

    def check(self, facts: Facts) -> None:
        """Refuse an encoder that does not learn poses, and a field with too few volumes."""
        model = facts.config.model
        facts.require(
            "model.encoder.kind",
            model.encoder.kind,
            "octahedral",
            beside="with train.start.kind alignment",
        )
        pictures = self.classes * (1 + self.motions)
        if isinstance(model.field, BasisFieldConfig) and pictures > model.field.count:
            expected = f"at most {model.field.count}, the pictures of model.field.count"
            raise InputError.of("train.start", "classes with their motions", pictures, expected)


class SubspacesStartConfig(Frozen):
    """Clear pictures: find classes and angles by aligned linear subspaces, without a network.

    The field starts with each class upright at its own position in content space; the polar encoder
    starts with these positions and the centres.  A prior of the angle decides how classes are
    rotated.
    """

    kind: Literal["subspaces"] = "subspaces"
    classes: int = Field(10, ge=1, le=1000)
    """Number of classes."""
    images: Count = 8000
    """Largest number of images for the search of classes."""
    steps: Steps = 600
    """Number of batches in which the model learns the result."""

    def check(self, facts: Facts) -> None:
        """Refuse models without centres and angles, and encoders that cannot learn them."""
        config, beside = facts.config, "with train.start.kind subspaces"
        model = config.model
        facts.require("model.encoder.kind", model.encoder.kind, "polar", beside=beside)
        prior = model.rotation.prior
        facts.require("model.rotation.prior", prior, "uniform", "gaussian", beside=beside)
        facts.require("model.shift.prior", model.shift.prior, "gaussian", beside=beside)
        facts.require("data.twin", config.data.twin, "none", beside=beside)
        if facts.n_train is None:
            return
        count, least = min(self.images, facts.n_train), LEAST_IMAGES * self.classes
        if count < least:
            expected = f"at least {least}, {LEAST_IMAGES} for each of {self.classes} classes"
            option = "the number of images to find classes in"
            raise InputError.of(facts.name, option, count, expected)


StartConfig = Annotated[AlignmentStartConfig | SubspacesStartConfig, Field(discriminator="kind")]

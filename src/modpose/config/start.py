"""``train.start``: what is found in the data before the first step of training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from modpose.config.fields import BasisFieldConfig
from modpose.config.section import Count, Frozen, Scale, Steps
from modpose.errors import InputError

if TYPE_CHECKING:
    from modpose.config.facts import Facts

LEAST_IMAGES = 20
"""For each class that is sought by aligned subspaces."""


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

    def check(self, facts: Facts) -> None:
        """Refuse an encoder that is not taught poses, and too few pictures for what is found."""
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

    def check(self, facts: Facts) -> None:
        """Refuse where there are no centres and angles to find, or no encoder to teach them."""
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

"""``train``: the training."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field

from modpose.config.section import Count, Epochs, Frozen, Rate, Scale, Steps, Weight
from modpose.config.start import StartConfig
from modpose.errors import InputError

if TYPE_CHECKING:
    from modpose.config.facts import Facts

Shape = Literal["constant", "linear", "cyclic", "cyclic-sigmoid", "cyclic-cosine"]
SYNONYMS = {"flat": "constant", "ramp": "linear", "cyclic-linear": "cyclic"}
"""Names of the same schedules in affinity-VAE's program."""
OVER_Z_DIM = "1/z_dim"
"""Word for a value of ``train.beta.end``; it is replaced by the number when it is read."""
SIGMOID_REACH = 3.0
"""A sigmoid rise is the logistic function from -6 to 6, scaled to run from 0 to 1 exactly."""


class Schedule(Frozen):
    """A weight during training: ``end`` throughout, or a rise from ``start`` to ``end``.

    The weight of the content KL starts to rise when content is released (``train.delay_z_steps``).
    ``cyclic`` repeats: each cycle rises over its first half (as a line, a sigmoid or half a cosine
    wave) and stays constant over the second.
    """

    kind: Annotated[Shape, BeforeValidator(lambda name: SYNONYMS.get(str(name), name))] = "constant"
    start: Weight = 0.0
    end: Weight = 1.0
    steps: int = Field(1000, ge=1, le=10**9)
    """Length of the ramp, or of one cycle, in training steps."""

    @property
    def used(self) -> bool:
        """Whether the weight is ever above zero."""
        return self.end > 0 or (self.kind != "constant" and self.start > 0)

    def at(self, step: int) -> float:
        """Return the weight ``step`` steps after the start of the rise."""
        if self.kind == "constant":
            return self.end
        done = step / self.steps
        if self.kind != "linear":  # each cycle rises over its first half, then stays
            done = 2 * (done % 1.0)
        risen = min(1.0, done)
        if self.kind == "cyclic-sigmoid":
            reached = math.tanh(SIGMOID_REACH * (2 * risen - 1)) / math.tanh(SIGMOID_REACH)
            risen = 0.5 + 0.5 * reached
        elif self.kind == "cyclic-cosine":
            risen = 0.5 - 0.5 * math.cos(math.pi * risen)
        return self.start + (self.end - self.start) * risen


class AugmentConfig(Frozen):
    """Random changes of training images in each epoch; validation images do not change."""

    rotate: Literal["none", "encoder-input", "quarter-turns", "any"] = "none"
    """``encoder-input``: rotate only the encoder's input, by a random angle, and subtract this
    angle from the inferred one.  This is for pictures at any rotation, so not with a narrow
    ``gaussian`` prior of the angle (except for the polar encoder, which rotates its prior too).
    ``quarter-turns``: rotate the image about its centre by one of the 4 (volumes: 24) rotations
    that need no interpolation.  ``any``: by any rotation (volumes: Haar-uniform), with linear
    interpolation.
    """
    shift_px: int = Field(0, ge=0, le=65_536)
    """Largest shift of the image on each axis, in whole pixels.  Pixels that leave on one side
    return on the other, so that the noise does not change.
    """

    @property
    def moves_images(self) -> bool:
        """Whether the images themselves change, and not only the encoder's input."""
        return self.rotate in ("quarter-turns", "any") or self.shift_px > 0

    def check(self, facts: Facts) -> None:
        """Refuse to move images with data that would have to move with them."""
        if self.rotate == "encoder-input" and facts.dim not in (2, None):
            expected = "quarter-turns, any or none for volumes"
            raise facts.refusal("train.augment.rotate", self.rotate, expected)
        if not self.moves_images:
            return
        turns = self.rotate != "none"  # a CTF and a wedge do not rotate with the image
        bound = {
            "a lookup table of their posteriors": facts.config.model.encoder.kind == "table",
            "a contrast transfer function": turns and facts.ctf,
            "a missing wedge": turns and facts.wedge,
            "given poses": facts.poses,
            "twins": facts.config.data.twin != "none",
        }
        option, found, expected = "train.augment.shift_px", str(self.shift_px), "0"
        if turns:
            option, found, expected = "train.augment.rotate", self.rotate, "none"
        for reason, holds in bound.items():
            if holds:
                raise facts.refusal(option, found, f"{expected} for images with {reason}")


class CosineConfig(Frozen):
    """The cosine of two contents: for many dimensions.  In two they are points on a circle."""

    kind: Literal["cosine"] = "cosine"
    temperature: Scale = 0.2
    """Temperature; a lower one separates neighbours more."""


class CauchyConfig(Frozen):
    """1 / (1 + d² / width²) at a distance d (Böhm et al. 2023): for two dimensions."""

    kind: Literal["cauchy"] = "cauchy"
    width: Scale = 0.2
    """Contents much closer than this are similar."""


SimilarityConfig = Annotated[CosineConfig | CauchyConfig, Field(discriminator="kind")]


class ContrastConfig(Frozen):
    """A term that makes content ignore small deformations (:mod:`modpose.model.terms.contrast`).

    For clear pictures of objects in classes whose members differ by small deformations.  In strong
    noise, content may learn to recognise the noise of an image.
    """

    weight: float = Field(40.0, gt=0, le=1e9)
    """Weight of the term relative to the bound, both in nats."""
    similarity: SimilarityConfig = CosineConfig()
    """Similarity of two contents."""
    stretch: float = Field(0.35, ge=0, lt=0.5)
    """Largest change of each entry of the linear map: a picture is stretched, squeezed and
    sheared."""
    bend: float = Field(0.04, ge=0, le=1)
    """S.d. of additional smooth displacements, in sides of the box."""
    grey: float = Field(0.5, ge=0, le=10)
    """S.d. of the logarithm of the exponent of grey values, which makes strokes thinner or
    thicker.
    """

    def check(self, facts: Facts) -> None:
        """Refuse models without pictures, or without a network that reads them."""
        config, beside = facts.config, "with train.contrast"
        model = config.model
        facts.require_dim(2, beside=beside)
        facts.require("data.twin", config.data.twin, "none", beside=beside)
        facts.require("model.poses", model.poses, "inferred", beside=beside)
        for option, found, sound, expected in (
            ("model.encoder.kind", model.encoder.kind, model.encoder.kind != "table", "a network"),
            (
                "model.z_dim",
                model.z_dim,
                model.z_dim > 1 or self.similarity.kind == "cauchy",
                "2 or more, whose cosines differ",
            ),
        ):
            if not sound:
                raise facts.refusal(option, found, f"{expected} {beside}")


class SoftCellsConfig(Frozen):
    """A Gumbel-softmax sample whose weights mix the parameters of the cells (TARGET-VAE)."""

    kind: Literal["soft"] = "soft"
    temperature: Scale = 1.0


class TopCellsConfig(Frozen):
    """An expectation over the most probable cells, each decoded separately."""

    kind: Literal["top"] = "top"
    count: Count = 4


CellsConfig = Annotated[SoftCellsConfig | TopCellsConfig, Field(discriminator="kind")]


class TrainConfig(Frozen):
    """The training of a model."""

    start: StartConfig | None = None
    """Search before the first step; null starts from random networks."""
    epochs: Epochs = 100
    batch_size: Count = 100
    chunk: Count | None = None
    """Images per gradient computation, to save memory; the gradients of a batch are added up.
    null: the whole batch.
    """
    lr: Rate = 1e-4
    schedule: Literal["constant", "plateau", "cosine"] = "constant"
    plateau_epochs: Epochs = 10
    """``plateau``: halve the rate after this many epochs without a better validation ELBO."""
    warmup_steps: Steps = 0
    """Raise the rate from zero over this many steps."""
    stop_epochs: Epochs | None = None
    """Stop after this many epochs without a better validation ELBO."""
    pixels: int | None = Field(None, ge=1, le=10**9)
    """Number of random pixels per step that estimate the reconstruction term without bias; null:
    every pixel.
    """
    decoded_images: Count | None = None
    """Number of images of a batch (or chunk) that estimate its reconstruction term without bias;
    null: every image.  If decoding is slow, the encoder sees more images in the same time.
    """
    delay_z_steps: Steps = 0
    """Hold content at zero for this many first steps (at most a quarter of the run), so that pose
    is learned first.
    """
    beta: Schedule = Schedule()
    """Weight of the content KL; ``end`` may be ``1/z_dim``, one over the dimensions of content
    (cryoDRGN)."""
    angle_prior: Schedule = Schedule()
    """Weight of a ``gaussian`` prior of the angle in the search of the polar encoder.  It is
    larger at first, so that everything is drawn at the mean of the prior: later, training cannot
    rotate it.
    """
    gamma: Schedule = Schedule(end=0.0)
    """Weight of the affinity term, which needs an affinity matrix (--affinity)."""
    affinity: Literal["ordered-pairs", "pair-mean"] = "ordered-pairs"
    """Form of the affinity term.  ``ordered-pairs``: the sum over all ordered pairs of a batch,
    divided by the number of images (Mirecka et al., equation 3).  ``pair-mean``: the mean over
    pairs, as in the reference program; smaller by about the batch size.  With ``chunk`` the pairs
    are those of a chunk.
    """
    augment: AugmentConfig = AugmentConfig()
    contrast: ContrastConfig | None = None
    """Also train content not to change with small deformations; null: no.  With ``chunk``, images
    are compared only within their chunk.
    """
    cells: CellsConfig = SoftCellsConfig()
    """Training of encoders with many hypotheses of the pose; validation draws hard cells."""
    restarts: int = Field(1, ge=1, le=1000)
    """Number of short starts from different seeds; the one with the best validation ELBO
    continues.
    """
    restart_epochs: Epochs = 5
    max_grad_norm: Scale | None = None
    threads: int = Field(1, ge=1, le=1024)
    """CPU threads of a fit.  Small networks on few pixels are slower with more than one; use more
    if every pixel of large images is decoded.
    """
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"

    def check(self, facts: Facts) -> None:
        """Refuse an affinity without a weight, and a weight without an affinity."""
        if facts.affinity and not self.gamma.used:
            expected = "a weight for the affinity that is given (--gamma)"
            raise facts.refusal("train.gamma.end", self.gamma.end, expected)
        if self.gamma.used and facts.affinity is False:
            raise InputError(
                f"recipe {facts.config.recipe}: the affinity matrix is missing, expected "
                "--affinity with --labels, --sample-affinity, or --gamma 0"
            )

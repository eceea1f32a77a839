"""``train``: how the evidence lower bound is climbed."""

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
"""Names that affinity-VAE's program has for the same."""
OVER_Z_DIM = "1/z_dim"
"""What ``train.beta.end`` may be in place of a number, which takes its place when it is read."""
SIGMOID_REACH = 3.0
"""A sigmoid rise is the logistic function from -6 to 6, stretched to go from 0 to 1 exactly."""


class Schedule(Frozen):
    """A weight as training goes on: ``end`` throughout, or a rise from ``start`` to it.

    The weight of the content KL begins to rise when content is let go (``train.delay_z_steps``).
    ``cyclic`` repeats, each cycle rising over its first half (in a line, a sigmoid or half a wave
    of the cosine) and staying for the second.
    """

    kind: Annotated[Shape, BeforeValidator(lambda name: SYNONYMS.get(str(name), name))] = "constant"
    start: Weight = 0.0
    end: Weight = 1.0
    steps: int = Field(1000, ge=1, le=10**9)
    """Length of the ramp, or of one cycle, in training steps."""

    @property
    def used(self) -> bool:
        """Whether the weight is ever more than zero."""
        return self.end > 0 or (self.kind != "constant" and self.start > 0)

    def at(self, step: int) -> float:
        """Weight ``step`` steps after it began to rise."""
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
    """How training images are changed, each afresh every epoch; validation images are not."""

    rotate: Literal["none", "encoder-input", "quarter-turns", "any"] = "none"
    """``encoder-input``: turn what the encoder sees, not what is reconstructed, by any angle, and
    take it off the inferred one; for pictures turned any way, so not with a narrow ``gaussian``
    prior of the angle, but for the polar encoder, whose prior turns along.  ``quarter-turns``: turn
    the image about its centre by one of the 4 (volumes: 24) turns that need no interpolation.
    ``any``: by any turn (volumes: Haar-uniform), with linear interpolation."""
    shift_px: int = Field(0, ge=0, le=65_536)
    """Largest shift of the image on each axis, in whole pixels; what leaves the box on one side
    comes in on the other, so that noise stays what it is."""

    @property
    def moves_images(self) -> bool:
        """Whether the images themselves are changed, and not only what the encoder sees."""
        return self.rotate in ("quarter-turns", "any") or self.shift_px > 0

    def check(self, facts: Facts) -> None:
        """Refuse to move images of which something is known that would have to move with them."""
        if self.rotate == "encoder-input" and facts.dim not in (2, None):
            expected = "quarter-turns, any or none for volumes"
            raise facts.refusal("train.augment.rotate", self.rotate, expected)
        if not self.moves_images:
            return
        turns = self.rotate != "none"  # a CTF and a wedge do not turn with the image
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
    """Lower asks for more distance between neighbours."""


class CauchyConfig(Frozen):
    """1 / (1 + d² / width²) at a distance d (Böhm et al. 2023): for two dimensions."""

    kind: Literal["cauchy"] = "cauchy"
    width: Scale = 0.2
    """Contents much nearer than this are alike."""


SimilarityConfig = Annotated[CosineConfig | CauchyConfig, Field(discriminator="kind")]


class ContrastConfig(Frozen):
    """A term that makes content forget small deformations (:mod:`modpose.model.terms.contrast`).

    For clear pictures of objects that come in classes, whose members differ by how they are bent.
    In strong noise it may learn to tell the noise of one image from that of another.
    """

    weight: float = Field(40.0, gt=0, le=1e9)
    """Nats of the bound that a nat of the term is worth."""
    similarity: SimilarityConfig = CosineConfig()
    """How alike two contents are."""
    stretch: float = Field(0.35, ge=0, lt=0.5)
    """Largest change of each entry of the linear map: a picture is stretched, squeezed and
    sheared."""
    bend: float = Field(0.04, ge=0, le=1)
    """S.d. of smooth displacements on top, in sides of the box."""
    grey: float = Field(0.5, ge=0, le=10)
    """S.d. of the logarithm of the power that grey values are raised to, which makes strokes
    thinner or thicker."""

    def check(self, facts: Facts) -> None:
        """Refuse where there are no pictures to deform, or no network that sees them."""
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
    """An expectation over the most probable cells, each decoded by itself; nothing is mixed."""

    kind: Literal["top"] = "top"
    count: Count = 4


CellsConfig = Annotated[SoftCellsConfig | TopCellsConfig, Field(discriminator="kind")]


class TrainConfig(Frozen):
    """How the ELBO is climbed."""

    start: StartConfig | None = None
    """What is found in the data before the first step; null starts from random networks."""
    epochs: Epochs = 100
    batch_size: Count = 100
    chunk: Count | None = None
    """Images whose gradients are computed at once, to save memory; those of a batch are added up.
    null takes the whole batch."""
    lr: Rate = 1e-4
    schedule: Literal["constant", "plateau", "cosine"] = "constant"
    plateau_epochs: Epochs = 10
    """``plateau``: halve the rate after so many epochs without a better validation ELBO."""
    warmup_steps: Steps = 0
    """Raise the rate from zero over so many steps."""
    stop_epochs: Epochs | None = None
    """Stop after so many epochs without a better validation ELBO."""
    pixels: int | None = Field(None, ge=1, le=10**9)
    """Number of pixels, drawn afresh each step, that estimate the reconstruction term without
    bias; null takes every pixel."""
    decoded_images: Count | None = None
    """Number of images of a batch (or chunk) that estimate its reconstruction term without bias;
    null takes every image. Where decoding takes longest, the encoder sees more for the time."""
    delay_z_steps: Steps = 0
    """Hold content at zero for the first steps (at most a quarter of the run), so that pose is
    learned first."""
    beta: Schedule = Schedule()
    """Weight of the content KL; ``end`` may be ``1/z_dim``, one over the dimensions of content
    (cryoDRGN)."""
    angle_prior: Schedule = Schedule()
    """How many times a ``gaussian`` prior of the angle counts where the polar encoder searches for
    it.  More at first, so that everything is drawn as the mean of the prior has it: once it is
    drawn, no slope turns it."""
    gamma: Schedule = Schedule(end=0.0)
    """Weight of the affinity term, which needs an affinity matrix (--affinity)."""
    affinity: Literal["ordered-pairs", "pair-mean"] = "ordered-pairs"
    """What the affinity term adds up.  ``ordered-pairs``: every pair of a batch, both ways, over
    the number of images (Mirecka et al., equation 3).  ``pair-mean``: the mean over pairs, as the
    reference program has it; about a batch size less.  With ``chunk`` the pairs are those of a
    chunk."""
    augment: AugmentConfig = AugmentConfig()
    contrast: ContrastConfig | None = None
    """Also train content not to change with small deformations; null does not.  With ``chunk``
    images are told from those of their chunk."""
    cells: CellsConfig = SoftCellsConfig()
    """How encoders with many hypotheses of the pose are trained; validation draws hard cells."""
    restarts: int = Field(1, ge=1, le=1000)
    """Short starts from different seeds; the one with the best validation ELBO goes on."""
    restart_epochs: Epochs = 5
    max_grad_norm: Scale | None = None
    threads: int = Field(1, ge=1, le=1024)
    """CPU threads of a fit: small networks on few pixels are slower with more than one; give more
    where every pixel of large images is decoded."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"

    def check(self, facts: Facts) -> None:
        """Refuse an affinity that nothing weighs, and a weight without an affinity."""
        if facts.affinity and not self.gamma.used:
            expected = "a weight for the affinity that is given (--gamma)"
            raise facts.refusal("train.gamma.end", self.gamma.end, expected)
        if self.gamma.used and facts.affinity is False:
            raise InputError(
                f"recipe {facts.config.recipe}: the affinity matrix is missing, expected "
                "--affinity with --labels, --sample-affinity, or --gamma 0"
            )

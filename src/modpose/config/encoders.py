"""``model.encoder``: the network that proposes the posterior of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, InstanceOf, SerializeAsAny, Tag

from modpose.config.section import (
    OTHER,
    Activation,
    CellRole,
    Depth,
    EncoderSection,
    Rate,
    Weight,
    Width,
    tag_in_union,
)
from modpose.errors import InputError

if TYPE_CHECKING:
    from modpose.config.facts import Facts
    from modpose.config.model import ModelConfig

KERNEL_OF_BOX, PADDING_OF_BOX = 0.56, 0.16
"""Side of the orbit encoder's kernels and of its padding, as fractions of the box."""


class MlpEncoderConfig(EncoderSection):
    """A perceptron on the flattened image (spatial-VAE)."""

    kind: Literal["mlp"] = "mlp"
    hidden: Width = 500
    depth: Depth = 2
    activation: Activation = "tanh"
    residual: bool = False
    sees: Literal["image", "transform", "aligned"] = "image"
    """Input from each image.  With given poses also: ``transform``, its Fourier transform with the
    shift undone and phases flipped by the sign of the CTF (cryoDRGN); ``aligned``, the same as a
    picture, weighted by CTF and noise and rotated in the plane, and the viewing direction.
    """

    def check(self, facts: Facts) -> None:
        """Refuse a transform as input if there is none."""
        super().check(facts)
        if self.sees != "image" and not facts.config.model.field.spectral:
            expected = "image, because there is no transform"
            raise facts.refusal("model.encoder.sees", self.sees, expected)


class TableEncoderConfig(EncoderSection):
    """A lookup table: one row of variational parameters per image, no network."""

    kind: Literal["table"] = "table"
    init: Literal["zeros", "random", "pretrained"] = "zeros"
    """Start of content.  ``zeros``: every mean 0 and every log σ² -8, as published.  ``random``:
    means from N(``mean``, ``spread``²), log s.d. from N(``log_std``, ``log_std_spread``²); these
    four options are only for it.  ``pretrained``: from the run ``run``.
    """
    mean: float = Field(0.0, ge=-1e6, le=1e6)
    spread: Weight = 1.0
    log_std: float = Field(0.0, ge=-50, le=50)
    log_std_spread: float = Field(0.0, ge=0, le=50)
    run: str | None = None
    """For ``pretrained``: folder of a run that was fitted to the same images."""
    frozen: bool = False
    """Keep the rows at their start and train only the field."""
    lr: Rate = 1e-2
    """Learning rate of the rows (the field has its own, ``train.lr``)."""

    def check(self, facts: Facts) -> None:
        """Refuse held-out images, because a table has no rows for them."""
        super().check(facts)
        held_out = facts.config.data.val_fraction
        if held_out > 0 and facts.n_train is not None:
            expected = (
                "0 with a lookup table, which has no rows for images that it is not fitted to"
            )
            raise facts.refusal("data.val_fraction", held_out, expected)


class OrbitEncoderConfig(EncoderSection):
    """A group convolution (TARGET-VAE): one cell per position and rotation of its kernels."""

    mirrors: ClassVar[bool] = True
    flat: ClassVar[bool] = True
    kind: Literal["orbit"] = "orbit"
    rotations: int = Field(8, ge=1, le=64)
    """Number of rotations of the kernels, the n of P_n; 1 is an ordinary convolution."""
    channels: Width = 128
    """Number of kernels, and width of the following layers."""
    kernel: int | None = Field(None, ge=3, le=4096)
    """Side of the kernels, pixels; they should contain the whole object; null: a little over half
    of the box (28 of 50).
    """
    padding: int | None = Field(None, ge=0, le=4096)
    """Zeros around the image, pixels; null: about a sixth of the box (8 of 50)."""
    stride: int = Field(1, ge=1, le=4096)
    """Distance of translation cells, pixels; above 1, ``subpixel`` keeps shifts accurate."""
    subpixel: bool = False
    """Let each cell also infer a residual shift; its prior is N(0, (stride/2)²)."""
    depth: int = Field(2, ge=0, le=64)
    """Hidden layers, acting on each cell alone, between the convolution and the output."""
    activation: Activation = "leaky-relu"
    infer_rotation: bool = True
    """Infer the rotation of the kernel (not in variants 1 and 2 of Table 4: one cell per
    position).
    """
    add_offset: bool = True
    """Centre each cell's angle at its rotation (not in variant 3 of Table 4)."""

    def check(self, facts: Facts) -> None:
        """Refuse kernels that do not fit the box, and priors that its cells do not support."""
        super().check(facts)
        model = facts.config.model
        if model.rotation.prior == "wide":
            expected = "uniform, gaussian or none with an orbit encoder"
            raise facts.refusal("model.rotation.prior", "wide", expected)
        if facts.shape is None:
            return
        box, centred = min(facts.shape), not model.shift.inferred
        kernel, padding = self.sizes(box, centred)
        where = "the orbit encoder"
        if centred and kernel % 2 == 0:
            expected = "an odd side, so that its middle is a pixel, if the shift is not inferred"
            raise InputError.of(where, "model.encoder.kernel", kernel, expected)
        if kernel > box + 2 * padding and not centred:
            expected = f"at most {box + 2 * padding}, the padded box of {box} pixels"
            raise InputError.of(where, "model.encoder.kernel", kernel, expected)

    def sizes(self, box: int, centred: bool) -> tuple[int, int]:
        """Return kernel and padding, pixels; by default proportional to the box.

        The default grid of cells is symmetric about the middle of a square box, so quarter turns
        of the image permute the cells exactly.
        """
        kernel, padding = self.kernel, self.padding
        if kernel is None:
            kernel = max(box - 2 * round((1 - KERNEL_OF_BOX) / 2 * box), 1)
            kernel += centred and kernel % 2 == 0
        if padding is None:
            padding = least = round(PADDING_OF_BOX * box)
            for wider in range(least, least + self.stride):
                if (box + 2 * wider - kernel) % self.stride == 0:
                    return kernel, wider
        return kernel, padding

    def infers_rotation(self, model: ModelConfig) -> bool:
        """Whether the discrete rotation is a latent variable: q(t, r) and not only q(t)."""
        return self.infer_rotation and self.rotations > 1 and model.rotation.inferred

    def cell_role(self, model: ModelConfig) -> CellRole:
        """Return which parts of the pose its cells give."""
        shift = model.shift.inferred
        return CellRole(
            angle=self.infers_rotation(model) and self.add_offset,
            shift=shift,
            shift_residual=shift and self.subpixel,
        )


class OctahedralEncoderConfig(EncoderSection):
    """Volumes: rotations proposed on the 24 rotations of the cube, optimised on model volumes."""

    kind: Literal["octahedral"] = "octahedral"
    limit: float = Field(0.18, gt=0, lt=0.5)
    """Highest frequency that the network sees, cycles per voxel."""
    climb_limit: float = Field(0.3, gt=0, lt=0.5)
    """Highest frequency for comparing and optimising proposals."""
    cells: int = Field(16, ge=1, le=4096)
    """Number of rotations near each of the 24 that are distinguished."""
    hidden: int = Field(512, ge=2, le=65_536)
    depth: Depth = 3
    activation: Activation = "silu"
    proposals: int = Field(8, ge=1, le=1000)
    """Number of poses that the network proposes for comparison with the model's volumes."""
    hypotheses: int = Field(2, ge=1, le=1000)
    """Number of the best of them that are optimised; each is a cell of the posterior."""
    max_shift_px: float = Field(3.0, gt=0, le=4096)
    """Largest shift along an axis, voxels."""
    codebook: int = Field(8, ge=1, le=10_000)
    """Number of contents whose volumes are compared with proposals."""
    drawn: int = Field(8, ge=0, le=10_000)
    """Number of volumes drawn from the model for training the network, per real volume."""

    def check(self, facts: Facts) -> None:
        """Refuse a model without the field or the start that it needs."""
        model, start = facts.config.model, facts.config.train.start
        beside = "with the octahedral encoder"
        facts.require_dim(3, beside=beside)
        for option, found, expected in (
            ("model.field.kind", model.field.kind, "basis"),
            ("model.rotation.prior", model.rotation.prior, "uniform"),
            ("model.shift.prior", model.shift.prior, "gaussian"),
            ("model.likelihood.kind", model.likelihood.kind, "gaussian"),
            ("train.start.kind", "null" if start is None else start.kind, "alignment"),
        ):
            facts.require(option, found, expected, beside=beside)
        facts.require_shape("the octahedral encoder", 3, "1, cubes")


class PolarEncoderConfig(EncoderSection):
    """Centre by attention, angle by correlation with the model's own picture (modpose)."""

    shared_content: ClassVar[bool] = True
    flat: ClassVar[bool] = True
    kind: Literal["polar"] = "polar"
    angles: int = Field(64, ge=8, le=4096, multiple_of=4)
    """Number of angles that are compared; a parabola through the best interpolates."""
    radius: float = Field(1.0, gt=0, le=2)
    """Radius of the disc that is read, as a fraction of the half box."""
    hypotheses: int = Field(2, ge=1, le=1000)
    """Number of proposed angles, each a cell."""
    first_look: Weight = 0.5
    """Weight of the first pass's own bound in the training of the encoder.  The first pass rotates
    the image upright for the second.  0: it is trained only through the second pass.
    """
    channels: int = Field(32, ge=4, le=65_536)
    """Width of the circular convolutions; doubled in the last two."""
    hidden: int = Field(512, ge=2, le=65_536)
    activation: Activation = "leaky-relu"
    read_again: int = Field(2, ge=0, le=8)
    """Times that a trained model reads an image again, along the axis of the object.  Results then
    follow rotations of the image more exactly.  0: read once (runs of version 0.1)."""


class ConvEncoderConfig(EncoderSection):
    """Strided convolutions in 2-D or 3-D, each halving the box (affinity-VAE)."""

    kind: Literal["conv"] = "conv"
    channels: Width = 8
    """Channels of the first layer; each further layer has twice as many."""
    depth: int = Field(3, ge=1, le=16)
    widths: tuple[Width, ...] | None = Field(None, min_length=1)
    """Channels of every layer, in place of ``channels`` and ``depth``."""
    kernel: int = Field(3, ge=2, le=9)
    hidden: int = Field(0, ge=0, le=65_536)
    """Width of a fully connected layer after the convolutions; 0: none."""
    activation: Activation = "relu"
    normalize: Literal["none", "group"] = "none"
    """``group``: normalise each layer over groups of its channels, image by image."""


class PrincipalEncoderConfig(EncoderSection):
    """The exact posterior of the motions of a ``principal`` field, corrected by a perceptron."""

    kind: Literal["principal"] = "principal"
    hidden: Width = 128
    depth: Depth = 2
    activation: Activation = "silu"

    def check(self, facts: Facts) -> None:
        """Refuse a field without motions."""
        field = facts.config.model.field.kind
        if field != "principal":
            expected = "principal, whose motions the encoder principal needs"
            raise facts.refusal("model.field.kind", field, expected)


class HarmonicEncoderConfig(EncoderSection):
    """Rotation-invariant content from powers of learned radial profiles of harmonics."""

    kind: Literal["harmonic"] = "harmonic"
    lmax: int = Field(8, ge=0, le=256)
    """Highest degree of the spherical (in 2-D: circular) harmonics."""
    profiles: int = Field(16, ge=1, le=4096)
    """Number of learned radial profiles for each degree."""
    hidden: Width = 128
    """Width of the perceptrons from powers to content and from harmonics to pose."""
    depth: Depth = 2
    activation: Activation = "relu"
    dropout: float = Field(0.0, ge=0, lt=1)
    """Fraction of the powers that training leaves out, at random in each step."""


OWN_ENCODERS = {"mlp", "harmonic", "table", "octahedral", "orbit", "polar", "conv", "principal"}


EncoderConfig = Annotated[
    Annotated[MlpEncoderConfig, Tag("mlp")]
    | Annotated[HarmonicEncoderConfig, Tag("harmonic")]
    | Annotated[TableEncoderConfig, Tag("table")]
    | Annotated[OctahedralEncoderConfig, Tag("octahedral")]
    | Annotated[OrbitEncoderConfig, Tag("orbit")]
    | Annotated[PolarEncoderConfig, Tag("polar")]
    | Annotated[ConvEncoderConfig, Tag("conv")]
    | Annotated[PrincipalEncoderConfig, Tag("principal")]
    | Annotated[SerializeAsAny[InstanceOf[EncoderSection]], Tag(OTHER)],
    tag_in_union(EncoderSection, OWN_ENCODERS),
]

"""``model.encoder``: what proposes the posterior of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, InstanceOf, SerializeAsAny, Tag

from modpose.config.section import (
    Activation,
    CellRole,
    Depth,
    EncoderSection,
    Rate,
    Weight,
    Width,
    kind_of,
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
    """What of each image.  With given poses also: ``transform``, its Fourier transform with the
    shift undone and phases flipped by the sign of the CTF (cryoDRGN); ``aligned``, the same as a
    picture, weighted by CTF and noise and turned in the plane, and the direction of view."""

    def check(self, facts: Facts) -> None:
        """Refuse to see a transform where there is none."""
        super().check(facts)
        if self.sees != "image" and not facts.config.model.field.spectral:
            expected = "image, where there is no transform"
            raise facts.refusal("model.encoder.sees", self.sees, expected)


class TableEncoderConfig(EncoderSection):
    """A lookup table: one row of variational parameters an image, no network."""

    kind: Literal["table"] = "table"
    init: Literal["zeros", "random", "pretrained"] = "zeros"
    """How content starts.  ``zeros``: every mean 0 and every log σ² -8, as published.  ``random``:
    means of N(``mean``, ``spread``²), log s.d. of N(``log_std``, ``log_std_spread``²); the four are
    for it alone.  ``pretrained``: as run ``run`` has it."""
    mean: float = Field(0.0, ge=-1e6, le=1e6)
    spread: Weight = 1.0
    log_std: float = Field(0.0, ge=-50, le=50)
    log_std_spread: float = Field(0.0, ge=0, le=50)
    run: str | None = None
    """Folder of the run, fitted to the same images, that ``pretrained`` takes content from."""
    frozen: bool = False
    """Keep the rows as they start and train the field alone."""
    lr: Rate = 1e-2
    """Learning rate of the rows (the field has its own, ``train.lr``)."""

    def check(self, facts: Facts) -> None:
        """Refuse to hold images out, of which a table has no row."""
        super().check(facts)
        held_out = facts.config.data.val_fraction
        if held_out > 0 and facts.n_train is not None:
            expected = (
                "0 with a lookup table, which has nothing to say of images it was not fitted to"
            )
            raise facts.refusal("data.val_fraction", held_out, expected)


class OrbitEncoderConfig(EncoderSection):
    """A group convolution (TARGET-VAE): one cell a position and rotation of its kernels."""

    mirrors: ClassVar[bool] = True
    flat: ClassVar[bool] = True
    kind: Literal["orbit"] = "orbit"
    rotations: int = Field(8, ge=1, le=64)
    """Angles that the kernels are turned to, the n of P_n; 1 is an ordinary convolution."""
    channels: Width = 128
    """Kernels, and the width of the layers that follow."""
    kernel: int | None = Field(None, ge=3, le=4096)
    """Side of the kernels, pixels, which should hold the whole object; null: a little over half
    of the box (28 of 50)."""
    padding: int | None = Field(None, ge=0, le=4096)
    """Zeros round the image, pixels; null: about a sixth of the box (8 of 50)."""
    stride: int = Field(1, ge=1, le=4096)
    """Distance of translation cells, pixels; above 1, ``subpixel`` keeps shifts accurate."""
    subpixel: bool = False
    """Let each cell infer a residual of the shift, too; its prior is N(0, (stride/2)²)."""
    depth: int = Field(2, ge=0, le=64)
    """Hidden layers, acting on each cell alone, between the convolution and the output."""
    activation: Activation = "leaky-relu"
    infer_rotation: bool = True
    """Infer which rotation (variants 1 and 2 of Table 4 do not: one cell a position)."""
    add_offset: bool = True
    """Centre each cell's angle at its rotation (variant 3 of Table 4 does not)."""

    def check(self, facts: Facts) -> None:
        """Refuse kernels that do not fit the box, and a prior that its cells do not have."""
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
            expected = "an odd side, so that its middle is a pixel, where the shift is not inferred"
            raise InputError.of(where, "model.encoder.kernel", kernel, expected)
        if kernel > box + 2 * padding and not centred:
            expected = f"at most {box + 2 * padding}, the padded box of {box} pixels"
            raise InputError.of(where, "model.encoder.kernel", kernel, expected)

    def sizes(self, box: int, centred: bool) -> tuple[int, int]:
        """Return kernel and padding, pixels; those that are not set follow the box.

        The defaults make a grid of cells that is symmetric about the middle of a square box, so
        that quarter turns of the image permute the cells exactly.
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
        """Say which parts of the pose its cells tell."""
        shift = model.shift.inferred
        return CellRole(
            angle=self.infers_rotation(model) and self.add_offset,
            shift=shift,
            shift_residual=shift and self.subpixel,
        )


class OctahedralEncoderConfig(EncoderSection):
    """Volumes: rotations proposed on the 24 turns of the cube, climbed on the model's volumes."""

    kind: Literal["octahedral"] = "octahedral"
    limit: float = Field(0.18, gt=0, lt=0.5)
    """Highest frequency that the network sees, cycles a voxel."""
    climb_limit: float = Field(0.3, gt=0, lt=0.5)
    """Highest frequency that proposals are compared and climbed at."""
    cells: int = Field(16, ge=1, le=4096)
    """Rotations about each of the 24 turns that are told apart."""
    hidden: int = Field(512, ge=2, le=65_536)
    depth: Depth = 3
    activation: Activation = "silu"
    proposals: int = Field(8, ge=1, le=1000)
    """Poses that the network proposes, to be compared with the model's volumes."""
    hypotheses: int = Field(2, ge=1, le=1000)
    """The best of them, which are climbed; each is a cell of the posterior."""
    max_shift_px: float = Field(3.0, gt=0, le=4096)
    """Largest shift along an axis, voxels."""
    codebook: int = Field(8, ge=1, le=10_000)
    """Contents whose volumes proposals are compared with."""
    drawn: int = Field(8, ge=0, le=10_000)
    """Volumes drawn from the model that the network learns from, for each one of the data."""

    def check(self, facts: Facts) -> None:
        """Refuse to go without what it compares volumes with, or learns from."""
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
    """Angles that are compared at once; a parabola through the best reads between them."""
    radius: float = Field(1.0, gt=0, le=2)
    """Of the disc that is looked at, as a fraction of the half box."""
    hypotheses: int = Field(2, ge=1, le=1000)
    """Angles that are proposed, each a cell."""
    first_look: Weight = 0.5
    """Weight, in the encoder's training, of the bound that the first look gives, by which the image
    is turned upright for the second; 0: the first is trained through the second alone."""
    channels: int = Field(32, ge=4, le=65_536)
    """Width of the circular convolutions; twice it in the last two."""
    hidden: int = Field(512, ge=2, le=65_536)
    activation: Activation = "leaky-relu"


class ConvEncoderConfig(EncoderSection):
    """Strided convolutions in 2-D or 3-D, each halving the box (affinity-VAE)."""

    kind: Literal["conv"] = "conv"
    channels: Width = 8
    """Of the first layer; each further one has twice as many."""
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
    """The exact posterior of the motions of a ``principal`` field, bent by a perceptron."""

    kind: Literal["principal"] = "principal"
    hidden: Width = 128
    depth: Depth = 2
    activation: Activation = "silu"

    def check(self, facts: Facts) -> None:
        """Refuse to go without the motions that it reads."""
        field = facts.config.model.field.kind
        if field != "principal":
            expected = "principal, whose motions the encoder of that name reads"
            raise facts.refusal("model.field.kind", field, expected)


class HarmonicEncoderConfig(EncoderSection):
    """Content from powers of learned radial profiles of harmonics: it does not turn."""

    kind: Literal["harmonic"] = "harmonic"
    lmax: int = Field(8, ge=0, le=256)
    """Highest degree of the spherical (in 2-D: circular) harmonics."""
    profiles: int = Field(16, ge=1, le=4096)
    """Radial profiles that are learned for each degree."""
    hidden: Width = 128
    """Width of the perceptrons from powers to content and from harmonics to pose."""
    depth: Depth = 2
    activation: Activation = "relu"
    dropout: float = Field(0.0, ge=0, lt=1)
    """Fraction of the powers that training leaves out, drawn afresh each step."""


OTHER = "of another package"
OWN_ENCODERS = {"mlp", "harmonic", "table", "octahedral", "orbit", "polar", "conv", "principal"}


def _tag(value: Any) -> Any:
    """Say which part of the union below a value belongs to."""
    kind = kind_of(value)
    return OTHER if isinstance(value, EncoderSection) and kind not in OWN_ENCODERS else kind


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
    Discriminator(_tag),
]

"""``model.field``: the object as a function of position and content."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, InstanceOf, SerializeAsAny, Tag

from modpose.config.section import (
    OTHER,
    Activation,
    Depth,
    FieldSection,
    Frozen,
    Scale,
    Width,
    tag_in_union,
)
from modpose.errors import InputError

if TYPE_CHECKING:
    from modpose.config.facts import Facts


class FourierFeatures(Frozen):
    """Random Fourier features of the coordinates, cos and sin of 2π W x, W ~ N(0, sigma²)."""

    count: Width = 256
    sigma: Scale = 1.0


class ImplicitFieldConfig(FieldSection):
    """A coordinate network: the value at x given z, evaluated at every needed pixel."""

    kind: Literal["implicit"] = "implicit"
    hidden: Width = 500
    depth: Depth = 2
    activation: Activation = "tanh"
    residual: bool = False
    squared_coordinates: bool = False
    """Append the squares and products of the coordinates to the input."""
    bilinear: bool = False
    """Add a bilinear form of coordinates and content to the first layer."""
    fourier: FourierFeatures | None = None


class DenseFieldConfig(FieldSection):
    """A perceptron that decodes one upright picture per z, sampled by interpolation."""

    kind: Literal["dense"] = "dense"
    extent: float = Field(1.0, gt=0, le=1)
    """Side of the picture as a fraction of the box; its border values continue outside."""
    hidden: Width = 500
    depth: Depth = 2
    activation: Activation = "tanh"
    residual: bool = False


class FourierFieldConfig(FieldSection):
    """A coordinate network of a volume's transform, evaluated on central slices (cryoDRGN)."""

    spectral: ClassVar[bool] = True
    kind: Literal["slices"] = "slices"
    hidden: Width = 256
    depth: Depth = 3
    """Residual layers after the first."""
    activation: Activation = "relu"
    encoding: Literal["gaussian", "geometric"] = "gaussian"
    """Positions r of the waves cos and sin of 2 pi k r that the network sees: from a Gaussian, or
    on each axis a geometric series from one pixel to half the box.
    """
    features: int | None = Field(None, ge=3, le=65_536)
    """Number of positions; null: three halves of the box."""
    sigma: Scale = 0.5
    """Standard deviation of the ``gaussian`` positions, in units of box / 4 pi."""
    content: Literal["first", "every"] = "first"
    """Where content enters: at the first layer's input, as published, or as a low-rank change of
    every layer.
    """
    rank: Width = 16
    """Rank of that change."""


class PrincipalFieldConfig(FieldSection):
    """A mean volume and its principal motions, mixed by a perceptron of content.

    Mean and motions are found before training, by probabilistic principal components.
    """

    spectral: ClassVar[bool] = True
    kind: Literal["principal"] = "principal"
    motions: int = Field(6, ge=1, le=1024)
    """Number of principal motions, or ``model.z_dim`` if that is larger."""
    cycles: int = Field(16, ge=2, le=4096)
    """Highest frequency for finding them, cycles per box."""
    drawn: int = Field(32, ge=2, le=4096)
    """Highest frequency of mean and motions, cycles per box.  Memory grows with its third power."""
    solvent: Literal["flatten", "keep"] = "flatten"
    """``flatten``: mean and motions are zero where neither is above the noise."""
    mask: str | None = None
    """File (.mrc) of the molecule's region, 0 to 1, in the box and pixel size of the images as they
    are stored: mean and motions are zero outside.  None: a sphere, and then ``solvent``.
    """
    symmetry: str = Field("C1", pattern=r"^([CD][1-9]\d{0,2}|O|I[12])$")
    """Point group of mean and motions, such as D7: all units of the molecule move alike.  Main axis
    along z, at n // 2.
    """
    hidden: Width = 64
    depth: Depth = 2
    activation: Activation = "silu"

    def count(self, z_dim: int) -> int:
        """Return how many motions there are for so many dimensions of content."""
        return max(self.motions, z_dim)

    @property
    def point_group(self) -> str:
        """Name of the point group of mean and motions."""
        return self.symmetry

    def check(self, facts: Facts) -> None:
        """Refuse a model without content, and motions of too few images."""
        z_dim = facts.config.model.z_dim
        if z_dim < 1:
            raise facts.refusal("model.z_dim", z_dim, "1 or more")
        super().check(facts)
        n, most = facts.n_train, 2 * self.count(z_dim)
        if n is not None and n <= most:
            expected = f"more than {most}, two for each of model.field.motions"
            raise InputError.of(facts.name, "the number of images to train on", n, expected)


class FrontedFieldConfig(FieldSection):
    """A linear layer, then transposed convolutions at full resolution (3D-SpVAE++).

    Every pixel of the box is decoded at once.
    """

    kind: Literal["fronted"] = "fronted"
    hidden: Width = 1250
    channels: tuple[Width, ...] = (128, 64, 32)
    """Widths between the first and the last convolution, each followed by a ReLU and batch
    normalisation.
    """
    kernel: int = Field(3, ge=1, le=99)
    """Side of the kernels, an odd number of pixels."""

    def check(self, facts: Facts) -> None:
        """Refuse kernels without a middle."""
        super().check(facts)
        if self.kernel % 2 == 0:
            raise InputError.of("config", "model.field.kernel", self.kernel, "an odd number")


class ConvFieldConfig(FieldSection):
    """Transposed convolutions in 2-D or 3-D, each doubling the picture (affinity-VAE)."""

    kind: Literal["conv"] = "conv"
    channels: Width = 8
    """Channels of the last hidden layer; each earlier layer has twice as many."""
    depth: int = Field(3, ge=1, le=16)
    widths: tuple[Width, ...] | None = Field(None, min_length=1)
    """Channels of every layer from the coarsest, in place of ``channels`` and ``depth``."""
    patch: int | None = Field(None, ge=1, le=4096)
    """Draw the picture in patches of this side, each from one point of the last hidden layer.
    This is faster (4 in place of two layers: 7 times).  null: the last layer also doubles the
    picture by overlapping kernels.
    """
    hidden: int = Field(0, ge=0, le=65_536)
    """Width of a fully connected layer before the convolutions; 0: none."""
    activation: Activation = "relu"
    normalize: Literal["none", "group"] = "none"
    """As in the encoder."""


class BasisFieldConfig(FieldSection):
    """A weighted sum of pictures or volumes; the weights depend on content."""

    kind: Literal["basis"] = "basis"
    count: Width = 16
    """Number of pictures or volumes."""
    hidden: Width = 64
    """Width of the perceptron from content to the weights."""
    depth: Depth = 2
    activation: Activation = "silu"


OWN_FIELDS = {"implicit", "dense", "basis", "conv", "slices", "principal", "fronted"}


FieldConfig = Annotated[
    Annotated[ImplicitFieldConfig, Tag("implicit")]
    | Annotated[DenseFieldConfig, Tag("dense")]
    | Annotated[BasisFieldConfig, Tag("basis")]
    | Annotated[ConvFieldConfig, Tag("conv")]
    | Annotated[FourierFieldConfig, Tag("slices")]
    | Annotated[PrincipalFieldConfig, Tag("principal")]
    | Annotated[FrontedFieldConfig, Tag("fronted")]
    | Annotated[SerializeAsAny[InstanceOf[FieldSection]], Tag(OTHER)],
    tag_in_union(FieldSection, OWN_FIELDS),
]

"""``model``: the generative story and the family of posteriors."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from modpose.config.section import Frozen

Activation = Literal["tanh", "relu", "leaky-relu", "silu"]


class MlpEncoderConfig(Frozen):
    """A perceptron on the flattened image (spatial-VAE)."""

    kind: Literal["mlp"] = "mlp"
    hidden: int = Field(500, ge=1)
    depth: int = Field(2, ge=1)
    activation: Activation = "tanh"
    residual: bool = False


class TableEncoderConfig(Frozen):
    """A lookup table: one row of variational parameters an image, no network."""

    kind: Literal["table"] = "table"
    init: Literal["zeros", "random"] = "zeros"
    lr: float = Field(1e-2, gt=0)
    """Learning rate of the rows (the field has its own, ``train.lr``)."""


class OrbitEncoderConfig(Frozen):
    """A group convolution (TARGET-VAE): one cell a position and rotation of its kernels."""

    kind: Literal["orbit"] = "orbit"
    rotations: int = Field(8, ge=1, le=64)
    """Angles that the kernels are turned to, the n of P_n; 1 is an ordinary convolution."""
    channels: int = Field(128, ge=1)
    """Kernels, and the width of the layers that follow."""
    kernel: int | None = Field(None, ge=3)
    """Side of the kernels, pixels, which should hold the whole object; null: a little over half
    of the box (28 of 50)."""
    padding: int | None = Field(None, ge=0)
    """Zeros round the image, pixels; null: about a sixth of the box (8 of 50)."""
    stride: int = Field(1, ge=1)
    """Distance of translation cells, pixels; above 1, ``subpixel`` keeps shifts accurate."""
    subpixel: bool = False
    """Let each cell infer a residual of the shift, too; its prior is N(0, (stride/2)²)."""
    depth: int = Field(2, ge=0)
    """Hidden layers, acting on each cell alone, between the convolution and the output."""
    activation: Activation = "leaky-relu"
    infer_rotation: bool = True
    """Infer which rotation (variants 1 and 2 of Table 4 do not: one cell a position)."""
    add_offset: bool = True
    """Centre each cell's angle at its rotation (variant 3 of Table 4 does not)."""


class PolarEncoderConfig(Frozen):
    """Centre by attention, angle by correlation with the model's own picture (modpose)."""

    kind: Literal["polar"] = "polar"
    angles: int = Field(64, ge=8, multiple_of=4)
    """Angles that are compared at once; a parabola through the best reads between them."""
    radius: float = Field(1.0, gt=0)
    """Of the disc that is looked at, as a fraction of the half box."""
    hypotheses: int = Field(2, ge=1)
    """Angles that are proposed, each a cell."""
    channels: int = Field(32, ge=4)
    """Width of the circular convolutions; twice it in the last two."""
    hidden: int = Field(512, ge=2)
    activation: Activation = "leaky-relu"


EncoderConfig = Annotated[
    MlpEncoderConfig | TableEncoderConfig | OrbitEncoderConfig | PolarEncoderConfig,
    Field(discriminator="kind"),
]


class RotationConfig(Frozen):
    """Prior, and so posterior, of the in-plane angle."""

    prior: Literal["none", "gaussian", "wide", "uniform"] = "uniform"
    """``none``: fixed to zero.  ``gaussian``: N(0, std²) on the line.  ``wide``: equation 3 of
    Bepler et al. 2019 in training (the mean is not penalised) and the exact KL to the uniform
    circle in validation.  ``uniform``: wrapped-normal posterior, uniform prior, exact KL."""
    std_deg: float = Field(180.0, gt=0)
    """Standard deviation of the ``gaussian`` and ``wide`` priors, degrees."""


class ShiftConfig(Frozen):
    """Prior of the shift: none (fixed to zero) or N(0, std²) on each axis."""

    prior: Literal["none", "gaussian"] = "gaussian"
    std_px: float = Field(2.0, gt=0)
    """Standard deviation of the prior, pixels of the box that the model sees."""


class FourierFeatures(Frozen):
    """Random Fourier features of the coordinates, cos and sin of 2π W x, W ~ N(0, sigma²)."""

    count: int = Field(256, ge=1)
    sigma: float = Field(1.0, gt=0)


class ImplicitFieldConfig(Frozen):
    """A coordinate network: the value at x given z, evaluated at every pixel asked for."""

    kind: Literal["implicit"] = "implicit"
    hidden: int = Field(500, ge=1)
    depth: int = Field(2, ge=1)
    activation: Activation = "tanh"
    residual: bool = False
    squared_coordinates: bool = False
    """Append the squares and products of the coordinates to the input."""
    bilinear: bool = False
    """Add a bilinear form of coordinates and content to the first layer."""
    fourier: FourierFeatures | None = None


class DenseFieldConfig(Frozen):
    """A perceptron that decodes one upright picture a z, sampled by interpolation."""

    kind: Literal["dense"] = "dense"
    extent: float = Field(1.0, gt=0, le=1)
    """Side of the picture as a fraction of the box; its border goes on outside."""
    hidden: int = Field(500, ge=1)
    depth: int = Field(2, ge=1)
    activation: Activation = "tanh"
    residual: bool = False


FieldConfig = Annotated[ImplicitFieldConfig | DenseFieldConfig, Field(discriminator="kind")]


class BernoulliConfig(Frozen):
    """Cross-entropy an output; targets in [0, 1], grey ones included."""

    kind: Literal["bernoulli"] = "bernoulli"


class GaussianConfig(Frozen):
    """Independent Gaussian noise."""

    kind: Literal["gaussian"] = "gaussian"
    noise: Literal["fixed", "learned", "per-pixel"] = "learned"
    """``fixed``: ``std`` throughout; ``learned``: one s.d. for the set, started at ``std``;
    ``per-pixel``: the field predicts it at every coordinate."""
    std: float = Field(1.0, gt=0)
    softplus: bool = False
    """Force the mean to be positive, which keeps background out of the field."""


LikelihoodConfig = Annotated[BernoulliConfig | GaussianConfig, Field(discriminator="kind")]


class ModelConfig(Frozen):
    """One generative story and one family of posteriors (the design's table, a row of it)."""

    z_dim: int = Field(2, ge=0)
    encoder: EncoderConfig = MlpEncoderConfig()
    rotation: RotationConfig = RotationConfig()
    shift: ShiftConfig = ShiftConfig()
    field: FieldConfig = ImplicitFieldConfig()
    likelihood: LikelihoodConfig = GaussianConfig()
    ctf: Literal["auto", "off"] = "off"
    """``auto``: apply the contrast transfer function where the particles table has one."""

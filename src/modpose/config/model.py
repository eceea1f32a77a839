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
    sees: Literal["image", "transform", "aligned"] = "image"
    """What of each image.  With given poses also: ``transform``, its Fourier transform with the
    shift undone and phases flipped by the sign of the CTF (cryoDRGN); ``aligned``, the same as a
    picture, weighted by CTF and noise and turned in the plane, and the direction of view."""


class TableEncoderConfig(Frozen):
    """A lookup table: one row of variational parameters an image, no network."""

    kind: Literal["table"] = "table"
    init: Literal["zeros", "random", "pretrained"] = "zeros"
    """How content starts: at ``mean``, drawn round it with ``spread``, or as run ``run`` has it."""
    mean: float = 0.0
    spread: float = Field(1.0, ge=0)
    log_std: float = 0.0
    """Logarithm of the posterior s.d. that rows start with."""
    log_std_spread: float = Field(0.0, ge=0)
    run: str | None = None
    """Folder of the run, fitted to the same images, that ``pretrained`` takes content from."""
    frozen: bool = False
    """Keep the rows as they start and train the field alone."""
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


class OctahedralEncoderConfig(Frozen):
    """Volumes: rotations proposed on the 24 turns of the cube, climbed on the model's volumes."""

    kind: Literal["octahedral"] = "octahedral"
    limit: float = Field(0.18, gt=0, lt=0.5)
    """Highest frequency that the network sees, cycles a voxel."""
    climb_limit: float = Field(0.3, gt=0, lt=0.5)
    """Highest frequency that proposals are compared and climbed at."""
    cells: int = Field(16, ge=1)
    """Rotations about each of the 24 turns that are told apart."""
    hidden: int = Field(512, ge=2)
    depth: int = Field(3, ge=1)
    activation: Activation = "silu"
    proposals: int = Field(8, ge=1)
    """Poses that the network proposes, to be compared with the model's volumes."""
    hypotheses: int = Field(2, ge=1)
    """The best of them, which are climbed; each is a cell of the posterior."""
    max_shift_px: float = Field(3.0, gt=0)
    """Largest shift along an axis, voxels."""
    codebook: int = Field(8, ge=1)
    """Contents whose volumes proposals are compared with."""
    drawn: int = Field(8, ge=0)
    """Volumes drawn from the model that the network learns from, for each one of the data."""


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


class ConvEncoderConfig(Frozen):
    """Strided convolutions in 2-D or 3-D, each halving the box (affinity-VAE)."""

    kind: Literal["conv"] = "conv"
    channels: int = Field(8, ge=1)
    """Of the first layer; each further one has twice as many."""
    depth: int = Field(3, ge=1)
    widths: tuple[int, ...] | None = Field(None, min_length=1)
    """Channels of every layer, in place of ``channels`` and ``depth``."""
    kernel: int = Field(3, ge=2, le=9)
    hidden: int = Field(0, ge=0)
    """Width of a fully connected layer after the convolutions; 0: none."""
    activation: Activation = "relu"
    normalize: Literal["none", "group"] = "none"
    """``group``: normalise each layer over groups of its channels, image by image."""


class PrincipalEncoderConfig(Frozen):
    """The exact posterior of the motions of a ``principal`` field, bent by a perceptron."""

    kind: Literal["principal"] = "principal"
    hidden: int = Field(128, ge=1)
    depth: int = Field(2, ge=1)
    activation: Activation = "silu"


class HarmonicEncoderConfig(Frozen):
    """Content from powers of learned radial profiles of harmonics: it does not turn."""

    kind: Literal["harmonic"] = "harmonic"
    lmax: int = Field(8, ge=0)
    """Highest degree of the spherical (in 2-D: circular) harmonics."""
    profiles: int = Field(16, ge=1)
    """Radial profiles that are learned for each degree."""
    hidden: int = Field(128, ge=1)
    """Width of the perceptrons from powers to content and from harmonics to pose."""
    depth: int = Field(2, ge=1)
    activation: Activation = "relu"
    dropout: float = Field(0.0, ge=0, lt=1)
    """Fraction of the powers that training leaves out, drawn afresh each step."""


EncoderConfig = Annotated[
    MlpEncoderConfig
    | HarmonicEncoderConfig
    | TableEncoderConfig
    | OctahedralEncoderConfig
    | OrbitEncoderConfig
    | PolarEncoderConfig
    | ConvEncoderConfig
    | PrincipalEncoderConfig,
    Field(discriminator="kind"),
]


class RotationConfig(Frozen):
    """Prior, and so posterior, of the rotation: an angle in the plane, or any turn in space."""

    prior: Literal["none", "gaussian", "wide", "uniform"] = "uniform"
    """``none``: fixed to zero.  ``gaussian``: N(0, std²) on the line.  ``wide``: equation 3 of
    Bepler et al. 2019 in training (the mean is not penalised) and the exact KL to the uniform
    circle in validation.  ``uniform``: wrapped-normal posterior, uniform prior, exact KL.  Of
    volumes, ``gaussian`` is a prior of yaw, pitch and roll each (Yi et al. 2021), ``uniform`` the
    one over all rotations (SO(3)), and there is no ``wide``."""
    std_deg: float = Field(180.0, gt=0)
    """Standard deviation of the ``gaussian`` and ``wide`` priors, degrees."""


class ShiftConfig(Frozen):
    """Prior of the shift: none (fixed to zero) or N(0, std²) on each axis."""

    prior: Literal["none", "gaussian"] = "gaussian"
    std_px: float = Field(2.0, gt=0)
    """Standard deviation of the prior, pixels of the box that the model sees."""
    std_box: float | None = Field(None, gt=0)
    """The same as a fraction of the box's side, in place of ``std_px``."""

    def std(self, side: int) -> float:
        """Return the standard deviation in pixels for a box of ``side`` pixels."""
        return self.std_px if self.std_box is None else self.std_box * side


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


class FourierFieldConfig(Frozen):
    """A coordinate network of a volume's transform, read at central slices (cryoDRGN)."""

    kind: Literal["slices"] = "slices"
    hidden: int = Field(256, ge=1)
    depth: int = Field(3, ge=1)
    """Residual layers after the first."""
    activation: Activation = "relu"
    encoding: Literal["gaussian", "geometric"] = "gaussian"
    """Positions r whose waves cos and sin of 2 pi k r the network sees: drawn from a Gaussian, or
    on each axis a geometric ladder from one pixel to half the box."""
    features: int | None = Field(None, ge=3)
    """How many; null: three halves of the box."""
    sigma: float = Field(0.5, gt=0)
    """Of the ``gaussian`` positions, in units of box / 4 pi."""
    content: Literal["first", "every"] = "first"
    """Where content enters: beside the first layer's input, as published, or as a low-rank change
    of every layer."""
    rank: int = Field(16, ge=1)
    """Of that change."""


class PrincipalFieldConfig(Frozen):
    """A mean volume and its principal motions, mixed by a perceptron of content.

    Mean and motions are found before training, by probabilistic principal components.
    """

    kind: Literal["principal"] = "principal"
    motions: int = Field(6, ge=1)
    """Principal motions, at least as many as dimensions of content."""
    cycles: int = Field(16, ge=2)
    """Highest frequency, cycles a box, that they are told apart by."""
    drawn: int = Field(48, ge=2)
    """Highest frequency, cycles a box, that mean and motions are drawn to, memory permitting: it
    takes about 8 GB for 48, and goes with the third power."""
    solvent: Literal["flatten", "keep"] = "flatten"
    """``flatten``: mean and motions are zero where neither stands out of the noise."""
    hidden: int = Field(64, ge=1)
    depth: int = Field(2, ge=1)
    activation: Activation = "silu"


class FrontedFieldConfig(Frozen):
    """A linear layer, then transposed convolutions at full resolution (3D-SpVAE++).

    Every pixel of the box is decoded at once.
    """

    kind: Literal["fronted"] = "fronted"
    hidden: int = Field(1250, ge=1)
    channels: tuple[int, ...] = (128, 64, 32)
    """Widths between the first and the last convolution; after each a ReLU and batch
    normalisation."""
    kernel: int = Field(3, ge=1)
    """Side of the kernels, an odd number of pixels."""


class ConvFieldConfig(Frozen):
    """Transposed convolutions in 2-D or 3-D, each doubling the picture (affinity-VAE)."""

    kind: Literal["conv"] = "conv"
    channels: int = Field(8, ge=1)
    """Of the last hidden layer; each earlier one has twice as many."""
    depth: int = Field(3, ge=1)
    widths: tuple[int, ...] | None = Field(None, min_length=1)
    """Channels of every layer from the coarsest, in place of ``channels`` and ``depth``."""
    patch: int | None = Field(None, ge=1)
    """Draw the picture in patches of this side, each from one point of the last hidden layer, which
    is faster (4 in place of two layers: 7 times); null: the last layer, too, doubles by overlapping
    kernels."""
    hidden: int = Field(0, ge=0)
    """Width of a fully connected layer before the convolutions; 0: none."""
    activation: Activation = "relu"
    normalize: Literal["none", "group"] = "none"
    """As in the encoder."""


class BasisFieldConfig(Frozen):
    """Pictures or volumes that are added up, in amounts that depend on content."""

    kind: Literal["basis"] = "basis"
    count: int = Field(16, ge=1)
    """How many are added up."""
    hidden: int = Field(64, ge=1)
    """Width of the perceptron from content to the amounts."""
    depth: int = Field(2, ge=1)
    activation: Activation = "silu"


FieldConfig = Annotated[
    ImplicitFieldConfig
    | DenseFieldConfig
    | BasisFieldConfig
    | ConvFieldConfig
    | FourierFieldConfig
    | PrincipalFieldConfig
    | FrontedFieldConfig,
    Field(discriminator="kind"),
]


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


class SpectralConfig(Frozen):
    """Gaussian noise of the Fourier coefficients, for fields that give these."""

    kind: Literal["spectral"] = "spectral"
    noise: Literal["flat", "shells"] = "shells"
    """``flat``: s.d. ``std`` throughout, fixed; ``shells``: one variance a shell of frequencies,
    which follows what the model leaves unexplained."""
    std: float = Field(1.0, gt=0)
    """Of a pixel of white noise, which is that of an orthonormal coefficient, too."""
    radius: float = Field(1.0, gt=0, le=1)
    """Frequencies that count, as a fraction of Nyquist's."""


LikelihoodConfig = Annotated[
    BernoulliConfig | GaussianConfig | SpectralConfig, Field(discriminator="kind")
]


class PoseRefinementConfig(Frozen):
    """Small corrections of given poses, learned with the model: one row an image."""

    rotation_std_deg: float = Field(3.0, gt=0)
    """S.d. of a Gaussian prior that holds the rotation vector at zero."""
    shift_std_px: float = Field(1.0, gt=0)
    lr: float = Field(1e-3, gt=0)
    """Learning rate, in units of the prior's s.d."""


class ModelConfig(Frozen):
    """One generative story and one family of posteriors (the design's table, a row of it)."""

    z_dim: int = Field(2, ge=0)
    pose_channel: int = Field(0, ge=0)
    """Numbers that the encoder gives beside content for the field alone to use (affinity-VAE):
    no prior, no KL, no noise."""
    encoder: EncoderConfig = MlpEncoderConfig()
    rotation: RotationConfig = RotationConfig()
    shift: ShiftConfig = ShiftConfig()
    field: FieldConfig = ImplicitFieldConfig()
    likelihood: LikelihoodConfig = GaussianConfig()
    ctf: Literal["auto", "off"] = "off"
    """``auto``: apply the contrast transfer function where the particles table has one."""
    poses: Literal["inferred", "given"] = "inferred"
    """``given``: take rotation and shift from the particles table (or ``--poses``)."""
    refine_poses: PoseRefinementConfig | None = None
    """Correct given poses by gradient; null leaves them as they are."""
    wedge: str = "off"
    """Which frequencies of volumes were measured: ``auto``, what the particles table says;
    ``LOW,HIGH``, the smallest and largest tilt in degrees; or a file of masks or of tomograms.
    ``off`` compares predictions with data as if nothing were missing."""

"""The whole configuration of a run: frozen, validated, saved as ``config.yaml``.

Every published system is a value of :class:`Config` (see :mod:`modpose.recipes`); nothing else
selects behaviour.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modpose.errors import InputError

Activation = Literal["tanh", "relu", "leaky-relu", "silu"]


class Frozen(BaseModel):
    """Base of all sections: immutable, and unknown options are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# --- data -------------------------------------------------------------------------------------


class DataConfig(Frozen):
    """What happens to an image between the user's file and the model, in this order."""

    kind: Literal["auto", "images", "rgb", "volumes"] = "auto"
    """How to read an array whose shape is ambiguous."""
    crop: int | None = Field(None, ge=2)
    """Keep the central ``crop`` pixels of each side (before Fourier cropping)."""
    box: int | None = Field(None, ge=2)
    """Fourier-crop (down-sample) to this box; the pixel size grows in proportion."""
    invert: bool = False
    """Multiply by -1, so that particles that are dark become bright."""
    normalize: Literal["none", "image", "background", "range"] = "none"
    """``image``: zero mean, unit s.d. an image; ``background``: the same statistics taken outside
    the inscribed circle; ``range``: the whole set to [0, 1] (by type for integers, else by the
    smallest and largest value of a sample)."""
    mask: float | None = Field(None, gt=0)
    """Radius of a circular mask as a fraction of the half box; pixels outside do not count."""
    val_fraction: float = Field(0.1, ge=0, lt=1)
    """Fraction of the images held out for validation (chosen by the seed)."""


# --- model ------------------------------------------------------------------------------------


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


# --- training ---------------------------------------------------------------------------------


class BetaSchedule(Frozen):
    """Weight of the content KL: ``end`` throughout, or a ramp from ``start`` to it.

    Ramps begin when content is let go (``train.delay_z_steps``); ``cyclic`` repeats, each cycle
    rising over its first half.
    """

    kind: Literal["constant", "linear", "cyclic"] = "constant"
    start: float = Field(0.0, ge=0)
    end: float = Field(1.0, ge=0)
    steps: int = Field(1000, ge=1)
    """Length of the ramp, or of one cycle, in training steps."""


class SoftCellsConfig(Frozen):
    """A Gumbel-softmax sample whose weights mix the parameters of the cells (TARGET-VAE)."""

    kind: Literal["soft"] = "soft"
    temperature: float = Field(1.0, gt=0)


class TopCellsConfig(Frozen):
    """An expectation over the most probable cells, each decoded by itself; nothing is mixed."""

    kind: Literal["top"] = "top"
    count: int = Field(4, ge=1)


CellsConfig = Annotated[SoftCellsConfig | TopCellsConfig, Field(discriminator="kind")]


class TrainConfig(Frozen):
    """How the ELBO is climbed."""

    epochs: int = Field(100, ge=1)
    batch_size: int = Field(100, ge=1)
    lr: float = Field(1e-4, gt=0)
    schedule: Literal["constant", "plateau", "cosine"] = "constant"
    plateau_epochs: int = Field(10, ge=1)
    """``plateau``: halve the rate after so many epochs without a better validation ELBO."""
    warmup_steps: int = Field(0, ge=0)
    """Raise the rate from zero over so many steps."""
    stop_epochs: int | None = Field(None, ge=1)
    """Stop after so many epochs without a better validation ELBO."""
    pixels: int | None = Field(None, ge=1)
    """Number of pixels, drawn afresh each step, that estimate the reconstruction term without
    bias; null takes every pixel."""
    augment_rotation: bool = False
    """Turn the encoder's input by a random angle and take it off the inferred one; for images
    turned any way, so not with a narrow ``gaussian`` prior of the angle."""
    delay_z_steps: int = Field(0, ge=0)
    """Hold content at zero for the first steps (at most a quarter of the run), so that pose is
    learned first."""
    beta: BetaSchedule = BetaSchedule()
    cells: CellsConfig = SoftCellsConfig()
    """How encoders with many hypotheses of the pose are trained; validation draws hard cells."""
    restarts: int = Field(1, ge=1)
    """Short starts from different seeds; the one with the best validation ELBO goes on."""
    restart_epochs: int = Field(5, ge=1)
    max_grad_norm: float | None = Field(None, gt=0)
    threads: int = Field(1, ge=1)
    """CPU threads of a fit: small networks on few pixels are slower with more than one; give more
    where every pixel of large images is decoded."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"


class Config(Frozen):
    """Everything that decides a run."""

    recipe: str
    seed: int = Field(0, ge=0)
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()


# --- reading, merging, writing ----------------------------------------------------------------


def parse_config(values: dict[str, Any], where: str) -> Config:
    """Validate nested ``values``; an error names ``where``, the option, found and expected."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        option, kind = _option_of(first["loc"], values)
        if first["type"] == "extra_forbidden":
            of_kind = f" where {option.rpartition('.')[0]}.kind is {kind}" if kind else ""
            raise InputError(f"{where}: there is no option '{option}'{of_kind}") from None
        raise InputError.of(where, option, repr(first.get("input")), first["msg"]) from None


def _option_of(location: tuple[int | str, ...], values: Any) -> tuple[str, str]:
    """Return the option as users write it, and the kind of the last section that has kinds."""
    names, kind = [], ""
    for part in location:
        if isinstance(values, dict) and part not in values and values.get("kind") == part:
            kind = str(part)
            continue
        names.append(str(part))
        values = values.get(part) if isinstance(values, dict) else None
    return ".".join(names), kind


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a configuration file (a mapping) without running anything that it contains."""
    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: no such configuration file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not readable as YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(values, dict):
        raise InputError.of(path, "the file", type(values).__name__, "a mapping of options")
    return values


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Lay ``over`` on ``base``, section by section; a section of another ``kind`` replaces it."""
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            # data.kind is an option like others; elsewhere another kind has other options
            same_kind = key == "data" or "kind" not in value or value["kind"] == old.get("kind")
            out[key] = merge(old, value) if same_kind else dict(value)
        else:
            out[key] = value
    return out


def set_option(values: dict[str, Any], assignment: str) -> dict[str, Any]:
    """Apply one ``section.option=value`` (the value is YAML) and return the new mapping."""
    name, equals, text = assignment.partition("=")
    if not equals or not name:
        raise InputError.of("--set", "the assignment", repr(assignment), "section.option=value")
    nested: Any = yaml.safe_load(text)
    for part in reversed(name.strip().split(".")):
        nested = {part: nested}
    return merge(values, nested)


def dump_config(config: Config) -> str:
    """Return the complete, resolved configuration as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)

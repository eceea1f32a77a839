"""``model``: the generative model and the family of posteriors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from modpose.config.encoders import EncoderConfig, MlpEncoderConfig
from modpose.config.fields import FieldConfig, ImplicitFieldConfig
from modpose.config.section import Frozen, Rate, Scale

if TYPE_CHECKING:
    from modpose.config.facts import Facts


class RotationConfig(Frozen):
    """Prior (and family of posteriors) of the rotation: an in-plane angle, or a 3-D rotation."""

    prior: Literal["none", "gaussian", "wide", "uniform"] = "uniform"
    """``none``: fixed to zero.  ``gaussian``: N(0, std²) on the line.  ``wide``: equation 3 of
    Bepler et al. 2019 in training (the mean is not penalised) and the exact KL to the uniform
    circle in validation.  ``uniform``: wrapped-normal posterior, uniform prior, exact KL.  For
    volumes, ``gaussian`` is a prior of each of yaw, pitch and roll (Yi et al. 2021), ``uniform``
    is uniform over all rotations (SO(3)), and there is no ``wide``.
    """
    std_deg: Scale = 180.0
    """Standard deviation of the ``gaussian`` and ``wide`` priors, degrees."""

    @property
    def inferred(self) -> bool:
        """Whether rotation is a latent variable."""
        return self.prior != "none"

    def check(self, facts: Facts) -> None:
        """Refuse a prior that 3-D rotations do not support."""
        if self.prior == "wide" and facts.dim not in (2, None):
            raise facts.refusal("model.rotation.prior", "wide", "uniform, gaussian or none")


class ShiftConfig(Frozen):
    """Prior of the shift: none (fixed to zero) or N(0, std²) on each axis."""

    prior: Literal["none", "gaussian"] = "gaussian"
    std_px: Scale = 2.0
    """Standard deviation of the prior, pixels of the box that the model sees."""
    std_box: Scale | None = None
    """The same as a fraction of the box's side, instead of ``std_px``."""

    @property
    def inferred(self) -> bool:
        """Whether shift is a latent variable."""
        return self.prior != "none"

    def std(self, side: int) -> float:
        """Return the standard deviation in pixels for a box of ``side`` pixels."""
        return self.std_px if self.std_box is None else self.std_box * side


class ReflectionConfig(Frozen):
    """Prior of the reflection: pictures may show an object and its mirror image."""

    prior: Literal["none", "uniform"] = "none"
    """``none``: no picture is mirrored.  ``uniform``: each is mirrored with probability 1/2, and
    the cells of the encoder infer which.
    """

    @property
    def inferred(self) -> bool:
        """Whether reflection is a latent variable."""
        return self.prior != "none"

    def check(self, facts: Facts) -> None:
        """Refuse reflection for volumes, given poses, or an encoder that cannot infer it."""
        model = facts.config.model
        encoder = model.encoder
        for sound, expected in (
            (self.prior == "none" or facts.dim in (2, None), "none for volumes"),
            (self.prior == "none" or model.poses == "inferred", "none, because poses are given"),
            (
                self.prior == "none" or encoder.mirrors,
                f"none with the {encoder.kind} encoder, or an orbit encoder",
            ),
        ):
            if not sound:
                raise facts.refusal("model.reflection.prior", self.prior, expected)


class ScaleConfig(Frozen):
    """Prior of the scale of an object relative to its upright picture: none (1), or log-normal."""

    prior: Literal["none", "log-normal"] = "none"
    """``log-normal``: the logarithm of the scale is N(0, std²)."""
    std: Scale = 0.1
    """Standard deviation of the logarithm: 0.1 is about 10 %."""

    @property
    def inferred(self) -> bool:
        """Whether scale is a latent variable."""
        return self.prior != "none"

    def check(self, facts: Facts) -> None:
        """Refuse scale for volumes and given poses."""
        if self.inferred and facts.dim not in (2, None):
            raise facts.refusal("model.scale.prior", self.prior, "none for volumes")
        if self.inferred and facts.config.model.poses == "given":
            raise facts.refusal("model.scale.prior", self.prior, "none, because poses are given")


class BernoulliConfig(Frozen):
    """Cross-entropy per output; targets in [0, 1], also grey ones."""

    kind: Literal["bernoulli"] = "bernoulli"

    def check(self, facts: Facts) -> None:
        """Refuse to filter predictions, which would not stay probabilities."""
        model = facts.config.model
        for filtered, name in ((model.ctf == "auto", "CTF"), (model.wedge != "off", "wedge")):
            if filtered:
                raise facts.refusal("model.likelihood", "bernoulli", f"gaussian, to apply a {name}")


class GaussianConfig(Frozen):
    """Independent Gaussian noise."""

    kind: Literal["gaussian"] = "gaussian"
    noise: Literal["fixed", "learned", "per-pixel"] = "learned"
    """``fixed``: ``std`` throughout; ``learned``: one s.d. for the set, started at ``std``;
    ``per-pixel``: the field predicts it at every coordinate."""
    std: Scale = 1.0
    softplus: bool = False
    """Force the mean to be positive, so that the field does not model background."""


class SpectralConfig(Frozen):
    """Gaussian noise of Fourier coefficients, for fields in Fourier space."""

    kind: Literal["spectral"] = "spectral"
    noise: Literal["flat", "shells"] = "shells"
    """``flat``: fixed s.d. ``std`` for all; ``shells``: one variance per shell of frequencies,
    estimated from the residuals.
    """
    std: Scale = 1.0
    """S.d. of white noise per pixel, which is also that of an orthonormal coefficient."""
    radius: float = Field(1.0, gt=0, le=1)
    """Largest frequency that is used, as a fraction of Nyquist's."""
    contrast: float = Field(0.0, ge=0, le=1)
    """Prior s.d. of the contrast of images (a factor on the signal, 1 on average), which is
    integrated out; 0: the contrast of all images is 1.
    """

    def check(self, facts: Facts) -> None:
        """Refuse data that are not projections with given poses."""
        model = facts.config.model
        if model.poses != "given":
            expected = "given, for projections of volumes"
            raise facts.refusal("model.poses", model.poses, expected)
        facts.require_shape(f"recipe {facts.config.recipe}", 2, "1, square images")
        if model.rotation.inferred or model.shift.inferred:
            found = f"rotation {model.rotation.prior}, shift {model.shift.prior}"
            raise facts.refusal("the priors of the pose", found, "none, where it is given")


LikelihoodConfig = Annotated[
    BernoulliConfig | GaussianConfig | SpectralConfig, Field(discriminator="kind")
]


class PoseRefinementConfig(Frozen):
    """Small corrections of given poses, learned with the model: one row per image."""

    rotation_std_deg: Scale = 3.0
    """S.d. of the Gaussian prior of the rotation vector, with mean zero."""
    shift_std_px: Scale = 1.0
    lr: Rate = 1e-3
    """Learning rate, in units of the prior's s.d."""


class ModelConfig(Frozen):
    """One generative model and one family of posteriors."""

    z_dim: int = Field(2, ge=0, le=1024)
    pose_channel: int = Field(0, ge=0, le=1024)
    """Additional numbers from the encoder to the field (affinity-VAE): no prior, no KL, no noise.
    """
    encoder: EncoderConfig = MlpEncoderConfig()
    rotation: RotationConfig = RotationConfig()
    shift: ShiftConfig = ShiftConfig()
    reflection: ReflectionConfig = ReflectionConfig()
    scale: ScaleConfig = ScaleConfig()
    field: FieldConfig = ImplicitFieldConfig()
    likelihood: LikelihoodConfig = GaussianConfig()
    ctf: Literal["auto", "off"] = "off"
    """``auto``: apply the contrast transfer function if the particles table has one."""
    poses: Literal["inferred", "given"] = "inferred"
    """``given``: use rotation and shift of the particles table (or of ``--poses``)."""
    refine_poses: PoseRefinementConfig | None = None
    """Correct given poses by gradient; null does not change them."""
    kept_poses: int = Field(0, ge=0, le=16)
    """Of images that come without poses: most poses, nearly as probable, that the model keeps of an
    image.  Before each epoch it takes the one that explains the image best.  0: one pose, which is
    improved before the fit.  Fits of earlier versions kept 4.
    """
    wedge: str = "off"
    """Measured frequencies of volumes: ``auto``, from the particles table; ``LOW,HIGH``, the
    smallest and largest tilt in degrees; or a file of masks or of tomograms.  ``off``: all
    frequencies.
    """

    def check(self, facts: Facts) -> None:
        """Refuse a model without latent variables, or with the pose twice."""
        if self.wedge != "off" and facts.dim == 2:
            raise facts.refusal("model.wedge", self.wedge, "off for images, which have no wedge")
        posed = any(
            part.inferred for part in (self.rotation, self.shift, self.reflection, self.scale)
        )
        if not (self.z_dim or posed or self.pose_channel):
            expected = "1 or more, because neither rotation nor shift is inferred"
            raise facts.refusal("model.z_dim", self.z_dim, expected)
        if self.pose_channel and (posed or self.poses == "given"):
            expected = "0, because rotation or shift is inferred or given"
            raise facts.refusal("model.pose_channel", self.pose_channel, expected)
        if self.refine_poses is not None and not self.field.spectral:
            expected = "null, because poses are inferred"
            raise facts.refusal("model.refine_poses", "set", expected)

"""Whether the parts of a model agree with one another and with the data."""

from __future__ import annotations

from collections.abc import Sequence

from modpose.config import Config, MlpEncoderConfig, PrincipalFieldConfig
from modpose.errors import InputError


def check_model(config: Config, shape: Sequence[int], channels: int) -> None:
    """Refuse combinations that no model can be made of.

    Parameters
    ----------
    config
        The complete configuration.
    shape, channels
        Of the preprocessed images.

    Raises
    ------
    InputError
        Names the option, what it is, and what is expected.
    """
    model, name = config.model, f"recipe {config.recipe}"
    if len(shape) != 2:
        _check_volumes(config)
    elif model.wedge != "off":
        raise InputError.of(name, "model.wedge", model.wedge, "off for images, which have no wedge")
    if model.encoder.kind == "orbit" and model.rotation.prior == "wide":
        expected = "uniform, gaussian or none with an orbit encoder"
        raise InputError.of(name, "model.rotation.prior", "wide", expected)
    if model.ctf == "auto" and model.likelihood.kind == "bernoulli":
        raise InputError.of(name, "model.likelihood", "bernoulli", "gaussian, to apply a CTF")
    if model.wedge != "off" and model.likelihood.kind == "bernoulli":
        raise InputError.of(name, "model.likelihood", "bernoulli", "gaussian, to apply a wedge")
    priors = (model.rotation.prior, model.shift.prior, model.reflection.prior)
    posed = any(prior != "none" for prior in priors)
    if not (model.z_dim or posed or model.pose_channel):
        expected = "1 or more where neither rotation nor shift is inferred"
        raise InputError.of(name, "model.z_dim", model.z_dim, expected)
    if model.pose_channel and (posed or model.poses == "given"):
        expected = "0 where rotation or shift is inferred or given, which is the pose already"
        raise InputError.of(name, "model.pose_channel", model.pose_channel, expected)
    _check_reflection(config, shape)
    _check_contrast(config, shape)
    _check_subspaces(config)
    _check_octahedral(config, shape)
    _check_projection(config, shape, channels)


def _check_reflection(config: Config, shape: Sequence[int]) -> None:
    """Check that there are pictures to mirror, and an encoder whose cells tell it."""
    model = config.model
    if model.reflection.prior == "none":
        return
    for sound, expected in (
        (len(shape) == 2, "none for volumes"),
        (model.poses == "inferred", "none where poses are given"),
        (model.encoder.mirrors, f"none with the {model.encoder.kind} encoder, or an orbit encoder"),
    ):
        if not sound:
            where, found = f"recipe {config.recipe}", model.reflection.prior
            raise InputError.of(where, "model.reflection.prior", found, expected)


def _check_contrast(config: Config, shape: Sequence[int]) -> None:
    """Check that there are pictures to deform, and an encoder that looks at them."""
    if config.train.contrast is None:
        return
    model, apart = config.model, config.train.contrast.similarity.kind == "cauchy"
    for option, found, sound, expected in (
        ("the data", "volumes", len(shape) == 2, "images"),
        ("data.twin", config.data.twin, config.data.twin == "none", "none"),
        ("model.poses", model.poses, model.poses == "inferred", "inferred"),
        ("model.encoder.kind", model.encoder.kind, model.encoder.kind != "table", "a network"),
        ("model.z_dim", model.z_dim, model.z_dim > 1 or apart, "2 or more, whose cosines differ"),
    ):
        if not sound:
            where = f"{expected} with train.contrast"
            raise InputError.of(f"recipe {config.recipe}", option, found, where)


def _check_subspaces(config: Config) -> None:
    """Check that there are centres and angles to be found, and an encoder that is taught them."""
    if config.train.start is None or config.train.start.kind != "subspaces":
        return
    model = config.model
    for option, found, expected in (
        ("model.encoder.kind", model.encoder.kind, "polar"),
        ("model.rotation.prior", model.rotation.prior, "uniform or gaussian"),
        ("model.shift.prior", model.shift.prior, "gaussian"),
        ("data.twin", config.data.twin, "none"),
    ):
        if found not in expected.split(" or "):
            where = f"{expected} with train.start.kind subspaces"
            raise InputError.of(f"recipe {config.recipe}", option, found, where)


def _check_octahedral(config: Config, shape: Sequence[int]) -> None:
    """Check that the octahedral encoder has what it compares volumes with, and learns from."""
    model, name = config.model, f"recipe {config.recipe}"
    aligned = config.train.start is not None and config.train.start.kind == "alignment"
    if model.encoder.kind != "octahedral":
        if aligned:
            expected = "octahedral with train.start.kind alignment"
            raise InputError.of(name, "model.encoder.kind", model.encoder.kind, expected)
        return
    for option, found, expected in (
        ("the data", "volumes" if len(shape) == 3 else "images", "volumes"),
        ("model.field.kind", model.field.kind, "basis"),
        ("model.rotation.prior", model.rotation.prior, "uniform"),
        ("model.shift.prior", model.shift.prior, "gaussian"),
        ("model.likelihood.kind", model.likelihood.kind, "gaussian"),
        ("train.start.kind", "alignment" if aligned else "null", "alignment"),
    ):
        if found != expected:
            where = f"{expected} with the octahedral encoder"
            raise InputError.of(name, option, found, where)


def _check_volumes(config: Config) -> None:
    """Refuse what only pictures have."""
    model = config.model
    for option, value, flat, expected in (
        (
            "model.encoder.kind",
            model.encoder.kind,
            ("orbit", "polar"),
            "octahedral, mlp, conv or table for volumes",
        ),
        ("model.rotation.prior", model.rotation.prior, ("wide",), "uniform, gaussian or none"),
        (
            "train.augment.rotate",
            config.train.augment.rotate,
            ("encoder-input",),
            "quarter-turns, any or none for volumes",
        ),
    ):
        if value in flat:
            raise InputError.of(f"recipe {config.recipe}", option, value, expected)


def _check_principal(config: Config) -> None:
    """Check that motions have an encoder that reads them, and are as many as it needs."""
    model, name = config.model, f"recipe {config.recipe}"
    if model.encoder.kind == "principal" and model.field.kind != "principal":
        expected = "principal, whose motions the encoder of that name reads"
        raise InputError.of(name, "model.field.kind", model.field.kind, expected)
    field = model.field
    if isinstance(field, PrincipalFieldConfig) and not 1 <= model.z_dim <= field.motions:
        expected = f"1 to {field.motions} (model.field.motions)"
        raise InputError.of(name, "model.z_dim", model.z_dim, expected)


def _check_projection(config: Config, shape: Sequence[int], channels: int) -> None:
    """Check that slices, the likelihood of coefficients and given poses come together."""
    model, name = config.model, f"recipe {config.recipe}"
    slices = model.field.kind in ("slices", "principal")
    _check_principal(config)
    if slices != (model.likelihood.kind == "spectral"):
        expected = "spectral with fields of slices and principal motions, and only there"
        raise InputError.of(name, "model.likelihood.kind", model.likelihood.kind, expected)
    if not slices:
        if isinstance(model.encoder, MlpEncoderConfig) and model.encoder.sees != "image":
            expected = "image, where there is no transform"
            raise InputError.of(name, "model.encoder.sees", model.encoder.sees, expected)
        if model.refine_poses is not None:
            raise InputError.of(name, "model.refine_poses", "set", "null, where poses are inferred")
        return
    if model.poses != "given":
        raise InputError.of(name, "model.poses", model.poses, "given, for projections of volumes")
    if len(shape) != 2 or shape[0] != shape[1] or channels != 1:
        found = f"{channels} of {'x'.join(map(str, shape))}"
        raise InputError.of(name, "channels and shape of the data", found, "1, square images")
    if model.rotation.prior != "none" or model.shift.prior != "none":
        found = f"rotation {model.rotation.prior}, shift {model.shift.prior}"
        raise InputError.of(name, "the priors of the pose", found, "none, where it is given")

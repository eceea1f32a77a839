"""The one place that makes a model from its configuration."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from modpose.config import (
    Config,
    MlpEncoderConfig,
    PrincipalEncoderConfig,
    PrincipalFieldConfig,
    SpectralConfig,
)
from modpose.config.facts import Facts, check_config
from modpose.fourier.projection import Projection
from modpose.model.encoders import Place, build_encoder
from modpose.model.encoders.encoder import Encoder
from modpose.model.imaging import CentralSlices, Imaging, PrincipalSlices, RealSpace
from modpose.model.memory import bounded_memory
from modpose.model.posterior import LatentLayout
from modpose.model.terms import Term
from modpose.model.terms.affinity import AffinityTerm
from modpose.model.terms.contrast import ContrastTerm
from modpose.model.terms.supervision import PoseSupervisionTerm
from modpose.model.vae import Vae


def build_vae(
    config: Config,
    *,
    shape: Sequence[int],
    channels: int,
    n_images: int,
    affinity: AffinityTerm | None = None,
) -> Vae:
    """Make a model, seeded by ``config.seed``, after checking that its parts agree.

    Parameters
    ----------
    config
        The run's configuration.
    shape, channels
        Of the preprocessed images.
    n_images
        Size of the stack (rows of tables with one row per image).
    affinity
        Known affinities of the training images, where the model is trained on them.

    Raises
    ------
    InputError
        If parts of the configuration do not fit each other or the images.
    """
    check_config(Facts(config, tuple(shape), channels))
    within = bounded_memory(f"recipe {config.recipe}")
    with torch.random.fork_rng(devices=[]), within:
        torch.manual_seed(config.seed)
        return assemble(
            config, shape=shape, channels=channels, n_images=n_images, affinity=affinity
        )


def assemble(
    config: Config,
    *,
    shape: Sequence[int],
    channels: int,
    n_images: int,
    affinity: AffinityTerm | None = None,
) -> Vae:
    """Make the parts of a model and put them together; arguments as for :func:`build_vae`."""
    layout = LatentLayout(config.model, len(shape), max(shape))
    place = Place(
        config.model, layout, channels, tuple(shape), n_images, _numbers_shown(config, shape)
    )
    encoder = build_encoder(place)
    return Vae(
        config,
        encoder=encoder,
        layout=layout,
        imaging=_imaging(config, shape),
        shape=shape,
        channels=channels,
        n_images=n_images,
        terms=_terms(config, encoder, affinity),
    )


def _imaging(config: Config, shape: Sequence[int]) -> Imaging:
    likelihood = config.model.likelihood
    if isinstance(likelihood, SpectralConfig):
        kind = PrincipalSlices if _only_amounts(config) else CentralSlices
        return kind(Projection(likelihood, max(shape)))
    return RealSpace(len(shape))


def _only_amounts(config: Config) -> bool:
    """Return whether training changes nothing but content and its amounts of maps that stay."""
    model, train = config.model, config.train
    parts = isinstance(model.field, PrincipalFieldConfig) and isinstance(
        model.encoder, PrincipalEncoderConfig
    )
    poses = model.refine_poses is None and not model.kept_poses
    images = config.data.twin == "none" and not train.augment.moves_images
    return parts and poses and images and train.augment.rotate == "none" and train.contrast is None


def _terms(config: Config, encoder: Encoder, affinity: AffinityTerm | None) -> list[Term]:
    terms: list[Term] = [PoseSupervisionTerm()] if encoder.poses_in_space else []
    if config.train.contrast is not None:
        terms.append(ContrastTerm(config.train.contrast))
    return terms if affinity is None else [*terms, affinity]


def _numbers_shown(config: Config, shape: Sequence[int]) -> int | None:
    """How many numbers per image the encoder sees, if it does not see pixels."""
    encoder, likelihood = config.model.encoder, config.model.likelihood
    if not isinstance(encoder, MlpEncoderConfig) or encoder.sees == "image":
        return None
    assert isinstance(likelihood, SpectralConfig), "checked with the configuration"
    return Projection(likelihood, max(shape)).n_shown(encoder.sees)

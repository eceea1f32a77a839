"""affinity-VAE (Mirecka et al. 2022): a latent space whose cosines follow known affinities."""

from __future__ import annotations

import math

from modpose.config import merge
from modpose.recipes.recipe import NO_POSE, Options, Recipe

_PAPER = "Mirecka, Famili, Kotańska, Juraschko et al., arXiv 2209.04517, 2022"
SQUARED_ERROR: Options = {"kind": "gaussian", "noise": "fixed", "std": math.sqrt(0.5)}
"""-log N(x; y, 1/2) is |x - y|² and a constant: the published reconstruction loss, in nats."""

_OPTIONS: Options = {
    "model": {
        "z_dim": 8,
        "encoder": {"kind": "conv", "widths": (8, 32, 64, 128)},
        "field": {"kind": "conv", "channels": 32, "depth": 2, "patch": 4},
        "likelihood": SQUARED_ERROR,
        **NO_POSE,
    },
    "train": {"lr": 1e-3, "batch_size": 64, "schedule": "cosine", "warmup_steps": 100},
}

AFFINITY_VAE: dict[str, Recipe] = {
    "affinity-vae": Recipe(
        title="Content whose cosines follow known affinities, 2-D or 3-D",
        description=(
            "A convolutional beta-VAE; with an affinity matrix (--affinity) and known classes "
            "(--labels), the cosines between contents are trained to match the affinities, and a "
            "pose channel beside content holds the rest."
        ),
        paper=_PAPER,
        options=merge(
            _OPTIONS,
            {
                "model": {"pose_channel": 3},
                "train": {"gamma": {"kind": "constant", "end": 10.0}},
            },
        ),
    ),
    "affinity-harmonic": Recipe(
        title="affinity-vae with rotation-invariant content, 2-D or 3-D",
        description=(
            "Content comes from the powers of learned radial profiles of spherical (circular) "
            "harmonics, which no rotation changes, in place of convolutions; everything else is as "
            "in affinity-vae. For objects in any orientation: few or noisy labelled objects are "
            "enough. It cannot distinguish mirror images."
        ),
        paper=_PAPER,
        options=merge(
            _OPTIONS,
            {
                "model": {
                    "pose_channel": 3,
                    "encoder": {"kind": "harmonic"},
                    "field": {"channels": 16},
                },
                "train": {
                    "lr": 5e-3,
                    "batch_size": 32,
                    "decoded_images": 8,
                    "warmup_steps": 30,
                    "augment": {"shift_px": 2},
                    "gamma": {"kind": "constant", "end": 1000.0},
                },
            },
        ),
    ),
    "conv-vae": Recipe(
        title="Convolutional VAE, no pose, 2-D or 3-D",
        description=(
            "affinity-vae without affinity and pose channel: its baseline, a beta-VAE; set "
            "train.beta.end."
        ),
        paper=_PAPER,
        options=_OPTIONS,
    ),
}

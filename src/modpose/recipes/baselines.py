"""Variational autoencoders without a pose: the baselines."""

from __future__ import annotations

from modpose.config import merge
from modpose.recipes.recipe import DENSE, NO_POSE, PERCEPTRON, Options, Recipe

_OPTIONS: Options = {
    "model": {"encoder": PERCEPTRON, "field": DENSE, **NO_POSE},
    "train": {"lr": 1e-3},
}

BASELINES: dict[str, Recipe] = {
    "vae": Recipe(
        title="Variational autoencoder, no pose",
        description="The baseline: a perceptron decodes every pixel from z, also the pose.",
        paper="Kingma & Welling, ICLR 2014",
        options=_OPTIONS,
    ),
    "beta-vae": Recipe(
        title="VAE with a heavier content KL (beta = 4)",
        description="The baseline that disentangles by the KL weight only; set train.beta.end.",
        paper="Higgins et al., ICLR 2017",
        options=merge(_OPTIONS, {"train": {"beta": {"kind": "constant", "end": 4.0}}}),
    ),
}

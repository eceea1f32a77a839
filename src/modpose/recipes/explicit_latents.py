"""Heterogeneous reconstruction: cryoDRGN, the variational lookup table, the evil twin.

cryoDRGN's loss is the mean squared error of the transform, whose s.d. over the set is 1, plus beta
KL / n with n the number of used coefficients.  In nats per image, and up to a constant, this is
Gaussian noise of variance 1/2 and the KL weighted by beta, by default 1 / z_dim.
"""

from __future__ import annotations

from modpose.config import merge
from modpose.config.train import OVER_Z_DIM
from modpose.recipes.recipe import NO_POSE, Options, Recipe

_CRYODRGN = "Zhong, Bepler, Berger & Davis, Nature Methods 2021"
_PAPER = "Edelberg & Lederman, Using VAEs to Learn Latent Variables, 2023"

GIVEN_POSE: Options = NO_POSE | {"poses": "given", "ctf": "auto"}
PROJECTIONS: Options = {"normalize": "set", "window": [0.85, 0.99]}
PERCEPTRON: Options = {"kind": "mlp", "hidden": 256, "depth": 4, "activation": "relu"}
"""Three layers in the authors' terms: one first layer and three residual ones."""

_OPTIONS: Options = {
    "data": PROJECTIONS,
    "model": {
        "z_dim": 8,
        **GIVEN_POSE,
        "encoder": PERCEPTRON | {"residual": True, "sees": "transform"},
        "field": {"kind": "slices", "hidden": 256, "depth": 3},
        "likelihood": {"kind": "spectral", "noise": "flat", "std": 0.5**0.5},
    },
    "train": {
        "lr": 1e-4,
        "batch_size": 8,
        "epochs": 50,
        "beta": {"kind": "constant", "end": OVER_Z_DIM},
    },
}
_RANDOM_ROWS: Options = {
    "kind": "table",
    "init": "random",
    "mean": -0.05,
    "spread": 1.49,
    "log_std": -5.47 / 2,
    "log_std_spread": 0.72 / 2,
    "lr": 1e-2,
}
"""A run of the authors, once trained, is drawn from; the rate is theirs for a start from zeros."""

EXPLICIT_LATENTS: dict[str, Recipe] = {
    "cryodrgn": Recipe(
        title="Conformations of a volume from projections of known pose, by an encoder",
        description=(
            "A perceptron of 3 x 256 infers content from each image's Fourier transform, with the "
            "shift undone and phases flipped; a coordinate network of the volume's transform is "
            "evaluated on central slices.  Flat noise and the KL divided by z_dim, as published."
        ),
        paper=_CRYODRGN,
        options=_OPTIONS,
    ),
    "vlt": Recipe(
        title="The same with a lookup table in place of the encoder",
        description=(
            "One row of content per image, with its own optimiser at 0.01, for 100 epochs.  "
            "Rows start at random (model.encoder.init=zeros or pretrained; "
            "model.encoder.frozen=true keeps them)."
        ),
        paper=_PAPER,
        options=merge(
            _OPTIONS,
            {
                "data": {"val_fraction": 0.0},
                "model": {"encoder": _RANDOM_ROWS},
                "train": {"epochs": 100},
            },
        ),
    ),
    "evil-twin": Recipe(
        title="The same with an encoder that sees another image",
        description=(
            "The encoder sees a fixed other image of the set in place of each image "
            "(data.twin=noise: noise with the set's mean and s.d.), so it can only memorise; the "
            "loss is still that of the image itself."
        ),
        paper=_PAPER,
        options=merge(_OPTIONS, {"data": {"twin": "permutation"}}),
    ),
    "evil-twin-large": Recipe(
        title="The evil twin with a larger encoder",
        description="An encoder of 5 x 1024 in place of 3 x 256.",
        paper=_PAPER,
        options=merge(
            _OPTIONS,
            {
                "data": {"twin": "permutation"},
                "model": {"encoder": {"hidden": 1024, "depth": 6}},
            },
        ),
    ),
}

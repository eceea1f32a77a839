"""Recipes: each published system as a few lines of configuration, and no code of its own."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from modpose.config import merge
from modpose.errors import InputError

if TYPE_CHECKING:
    from modpose.data.source import Source

Options = dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """A named configuration.

    Attributes
    ----------
    title
        A line for lists.
    description
        What it does and when to use it.
    paper
        The source.
    options
        What it sets; the rest are the defaults of :class:`modpose.config.Config`.
    """

    title: str
    description: str
    paper: str
    options: Options


_NO_POSE: Options = {"rotation": {"prior": "none"}, "shift": {"prior": "none"}}
_PERCEPTRON: Options = {"kind": "mlp", "hidden": 500, "depth": 2, "activation": "tanh"}
_DENSE: Options = {"kind": "dense", "hidden": 500, "depth": 2, "activation": "tanh"}
_IMPLICIT: Options = {"kind": "implicit", "hidden": 500, "depth": 2, "activation": "tanh"}
_FOURIER: Options = {
    "kind": "implicit",
    "hidden": 128,
    "depth": 2,
    "activation": "leaky-relu",
    "fourier": {"count": 64, "sigma": 0.7},
}
_SPATIAL = "Bepler, Zhong, Kelley, Brignole & Berger, NeurIPS 2019"

_PLAIN_VAE: Options = {
    "model": {"encoder": _PERCEPTRON, "field": _DENSE, **_NO_POSE},
    "train": {"lr": 1e-3},
}
_SPATIAL_VAE: Options = {
    "model": {
        "encoder": _PERCEPTRON | {"hidden": 512, "activation": "leaky-relu"},
        "field": _FOURIER,
        "rotation": {"prior": "uniform"},
        "shift": {"prior": "gaussian", "std_px": 2.0},
    },
    "train": {
        "lr": 1e-3,
        "batch_size": 32,
        "schedule": "cosine",
        "warmup_steps": 500,
        "pixels": 100,
        "augment_rotation": True,
        "delay_z_steps": 1000,
        "beta": {"kind": "linear", "start": 0.0, "end": 1.0, "steps": 2000},
    },
}

_TARGET = "Nasiri & Bepler, NeurIPS 2022"
_TARGET_VAE: Options = {
    "model": {
        "encoder": {"kind": "orbit", "rotations": 8, "stride": 2, "subpixel": True},
        "field": {
            "kind": "implicit",
            "hidden": 512,
            "depth": 2,
            "activation": "leaky-relu",
            "fourier": {"count": 128, "sigma": 0.7},
        },
        "rotation": {"prior": "uniform"},
        "shift": {"prior": "gaussian", "std_px": 5.0},
    },
    "train": {
        "lr": 1e-3,
        "batch_size": 32,
        "schedule": "cosine",
        "warmup_steps": 100,
        "pixels": 250,
    },
}

_MODPOSE: Options = {
    "model": {
        "z_dim": 2,
        "encoder": {"kind": "polar", "hypotheses": 4},
        "field": _DENSE | {"hidden": 512, "activation": "leaky-relu"},
        "rotation": {"prior": "uniform"},
        "shift": {"prior": "gaussian", "std_px": 5.0},
    },
    "train": {
        "lr": 2e-3,
        "batch_size": 50,
        "schedule": "cosine",
        "warmup_steps": 500,
        "pixels": 800,
        "augment_rotation": True,
        "beta": {"kind": "linear", "start": 0.0, "end": 1.0, "steps": 1000},
        "cells": {"kind": "top", "count": 2},
    },
}

RECIPES: dict[str, Recipe] = {
    "modpose": Recipe(
        title="Rotation by search against the model's own picture, shift by attention",
        description=(
            "An encoder finds the centre and a content that does not turn with the object; every "
            "angle is compared at once with the picture that the model draws of it, and the best "
            "few are kept, each with its weight."
        ),
        paper="this program",
        options=_MODPOSE,
    ),
    "vae": Recipe(
        title="Variational autoencoder, no pose",
        description="The baseline: a perceptron decodes every pixel from z, pose and all.",
        paper="Kingma & Welling, ICLR 2014",
        options=_PLAIN_VAE,
    ),
    "beta-vae": Recipe(
        title="VAE with a heavier content KL (beta = 4)",
        description="The baseline that disentangles by pressure alone; set train.beta.end.",
        paper="Higgins et al., ICLR 2017",
        options=merge(_PLAIN_VAE, {"train": {"beta": {"kind": "constant", "end": 4.0}}}),
    ),
    "spatial-vae": Recipe(
        title="Rotation and shift as latent variables of a coordinate network",
        description=(
            "Content z, in-plane angle and shift are inferred by a perceptron; the decoder is a "
            "function of coordinates (random Fourier features).  A uniform prior on the circle "
            "with its exact KL, the encoder's input turned at random, content held at zero until "
            "pose is learned, 100 pixels a step."
        ),
        paper=_SPATIAL,
        options=_SPATIAL_VAE,
    ),
    "spatial-vae-paper": Recipe(
        title="spatial-VAE with the published training",
        description=(
            "As printed: tanh networks of 2 x 500, every pixel, Adam at 1e-4, batches of 100, "
            "the wide-prior KL of equation 3, content held for the two epochs of the paper's set."
        ),
        paper=_SPATIAL,
        options=merge(
            _SPATIAL_VAE,
            {
                "model": {
                    "encoder": _PERCEPTRON,
                    "field": _IMPLICIT | {"fourier": None},
                    "rotation": {"prior": "wide", "std_deg": 180.0},
                },
                "train": {
                    "lr": 1e-4,
                    "batch_size": 100,
                    "schedule": "constant",
                    "warmup_steps": 0,
                    "pixels": None,
                    "delay_z_steps": 320,
                    "beta": {"kind": "constant"},
                    "epochs": 500,
                },
            },
        ),
    ),
    "spatial-vae-rotation": Recipe(
        title="spatial-VAE, rotation only",
        description="The shift is fixed to zero, for images that are centred already.",
        paper=_SPATIAL,
        options=merge(_SPATIAL_VAE, {"model": {"shift": {"prior": "none"}}}),
    ),
    "spatial-vae-translation": Recipe(
        title="spatial-VAE, shift only",
        description="The angle is fixed to zero, for images that are upright already.",
        paper=_SPATIAL,
        options=merge(
            _SPATIAL_VAE,
            {"model": {"rotation": {"prior": "none"}}, "train": {"augment_rotation": False}},
        ),
    ),
    "spatial-vae-fixed": Recipe(
        title="spatial-VAE, pose fixed to zero",
        description="The coordinate network alone: the ablation of Figure 2 of the paper.",
        paper=_SPATIAL,
        options=merge(
            _SPATIAL_VAE,
            {"model": _NO_POSE, "train": {"augment_rotation": False, "delay_z_steps": 0}},
        ),
    ),
    "target-vae": Recipe(
        title="Rotation and shift found by a group convolution, among many hypotheses",
        description=(
            "Kernels turned to 8 angles (--group) give, for every angle and position, a "
            "probability, content and small residuals of angle and shift; the decoder is a "
            "function of coordinates (random Fourier features).  Cells every other pixel with a "
            "continuous shift, 250 pixels a step."
        ),
        paper=_TARGET,
        options=_TARGET_VAE,
    ),
    "target-vae-paper": Recipe(
        title="TARGET-VAE with the published sizes and training",
        description=(
            "As printed: cells at every pixel and no finer shift, every pixel decoded, 1024 random "
            "Fourier features, Adam at 2e-4, batches of 100, the rate halved after 10 epochs "
            "without a better validation ELBO, the end after 20."
        ),
        paper=_TARGET,
        options=merge(
            _TARGET_VAE,
            {
                "model": {
                    "encoder": {"stride": 1, "subpixel": False},
                    "field": {"fourier": {"count": 512}},
                },
                "train": {
                    "lr": 2e-4,
                    "batch_size": 100,
                    "schedule": "plateau",
                    "plateau_epochs": 10,
                    "stop_epochs": 20,
                    "warmup_steps": 0,
                    "pixels": None,
                    "epochs": 500,
                },
            },
        ),
    ),
}

DEFAULT_RECIPE = "modpose"
DEFAULT_FOR_VOLUMES = "vae"


def recipe_config(name: str) -> Options:
    """Return the options that a recipe sets.

    Raises
    ------
    InputError
        If there is no such recipe; names the nearest.
    """
    recipe = RECIPES.get(name)
    if recipe is None:
        near = difflib.get_close_matches(name, RECIPES, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(RECIPES)}"
        raise InputError(f"--recipe: there is no recipe '{name}'; {hint}")
    return {"recipe": name} | recipe.options


def suggest(source: Source) -> tuple[str, Options, str]:
    """Choose the recipe, and the likelihood and normalisation, by the kind of data, and say so.

    Pictures (8-bit, or real values within [0, 1]) take the Bernoulli likelihood on [0, 1];
    measurements take Gaussian noise on images of zero mean and unit standard deviation.

    Parameters
    ----------
    source
        The opened input; a few images are read.

    Returns
    -------
    tuple
        The best recipe's name, options to lay between any recipe's and the user's own, and a
        sentence.
    """
    ctf = any(source.particles.has(name) for name in ("rlnDefocusU", "ctf/df1_A"))
    hint = "; --set model.ctf=auto models their CTF, too" if ctf else ""
    few = np.linspace(0, source.stack.n - 1, min(source.stack.n, 32)).astype(np.int64)
    values = source.stack.read(few)
    name = DEFAULT_RECIPE if len(source.stack.shape) == 2 else DEFAULT_FOR_VOLUMES
    low, high = float(values.min()), float(values.max())
    eight_bit = low >= 0 and 1 < high <= 255 and bool((values == np.rint(values)).all())
    if eight_bit or (low >= 0 and high <= 1):
        options: Options = {"model": {"likelihood": {"kind": "bernoulli"}}}
        options["data"] = {"normalize": "range"}
        return name, options, "values look like pictures: Bernoulli likelihood on [0, 1]"
    noise = {"kind": "gaussian", "noise": "learned", "std": 1.0}
    options = {"model": {"likelihood": noise}, "data": {"normalize": "image"}}
    meaning = f"values look like measurements: normalised images, learned Gaussian noise{hint}"
    return name, options, meaning

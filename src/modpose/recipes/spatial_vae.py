"""spatial-VAE (Bepler et al. 2019): the decoder is a function of coordinates."""

from __future__ import annotations

from modpose.config import merge
from modpose.recipes.recipe import (
    FOURIER,
    IMPLICIT,
    NO_POSE,
    PER_PIXEL,
    PERCEPTRON,
    Options,
    Recipe,
)

_PAPER = "Bepler, Zhong, Kelley, Brignole & Berger, NeurIPS 2019"

_OPTIONS: Options = {
    "model": {
        "encoder": PERCEPTRON | {"hidden": 512, "activation": "leaky-relu"},
        "field": FOURIER,
        "rotation": {"prior": "uniform"},
        "shift": {"prior": "gaussian", "std_px": 2.0},
    },
    "train": {
        "lr": 1e-3,
        "batch_size": 32,
        "schedule": "cosine",
        "warmup_steps": 500,
        "pixels": 100,
        "augment": {"rotate": "encoder-input"},
        "delay_z_steps": 1000,
        "beta": {"kind": "linear", "start": 0.0, "end": 1.0, "steps": 2000},
    },
}

_PRINTED = merge(
    _OPTIONS,
    {
        "model": {
            "encoder": PERCEPTRON,
            "field": IMPLICIT | {"fourier": None},
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
)

SPATIAL_VAE: dict[str, Recipe] = {
    "spatial-vae": Recipe(
        title="Rotation and shift as latent variables of a coordinate network",
        description=(
            "A perceptron infers content z, in-plane angle and shift; the decoder is a function of "
            "coordinates (random Fourier features).  A uniform prior on the circle with its exact "
            "KL, random rotation of the encoder's input, content held at zero until pose is "
            "learned, 100 pixels per step."
        ),
        paper=_PAPER,
        options=_OPTIONS,
    ),
    "spatial-vae-paper": Recipe(
        title="spatial-VAE with the published training",
        description=(
            "As printed: tanh networks of 2 x 500, every pixel, Adam at 1e-4, batches of 100, "
            "the wide-prior KL of equation 3, content held for the two epochs of the paper's set."
        ),
        paper=_PAPER,
        options=_PRINTED,
    ),
    "spatial-vae-particles-paper": Recipe(
        title="spatial-VAE with the published training, of images of particles",
        description=(
            "As printed for negative-stain images: spatial-vae-paper with networks of 2 x 1000, a "
            "mean and a noise s.d. decoded for every pixel, shifts of N(0, 4) pixels, and 1,000 "
            "epochs."
        ),
        paper=_PAPER,
        options=merge(
            _PRINTED,
            {
                "data": {"normalize": "image"},
                "model": {
                    "encoder": {"hidden": 1000},
                    "field": {"hidden": 1000},
                    "likelihood": PER_PIXEL,
                },
                "train": {"delay_z_steps": 0, "epochs": 1000},
            },
        ),
    ),
    "spatial-vae-rotation": Recipe(
        title="spatial-VAE, rotation only",
        description="The shift is fixed to zero; for centred images.",
        paper=_PAPER,
        options=merge(_OPTIONS, {"model": {"shift": {"prior": "none"}}}),
    ),
    "spatial-vae-translation": Recipe(
        title="spatial-VAE, shift only",
        description="The angle is fixed to zero; for upright images.",
        paper=_PAPER,
        options=merge(
            _OPTIONS,
            {"model": {"rotation": {"prior": "none"}}, "train": {"augment": {"rotate": "none"}}},
        ),
    ),
    "spatial-vae-fixed": Recipe(
        title="spatial-VAE, pose fixed to zero",
        description="Only the coordinate network: the ablation of Figure 2 of the paper.",
        paper=_PAPER,
        options=merge(
            _OPTIONS,
            {"model": NO_POSE, "train": {"augment": {"rotate": "none"}, "delay_z_steps": 0}},
        ),
    ),
}

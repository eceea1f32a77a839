"""TARGET-VAE (Nasiri & Bepler 2022): a group convolution proposes many poses."""

from __future__ import annotations

from modpose.config import merge
from modpose.recipes.recipe import PER_PIXEL, Options, Recipe

_PAPER = "Nasiri & Bepler, NeurIPS 2022"
_OPTIONS: Options = {
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

_PRINTED = merge(
    _OPTIONS,
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
)

TARGET_VAE: dict[str, Recipe] = {
    "target-vae": Recipe(
        title="Rotation and shift found by a group convolution, among many hypotheses",
        description=(
            "Kernels rotated to 8 angles (--group) give, for every angle and position, a "
            "probability, content and small residuals of angle and shift; the decoder is a "
            "function of coordinates (random Fourier features).  Cells at every second pixel with "
            "a continuous shift, 250 pixels per step."
        ),
        paper=_PAPER,
        options=_OPTIONS,
    ),
    "target-vae-paper": Recipe(
        title="TARGET-VAE with the published sizes and training",
        description=(
            "As published: cells at every pixel and no finer shift, every pixel decoded, 1024 "
            "random "
            "Fourier features, Adam at 2e-4, batches of 100, the rate halved after 10 epochs "
            "without a better validation ELBO, the end after 20."
        ),
        paper=_PAPER,
        options=_PRINTED,
    ),
    "target-vae-particles-paper": Recipe(
        title="TARGET-VAE with the published sizes and training, of images of particles",
        description=(
            "As printed for cryo-EM images: target-vae-paper with a decoder of six layers, which "
            "gives a mean and a noise s.d. for every pixel."
        ),
        paper=_PAPER,
        options=merge(
            _PRINTED,
            {
                "data": {"normalize": "image"},
                "model": {"field": {"depth": 6}, "likelihood": PER_PIXEL},
            },
        ),
    ),
}

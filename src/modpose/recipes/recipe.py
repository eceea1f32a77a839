"""The options that several recipes share."""

from __future__ import annotations

from modpose.config.system import Options, Recipe

__all__ = [
    "DENSE",
    "FOURIER",
    "IMPLICIT",
    "NO_POSE",
    "PERCEPTRON",
    "PER_PIXEL",
    "Options",
    "Recipe",
]

NO_POSE: Options = {"rotation": {"prior": "none"}, "shift": {"prior": "none"}}
PERCEPTRON: Options = {"kind": "mlp", "hidden": 500, "depth": 2, "activation": "tanh"}
DENSE: Options = {"kind": "dense", "hidden": 500, "depth": 2, "activation": "tanh"}
IMPLICIT: Options = {"kind": "implicit", "hidden": 500, "depth": 2, "activation": "tanh"}
PER_PIXEL: Options = {"kind": "gaussian", "noise": "per-pixel"}
"""The decoders of spatial-VAE and TARGET-VAE give real pixels a mean and an s.d. each."""
FOURIER: Options = {
    "kind": "implicit",
    "hidden": 128,
    "depth": 2,
    "activation": "leaky-relu",
    "fourier": {"count": 64, "sigma": 0.7},
}

"""The options that several recipes share."""

from __future__ import annotations

from modpose.config.system import Options, Recipe

__all__ = ["DENSE", "FOURIER", "IMPLICIT", "NO_POSE", "PERCEPTRON", "Options", "Recipe"]

NO_POSE: Options = {"rotation": {"prior": "none"}, "shift": {"prior": "none"}}
PERCEPTRON: Options = {"kind": "mlp", "hidden": 500, "depth": 2, "activation": "tanh"}
DENSE: Options = {"kind": "dense", "hidden": 500, "depth": 2, "activation": "tanh"}
IMPLICIT: Options = {"kind": "implicit", "hidden": 500, "depth": 2, "activation": "tanh"}
FOURIER: Options = {
    "kind": "implicit",
    "hidden": 128,
    "depth": 2,
    "activation": "leaky-relu",
    "fourier": {"count": 64, "sigma": 0.7},
}

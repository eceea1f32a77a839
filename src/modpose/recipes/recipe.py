"""What a recipe is, and the options that several share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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

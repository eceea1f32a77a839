"""A system of another package: content and angle from moments of the image.

The section and the recipe stand here; the network stands in ``moments_encoder.py``, which is
imported when an encoder is made.
"""

from __future__ import annotations

from typing import Literal

from modpose.config import EncoderSection, Recipe, System


class MomentsEncoderConfig(EncoderSection):
    """A perceptron on circular moments of the image: content does not turn with the object."""

    kind: Literal["moments"] = "moments"
    orders: int = 4
    """Highest order of the moments."""
    hidden: int = 64


SYSTEM = System(
    recipes={
        "moments-vae": Recipe(
            title="Content from moments that do not turn",
            description="A small example of a system in a package of its own.",
            paper="",
            options={
                "model": {
                    "encoder": {"kind": "moments"},
                    "rotation": {"prior": "uniform"},
                    "shift": {"prior": "none"},
                    "field": {"kind": "implicit", "hidden": 64},
                },
                "train": {"lr": 1e-3, "warmup_steps": 100},
            },
        )
    },
    encoders={MomentsEncoderConfig: "moments_encoder:build"},
)

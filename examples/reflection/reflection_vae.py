"""A system of another package: rotation and reflection from turned and mirrored copies.

The section and the recipe stand here; the network stands in ``reflection_encoder.py``, which is
imported when an encoder is made.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from modpose.config import CellRole, EncoderSection, ModelConfig, Recipe, System


class CopiesEncoderConfig(EncoderSection):
    """A perceptron that sees each image turned to several angles, and mirrored."""

    mirrors: ClassVar[bool] = True
    kind: Literal["copies"] = "copies"
    rotations: int = 8
    """Angles that the image is turned to."""
    hidden: int = 64

    def cell_role(self, model: ModelConfig) -> CellRole:
        """Each copy is a cell that tells the angle; a small residual is left."""
        return CellRole(angle=model.rotation.prior != "none")


SYSTEM = System(
    recipes={
        "reflection-vae": Recipe(
            title="Rotation and reflection by one network on turned and mirrored copies",
            description="An example of a system in a package of its own, for pictures.",
            paper="",
            options={
                "model": {
                    "z_dim": 1,
                    "encoder": {"kind": "copies"},
                    "rotation": {"prior": "uniform"},
                    "reflection": {"prior": "uniform"},
                    "shift": {"prior": "none"},
                    "field": {"kind": "implicit", "hidden": 32, "fourier": {"count": 32}},
                },
                "train": {
                    "lr": 3e-3,
                    "batch_size": 50,
                    "schedule": "cosine",
                    "cells": {"kind": "top", "count": 3},
                },
            },
        )
    },
    encoders={CopiesEncoderConfig: "reflection_encoder:build"},
)

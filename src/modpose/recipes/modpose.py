"""modpose's own recipes: pose by search against the model's own prediction."""

from __future__ import annotations

from modpose.config import merge
from modpose.recipes.explicit_latents import GIVEN_POSE, PROJECTIONS
from modpose.recipes.recipe import DENSE, Options, Recipe

_OPTIONS: Options = {
    "model": {
        "z_dim": 2,
        "encoder": {"kind": "polar", "hypotheses": 4},
        "field": DENSE | {"hidden": 512, "activation": "leaky-relu"},
        "rotation": {"prior": "uniform"},
        "shift": {"prior": "gaussian", "std_px": 5.0},
    },
    "train": {
        "lr": 2e-3,
        "batch_size": 50,
        "schedule": "cosine",
        "warmup_steps": 500,
        "pixels": 800,
        "augment": {"rotate": "encoder-input"},
        "beta": {"kind": "linear", "start": 0.0, "end": 1.0, "steps": 1000},
        "angle_prior": {"kind": "linear", "start": 4.0, "end": 1.0, "steps": 600},
        "cells": {"kind": "top", "count": 2},
    },
}

_CLASSES: Options = merge(
    _OPTIONS, {"model": {"z_dim": 16}, "train": {"contrast": {"weight": 40.0}}}
)

_EMBEDDING: Options = merge(
    _CLASSES,
    {
        "model": {"z_dim": 2},
        "train": {"start": {"kind": "subspaces"}, "contrast": {"similarity": {"kind": "cauchy"}}},
    },
)

_POSED: Options = {
    "data": PROJECTIONS,
    "model": {
        "z_dim": 4,
        **GIVEN_POSE,
        "encoder": {"kind": "principal"},
        "field": {"kind": "principal"},
        "likelihood": {"kind": "spectral", "noise": "shells", "contrast": 0.2},
    },
    "train": {
        "lr": 2e-3,
        "batch_size": 100,
        "epochs": 20,
        "schedule": "cosine",
        "warmup_steps": 20,
    },
}

_VOLUMES: Options = {
    "data": {"normalize": "image"},
    "model": {
        "z_dim": 2,
        "encoder": {"kind": "octahedral"},
        "field": {"kind": "basis"},
        "rotation": {"prior": "uniform"},
        "shift": {"prior": "gaussian", "std_px": 2.0},
        "likelihood": {"kind": "gaussian", "noise": "learned", "std": 1.0},
    },
    "train": {
        "start": {"kind": "alignment"},
        "lr": 1e-3,
        "batch_size": 16,
        "epochs": 16,
        "schedule": "cosine",
        "warmup_steps": 20,
        "max_grad_norm": 100.0,
    },
}

MODPOSE: dict[str, Recipe] = {
    "modpose": Recipe(
        title="Rotation by search against the model's own picture, shift by attention",
        description=(
            "An encoder finds the centre and a rotation-invariant content; the image is compared "
            "with the model's picture at all angles at once, and the best few angles are kept, "
            "each with its weight."
        ),
        paper="this program",
        options=_OPTIONS,
    ),
    "modpose-classes": Recipe(
        title="As modpose, with content that separates classes",
        description=(
            "Content is also trained not to change when a picture is slightly stretched, sheared "
            "and bent, so that members of one class lie together and k-means or Ward on z finds "
            "the classes.  For clear pictures; the bound is a little lower."
        ),
        paper="this program",
        options=_CLASSES,
    ),
    "modpose-embedding": Recipe(
        title="As modpose-classes, with content of two dimensions, for plotting",
        description=(
            "Aligned linear subspaces first find classes and angles, without a network, and each "
            "class starts at its own position.  Members of a class are then pulled together by "
            "distance, as in neighbour embedding.  train.start.classes says how many kinds there "
            "are (--classes)."
        ),
        paper="this program",
        options=_EMBEDDING,
    ),
    "modpose-posed": Recipe(
        title="Conformations of a volume from projections of known pose, from principal motions",
        description=(
            "First the mean volume and its principal motions are found from the images, their "
            "poses and CTF.  A perceptron maps content to amplitudes of the motions, which bends "
            "the linear space; content is inferred from the exact posterior of the amplitudes.  "
            "Training needs a few sums of each image and not the image.  'modpose encode "
            "--search' refines the content of every image."
        ),
        paper="this program",
        options=_POSED,
    ),
    "modpose-3d": Recipe(
        title="Classes, poses and motions of volumes by search, then an encoder trained on them",
        description=(
            "Poses and classes are searched from a random start, as in modpose align; averages and "
            "motions become a model of content that includes the wedges.  A network on the 24 "
            "rotations of the cube learns from the found poses and from volumes that the model "
            "draws, so new volumes take milliseconds.  train.start.classes (--classes) is the "
            "number of structures."
        ),
        paper="this program",
        options=_VOLUMES,
    ),
}

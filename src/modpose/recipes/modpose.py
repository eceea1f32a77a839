"""Ours: pose by search against the model's own prediction."""

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
        "likelihood": {"kind": "spectral", "noise": "shells"},
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
        "accelerator": "cpu",
    },
}

MODPOSE: dict[str, Recipe] = {
    "modpose": Recipe(
        title="Rotation by search against the model's own picture, shift by attention",
        description=(
            "An encoder finds the centre and a content that does not turn with the object; every "
            "angle is compared at once with the picture that the model draws of it, and the best "
            "few are kept, each with its weight."
        ),
        paper="this program",
        options=_OPTIONS,
    ),
    "modpose-classes": Recipe(
        title="As modpose, with content that tells classes apart",
        description=(
            "Content is also trained not to change when a picture is stretched, sheared and bent a "
            "little, so that members of one class lie together and k-means or Ward on z finds the "
            "classes.  For clear pictures; the bound is a little lower for it."
        ),
        paper="this program",
        options=_CLASSES,
    ),
    "modpose-embedding": Recipe(
        title="As modpose-classes, with content of two dimensions, to look at",
        description=(
            "Classes and angles are first found by aligned linear subspaces, with no network, and "
            "each class begins at its own place.  Members of a class are then drawn together by "
            "distance, as in neighbour embedding.  train.start.classes says how many kinds there "
            "are (--classes)."
        ),
        paper="this program",
        options=_EMBEDDING,
    ),
    "modpose-posed": Recipe(
        title="Conformations of a volume from projections of known pose, ours",
        description=(
            "The mean volume and its principal motions come first, from the images, their poses "
            "and CTF; content then says how motions mix, by a perceptron that bends the linear "
            "space, and is inferred from what each image says of the motions, exactly before the "
            "bend.  The noise spectrum follows the data.  'modpose encode --search' refines "
            "the content of every image from there."
        ),
        paper="this program",
        options=_POSED,
    ),
    "modpose-3d": Recipe(
        title="Classes, poses and motions of volumes by search, then an encoder that knows them",
        description=(
            "Poses and classes are searched from nothing, as modpose align does; averages and "
            "motions become a model of content, wedges accounted for, and a network on the 24 "
            "turns of the cube learns from the poses found and from volumes that the model draws, "
            "so that new volumes cost milliseconds.  train.start.classes says how many structures "
            "there are (--classes)."
        ),
        paper="this program",
        options=_VOLUMES,
    ),
}

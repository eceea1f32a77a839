"""3D-SpVAE and its baseline (Yi et al. 2021): subtomograms, pose by regression."""

from __future__ import annotations

from modpose.config import merge
from modpose.recipes.recipe import NO_POSE, PERCEPTRON, Options, Recipe

_PAPER = "Yi, Pang, Zhang, Zeng & Xu, 2021"

_PUBLISHED: Options = {
    "model": {
        "z_dim": 50,
        "encoder": PERCEPTRON | {"hidden": 1000},
        "rotation": {"prior": "gaussian", "std_deg": 90.0},
        "shift": {"prior": "gaussian", "std_box": 0.14},
        "likelihood": {"kind": "gaussian", "noise": "learned", "std": 1.0},
    },
    "data": {"normalize": "image"},
    "train": {"lr": 1e-4, "batch_size": 128, "epochs": 400},
}
_WIDE: Options = {"hidden": 1250, "depth": 2, "activation": "tanh"}

SUBTOMOGRAMS: dict[str, Recipe] = {
    "vae-3d": Recipe(
        title="Variational autoencoder of volumes, no pose",
        description=(
            "The paper's vanilla baseline, with the published sizes and training: 1000 and 1000 "
            "units encode, 1250 and 1250 decode every voxel from 50 numbers, which also hold the "
            "pose."
        ),
        paper=_PAPER,
        options=merge(_PUBLISHED, {"model": {"field": {"kind": "dense"} | _WIDE, **NO_POSE}}),
    ),
    "3d-spvae": Recipe(
        title="Yaw, pitch, roll and shift of volumes; a coordinate network decodes",
        description=(
            "Published sizes, priors and training (angles N(0, (pi/2)^2) each, shifts 0.14 of the "
            "box, 50 dimensions of content), but 400 random voxels per step estimate the "
            "reconstruction term; train.pixels=null decodes every voxel, 69 GFLOP per volume."
        ),
        paper=_PAPER,
        options=merge(
            _PUBLISHED,
            {"model": {"field": {"kind": "implicit"} | _WIDE}, "train": {"pixels": 400}},
        ),
    ),
    "3d-spvae++": Recipe(
        title="Yaw, pitch, roll and shift of volumes; coordinates, then convolutions decode",
        description=(
            "3D-SpVAE with the published decoder of transposed convolutions, 1250, 128, 64, 32 and "
            "1 channels at full resolution; kernels of 3 voxels, since the paper gives no size.  "
            "Gradients of a batch are accumulated over 16 volumes at a time."
        ),
        paper=_PAPER,
        options=merge(
            _PUBLISHED,
            {"model": {"field": {"kind": "fronted"}}, "train": {"chunk": 16}},
        ),
    ),
}

"""Sharp maps of a run: computed once, kept in the run's folder, and used again."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.config import PrincipalFieldConfig
from modpose.content_maps import ContentMaps, ContentMapSettings, fit_content_maps
from modpose.content_maps.files import read_about, read_content_maps, write_content_maps
from modpose.errors import InputError
from modpose.estimator import PoseModel
from modpose.files.locks import writing
from modpose.run.added import add_columns
from modpose.run.folder import CONTENT_MAPS, sha256
from modpose.search.solvent import check_fit, mask_of_images, molecule_mask

if TYPE_CHECKING:
    from modpose.data.dataset import Dataset
    from modpose.run import Run

Floats = NDArray[np.float64]

DRAWN = 40
"""Maps of the model that the mask is made from."""
MARGIN = 4.0
"""Pixels between the mask's sphere and the box."""


def has_sharp_maps(run: Run) -> bool:
    """Return whether sharp maps are what is drawn of a run by default."""
    return isinstance(run.config.model.field, PrincipalFieldConfig)


def stored_content_maps(run: Run) -> ContentMaps | None:
    """Return the sharp maps in a run's folder; None if there are none for its latents."""
    path = run.path / CONTENT_MAPS
    if not path.is_file() or read_about(path).get("latents") != _latents(run):
        return None
    return read_content_maps(path)


def content_maps_of(
    run: Run,
    *,
    functions: int | None = None,
    mask: Path | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> ContentMaps:
    """Return the sharp maps of a run; compute and keep them if they are not there.

    The content that they infer, and its standard deviation, are then columns of the run:
    ``sharp_0`` ..., ``sharp_0_std`` ..., in the unit of ``z_0`` ....

    Parameters
    ----------
    run
        A finished run of square images with given poses.
    functions
        Number of functions of content; None: as kept, else chosen by what the maps predict.
    mask
        MRC file, from 0 to 1: where the molecule may be; None: as kept, else made from the model.
    overwrite
        Compute them again.
    quiet
        No progress bar.

    Raises
    ------
    InputError
        If the images are not at hand, are no posed projections, or the mask does not fit.
    """
    about = {"latents": _latents(run)}
    about |= {} if functions is None else {"functions": str(functions)}
    about |= {} if mask is None else {"mask": _sum_of(mask)}
    path = run.path / CONTENT_MAPS
    if path.is_file() and not overwrite and about.items() <= read_about(path).items():
        return read_content_maps(path)
    model = PoseModel.load(run.path)
    if run.config.model.poses != "given" or model.vae.imaging.shown_in != 3:
        raise InputError(f"{run.path}: sharp maps need projections with given poses")
    dataset = _posed(run, run.dataset())
    latents = run.latents()
    names = [f"z_{k}" for k in range(run.config.model.z_dim)]
    z = latents[names].to_numpy(float)
    std = latents[[f"{name}_std" for name in names]].to_numpy(float)
    contrast = latents["contrast"].to_numpy(float) if "contrast" in latents else None
    maps = _drawn(model, z, run.config.seed)
    if mask is None:
        both = torch.stack([maps.mean(0), maps.std(0, unbiased=False)])
        where = molecule_mask(both, maps.shape[-1] - MARGIN)
    else:
        where = mask_of_images(mask, dataset)
        check_fit(where, maps.mean(0), str(mask))
    settings = ContentMapSettings(functions=functions, seed=run.config.seed)
    found = fit_content_maps(dataset, z, std, where, settings, contrast=contrast, quiet=quiet)
    with writing(run.path):
        write_content_maps(found, path, about)
    columns = {f"sharp_{k}": values for k, values in enumerate(found.z.T)}
    columns |= {f"sharp_{k}_std": values for k, values in enumerate(found.std.T)}
    add_columns(run, columns, "content from sharp maps, in the unit of z", overwrite=True)
    return found


def _sum_of(mask: Path) -> str:
    if not mask.is_file():
        raise InputError(f"{mask}: no such file, expected a mask")
    return sha256(mask)


def _latents(run: Run) -> str:
    return sha256(run.path / "latents.parquet")


def _posed(run: Run, dataset: Dataset) -> Dataset:
    """Take the poses that the model has corrected, if it has."""
    if run.config.model.refine_poses is None:
        return dataset
    latents, other = run.latents(), copy.copy(dataset)
    names = [f"r{i}{j}" for i in range(3) for j in range(3)]
    other.rotation = latents[names].to_numpy().reshape(-1, 3, 3)
    other.translation = latents[["shift_x", "shift_y"]].to_numpy()
    return other


def _drawn(model: PoseModel, z: Floats, seed: int) -> Tensor:
    """Maps (M, D, D, D) that the model draws for some images."""
    rows = np.random.default_rng(seed).choice(len(z), min(DRAWN, len(z)), replace=False)
    return torch.from_numpy(np.asarray(model.decode(z[rows]), np.float32))

"""Sharp maps of a run: computed once, kept in the run's folder, and used again."""

from __future__ import annotations

import logging
import re
from collections.abc import Set
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.config import PrincipalFieldConfig
from modpose.content_maps import ContentMaps, ContentMapSettings, fit_content_maps
from modpose.content_maps.equations import MaskBox
from modpose.content_maps.files import read_about, read_content_maps, write_content_maps
from modpose.content_maps.focus import Focus, check_focus, focused
from modpose.content_maps.model_maps import ModelMaps
from modpose.content_maps.regression import BYTES as MEMORY
from modpose.content_maps.rigid import doubt_about_poses
from modpose.data.dataset import Dataset, dataset_of
from modpose.data.repeated_rows import warn_of_repeated_rows
from modpose.devices import on_its_device
from modpose.errors import InputError
from modpose.estimator import PoseModel
from modpose.files.locks import writing
from modpose.files.writing import check_space
from modpose.geometry.groups import point_group
from modpose.progress import bar
from modpose.run.added import add_columns
from modpose.run.folder import CONTENT_MAPS, sha256
from modpose.search.abinitio.checks import check_symmetry_of_map
from modpose.search.solvent import check_fit, mask_of_images, molecule_mask

if TYPE_CHECKING:
    import pandas as pd

    from modpose.run import Run

logger = logging.getLogger("modpose")

Floats = NDArray[np.float64]

DRAWN = 40
"""Maps of the model that the mask is made from."""
MARGIN = 4.0
"""Pixels between the mask's sphere and the box."""
BYTES, LARGEST = 12.0, 1.5 * MEMORY
"""Of each voxel and function in the file: the map and those of two halves.  A band of shells takes
less than its sums in memory, and coarser bands take less and less."""
COLUMNS = re.compile(r"sharp_(\d+(_std)?|turn_deg|move_px)")
"""Columns of a run that are computed with the maps."""
CONTENT = re.compile(r"sharp_\d+")
"""Those of them that are content."""


def has_sharp_maps(run: Run) -> bool:
    """Return whether sharp maps are what is drawn of a run by default."""
    return isinstance(run.config.model.field, PrincipalFieldConfig)


def symmetry_of(run: Run) -> str:
    """Return the point group of the maps of a run: of its sharp maps if it has some, or the model.

    C1 is none.
    """
    own = run.config.model.field.point_group
    return read_about(run.path / CONTENT_MAPS).get("symmetry", own)


def holds_content_maps(run: Run) -> bool:
    """Return whether a run's folder holds sharp maps for its latents."""
    path = run.path / CONTENT_MAPS
    return path.is_file() and read_about(path).get("latents") == _latents(run)


def stored_content_maps(run: Run) -> ContentMaps | None:
    """Return the sharp maps in a run's folder; None if there are none for its latents."""
    return read_content_maps(run.path / CONTENT_MAPS) if holds_content_maps(run) else None


def sharp_columns(latents: pd.DataFrame) -> list[str]:
    """Return the names of the columns that hold the content of sharp maps, in their order."""
    found = [name for name in map(str, latents) if CONTENT.fullmatch(name)]
    return sorted(found, key=lambda name: int(name.removeprefix("sharp_")))


@on_its_device
def content_maps_of(
    run: Run,
    *,
    functions: int | None = None,
    mask: Path | None = None,
    focus: Path | None = None,
    refine_poses: bool = False,
    symmetry: str | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    device: str | None = None,
) -> ContentMaps:
    """Return the sharp maps of a run; compute and keep them if they are not there.

    The content that they infer, and its standard deviation, are then columns of the run:
    ``sharp_0`` ..., ``sharp_0_std`` ....  It has as many dimensions as maps beside the mean told
    it, along their principal axes, in usual errors of one image.  Where the maps do not improve the
    content of the run, it is that, in the unit of ``z_0`` ....

    Parameters
    ----------
    run
        A finished run of square images with given poses.
    functions
        Number of functions of content; None: as kept, else chosen by what the maps predict.
    mask
        MRC file, from 0 to 1: where the molecule may be; None: as kept, else made from the model.
    focus
        MRC file, from 0 to 1: content is only what moves inside; what moves outside is a nuisance.
        None: as kept, else everywhere.
    refine_poses
        Correct the poses of the images a little; the columns ``sharp_turn_deg`` and
        ``sharp_move_px`` tell how much.
    symmetry
        Point group of every map, such as D7 (:func:`modpose.geometry.groups.point_group`); None: as
        kept, else that of the model's maps.
    overwrite
        Compute them again.
    quiet
        No progress bar.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``; None: the CPU, for the sums over images.

    Raises
    ------
    InputError
        If the images are not at hand, are no posed projections, the mask does not fit, or the disk
        has no space for the maps; or the model's mean map does not have the symmetry.
    """
    about = {"latents": _latents(run)}
    about |= {} if functions is None else {"functions": str(functions)}
    about |= {} if mask is None else {"mask": _sum_of(mask, "a mask")}
    about |= {} if focus is None else {"focus": _sum_of(focus, "a mask of the focus")}
    about |= {"poses": "refined"} if refine_poses else {}
    of_model = run.config.model.field.point_group
    symmetry = of_model if symmetry is None and of_model != "C1" else symmetry
    about |= {} if symmetry is None else {"symmetry": symmetry.strip().upper()}
    path = run.path / CONTENT_MAPS
    if path.is_file() and not overwrite and about.items() <= read_about(path).items():
        _say_kept(path, read_about(path).keys() - about.keys())
        known = read_content_maps(path)
        _doubt(run, known)
        return known
    model = PoseModel.load(run.path)
    if run.config.model.poses != "given" or model.vae.imaging.shown_in != 3:
        raise InputError(f"{run.path}: sharp maps need projections with given poses")
    dataset = _images(run)
    warn_of_repeated_rows(dataset.source.particles, dataset.source.pixel_size)
    latents, group = run.latents(), about.get("symmetry", "C1")
    contrast = latents["contrast"].to_numpy(float) if "contrast" in latents else None
    z, std, where, inside = _begin(run, model, dataset, group, mask, focus, quiet)
    settings = ContentMapSettings(
        functions,
        refine_poses=refine_poses,
        symmetry=group,
        seed=run.config.seed,
    )
    voxels = MaskBox(where, 0.5).mask.numel()
    check_space(run.path, min(BYTES * settings.widest(len(z)) * voxels, LARGEST))
    found = fit_content_maps(
        dataset, z, std, where, settings, contrast=contrast, focus=inside, quiet=quiet
    )
    if refine_poses and (found.pose is None or not found.pose.any()):
        logger.warning(
            "%s: --refine-poses has corrected no pose: content has %d function(s), and poses are "
            "corrected only where it has several",
            run.path,
            len(found.basis),
        )
    _doubt(run, found)
    with writing(run.path):
        write_content_maps(found, path, about)
    columns = {f"sharp_{k}": values for k, values in enumerate(found.z.T)}
    columns |= {f"sharp_{k}_std": values for k, values in enumerate(found.std.T)}
    if found.pose is not None:
        columns["sharp_turn_deg"] = np.rad2deg(np.linalg.norm(found.pose[:, :3], axis=1))
        columns["sharp_move_px"] = np.linalg.norm(found.pose[:, 3:], axis=1)
    earlier = [name for name in map(str, run.latents()) if COLUMNS.fullmatch(name)]
    kept = focus is None and np.array_equal(found.z, z)
    unit = "in the unit of z" if kept else "in usual errors of one image"
    how = f"content from sharp maps{'' if focus is None else ' of the focus'}, {unit}"
    add_columns(run, columns, how, overwrite=True, remove=earlier)
    return found


def _begin(
    run: Run,
    model: PoseModel,
    dataset: Dataset,
    group: str,
    mask: Path | None,
    focus: Path | None,
    quiet: bool,
) -> tuple[Floats, Floats, Tensor, Focus | None]:
    """Content of the model and its deviation, (N, k); the mask (D, D, D); the focus."""
    latents = run.latents()
    names = [f"z_{k}" for k in range(run.config.model.z_dim)]
    z = latents[names].to_numpy(float)
    std = latents[[f"{name}_std" for name in names]].to_numpy(float)
    drawn = _drawn(model, z, run.config.seed, quiet)
    rotations = torch.from_numpy(point_group(group)).float()
    check_symmetry_of_map(drawn.mean[None], rotations, group, str(run.path))
    if mask is None:
        both = torch.stack([drawn.mean, drawn.spread])
        where = molecule_mask(both, both.shape[-1] - MARGIN)
    else:
        where = mask_of_images(mask, dataset)
        check_fit(where, drawn.mean, str(mask))
    if focus is None:
        return z, std, where, None
    region = mask_of_images(focus, dataset)
    check_focus(region, where, str(focus))
    z, std, inside = focused(z, std, drawn.slopes, region, where)
    return z, std, where, inside


def _doubt(run: Run, maps: ContentMaps) -> None:
    """Warn where content shows errors of poses."""
    doubt = doubt_about_poses(maps)
    if doubt is not None:
        logger.warning("%s: %s", run.path, doubt)


def _say_kept(path: Path, options: Set[str]) -> None:
    """Say with which options the kept maps were computed that are not given now."""
    words = [f"--{name}".replace("--poses", "--refine-poses") for name in sorted(options)]
    if words:
        logger.warning(
            "%s: these sharp maps are used, which were computed with %s; "
            "modpose volumes --maps new computes them without",
            path,
            " and ".join(words),
        )


def _sum_of(mask: Path, what: str) -> str:
    if not mask.is_file():
        raise InputError(f"{mask}: no such file, expected {what}")
    return sha256(mask)


def _latents(run: Run) -> str:
    return sha256(run.path / "latents.parquet")


def _images(run: Run) -> Dataset:
    """Open the images as the maps take them: without a window, at the poses of the model.

    A window makes the noise of neighbouring coefficients alike, so that some of them predict
    others from noise alone.
    """
    opened = run.dataset()
    data = run.config.data.model_copy(update={"window": None})
    config = run.config.model_copy(update={"data": data})
    dataset = dataset_of(opened.source, config, value_range=opened.value_range)
    if run.config.model.refine_poses is not None:
        latents = run.latents()
        names = [f"r{i}{j}" for i in range(3) for j in range(3)]
        dataset.rotation = latents[names].to_numpy().reshape(-1, 3, 3)
        dataset.translation = latents[["shift_x", "shift_y"]].to_numpy()
    return dataset


def _drawn(model: PoseModel, z: Floats, seed: int, quiet: bool) -> ModelMaps:
    """Summarise the maps that the model draws for some images."""
    rows = np.random.default_rng(seed).choice(len(z), min(DRAWN, len(z)), replace=False)
    some = bar(rows, "maps of the model", "map", quiet=quiet)
    maps = (np.asarray(model.decode(z[row][None])[0], np.float32) for row in some)
    return ModelMaps.of(map(torch.from_numpy, maps), z[rows])

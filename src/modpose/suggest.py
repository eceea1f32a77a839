"""Choose the recipe, the likelihood and the normalisation for the data."""

from __future__ import annotations

import numpy as np

from modpose.config import Config, merge
from modpose.data.posing import CLASS, SCORE
from modpose.data.source import Source
from modpose.data.wedge_masks import CTF_IMAGE
from modpose.data.wedges import wedge_option
from modpose.recipes import DEFAULT_FOR_POSED, DEFAULT_FOR_VOLUMES, DEFAULT_RECIPE
from modpose.recipes.recipe import Options

WEIGHTED = "tilt series: the images of a particle are back-projected to a volume with weights"


WHOLE_AT_ONCE = 2
"""Volumes that a coordinate network decodes at once, every voxel: about 1 GB each at 32 voxels."""


def suggest(source: Source, recipe: Options | None = None) -> tuple[str, Options, str]:
    """Choose the recipe, the likelihood and the normalisation for the kind of data.

    For pictures (8-bit, or real values within [0, 1]): Bernoulli likelihood on [0, 1].  For
    measurements: Gaussian noise on images with zero mean and unit standard deviation.

    Parameters
    ----------
    source
        The opened input; a few images are read.
    recipe
        Options of the requested recipe; its settings of the noise are kept.

    Returns
    -------
    tuple
        The name of the recipe, options that any recipe and the user may override, and a sentence.
    """
    if recipe is not None and recipe.get("model", {}).get("poses") == "given":
        meaning = "projections of volumes, with the poses that are given"
        if source.particles.poses(source.stack.pixel_size) is None:
            meaning = "projections of volumes without poses: these are found first"
        return DEFAULT_RECIPE, {}, meaning
    if recipe is None and _has_poses_in_space(source):
        meaning = "projections with the poses of a consensus refinement"
        return DEFAULT_FOR_POSED, {}, meaning
    ctf = any(source.particles.has(name) for name in ("rlnDefocusU", "ctf/df1_A"))
    hint = ""
    if ctf:
        hint = (
            "; --set model.ctf=auto also models their CTF; "
            "--recipe modpose-posed finds poses in 3-D, then conformations"
        )
    if source.tilts is not None and (recipe or {}).get("recipe") not in (None, DEFAULT_FOR_VOLUMES):
        options: Options = {"model": {"wedge": "auto"}, "data": {"normalize": "image"}}
        if (recipe or {}).get("train", {}).get("pixels") is not None:  # weights need every voxel
            options["train"] = {"chunk": WHOLE_AT_ONCE}
        return DEFAULT_FOR_VOLUMES, options, WEIGHTED
    if len(source.stack.shape) == 3 and (recipe or {}).get("recipe") in (None, DEFAULT_FOR_VOLUMES):
        options, meaning = _of_volumes(source)
        if source.particles.has(SCORE) and source.particles.poses(source.stack.pixel_size):
            options = merge(options, {"train": {"start": _found(source)}})
            meaning += "; they start from the poses and classes that were found"
        return DEFAULT_FOR_VOLUMES, options, meaning
    by_data = recipe is None or "likelihood" not in recipe.get("model", {})
    few = np.linspace(0, source.stack.n - 1, min(source.stack.n, 32)).astype(np.int64)
    values = source.stack.read(few)
    name = DEFAULT_RECIPE
    low, high = float(values.min()), float(values.max())
    eight_bit = low >= 0 and 1 < high <= 255 and bool((values == np.rint(values)).all())
    if eight_bit or (low >= 0 and high <= 1):
        options = {"model": {"likelihood": {"kind": "bernoulli"}}}
        options["data"] = {"normalize": "range"}
        meaning = "Bernoulli likelihood on [0, 1]" if by_data else "scaled to [0, 1]"
        return name, options, f"values look like pictures: {meaning}, unless set otherwise"
    noise = {"kind": "gaussian", "noise": "learned", "std": 1.0}
    options = {"model": {"likelihood": noise}, "data": {"normalize": "image"}}
    learned = ", learned Gaussian noise" if by_data else ""
    meaning = f"normalised images{learned}, unless set otherwise{hint}"
    return name, options, f"values look like measurements: {meaning}"


def suited(options: Options, config: Config) -> Options:
    """Suit suggested options to a configuration that came of them.

    Where scale is inferred, measurements are normalised as one set.  Normalised one by one, larger
    objects are fainter, because they have more variance, and look smaller than they are.
    """
    if not config.model.scale.inferred or options.get("data", {}).get("normalize") != "image":
        return options
    return merge(options, {"data": {"normalize": "set"}})


def given_options(source: Source) -> Options:
    """Return the options that were given with the source itself: its wedge."""
    return {} if source.wedge is None else {"model": {"wedge": wedge_option(source.wedge)}}


def _found(source: Source) -> Options:
    """Start from the poses and classes of a table of ``align`` or ``abinitio``."""
    known = source.particles.column(CLASS) if source.particles.has(CLASS) else [1]
    return {"kind": "alignment", "poses": "given", "classes": len(np.unique(known))}


def _of_volumes(source: Source) -> tuple[Options, str]:
    """Use the missing wedge if the table gives one."""
    if source.wedge is not None:
        return given_options(source), "volumes, with the given missing wedge"
    if source.tilts is not None:
        return {"model": {"wedge": "auto"}}, WEIGHTED
    if source.particles.tilt_range() is None and not source.particles.has(CTF_IMAGE):
        return {}, "volumes; no missing wedge is given (--wedge)"
    return {"model": {"wedge": "auto"}}, "volumes, with the missing wedge of their table"


def _has_poses_in_space(source: Source) -> bool:
    """Whether square images have 3-D rotations, and not only in-plane ones."""
    stack = source.stack
    if len(stack.shape) != 2 or stack.shape[0] != stack.shape[1] or stack.channels != 1:
        return False
    found = source.particles.poses(stack.pixel_size)
    return found is not None and bool((np.abs(found[0][:, 2, 2]) < 0.999).any())

"""Galaxies: Figure 5."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modpose.data.dataset import split
from modpose.data.source import open_source
from modpose.errors import InputError
from modpose.plot.grids import Floats, as_pictures
from studies.common import plots
from studies.common.conduct import Study
from studies.common.null import LABEL, NOTE, null_row
from studies.common.page import Page
from studies.common.samples import Sample, write_sample
from studies.common.study import Fit, Result
from studies.spatial_vae.budgets import configured
from studies.spatial_vae.common import (
    Setting,
    networks,
    samples,
    score_note,
    score_row,
)

FILE = "galaxy/galaxy_zoo_train_64.npz"
CROP = 48
"""Side of the random crops, pixels."""
CROPS = 4
"""Random crops of each galaxy that is fitted."""
SHIFT_STD = 8.0
"""Prior of the shift, pixels, as printed."""
ACROSS = 7


def prepare(setting: Setting) -> Study | str:
    """Crop the pictures and say which fits they need, or why there are none."""
    file = setting.find(FILE)
    if file is None:
        return f"Galaxies (Figure 5) were left out: there is no {FILE} in --data."
    sample = _sample(setting, file)
    budget = setting.plan.galaxies
    fits = {z: _fit(setting, sample, z) for z in budget.z_dims}
    said = (
        f"spatial-VAE with {', '.join(map(str, fits))} latents, an encoder wider than the decoder "
        f"(the paper: ten times, 2 × 5000 and 2 × 500 tanh), three outputs a pixel, Bernoulli "
        f"likelihood; uniform rotation, shifts N(0, {SHIFT_STD:g}²) px, encoder input turned at "
        f"random. No image chooses when training ends. {networks(list(fits.values()))}"
    )
    return Study(
        "Galaxies: Figure 5",
        [sample.description, said],
        list(fits.values()),
        lambda results, page: _show(
            setting, sample, [results[f.name] for f in fits.values()], page
        ),
    )


def _sample(setting: Setting, file: Path) -> Sample:
    budget = setting.plan.galaxies
    stack = open_source(f"{file}:images", kind="rgb").stack
    if min(stack.shape) < CROP:
        raise InputError.of(file, "the size of the images", stack.shape, f"at least {CROP} px")
    train, test = split(stack.n, 0.1, setting.seed)
    train, test = train[: budget.images], test[: budget.held_out]
    rng = np.random.default_rng(setting.seed)
    rows = np.concatenate([np.repeat(train, CROPS), test])
    crops = random_crops(as_pictures(stack.read(rows)), CROP, rng)
    height, width = stack.shape
    description = (
        f"{len(train):,} colour pictures of galaxies to fit, {CROPS} random crops of each, and one "
        f"crop of each of {len(test):,} other galaxies held out: {CROP} × {CROP} px at uniform "
        f"places of the {height} × {width} px pictures (the paper crops 61,578 pictures and "
        "reduces them to 64 × 64 px)."
    )
    eight_bit = np.rint(crops).astype(np.uint8)
    return write_sample(setting.samples, "galaxies", description, eight_bit, len(test))


def random_crops(
    pictures: NDArray[np.floating], side: int, rng: np.random.Generator
) -> NDArray[np.floating]:
    """Cut a square out of each picture (N, H, W, C) at a uniform place: (N, side, side, C)."""
    n, height, width = pictures.shape[:3]
    top = rng.integers(height - side + 1, size=n)
    left = rng.integers(width - side + 1, size=n)
    windows = zip(pictures, top, left, strict=True)
    return np.stack([p[y : y + side, x : x + side] for p, y, x in windows])


def _fit(setting: Setting, sample: Sample, z_dim: int) -> Fit:
    plan, budget = setting.plan, setting.plan.galaxies
    more = {
        "data": {"kind": "rgb", "normalize": "range", "val_fraction": 0.0},
        "model": {"likelihood": {"kind": "bernoulli"}, "shift": {"std_px": SHIFT_STD}},
    }
    recipe, options = configured(plan, budget, "spatial-vae", z_dim, more)
    return Fit(
        name=f"galaxies-spatial-vae-z{z_dim}",
        sample=sample,
        recipe=recipe,
        options=options,
        seed=setting.seed,
        max_minutes=budget.minutes,
        importance=budget.importance,
    )


def _show(setting: Setting, sample: Sample, results: Sequence[Result], page: Page) -> Sequence[str]:
    source = sample.open_train()
    rng = np.random.default_rng(setting.seed)
    some = np.sort(rng.choice(source.n, min(ACROSS**2, source.n), replace=False))
    tiles: dict[str, Floats] = {"images": as_pictures(source.stack.read(some)) / 255}
    for result in results:
        model = result.model()
        tiles[f"{model.config.model.z_dim} latents"] = samples(model, ACROSS**2, setting.seed)
    caption = (
        "Figure 5: random images that were fitted, and samples from spatial-VAE, upright: content "
        "from its prior, rotation and shift zero"
    )
    rows = [score_row(r, {"model": "spatial-VAE"}) for r in results]
    rows.append(null_row(results[0], rows[0], {"model": LABEL}))
    return [
        page.figure("figure-5", plots.titled_mosaics(tiles, ACROSS, len(tiles), gap=1), caption),
        page.table("figure-5", "Figure 5: scores (the paper prints none)", rows),
        score_note(results),
        NOTE,
    ]

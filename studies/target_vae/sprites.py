"""Sprites and their symmetry: appendix A.5, Figure 9."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from modpose.evaluate import metrics
from modpose.evaluate.symmetry import fold_deg, symmetry
from modpose.geometry.degrees import wrap_deg
from modpose.infer.latents import content_of_table
from modpose.plot.grids import as_pictures
from studies.common.conduct import Study
from studies.common.page import Page, Row
from studies.common.samples import Made, Sample
from studies.common.study import Result
from studies.target_vae import figures
from studies.target_vae.common import (
    By,
    Setting,
    clusters,
    eight_bit,
    make_fits,
    named,
    of_contenders,
    quiet_model,
    sample_once,
    scores,
)
from studies.target_vae.shapes import SHAPES, SYMMETRY

FILE = "dsprites/dsprites_grid_46080.npz"
SHIFT = 9.0
"""Prior of the shift, pixels: the standard deviation of the sprites' places."""
ACROSS = 12
Array = NDArray[np.float64]


def prepare(setting: Setting) -> Study:
    """Read or draw sprites, and say which fits they need."""
    sizes, sample = setting.plan.sprites, _sample(setting)
    more = {
        "data": {"normalize": "range"},
        "model": {
            "likelihood": {"kind": "bernoulli"},
            "shift": {"prior": "gaussian", "std_px": SHIFT},
        },
    }
    fits = make_fits(setting, sizes, sample, "sprites", more)
    return Study(
        "Sprites: appendix A.5, Figure 9",
        [sample.description],
        list(fits.values()),
        lambda results, page: _show(of_contenders(fits, results), page),
    )


def _sample(setting: Setting) -> Sample:
    sizes, file = setting.plan.sprites, setting.find(FILE)
    words = "Sprites drawn like those of dSprites" if file is None else "dSprites, a random part"
    description = (
        f"{words}: squares, ellipses and hearts of six sizes at any angle and place, 64 × 64 px; "
        f"at most {sizes.images:,} to fit and {sizes.held_out:,} held out."
    )
    return sample_once(setting, "sprites", description, lambda: _make(setting, file))


def _make(setting: Setting, file: Path | None) -> Made:
    from studies.target_vae.shapes import SpriteSettings, simulate_sprites

    sizes = setting.plan.sprites
    n = sizes.images + sizes.held_out
    if file is not None:
        return _of_dsprites(file, n, sizes.held_out, setting.seed)
    pictures, truth = simulate_sprites(SpriteSettings(n=n, seed=setting.seed))
    return eight_bit(pictures), sizes.held_out, truth


def _of_dsprites(file: Path, n: int, held_out: int, seed: int) -> Made:
    """Read images in random order; dSprites turns the other way, and counts places from a corner.

    Measured against sprites drawn here: its orientation is minus our angle, and a place p lies
    32 p − 16.5 pixels from the centre pixel.
    """
    with np.load(file, allow_pickle=False) as arrays:
        rows = np.random.default_rng(seed).permutation(len(arrays["imgs"]))[:n]
        images, values = arrays["imgs"][rows], arrays["latents_values"][rows]
    truth = pd.DataFrame(
        {
            "class": np.asarray(SHAPES)[values[:, 0].astype(int) - 1],
            "scale": values[:, 1],
            "angle_deg": wrap_deg(-np.rad2deg(values[:, 2])),
            "shift_x": 32 * values[:, 3] - 16.5,
            "shift_y": 32 * values[:, 4] - 16.5,
        }
    )
    return 255 * images.astype(np.uint8), min(held_out, len(rows) // 5), truth


# --- what is shown ----------------------------------------------------------------------------


def _show(by: By, page: Page) -> Sequence[str]:
    if not by:
        return ["No model was fitted."]
    rows, maps = list[Row](), dict[str, tuple[Array, NDArray[Any]]]()
    blocks = []
    for contender, result in by.items():
        latents, truth = result.held_out(), result.fit.sample.truth_of_test()
        z, classes = content_of_table(latents), truth["class"].to_numpy()
        maps[contender.name] = (z, classes)
        rows += shape_rows(contender.name, latents, truth)
        caption = f"Figure 9: inferred against true rotation of each shape, {contender.name}"
        figure = figures.angle_scatters(_panels(latents, truth), 3, 2.6)
        blocks.append(page.figure(f"figure-9-{contender.slug}", figure, caption))
    pictures = {"images": _images(next(iter(by.values())))}
    for contender, result in by.items():
        pictures[contender.name] = _upright(result)
    digits = {"resultant": 3, "shift RMSE (px)": 2, "median (°)": 2}
    note = (
        "Order: how many places the rotation errors of a shape gather in, found by the best "
        "mixture model, and its true symmetry; errors are taken modulo the true symmetry after "
        "the one offset of each shape's frame (a model chooses it for each shape). Ward: per cent "
        "of all images in the cluster matched with their shape, and with shape and size; 5-NN: "
        "the nearest neighbours' majority in content."
    )
    return [
        *blocks,
        page.table("figure-9", "Figure 9: rotation, place and content of sprites", rows, digits),
        note,
        page.figure("figure-9-z", figures.content_maps(maps), "Figure 9: content by shape"),
        page.figure(
            "figure-9-upright",
            figures.picture_rows(pictures),
            "Held-out images, and what each model draws of their content with pose zero",
        ),
        *scores(page, "sprites", "Sprites", named(by)),
    ]


def shape_rows(model: str, latents: pd.DataFrame, truth: pd.DataFrame) -> list[Row]:
    """Return a row of the table for each shape."""
    z, classes = content_of_table(latents), truth["class"].to_numpy()
    sized = np.char.add(classes.astype(str), truth["scale"].round(1).astype(str).to_numpy(str))
    overall = {
        "Ward, shape (%)": _accuracy(z, classes),
        "Ward, shape and size (%)": _accuracy(z, sized),
        "5-NN, shape (%)": 100 * metrics.knn_accuracy(z, classes) if len(z) > 5 else None,
    }
    rows: list[Row] = []
    for shape in SHAPES:
        own = classes == shape
        if own.sum() < 2:
            continue
        errors = wrap_deg(latents["angle_deg"][own] - truth["angle_deg"][own])
        axes = ["shift_x", "shift_y"]
        residual, _ = metrics.align_shifts(
            latents[axes][own], truth[axes][own], truth["angle_deg"][own]
        )
        order = symmetry(errors).order
        rows.append(
            {
                "model": model,
                "shape": shape,
                "order": "–" if order is None else str(order),
                "true order": str(SYMMETRY[shape]),
                **_folded(errors, SYMMETRY[shape]),
                "shift RMSE (px)": metrics.shift_rmse_px(residual),
                **overall,
            }
        )
    return rows


def _folded(errors: Array, order: int) -> dict[str, float]:
    """Median and resultant length of errors modulo a symmetry, about their own centre."""
    offset = metrics.circular_mean_deg(order * errors) / order
    folded = fold_deg(errors - offset, order)
    median = float(np.median(np.abs(folded)))
    return {"median (°)": median, "resultant": metrics.resultant_length(order * folded)}


def _accuracy(z: Array, classes: NDArray[Any]) -> float:
    groups = clusters(z, len(np.unique(classes)))
    return 100 * metrics.hungarian_accuracy(classes, groups)[0]


def _panels(latents: pd.DataFrame, truth: pd.DataFrame) -> Mapping[str, tuple[Array, Array]]:
    panels = {}
    for shape in SHAPES:
        own = (truth["class"] == shape).to_numpy()
        if own.any():
            panels[shape] = (
                latents["angle_deg"].to_numpy(float)[own],
                truth["angle_deg"].to_numpy(float)[own],
            )
    return panels


def _images(result: Result) -> NDArray[np.floating]:
    stack = result.fit.sample.open_test().stack
    return as_pictures(stack.read(np.arange(min(ACROSS, stack.n)))) / 255


def _upright(result: Result) -> NDArray[np.floating]:
    return quiet_model(result).decode(content_of_table(result.held_out())[:ACROSS])

"""Galaxies, upright and centred: appendix A.6, Figure 10."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from modpose.data.dataset import split
from modpose.evaluate import metrics
from modpose.infer.latents import content_of_table
from modpose.plot.grids import Floats, as_pictures
from studies.common.conduct import Study
from studies.common.equivariance import measure_equivariance
from studies.common.page import Page, Row
from studies.common.samples import Made, Sample
from studies.common.study import Result
from studies.target_vae import figures
from studies.target_vae.common import (
    By,
    Setting,
    clusters,
    kept,
    make_fits,
    named,
    of_contenders,
    quiet_model,
    sample_once,
    scores,
)
from studies.target_vae.digit_tables import equivariance_columns

FILE = "galaxy/galaxy_zoo_train_64.npz"
SHIFT = 3.0
"""Prior of the shift, pixels: the pictures are nearly centred."""
ACROSS = 10
EQUIVARIANCE_IMAGES = 40


def prepare(setting: Setting) -> Study | str:
    """Split the pictures and say which fits they need, or why there are none."""
    file = setting.find(FILE)
    if file is None:
        return f"Galaxies (A.6, Figure 10) were left out: there is no {FILE} in --data."
    sizes, sample = setting.plan.galaxies, _sample(setting, file)
    more = {
        "data": {"kind": "rgb", "normalize": "range"},
        "model": {
            "likelihood": {"kind": "bernoulli"},
            "shift": {"prior": "gaussian", "std_px": SHIFT},
        },
    }
    fits = make_fits(setting, sizes, sample, "galaxies", more)
    return Study(
        "Galaxies: appendix A.6, Figure 10",
        [sample.description],
        list(fits.values()),
        lambda results, page: _show(of_contenders(fits, results), page),
    )


def _sample(setting: Setting, file: Path) -> Sample:
    description = (
        "Colour pictures of galaxies, half of them spirals, 64 × 64 px, a tenth held out; three "
        "outputs a pixel, Bernoulli likelihood (the paper has 61,578 pictures)."
    )
    return sample_once(setting, "galaxies", description, lambda: _make(setting, file))


def _make(setting: Setting, file: Path) -> Made:
    with np.load(file, allow_pickle=False) as arrays:
        images = arrays["images"]
        spiral = arrays["label"] if "label" in arrays else np.zeros(len(images), np.uint8)
    sizes = setting.plan.galaxies
    train, test = split(len(images), 0.1, setting.seed)
    rows = np.concatenate([train[: sizes.images], test[: sizes.held_out]])
    truth = pd.DataFrame({"class": np.where(spiral[rows] == 1, "spiral", "other")})
    return images[rows], len(test[: sizes.held_out]), truth


def _show(by: By, page: Page) -> Sequence[str]:
    if not by:
        return ["No model was fitted."]
    rows, first = list[Row](), next(iter(by.values()))
    stack = first.fit.sample.open_test().stack
    some = np.arange(min(ACROSS, stack.n))
    pictures: dict[str, Floats] = {"images": as_pictures(stack.read(some)) / 255}
    for contender, result in by.items():
        model = quiet_model(result)
        z = content_of_table(result.held_out())
        pictures[f"{contender.name}: as posed"] = model.reconstruct(
            result.fit.sample.open_test().subset(some)
        )
        pictures[f"{contender.name}: upright"] = model.decode(z[some])
        table = kept(result, "equivariance", partial(_measured, result))
        rows.append({"model": contender.name, **_classes(result), **equivariance_columns(table)})
    digits = {"z moved by turning": 3, "z moved by shifting": 3, "resultant": 3}
    caption = (
        "Figure 10: held-out galaxies, what the models draw of them, and the same with rotation "
        "and shift zero"
    )
    note = (
        "Nothing is known of the true poses: held-out pictures are rotated by every 10° and "
        "shifted by ±4 px, and what is inferred is compared with that of the picture as it is. "
        "Ward, 5-NN: per cent of spirals and others distinguished in content."
    )
    return [
        page.figure("figure-10", figures.picture_rows(pictures), caption),
        page.table("figure-10", "Galaxies: equivariance and content", rows, digits),
        note,
        *scores(page, "galaxies", "Galaxies", named(by)),
    ]


def _classes(result: Result) -> dict[str, float | None]:
    z = content_of_table(result.held_out())
    classes = result.fit.sample.truth_of_test()["class"].to_numpy()
    if len(np.unique(classes)) < 2 or len(z) <= 5:
        return {"Ward (%)": None, "5-NN (%)": None}
    ward = metrics.hungarian_accuracy(classes, clusters(z, 2))[0]
    return {"Ward (%)": 100 * ward, "5-NN (%)": 100 * metrics.knn_accuracy(z, classes)}


def _measured(result: Result) -> pd.DataFrame:
    stack = result.fit.sample.open_test().stack
    images = as_pictures(stack.read(np.arange(min(EQUIVARIANCE_IMAGES, stack.n))))
    return pd.DataFrame([measure_equivariance(quiet_model(result), images, shift_px=4).to_dict()])

"""Digits: Appendix B of the paper, and models of a pose beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modpose.config import merge
from studies.amortisation.common import (
    Setting,
    arrows,
    displacement,
    displacement_row,
    gap_row,
)
from studies.amortisation.moves import SHIFT, SHIFT_5
from studies.common.conduct import Study
from studies.common.null import LABEL, NOTE, null_bounds
from studies.common.page import Page, Row
from studies.common.plots import curves_in_images
from studies.common.samples import Sample, write_sample
from studies.common.study import Fit, Result, training_curve
from studies.spatial_vae.digits import pictures

_ENCODER = {"hidden": 256, "depth": 3, "activation": "relu"}
_FIELD = {"hidden": 256, "depth": 2, "activation": "relu"}
_VAE: dict[str, Any] = {"model": {"encoder": _ENCODER, "field": _FIELD}}
_TABLE = {"kind": "table", "init": "random", "spread": 0.0, "lr": 1e-2}
"""Every mean at zero, as printed, and every s.d. at one, of which nothing is printed."""
_OF_TABLE: dict[str, Any] = {
    "data": {"val_fraction": 0.0},
    "model": {"encoder": _TABLE, "field": _FIELD},
}
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "vae": ("VAE", "vae", _VAE),
    "table": ("table (VLT)", "vae", _OF_TABLE),
    "table-longer": (
        "table (VLT), 300 epochs",
        "vae",
        merge(_OF_TABLE, {"train": {"epochs": 300}}),
    ),
    "fixed": ("spatial-VAE, pose fixed", "spatial-vae-fixed", {}),
    "pose": ("spatial-VAE, pose inferred", "spatial-vae", {}),
    "equivariant": ("modpose, equivariant", "modpose", {}),
}
"""Title, recipe, options.  The paper has the first two.  The authors' program for the table goes on
from the rows of an earlier run, so 100 epochs are fewer than theirs: hence the third."""


KL_OF_BATCH = {"the paper's VAE": 660.0, "the paper's table": 950.0}
"""Nats of 128 images, as printed in B.1.4."""
SEEN_IN_PAPER = 6_000_000.0
"""Images: 60,000 for 100 epochs."""


def prepare(setting: Setting) -> Study:
    """Take MNIST, or characters where it is not given, and say which fits are needed."""
    sample = _sample(setting)
    fits = {name: _fit(setting, sample, name) for name in setting.plan.digits.models}
    lr = fits["vae"].config().train.lr
    return Study(
        "Digits: Appendix B, Figures 12 to 19",
        [
            sample.description,
            "The VAE has three hidden layers of 256 in the encoder and two in the decoder, ReLU, "
            f"z = {setting.plan.digits.z_dim}, Adam at {lr:g} (the authors' 0.01 is unstable), the "
            "table's rows at 0.01 as theirs, batches of 128. Digits are shifted to the right by 1 "
            "and by 5 pixels, what leaves on one side coming back on the other. The paper's KL "
            "figures (about 660 for the VAE, 950 "
            "for the table) are sums over batches: about 5.2 and 7.4 nats per image.",
        ],
        list(fits.values()),
        lambda results, page: _show(setting, results, page),
    )


def _sample(setting: Setting) -> Sample:
    budget = setting.plan.digits
    file = setting.find("mnist.npz")
    images, n_test, words = pictures(file, budget.images, budget.held_out, setting.seed)
    eight_bit = np.rint(255 * images).astype(np.uint8)
    return write_sample(setting.samples, "digits", words + ".", eight_bit, n_test)


def _fit(setting: Setting, sample: Sample, name: str) -> Fit:
    budget = setting.plan.digits
    _, recipe, own = MODELS[name]
    options: dict[str, Any] = {
        "data": {"normalize": "range", "val_fraction": 0.05},
        "model": {"z_dim": budget.z_dim, "likelihood": {"kind": "bernoulli"}},
        "train": {"epochs": budget.epochs, "batch_size": 128},
    }
    return Fit(
        name=f"digits-{name}",
        sample=sample,
        recipe=recipe,
        options=merge(merge(options, budget.options), own),
        seed=setting.seed,
        max_minutes=budget.minutes,
        importance=budget.importance,
        table_images=budget.refined,
    )


def _show(setting: Setting, results: Mapping[str, Result], page: Page) -> Sequence[str]:
    budget = setting.plan.digits
    count = budget.measured
    seeing = [name for name in budget.models if not name.startswith("table")]
    moved = [
        displacement_row(results[f"digits-{name}"], MODELS[name][0], move, "as-published", count)
        for name in seeing
        for move in (SHIFT, SHIFT_5)
    ]
    rows: list[Row] = []
    for name in budget.models:
        row = gap_row(results[f"digits-{name}"], MODELS[name][0], budget)
        rows.append({**row, "KL of 128, fitted": 128 * float(row["KL, fitted"] or 0)})
    null = {"model": LABEL, "ELBO, held out": float(null_bounds(results["digits-vae"].fit).mean())}
    rows.append(dict.fromkeys(rows[0]) | null)
    panels = {
        f"{MODELS[name][0]}, {move.name}": displacement(
            results[f"digits-{name}"], move, "as-published", count
        )
        for name in ("vae", "equivariant")
        if name in seeing
        for move in (SHIFT, SHIFT_5)
    }
    kl = {}
    for name in ("vae", [name for name in budget.models if name.startswith("table")][-1]):
        seen, nats = training_curve(results[f"digits-{name}"], "kl_content")
        kl[MODELS[name][0]] = [(seen, [128 * value for value in nats])]
    digits = {"displacement / pair distance": 3, "displacement / posterior s.d.": 2}
    return [
        page.table("digits-moves", "How far content moves when the digit does", moved, digits),
        page.figure(
            "figure-14",
            arrows(panels),
            "Figures 14 and 16: from ten digits to their shifted copies, in content",
        ),
        page.figure(
            "digits-kl",
            curves_in_images(kl, KL_OF_BATCH, SEEN_IN_PAPER, "KL of a batch of 128 (nats)"),
            "The KL of 128 fitted digits in training, and the values that the paper prints",
        ),
        page.table("digits", "Bounds and gaps", rows, {"ms per image to encode": 2}),
        NOTE,
    ]

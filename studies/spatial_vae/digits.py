"""Digits: Figures 2 and 3, Appendix Figures 1, 2 and 3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modpose.data.source import open_source
from modpose.plot.grids import Floats
from studies.common import plots
from studies.common.conduct import Study
from studies.common.null import LABEL, NOTE, null_row
from studies.common.page import Page, Row
from studies.common.samples import Sample, write_sample
from studies.common.study import Fit, Result
from studies.spatial_vae.budgets import Model, configured
from studies.spatial_vae.common import (
    Setting,
    manifold,
    networks,
    score_note,
    score_row,
)

if TYPE_CHECKING:
    import pandas as pd

SIDE = 28
SHIFT = 3.5
"""Standard deviation of the shifts of the 'rotated and translated' set, pixels."""
SHIFT_PRINTED = 14.0
"""The paper's, under which most digits lie outside the frame."""
LOOK = plots.UNIT
MODELS: dict[Model, str] = {
    "spatial-vae": "spatial-VAE",
    "spatial-vae-fixed": "spatial-VAE, pose fixed",
    "vae": "VAE",
}


@dataclass(frozen=True)
class Variant:
    """A transformed set and the matched priors of its pose (degrees, pixels)."""

    title: str
    angle_deg: float
    shift_px: float
    moved: bool


VARIANTS = {
    "plain": Variant("plain", 22.5, 1.4, moved=False),
    "rotated": Variant("rotated", 45.0, 1.4, moved=True),
    "translated": Variant("rotated and translated", 45.0, SHIFT, moved=True),
}
WIDE = (180.0, SHIFT_PRINTED)
"""The paper's wide priors."""


def prepare(setting: Setting) -> Study:
    """Make the three sets, and say which fits they need."""
    budget = setting.plan.digits
    drawn, n_test, words = pictures(
        setting.find("mnist.npz"), budget.images, budget.held_out, setting.seed
    )
    sets = {name: _sample(setting, name, drawn, n_test, words) for name in VARIANTS}
    fits = {
        (name, model, z): _fit(setting, sets[name], name, model, z)
        for name in VARIANTS
        for model in MODELS
        for z in budget.z_dims
    }
    larger = {
        z: _fit(setting, sets["translated"], "translated", "vae", z + 3) for z in budget.z_dims
    }
    wide = {
        name: _fit(setting, sets[name], name, "spatial-vae", budget.z_dims[0], WIDE)
        for name in ("rotated", "translated")
    }
    named = {fit.name: fit for fit in [*fits.values(), *larger.values(), *wide.values()]}
    return Study(
        "Digits: Figures 2 and 3, Appendix Figures 1, 2 and 3",
        [
            *(f"- *{VARIANTS[n].title}*: {s.description}" for n, s in sets.items()),
            _said(setting, list(named.values())),
        ],
        list(named.values()),
        lambda results, page: _show(setting, fits, larger, wide, results, page),
    )


def null_fits(setting: Setting) -> dict[str, Fit]:
    """A fit of each of the three sets, whose null model is asked for."""
    budget = setting.plan.digits
    drawn, n_test, words = pictures(
        setting.find("mnist.npz"), budget.images, budget.held_out, setting.seed
    )
    named = {}
    for name, variant in VARIANTS.items():
        sample = _sample(setting, name, drawn, n_test, words)
        named[variant.title] = _fit(setting, sample, name, "vae", budget.z_dims[0])
    return named


# --- data -------------------------------------------------------------------------------------


def pictures(file: Path | None, images: int, held_out: int, seed: int) -> tuple[Floats, int, str]:
    """Return pictures in [0, 1], the last held out; how many those are, and what they show.

    Digits of MNIST where ``file`` (mnist.npz) is given, else characters of a font.
    """
    from modpose.simulate.digits import glyphs, transform

    if file is not None:
        parts = []
        for array, most in (("x_train", images), ("x_test", held_out)):
            stack = open_source(f"{file}:{array}", kind="images").stack
            parts.append(stack.read(np.arange(min(most, stack.n)))[:, 0] / 255)
        n_test = len(parts[1])
        words = f"MNIST, the first {len(parts[0]):,} training and {n_test:,} test digits"
        return np.concatenate(parts), n_test, words
    characters = "0123456789ABCDEFGHJKLMNPRSTUVWXYZ"
    n = images + held_out
    rng = np.random.default_rng(seed)
    chosen = glyphs(characters, SIDE)[rng.integers(len(characters), size=n)]
    drawn, _ = transform(chosen, box=SIDE, angle_std_deg=5.0, shift_std_px=0.5, seed=seed)
    words = (
        f"{images:,} characters of a built-in font to fit and {held_out:,} held out "
        "(no mnist.npz was given), each tilted by N(0, 5²) degrees"
    )
    return drawn, held_out, words


def _sample(setting: Setting, name: str, pictures: Floats, n_test: int, words: str) -> Sample:
    variant, truth = VARIANTS[name], None
    description = f"{words}, {SIDE} × {SIDE} px"
    if variant.moved:
        few = pictures[:: max(1, len(pictures) // 500)]
        pictures, truth = _move(pictures, variant, variant.shift_px, setting.seed)
        kept = _ink_kept(few, variant, variant.shift_px, setting.seed)
        description += (
            f", rotated by N(0, {variant.angle_deg:g}²) degrees and shifted by "
            f"N(0, {variant.shift_px:g}²) px on each axis: {kept:.0%} of the ink stays in the frame"
        )
        if variant.shift_px == SHIFT:
            left = _ink_kept(few, variant, SHIFT_PRINTED, setting.seed)
            description += (
                f" (the paper prints N(0, {SHIFT_PRINTED:g}²) px, which would leave {left:.0%})"
            )
    eight_bit = np.rint(255 * pictures).astype(np.uint8)
    folder, title = setting.samples, f"digits-{name}"
    return write_sample(folder, title, description + ".", eight_bit, n_test, truth)


def _move(
    pictures: Floats, variant: Variant, shift_px: float, seed: int
) -> tuple[Floats, pd.DataFrame]:
    from modpose.simulate.digits import transform

    return transform(
        pictures, box=SIDE, angle_std_deg=variant.angle_deg, shift_std_px=shift_px, seed=seed
    )


def _ink_kept(pictures: Floats, variant: Variant, shift_px: float, seed: int) -> float:
    """Return the fraction of the pictures' sum that is still in the frame."""
    moved, _ = _move(pictures, variant, shift_px, seed)
    kept = moved.sum(dtype=np.float64) / pictures.sum(dtype=np.float64)
    return min(float(kept), 1.0)  # resampling adds a little to thin strokes


# --- fits -------------------------------------------------------------------------------------


def _fit(
    setting: Setting,
    sample: Sample,
    name: str,
    model: Model,
    z_dim: int,
    priors: tuple[float, float] | None = None,
) -> Fit:
    plan, budget, variant = setting.plan, setting.plan.digits, VARIANTS[name]
    more: dict[str, Any] = {
        "data": {"normalize": "range"},
        "model": {"likelihood": {"kind": "bernoulli"}},
    }
    if model == "spatial-vae":
        angle, shift = priors or (variant.angle_deg, variant.shift_px)
        more["model"] |= {
            "rotation": {"prior": "gaussian", "std_deg": angle},
            "shift": {"prior": "gaussian", "std_px": shift},
        }
        more["train"] = {"augment": {"rotate": "none"}}
    recipe, options = configured(plan, budget, model, z_dim, more)
    width = "" if priors is None else "-wide"
    return Fit(
        name=f"digits-{name}-{model}{width}-z{z_dim}",
        sample=sample,
        recipe=recipe,
        options=options,
        seed=setting.seed,
        max_minutes=budget.minutes,
        importance=budget.importance,
    )


def _said(setting: Setting, fits: Sequence[Fit]) -> str:
    held = (
        "Content is not held at zero at first"
        if setting.plan.as_printed
        else "Otherwise each recipe trains as it always does"
    )
    return (
        "Bernoulli likelihood on grey values. Priors of the pose are Gaussian and matched to the "
        "data, as in the paper: N(0, 22.5²) degrees and N(0, 1.4²) px for plain digits, else the "
        "distributions that the images were made with. Encoder input is not turned at random, "
        f"since upright is known. {held}. {networks(fits)} The paper's text does not list its "
        "dimensions of content."
    )


# --- what is shown ----------------------------------------------------------------------------

Key = tuple[str, Model, int]


def _show(
    setting: Setting,
    fits: Mapping[Key, Fit],
    larger: Mapping[int, Fit],
    wide: Mapping[str, Fit],
    results: Mapping[str, Result],
    page: Page,
) -> Sequence[str]:
    found = {key: results[fit.name] for key, fit in fits.items()}
    z_dims = setting.plan.digits.z_dims
    rows = [
        score_row(r, {"images": VARIANTS[name].title, "model": MODELS[model]})
        for (name, model, _), r in found.items()
    ]
    nulls = {
        name: null_row(
            found[name, "vae", z_dims[0]],
            rows[0],
            {"images": VARIANTS[name].title, "model": LABEL},
        )
        for name in VARIANTS
    }
    rows += nulls.values()
    curves = {
        VARIANTS[name].title: {
            MODELS[model]: (z_dims, [found[name, model, z].score.elbo for z in z_dims])
            for model in MODELS
        }
        for name in VARIANTS
    }
    return [
        "### Figure 2: ELBO against the dimension of content",
        page.figure(
            "figure-2", plots.against_z(curves), "Figure 2: held-out ELBO (higher is better)"
        ),
        page.table("figure-2", "Figure 2: scores", rows),
        score_note(list(found.values())),
        NOTE,
        *_show_larger(
            found, {z: results[fit.name] for z, fit in larger.items()}, nulls["translated"], page
        ),
        *_show_manifolds(found, z_dims[0], page),
        *_show_wide(found, {name: results[fit.name] for name, fit in wide.items()}, nulls, page),
    ]


def _show_larger(
    found: Mapping[Key, Result], larger: Mapping[int, Result], null: Row, page: Page
) -> Sequence[str]:
    z_dims, title = list(larger), VARIANTS["translated"].title
    ours = [found["translated", "spatial-vae", z] for z in z_dims]
    lines = {
        "spatial-VAE": (z_dims, [r.score.elbo for r in ours]),
        "VAE with three more latents": (z_dims, [r.score.elbo for r in larger.values()]),
    }
    rows = [
        *(score_row(r, {"model": "spatial-VAE"}) for r in ours),
        *(score_row(r, {"model": "VAE, three more latents"}) for r in larger.values()),
    ]
    rows.append({column: null[column] for column in rows[0]})
    figure = plots.against_z({title: lines}, "content dimensions of spatial-VAE")
    return [
        "### Appendix Figure 1: a VAE with as many latents in all",
        page.figure("appendix-1", figure, f"Appendix Figure 1: held-out ELBO on {title} digits"),
        page.table("appendix-1", "Appendix Figure 1: scores", rows),
    ]


def _show_manifolds(found: Mapping[Key, Result], z_dim: int, page: Page) -> Sequence[str]:
    n = 12
    tiles = {
        (VARIANTS[name].title, MODELS[model]): manifold(found[name, model, z_dim].model(), n, LOOK)
        for name in VARIANTS
        for model in MODELS
    }
    caption = (
        "Figure 3: what each model with 2-D content draws, upright, as z goes through the inverse "
        "normal distribution function in equal steps"
    )
    return [
        "### Figure 3: manifolds of digits",
        page.figure("figure-3", plots.table_of_mosaics(tiles, n), caption),
    ]


def _show_wide(
    found: Mapping[Key, Result],
    wide: Mapping[str, Result],
    nulls: Mapping[str, Row],
    page: Page,
) -> Sequence[str]:
    n, rows, tiles = 12, [], {}
    for name, result in wide.items():
        matched = found[name, "spatial-vae", result.run.config.model.z_dim]
        for kind, r in (("matched prior", matched), ("wide prior", result)):
            rows.append(score_row(r, {"images": VARIANTS[name].title, "prior": kind}))
            tiles[VARIANTS[name].title, kind] = manifold(r.model(), n, LOOK)
        named = {"images": VARIANTS[name].title, "prior": LABEL}
        rows.append({column: {**nulls[name], **named}[column] for column in rows[0]})
    caption = (
        "Appendix Figure 3: manifolds of spatial-VAE with matched priors and with "
        f"N(0, {WIDE[0]:g}²) degrees and N(0, {WIDE[1]:g}²) px"
    )
    return [
        "### Appendix Figures 2 and 3: wide against matched priors",
        page.table("appendix-2", "Appendix Figure 2: reconstruction and bounds", rows),
        "The paper compares the reconstruction term; a wider prior costs more KL of pose.",
        page.figure("appendix-3", plots.table_of_mosaics(tiles, n, width=6.4), caption),
    ]

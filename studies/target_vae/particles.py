"""Real particles and what is not particles among them: Figure 4."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from modpose.data.source import open_source
from modpose.evaluate import metrics
from modpose.infer.latents import content_of_table
from studies.common.conduct import Study
from studies.common.page import Page, Row
from studies.common.samples import Made, Sample
from studies.common.study import Result
from studies.spatial_vae.common import held_out_pictures, measured_look
from studies.target_vae import figures
from studies.target_vae.common import (
    By,
    Setting,
    clusters,
    make_fits,
    named,
    of_contenders,
    quiet_model,
    sample_once,
    scores,
)

FILE = "spa/apoferritin_empiar10146_64.star"
CROP, BOX = 56, 40
"""Pixels kept of each side, and the box that they are reduced to."""
SHIFT = 2.0
"""Prior of the shift, pixels of that box."""
GOLD, EMPTY = 0.08, 0.08
"""Parts of the windows that are replaced by gold and by nothing."""
CLUSTERS, ACROSS = 3, 8


def prepare(setting: Setting) -> Study:
    """Plant contaminants among the particles and say which fits they need."""
    sizes, sample = setting.plan.particles, _sample(setting)
    more = {
        "data": {"invert": True, "crop": CROP, "box": BOX, "normalize": "image", "mask": 1.0},
        "model": {
            "likelihood": {"kind": "gaussian", "noise": "learned", "std": 1.0},
            "shift": {"prior": "gaussian", "std_px": SHIFT},
        },
    }
    fits = make_fits(setting, sizes, sample, "particles", more, particles=True)
    return Study(
        "Particles and contaminants: Figure 4",
        [sample.description],
        list(fits.values()),
        lambda results, page: _show(of_contenders(fits, results), page),
    )


def _sample(setting: Setting) -> Sample:
    file = setting.find(FILE)
    what = (
        "Simulated views of a barrel (no real particles were given)"
        if file is None
        else "Real cryo-EM windows of apoferritin (EMPIAR-10146) in place of EMPIAR-10025"
    )
    description = (
        f"{what}, the central {CROP} px of 64 reduced to {BOX} × {BOX} px and inverted. What is "
        f"not a particle is not labelled there, so it is planted: {GOLD:.0%} of the windows are "
        f"replaced by a gold bead and {EMPTY:.0%} by nothing, both on noise with the spectrum of "
        "the window that they replace. A fifth of the windows is held out."
    )
    return sample_once(setting, "particles", description, lambda: _make(setting, file))


def _make(setting: Setting, file: Path | None) -> Made:
    sizes = setting.plan.particles
    most = sizes.images + sizes.held_out
    if file is None:
        from studies.target_vae.molecule_views import ViewSettings, barrel, simulate_views

        settings = ViewSettings(n=min(most, 1500), box=64, pixel_size=3.5, seed=setting.seed)
        windows = -simulate_views(barrel(), settings).images
    else:
        source = open_source(file)
        windows = source.stack.read(np.arange(source.n))[:, 0].astype(np.float32)
    rng = np.random.default_rng(setting.seed)
    windows = windows[rng.permutation(len(windows))[:most]]
    kind = rng.choice(
        ["particle", "gold", "empty"], len(windows), p=[1 - GOLD - EMPTY, GOLD, EMPTY]
    )
    planted = plant(windows, kind, rng)
    return planted, max(len(planted) // 5, 2), pd.DataFrame({"class": kind})


def plant(
    windows: NDArray[np.float32], kind: NDArray[Any], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Replace windows by a gold bead or by nothing, on noise of their own spectrum.

    Parameters
    ----------
    windows
        (N, H, W) with dark particles.
    kind
        (N,) ``particle`` (not changed), ``gold`` or ``empty``.
    rng
        Of phases, places and sizes.
    """
    out = windows.copy()
    high, wide = windows.shape[1:]
    y, x = np.mgrid[:high, :wide]
    for k in np.flatnonzero(kind != "particle"):
        level, spread = windows[k].mean(), windows[k].std()
        out[k] = _same_spectrum(windows[k], rng)
        if kind[k] == "gold":
            row, column = rng.uniform(0.35, 0.65, 2) * (high, wide)
            radius = rng.uniform(0.1, 0.14) * high
            bead = 1 / (1 + np.exp(2 * (np.hypot(y - row, x - column) - radius)))
            out[k] = out[k] * (1 - bead) + (level - 6 * spread) * bead
    return out


def _same_spectrum(window: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return noise with the amplitudes of a window and the phases of white noise."""
    white = np.fft.rfft2(rng.standard_normal(window.shape))
    amplitude = np.abs(np.fft.rfft2(window))
    phase = white / np.maximum(np.abs(white), 1e-12)
    phase[0, 0] = np.sign(np.fft.rfft2(window)[0, 0].real)
    return np.fft.irfft2(amplitude * phase, s=window.shape)


def _show(by: By, page: Page) -> Sequence[str]:
    if not by:
        return ["No model was fitted."]
    rows, maps, blocks = list[Row](), {}, []
    for contender, result in by.items():
        z = content_of_table(result.held_out())
        kind = result.fit.sample.truth_of_test()["class"].to_numpy()
        group = clusters(z, CLUSTERS)
        maps[contender.name] = (z, kind)
        rows.append({"model": contender.name, **_scores(z, kind, group)})
        caption = (
            f"Figure 4: {contender.name}, windows of each of {CLUSTERS} clusters of content, and "
            "what the model draws of them upright"
        )
        figure = figures.picture_rows(_examples(result, z, group))
        blocks.append(page.figure(f"figure-4-{contender.slug}", figure, caption))
    note = (
        "Ward: per cent of held-out windows in the cluster matched with their kind; ARI: adjusted "
        "Rand index; 5-NN: nearest neighbours in content; found: per cent of gold and of empty "
        "windows among whose five neighbours most are of their kind."
    )
    return [
        page.figure("figure-4-z", figures.content_maps(maps), "Figure 4: content by kind"),
        *blocks,
        page.table("figure-4", "Particles and contaminants distinguished", rows, {"ARI": 3}),
        note,
        *scores(page, "particles", "Particles", named(by)),
    ]


def _scores(
    z: NDArray[np.float64], kind: NDArray[Any], group: NDArray[np.int64]
) -> dict[str, float | None]:
    from sklearn.neighbors import NearestNeighbors

    found: dict[str, float | None] = {
        "Ward (%)": 100 * metrics.hungarian_accuracy(kind, group)[0],
        "ARI": metrics.ari(kind, group),
    }
    if len(z) <= 5:
        return found
    found["5-NN (%)"] = 100 * metrics.knn_accuracy(z, kind)
    near = NearestNeighbors(n_neighbors=5).fit(z).kneighbors(return_distance=False)
    for name in ("gold", "empty"):
        own = kind == name
        most = (kind[near[own]] == name).sum(1) > 2
        found[f"{name} found (%)"] = 100 * float(most.mean()) if own.any() else None
    return found


def _examples(
    result: Result, z: NDArray[np.float64], group: NDArray[np.int64]
) -> dict[str, NDArray[np.floating]]:
    model, rows = quiet_model(result), {}
    for k in range(group.max() + 1):
        own = np.resize(np.flatnonzero(group == k), ACROSS)  # repeats where there are few
        images, drawn = held_out_pictures(result, own.tolist()), model.decode(z[own])
        look = measured_look(images, drawn)
        rows[f"cluster {k + 1} ({(group == k).sum()})"] = look.image(images)
        rows[f"drawn {k + 1}"] = look.prediction(drawn)
    return rows

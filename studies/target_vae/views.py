"""Simulated views of GroEL: Figure 5."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modpose.evaluate import metrics
from modpose.infer.latents import content_of_table
from modpose.plot.grids import drawn
from studies.common.conduct import Study
from studies.common.page import Page, Row
from studies.common.samples import Made, Sample
from studies.common.study import Result
from studies.spatial_vae.common import held_out_pictures, measured_look
from studies.target_vae import figures
from studies.target_vae.common import (
    By,
    Setting,
    make_fits,
    named,
    of_contenders,
    quiet_model,
    sample_once,
    scores,
)

FILE = "pdb/1oel.pdb"
SHIFT = 2.0
"""Standard deviation of the shift on each axis, pixels."""
SNR = 0.3
ACROSS = 10


def prepare(setting: Setting) -> Study:
    """Project the molecule, and say which fits the views need."""
    sizes, sample = setting.plan.views, _sample(setting)
    more = {
        "data": {"normalize": "image"},
        "model": {
            "likelihood": {"kind": "gaussian", "noise": "learned", "std": 1.0},
            "shift": {"prior": "gaussian", "std_px": SHIFT},
        },
    }
    fits = make_fits(setting, sizes, sample, "views", more, particles=True)
    return Study(
        "Views of GroEL: Figure 5",
        [sample.description],
        list(fits.values()),
        lambda results, page: _show(of_contenders(fits, results), page),
    )


def _sample(setting: Setting) -> Sample:
    sizes, file = setting.plan.views, setting.find(FILE)
    what = "a barrel of the symmetry of GroEL" if file is None else "GroEL (1OEL, both rings)"
    description = (
        f"{sizes.images:,} simulated projections of {what} along directions uniform over the "
        f"sphere to fit and {sizes.held_out:,} held out, 64 × 64 px of 4.5 Å, white noise at SNR "
        f"{SNR:g}, shifts N(0, {SHIFT:g}²) px (in place of EMPIAR-10029)."
    )
    return sample_once(setting, "views", description, lambda: _make(setting))


def _make(setting: Setting) -> Made:
    from modpose.simulate.atoms import read_molecule
    from studies.target_vae.molecule_views import ViewSettings, barrel, simulate_views

    sizes, file = setting.plan.views, setting.find(FILE)
    molecule = barrel() if file is None else read_molecule(file)
    n = sizes.images + sizes.held_out
    settings = ViewSettings(n=n, snr=SNR, shift_std_px=SHIFT, seed=setting.seed)
    views = simulate_views(molecule, settings)
    return views.images, sizes.held_out, views.truth


def _show(by: By, page: Page) -> Sequence[str]:
    if not by:
        return ["No model was fitted."]
    first = next(iter(by.values()))
    some = range(min(ACROSS, first.fit.sample.open_test().n))
    images = held_out_pictures(first, some)
    rows: list[Row] = []
    pictures = {"images": measured_look(images, images).image(images)}
    for contender, result in by.items():
        rows.append({"model": contender.name, **_scores(result)})
        model, z = quiet_model(result), content_of_table(result.held_out())
        upright = model.decode(z[list(some)])
        pictures[f"{contender.name}: upright"] = measured_look(images, upright).prediction(upright)
        posed = model.reconstruct(result.fit.sample.open_test().subset(np.asarray(some)))
        look = measured_look(images, posed)
        pictures[f"{contender.name}: as posed"] = drawn(
            np.clip((posed - look.model[0]) / (look.model[1] - look.model[0]), 0, 1), "lower"
        )
    digits = {"R tilt": 3, "r shift": 3}
    note = (
        "R tilt: correlation of the size of the tilt's cosine (1: along the sevenfold axis, "
        "0: from the side) with its best fit by content, its squares and products. r shift: mean "
        "over x and y. The upright frame of a view is the model's to choose, so rotation is not "
        "scored."
    )
    caption = "Figure 5: images, what the models draw of their content upright, and as posed"
    return [
        page.figure("figure-5", figures.picture_rows(pictures), caption),
        page.table("figure-5", "Views: content and place", rows, digits),
        note,
        *scores(page, "views", "Views", named(by)),
    ]


def _scores(result: Result) -> dict[str, float | None]:
    latents, truth = result.held_out(), result.fit.sample.truth_of_test()
    z = content_of_table(latents)
    square = np.einsum("ni,nj->nij", z, z)[:, *np.triu_indices(z.shape[1])]
    features = np.concatenate([z, square], axis=1)
    tilt = np.abs(np.cos(np.deg2rad(truth["tilt_deg"].to_numpy(float))))
    fits = len(z) > 2 * features.shape[1]
    shift = [metrics.pearson(latents[c], truth[c]) for c in ("shift_x", "shift_y")]
    return {
        "R tilt": metrics.multiple_correlation(features, tilt) if fits else None,
        "r shift": float(np.mean(shift)),
    }

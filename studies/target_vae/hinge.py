"""The hinged protein: appendix A.8, Figure 11."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from modpose.evaluate.recovery import recover
from modpose.plot.grids import manifold_codes
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

SHIFT = 1.0
"""Standard deviation of the shift on each axis, pixels."""
ACROSS = 10


def prepare(setting: Setting) -> Study:
    """Simulate the particles at each noise level, and say which fits they need."""
    sizes = setting.plan.hinge
    samples = {snr: _sample(setting, snr) for snr in setting.plan.snr}
    more = {
        "data": {"normalize": "image"},
        "model": {
            "likelihood": {"kind": "gaussian", "noise": "learned", "std": 1.0},
            "shift": {"prior": "gaussian", "std_px": SHIFT},
        },
    }
    fits = {
        snr: make_fits(setting, sizes, sample, f"hinge-{snr:g}", more)
        for snr, sample in samples.items()
    }
    return Study(
        "The hinged protein: appendix A.8, Figure 11",
        [sample.description for sample in samples.values()],
        [fit for each in fits.values() for fit in each.values()],
        lambda results, page: _show(
            {snr: of_contenders(each, results) for snr, each in fits.items()}, page
        ),
    )


def _sample(setting: Setting, snr: float) -> Sample:
    sizes = setting.plan.hinge
    description = (
        f"SNR {snr:g}: {sizes.images:,} simulated images of a hinged molecule to fit and "
        f"{sizes.held_out:,} held out, 40 × 40 px, uniform rotation, shifts N(0, {SHIFT:g}²) px, "
        "hinge angles uniform within ±20° (the paper's 5HDB set is not public)."
    )
    return sample_once(setting, f"hinge-{snr:g}", description, lambda: _make(setting, snr))


def _make(setting: Setting, snr: float) -> Made:
    from modpose.simulate.particles import HingeSettings, simulate_particles

    sizes = setting.plan.hinge
    n = sizes.images + sizes.held_out
    made = simulate_particles(
        HingeSettings(n=n, box=40, snr=snr, shift_std_px=SHIFT, seed=setting.seed)
    )
    return made.images, sizes.held_out, made.truth


def _show(found: Mapping[float, By], page: Page) -> Sequence[str]:
    rows: list[Row] = []
    results: dict[str, Result] = {}
    pictures = {}
    for snr, by in found.items():
        for contender, result in by.items():
            rows.append({"SNR": f"{snr:g}", "model": contender.name, **_recovered(result)})
        for name, result in named(by).items():
            label = f"{name}, SNR {snr:g}"
            results[label] = result
            pictures[label] = _walk(result)
        if by:
            result = next(iter(by.values()))
            images = held_out_pictures(result, range(ACROSS))
            pictures[f"images, SNR {snr:g}"] = measured_look(images, images).image(images)
    if not results:
        return ["No model was fitted."]
    digits = {"|r| hinge": 3, "resultant": 3, "shift RMSE (px)": 2}
    note = (
        "|r|: Pearson's correlation of content with the hinge angle. Resultant length and RMSE of "
        "the rotation errors after the one rotation of the model's frame."
    )
    caption = "Figure 11: what each model draws as content goes through the quantiles of its prior"
    return [
        page.table("figure-11", "Hinged protein: content and pose", rows, digits),
        note,
        page.figure("figure-11", figures.picture_rows(pictures), caption),
        *scores(page, "hinge", "Hinged protein", results),
    ]


def _recovered(result: Result) -> dict[str, float | None]:
    found = recover(result.held_out(), result.fit.sample.truth_of_test())
    return {
        "|r| hinge": found.hinge_pearson,
        "resultant": found.rotation_resultant,
        "RMSE (°)": found.rotation_rmse_deg,
        "RMSE given hinge (°)": found.rotation_rmse_given_hinge_deg,
        "shift RMSE (px)": found.shift_rmse_px,
    }


def _walk(result: Result) -> np.ndarray:
    model = quiet_model(result)
    k = model.config.model.z_dim
    codes = np.zeros((ACROSS, k))
    codes[:, :1] = manifold_codes(np.zeros((1, 1)), ACROSS)
    drawn = model.decode(codes)
    return np.asarray(measured_look(drawn, drawn).prediction(drawn))

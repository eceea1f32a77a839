"""Whether the small KL of the paper's Table 1 is a collapse, and from which noise level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from studies.common.conduct import Study
from studies.common.null import LABEL, NOTE, null_row
from studies.common.page import Page, Row
from studies.common.plots import Curve, curves_in_images
from studies.common.study import Fit, Result, training_curve
from studies.subtomograms.sets import symmetries
from studies.subtomograms.studies import (
    Setting,
    make_fit,
    make_volumes,
    over_null,
    score_row,
)

COMPARED = ("vae-3d", "3d-spvae")
PRINTED = {"printed, SNR 0.1": 0.06, "printed, SNR 0.01": 0.02}
"""KL of 3D-SpVAE in Table 1, nats."""
SEEN_IN_PAPER = 400 * 2560
"""Volumes, at 400 epochs of 3,200, a fifth of them held out."""


def prepare(setting: Setting) -> Study:
    """The paper's models at its widths: at its noise levels and with less noise."""
    planned = setting.plan.collapse
    plan = replace(
        setting.plan,
        per_class=planned.per_class,
        epochs=planned.epochs,
        minutes=None,
        importance=planned.importance,
        options=planned.options,
    )
    small = replace(setting, plan=plan, samples=setting.samples / "collapse")
    sets = {snr: make_volumes(small, "S", snr) for snr in planned.snrs}
    fits: dict[tuple[str, float], Fit] = {}
    for snr, one in sets.items():
        for model in COMPARED:
            fit = make_fit(small, model, one)
            fits[model, snr] = replace(fit, name=f"collapse-{fit.name}")

    def show(results: Mapping[str, Result], page: Page) -> Sequence[str]:
        found = {key: results[fit.name] for key, fit in fits.items()}
        alike = symmetries(next(iter(sets.values())))
        rows: list[Row] = []
        for snr, one in sorted(sets.items()):
            fitted = [score_row(found[m, snr], m, one, alike) for m in COMPARED]
            null = null_row(found[COMPARED[0], snr], fitted[0], {"model": LABEL, "SNR": f"{snr:g}"})
            rows += [{"over null": over_null(row, null), **row} for row in (null, *fitted)]
        kl = {f"SNR {snr:g}": [_kl(found["3d-spvae", snr])] for snr in sorted(sets)}
        return [
            page.table("collapse", "KL by noise level, networks as printed", rows, {"KL": 2}),
            NOTE,
            page.figure(
                "collapse",
                curves_in_images(kl, PRINTED, SEEN_IN_PAPER, "KL, 3d-spvae (nats per volume)"),
                "The KL of pose and content of `3d-spvae` in training, and what the paper prints",
            ),
        ]

    said = [
        *(one.sample.description for _, one in sorted(sets.items())),
        f"Recipes `vae-3d` and `3d-spvae` with networks as printed; {planned.epochs} passes, "
        "Adam at 1e-3 (printed 1e-4) that falls along a cosine, batches of 16 (printed 128), 100 "
        "random voxels of a volume in each step of `3d-spvae`, no validation: the epoch with the "
        "best bound in training is scored.",
    ]
    return Study("Is the KL a collapse? Table 1", said, list(fits.values()), show)


def _kl(result: Result) -> Curve:
    """Return, after each epoch, the volumes seen and the whole KL of the fitted ones."""
    seen, pose = training_curve(result, "kl_pose")
    _, content = training_curve(result, "kl_content")
    return seen, [one + other for one, other in zip(pose, content, strict=True)]

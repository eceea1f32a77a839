"""Particles: sections 3.1 to 3.4 of the paper, Figures 3 to 11, and Appendix C."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modpose.config import merge
from studies.amortisation.common import (
    SNR,
    Setting,
    arrows,
    displacement,
    displacement_row,
    fit_options,
    gap_row,
    projection_settings,
)
from studies.amortisation.moves import SHIFT, TURN, Mode
from studies.common.conduct import Study
from studies.common.page import Page
from studies.common.samples import Sample, index_sample
from studies.common.study import Fit, Result

MODES: tuple[Mode, ...] = ("as-published", "consistent")


@dataclass(frozen=True)
class Control:
    """A fit of the comparison.

    Attributes
    ----------
    title
        What tables call it.
    recipe, options
        Its configuration.
    pretrained
        Take the rows of the table from the baseline's encoder.
    """

    title: str
    recipe: str
    options: dict[str, Any] = field(default_factory=dict)
    pretrained: bool = False


_SMALL = {"model": {"z_dim": 2, "encoder": {"depth": 3}}}
"""Two layers in the authors' words: a first one, and two residual ones."""
_ZERO = {"init": "zeros"}
_NULL = {"init": "random", "mean": 0.0, "spread": 0.0, "log_std": 0.0, "log_std_spread": 0.0}
CONTROLS: dict[str, Control] = {
    "null": Control(
        "null: one volume for all images",
        "vlt",
        {"model": {"encoder": _NULL | {"frozen": True}}},
    ),
    "encoder": Control("encoder (cryoDRGN)", "cryodrgn"),
    "aligned": Control(
        "encoder, image seen through its pose",
        "cryodrgn",
        {"model": {"encoder": {"sees": "aligned"}}},
    ),
    "posed": Control("modpose-posed", "modpose-posed", {"model": {"field": {"motions": 8}}}),
    "table": Control("table, random start", "vlt"),
    "table-zeros": Control("table, zero start", "vlt", {"model": {"encoder": _ZERO}}),
    "table-zeros-frozen": Control(
        "table, zeros, frozen", "vlt", {"model": {"encoder": _ZERO | {"frozen": True}}}
    ),
    "table-random-frozen": Control(
        "table, random, frozen", "vlt", {"model": {"encoder": {"frozen": True}}}
    ),
    "table-pretrained-frozen": Control(
        "table from the encoder, frozen, decoder again",
        "vlt",
        {"model": {"encoder": {"init": "pretrained", "frozen": True}}},
        pretrained=True,
    ),
    "twin": Control("evil twin, another image", "evil-twin"),
    "twin-large": Control("evil twin, 5 x 1024", "evil-twin-large"),
    "twin-noise": Control(
        "evil twin, noise, 5 x 1024", "evil-twin-large", {"data": {"twin": "noise"}}
    ),
    "small": Control("encoder 2 x 256, z = 2", "cryodrgn", _SMALL),
    "small-twin": Control("evil twin, 2 x 256, z = 2", "evil-twin", _SMALL),
}
"""Appendix C.  The null model's content is that of the prior for every image, and costs nothing."""
MOVED = ("encoder", "aligned", "posed")
"""Those whose images are moved."""


def prepare_moves(setting: Setting) -> Study:
    """Images moved after training: section 3.4, Figures 10 and 11."""
    sample = _sample(setting)
    fits = {name: _fit(setting, sample, name) for name in MOVED}
    return Study(
        "Images that are moved: section 3.4, Figures 10 and 11",
        [
            sample.description,
            "Each image is shifted by one pixel to the right, or rotated by 90°, and encoded "
            "again. "
            "*as-published*: pose and CTF stay what they were; *consistent*: they follow the "
            "image. An encoder that amortises would leave content where it was.",
        ],
        list(fits.values()),
        lambda results, page: _show_moves(setting, results, page),
    )


def prepare_controls(setting: Setting) -> Study:
    """Encoder, table, evil twin and the controls of Appendix C."""
    sample = _sample(setting)
    fits = {name: _fit(setting, sample, name) for name in CONTROLS}
    return Study(
        "Encoder, table, evil twin: sections 3.1 to 3.3 and Appendix C",
        [
            sample.description,
            "ELBO and KL in nats per image. *Gap*: what refining each image's own posterior by "
            "gradient gains, the amortisation gap, on images fitted to and on others; a table says "
            "nothing of others, which are fitted by refining alone. *Null*: a table whose rows all "
            "stay at the prior, so that the network can draw one volume alone; a model whose bound "
            "on fitted images is not above that has found nothing that moves.",
        ],
        list(fits.values()),
        lambda results, page: _show_controls(setting, results, page),
    )


def _sample(setting: Setting) -> Sample:
    from modpose.simulate.conformations import built_in_conformers
    from modpose.simulate.projection_files import write_projections
    from modpose.simulate.projections import simulate_projections

    budget = setting.plan.particles
    n = budget.images + budget.held_out
    folder = setting.samples / "particles" / "images"
    if not (folder / "particles.star").is_file():
        settings = projection_settings(setting)
        made = simulate_projections(settings, built_in_conformers(2))
        write_projections(made, folder, overwrite=True)
    description = (
        f"{budget.images:,} simulated projections to fit and {budget.held_out:,} held out, "
        f"{budget.box} × {budget.box} px, SNR {SNR:g}, CTF, Haar poses that are given: a mixture "
        "of two states of the built-in molecule, with and without its toe, in place of "
        "EMPIAR-10076."
    )
    train, test = np.split(np.arange(n), [budget.images])
    star = str(folder / "particles.star")
    return index_sample(setting.samples, "particles", description, star, train, test)


def _fit(setting: Setting, sample: Sample, name: str) -> Fit:
    budget, control = setting.plan.particles, CONTROLS[name]
    options = merge(
        fit_options(control.recipe, budget, budget.z_dim, budget.epochs), control.options
    )
    if control.pretrained:
        run = setting.runs / _run_name("encoder")
        options = merge(options, {"model": {"encoder": {"run": str(run)}}})
    return Fit(
        name=_run_name(name),
        sample=sample,
        recipe=control.recipe,
        options=options,
        seed=setting.seed,
        max_minutes=budget.minutes,
        importance=budget.importance,
        table_images=budget.refined,
    )


def _run_name(name: str) -> str:
    return f"particles-{name}"


def _show_moves(setting: Setting, results: Mapping[str, Result], page: Page) -> Sequence[str]:
    count = setting.plan.particles.measured
    rows = [
        displacement_row(results[_run_name(name)], CONTROLS[name].title, move, mode, count)
        for name in MOVED
        for move in (SHIFT, TURN)
        for mode in MODES
    ]
    panels = {
        f"{move.name}, {mode}": displacement(results[_run_name("encoder")], move, mode, count)
        for move in (SHIFT, TURN)
        for mode in MODES
    }
    digits = {"displacement / pair distance": 3, "displacement / posterior s.d.": 2}
    return [
        page.table("moves", "How far content moves when the image does", rows, digits),
        page.figure(
            "figure-10",
            arrows(panels),
            "Figures 10 and 11: from ten images to their moved copies, in the plane of the first "
            "principal components of the encoder's content",
        ),
    ]


def _show_controls(setting: Setting, results: Mapping[str, Result], page: Page) -> Sequence[str]:
    budget = setting.plan.particles
    rows = [
        {
            **gap_row(results[_run_name(name)], control.title, budget),
            "ARI": _states_found(results[_run_name(name)]),
        }
        for name, control in CONTROLS.items()
    ]
    digits = {"ms per image to encode": 2, "ARI": 3}
    return [
        page.table("controls", "Encoder, table, evil twin, controls", rows, digits),
        "*ARI*: adjusted Rand index of two clusters of content (k-means) with the two states.",
    ]


def _states_found(result: Result) -> float | None:
    """How well content tells the two states of the images fitted to apart."""
    from modpose.evaluate.conformations import classes_found

    truth = result.fit.sample.open_train().particles.truth()
    assert truth is not None
    columns = [f"z_{k}" for k in range(result.run.config.model.z_dim)]
    z = result.run.latents()[columns].to_numpy(float)
    return classes_found(z, truth.reset_index(drop=True)) if np.ptp(z) > 0 else 0.0

"""The studies of the spatial-VAE paper (Bepler, Zhong, Kelley, Brignole & Berger 2019).

The folder of real data may hold ``mnist.npz``, ``galaxy/galaxy_zoo_train_64.npz`` and
``spa/apoferritin_empiar10146_64.star``, as far as they are there.
"""

from __future__ import annotations

from collections.abc import Callable

from studies.common.conduct import Experiment, Study, machine
from studies.common.null import first_fits, null_study
from studies.common.study import Budget
from studies.spatial_vae import digits, galaxies, hinge, particles
from studies.spatial_vae.budgets import PLANS, Plan
from studies.spatial_vae.common import Setting


def _null(setting: Setting) -> Study:
    """The null model of every set, without a fit."""
    others = [study.prepare(setting) for study in (hinge, galaxies, particles)]
    return null_study(digits.null_fits(setting) | first_fits(others))


TITLE = "spatial-VAE: the studies of the paper"
STUDIES: dict[str, Callable[[Setting], Study | str]] = {
    "digits": digits.prepare,
    "hinge": hinge.prepare,
    "galaxies": galaxies.prepare,
    "particles": particles.prepare,
    "null": _null,
}
"""Name for ``only``, and what prepares the study."""


def _said(plan: Plan, command: str, budget: Budget) -> list[str]:
    """Say what the page is, how it was made, and on which machine."""
    timed = plan.digits.minutes is not None
    training = (
        "networks and training as printed: every pixel, Adam at 1e-4, batches of 100, equation 3 "
        "where the rotation is uniform"
        if plan.as_printed
        else "networks and training of our recipes (`modpose recipes NAME`; every `config.yaml` in "
        "`runs/` is complete), not of the paper; the rate falls along a cosine in all models"
    )
    how = f"in {plan.jobs} single-threaded processes" if plan.jobs > 1 else "one after the other"
    return [
        "Bepler, Zhong, Kelley, Brignole & Berger, *Explicitly disentangling image content from "
        "translation and rotation with spatial-VAE*, NeurIPS 2019. Each section names the tables "
        "and figures of the paper that it repeats; every fit is a run folder in `runs/` "
        "(`modpose report DIR/runs/NAME`).",
        f"Made by `{command}` on {machine()}, {how}. "
        f"Training: {training}. "
        + (
            "Fits end by time, so that a repetition gives nearly, not exactly, the same numbers. "
            if timed
            else "Fits end after a number of epochs: a repetition on the same machine gives the "
            "same numbers. "
        )
        + "Of each fit the epoch with the best validation ELBO is kept (5 % of the images that "
        "are fitted, where a section says nothing else); scores are of other images, which were "
        "never seen.",
    ]


EXPERIMENT = Experiment("spatial-vae", TITLE, PLANS, STUDIES, _said)
run = EXPERIMENT.run

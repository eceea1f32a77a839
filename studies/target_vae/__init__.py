"""The studies of the TARGET-VAE paper (Nasiri & Bepler 2022).

The folder of real data may hold ``mnist.npz``, ``dsprites/dsprites_grid_46080.npz``,
``galaxy/galaxy_zoo_train_64.npz``, ``spa/apoferritin_empiar10146_64.star`` and ``pdb/1oel.pdb``, as
far as they are there; others are made in their place.
"""

from __future__ import annotations

from collections.abc import Callable

from studies.common.conduct import Experiment, Study, machine
from studies.common.null import first_fits, null_study
from studies.common.study import Budget
from studies.target_vae import (
    digits,
    galaxies,
    hinge,
    particles,
    several,
    sprites,
    views,
)
from studies.target_vae.budgets import PLANS, Plan
from studies.target_vae.common import Setting


def _null(setting: Setting) -> Study:
    """The null model of every set, without a fit."""
    others = [study.prepare(setting) for study in (sprites, galaxies, hinge, particles)]
    return null_study(digits.null_fits(setting) | first_fits(others))


TITLE = "TARGET-VAE: the studies of the paper"
STUDIES: dict[str, Callable[[Setting], Study | str]] = {
    "digits": digits.prepare,
    "ablation": digits.prepare_ablation,
    "offset": digits.prepare_offset,
    "several": several.prepare,
    "sprites": sprites.prepare,
    "galaxies": galaxies.prepare,
    "hinge": hinge.prepare,
    "particles": particles.prepare,
    "views": views.prepare,
    "null": _null,
}
"""Name for ``only``, and what prepares the study."""


def _said(plan: Plan, command: str, budget: Budget) -> list[str]:
    """Say what the page is, how it was made, and on which machine."""
    training = (
        "as printed (`target-vae-paper`, `spatial-vae-paper`; `modpose` as it always is)"
        if plan.as_printed
        else "networks and training of our recipes (`modpose recipes NAME`; every `config.yaml` in "
        "`runs/` is complete), not of the paper, which trains for up to 500 epochs"
    )
    how = f"in {plan.jobs} single-threaded processes" if plan.jobs > 1 else "one after the other"
    timed = plan.uniform.minutes is not None
    return [
        "Nasiri & Bepler, *Unsupervised Object Representation Learning using Translation and "
        "Rotation Group Equivariant VAE*, NeurIPS 2022. Each section names the tables and figures "
        "of the paper that it repeats; every fit is a run folder in `runs/` "
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
        "are fitted); scores are of other images, which were never seen.",
    ]


EXPERIMENT = Experiment("target-vae", TITLE, PLANS, STUDIES, _said)
run = EXPERIMENT.run

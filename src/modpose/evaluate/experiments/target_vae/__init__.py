"""The studies of the TARGET-VAE paper (Nasiri & Bepler 2022)."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from modpose.errors import InputError
from modpose.evaluate.experiments.conduct import Conduct
from modpose.evaluate.experiments.spatial_vae import machine
from modpose.evaluate.experiments.spatial_vae.common import Study
from modpose.evaluate.experiments.study import Budget, open_folder, usable_cores
from modpose.evaluate.experiments.target_vae import (
    digits,
    galaxies,
    hinge,
    particles,
    several,
    sprites,
    views,
)
from modpose.evaluate.experiments.target_vae.budgets import PLANS, Plan
from modpose.evaluate.experiments.target_vae.common import Setting

TITLE = "TARGET-VAE: the studies of the paper"
STUDIES: dict[str, Callable[[Setting], Study | str]] = {
    "digits": digits.prepare,
    "ablation": digits.prepare_ablation,
    "several": several.prepare,
    "sprites": sprites.prepare,
    "galaxies": galaxies.prepare,
    "hinge": hinge.prepare,
    "particles": particles.prepare,
    "views": views.prepare,
}
"""Name for ``only``, and what prepares the study."""


def run(
    budget: Budget,
    out: str | Path,
    seed: int = 0,
    *,
    data: str | Path | None = None,
    only: str | None = None,
    minutes_per_fit: float | None = None,
) -> Path:
    """Repeat the studies and write ``index.md``, ``tables/``, ``figures/`` and ``runs/``.

    Started again with the same arguments it continues: finished fits are kept, and so are the
    sections of other studies where ``only`` asks for one.

    Parameters
    ----------
    budget
        ``smoke`` (seconds), ``scaled`` (under three hours on two cores) or ``full`` (the paper's).
    out
        The experiment's folder.
    seed
        Of everything random.
    data
        Folder with ``mnist.npz``, ``dsprites/dsprites_grid_46080.npz``,
        ``galaxy/galaxy_zoo_train_64.npz``, ``spa/apoferritin_empiar10146_64.star`` and
        ``pdb/1oel.pdb``, as far as they are there; others are made in their place.
    only
        One study, by its name in :data:`STUDIES`.
    minutes_per_fit
        Training time of every fit, in place of the budget's own.

    Returns
    -------
    Path
        ``index.md``.

    Raises
    ------
    InputError
        If an argument is out of range, or the folder holds something else.
    TrainingError
        If a fit failed; the others are done, and the page says so.
    """
    plan = _plan(budget, minutes_per_fit)
    if only is not None and only not in STUDIES:
        raise InputError.of("experiment", "--only", only, f"one of {', '.join(STUDIES)}")
    folder, real = Path(out), None if data is None else Path(data).absolute()
    if real is not None and not real.is_dir():
        raise InputError(f"{data}: no such folder, expected the data sets that --data names")
    record = {
        "experiment": "target-vae",
        "budget": budget,
        "seed": seed,
        "minutes_per_fit": minutes_per_fit,
        "data": None if real is None else str(real),
    }
    open_folder(folder, record)
    said = _said(budget, plan, record)
    conduct = Conduct("target-vae", TITLE, folder, plan.jobs, said, list(STUDIES))
    setting = Setting(plan, (folder / "data").absolute(), real, seed)
    return conduct.carry_out(setting, STUDIES if only is None else {only: STUDIES[only]})


def _plan(budget: Budget, minutes_per_fit: float | None) -> Plan:
    if budget not in PLANS:
        raise InputError.of("experiment", "--budget", budget, f"one of {', '.join(PLANS)}")
    plan = replace(PLANS[budget], jobs=min(PLANS[budget].jobs, usable_cores()))
    if minutes_per_fit is None:
        return plan
    if not minutes_per_fit > 0:
        raise InputError.of("experiment", "--minutes-per-fit", minutes_per_fit, "more than zero")
    return plan.lasting(minutes_per_fit)


def _said(budget: Budget, plan: Plan, record: Mapping[str, object]) -> list[str]:
    """Say what the page is, how it was made, and on which machine."""
    options = ["--budget", budget, "--seed", str(record["seed"]), "-o", "DIR"]
    if record["data"] is not None:
        options += ["--data", "DATA"]
    if record["minutes_per_fit"] is not None:
        options += ["--minutes-per-fit", str(record["minutes_per_fit"])]
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
        f"Made by `modpose experiment target-vae {shlex.join(options)}` on {machine()}, {how}. "
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

"""The studies of the 3D-SpVAE paper (Yi et al. 2021)."""

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
from modpose.evaluate.experiments.subtomograms.studies import (
    PLANS,
    Plan,
    Setting,
    prepare_domains,
    prepare_noise,
)

TITLE = "3D-SpVAE: the studies of the paper"
STUDIES: dict[str, Callable[[Setting], Study | str]] = {
    "noise": prepare_noise,
    "domains": prepare_domains,
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

    Parameters
    ----------
    budget
        ``smoke`` (seconds), ``scaled`` (under two hours of one core) or ``full`` (the paper's).
    out
        The experiment's folder; started again it goes on.
    seed
        Of everything random.
    data
        Folder with ``pdb/``; built-in assemblies stand in for molecules that are not there.
    only
        One study: noise or domains.
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
        "experiment": "subtomograms",
        "budget": budget,
        "seed": seed,
        "minutes_per_fit": minutes_per_fit,
        "data": None if real is None else str(real),
    }
    open_folder(folder, record)
    conduct = Conduct(
        "subtomograms", TITLE, folder, plan.jobs, _said(budget, record), list(STUDIES)
    )
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


def _said(budget: Budget, record: Mapping[str, object]) -> list[str]:
    """Say what the page is, how it was made, and on which machine."""
    options = ["--budget", budget, "--seed", str(record["seed"]), "-o", "DIR"]
    if record["data"] is not None:
        options += ["--data", "DATA"]
    if record["minutes_per_fit"] is not None:
        options += ["--minutes-per-fit", str(record["minutes_per_fit"])]
    return [
        "Yi, Pang, Zhang, Zeng & Xu, *Disentangling semantic features of macromolecules in "
        "cryo-electron tomography*, 2021. Every fit is a run folder in `runs/` "
        "(`modpose report DIR/runs/NAME`).",
        f"Made by `modpose experiment subtomograms {shlex.join(options)}` on {machine()}. Of each "
        "fit the epoch with the best validation ELBO is kept (5 % of the volumes that are fitted); "
        "scores are of other volumes, which were never seen.",
    ]

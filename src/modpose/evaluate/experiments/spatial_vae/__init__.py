"""The studies of the spatial-VAE paper (Bepler, Zhong, Kelley, Brignole & Berger 2019)."""

from __future__ import annotations

import logging
import os
import platform
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from modpose.errors import InputError, TrainingError
from modpose.evaluate.experiments.page import Page, Section
from modpose.evaluate.experiments.spatial_vae import digits, galaxies, hinge, particles
from modpose.evaluate.experiments.spatial_vae.budgets import PLANS, Plan
from modpose.evaluate.experiments.spatial_vae.common import Setting, Study
from modpose.evaluate.experiments.study import (
    Budget,
    Result,
    carry_out_all,
    open_folder,
    usable_cores,
)

logger = logging.getLogger("modpose")

TITLE = "spatial-VAE: the studies of the paper"
STUDIES: dict[str, Callable[[Setting], Study | str]] = {
    "digits": digits.prepare,
    "hinge": hinge.prepare,
    "galaxies": galaxies.prepare,
    "particles": particles.prepare,
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
        Folder with ``mnist.npz``, ``galaxy/galaxy_zoo_train_64.npz`` and
        ``spa/apoferritin_empiar10146_64.star``, as far as they are there.
    only
        One study: digits, hinge, galaxies or particles.
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
        "experiment": "spatial-vae",
        "budget": budget,
        "seed": seed,
        "minutes_per_fit": minutes_per_fit,
        "data": None if real is None else str(real),
    }
    open_folder(folder, record)
    return carry_out_plan(
        plan, folder, seed, data=real, only=only, said=_said(budget, plan, record)
    )


def carry_out_plan(
    plan: Plan, folder: Path, seed: int, *, data: Path | None, only: str | None, said: list[str]
) -> Path:
    """Prepare the studies, carry their fits out, and write the page as each is done."""
    setting = Setting(plan, (folder / "data").absolute(), data, seed)
    chosen = STUDIES if only is None else {only: STUDIES[only]}
    prepared = {name: prepare(setting) for name, prepare in chosen.items()}
    fits = [fit for study in prepared.values() if isinstance(study, Study) for fit in study.fits]
    minutes = sum(fit.max_minutes or 0.0 for fit in fits) / plan.jobs
    times = f", {minutes:.0f} minutes of training and some of scoring" if minutes else ""
    logger.info("spatial-vae: %d fits, %d at a time%s", len(fits), plan.jobs, times)
    page, failures = Page(folder), list[TrainingError]()
    outcomes = carry_out_all(fits, folder / "runs", plan.jobs)
    index = page.write(TITLE, said, list(STUDIES))
    for name, study in prepared.items():
        if isinstance(study, str):
            section = Section("Left out", [study])
        else:
            section = _section(study, [next(outcomes) for _ in study.fits], page, failures)
        page.keep(name, section)
        page.write(TITLE, said, list(STUDIES))
    next(outcomes, None)  # there is none left: lets the workers go
    if failures:
        raise TrainingError(f"{failures[0]} ({len(failures)} of {len(fits)} fits failed)")
    return index


def _section(
    study: Study, outcomes: list[Result | TrainingError], page: Page, failures: list[TrainingError]
) -> Section:
    failed = [outcome for outcome in outcomes if isinstance(outcome, TrainingError)]
    if failed:
        failures += failed
        return Section(study.title, [*study.said, *(f"A fit failed: {error}." for error in failed)])
    results = {r.fit.name: r for r in outcomes if isinstance(r, Result)}
    return study.section(results, page)


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
        f"Made by `modpose experiment spatial-vae {shlex.join(options)}` on {machine()}, {how}. "
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


def machine() -> str:
    """Describe the processor, its cores, and torch."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text().splitlines()
        models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        name = models[0] if models else name
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{name}, {os.cpu_count()} cores, {device}, torch {torch.__version__}"

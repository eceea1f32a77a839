"""Conducting an experiment: prepare its studies, carry their fits out once each, write the page."""

from __future__ import annotations

import logging
import os
import platform
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import torch

from modpose.errors import InputError, TrainingError
from studies.common.page import Page, Section
from studies.common.study import (
    Budget,
    Fit,
    Result,
    Setting,
    carry_out_all,
    open_folder,
    usable_cores,
)

logger = logging.getLogger("modpose")


@dataclass(frozen=True)
class Study:
    """Fits, and what is written once they are done.

    Attributes
    ----------
    title
        Of its section; names the figures of the paper.
    said
        Sentences: the data and what was fitted.
    fits
        All of them.
    show
        From results by name to the blocks of the section.
    """

    title: str
    said: Sequence[str]
    fits: Sequence[Fit]
    show: Callable[[Mapping[str, Result], Page], Sequence[str]]

    def section(self, results: Mapping[str, Result], page: Page) -> Section:
        """Write tables and figures and return the section."""
        return Section(self.title, [*self.said, *self.show(results, page)])


S = TypeVar("S")
Prepare = Callable[[S], Study | str]
"""Prepares a study for a setting, or says why it is left out."""


@dataclass(frozen=True)
class Conduct:
    """How an experiment is done.

    Attributes
    ----------
    name, title
        Of the experiment, in the log and on the page.
    folder
        Gets the page and ``runs/``.
    jobs
        Fits side by side.
    said
        Paragraphs at the head of the page.
    order
        Names of all studies; their sections stand in this order.
    """

    name: str
    title: str
    folder: Path
    jobs: int
    said: Sequence[str]
    order: Sequence[str]

    def carry_out(self, setting: S, studies: Mapping[str, Prepare[S]]) -> Path:
        """Prepare these studies, fit what they need, and write the page; return its path.

        Studies may share fits: those of one name are carried out once.  Nothing is scored beside
        a fit, whose time counts: sections are written when all fits are done.

        Raises
        ------
        TrainingError
            If a fit failed; the others are done, and the page says so.
        """
        prepared = {name: prepare(setting) for name, prepare in studies.items()}
        fits = _different(prepared.values())
        minutes = sum(fit.max_minutes or 0.0 for fit in fits) / self.jobs
        times = f", {minutes:.0f} minutes of training, then scoring" if minutes else ""
        logger.info("%s: %d fits, %d at a time%s", self.name, len(fits), self.jobs, times)
        page = Page(self.folder)
        index = page.write(self.title, self.said, self.order)
        outcomes = {
            fit.name: outcome
            for fit, outcome in zip(
                fits, carry_out_all(fits, self.folder / "runs", self.jobs), strict=True
            )
        }
        for name, study in prepared.items():
            logger.info("%s: writing %s", self.name, name)
            page.keep(name, _section(study, outcomes, page))
            page.write(self.title, self.said, self.order)
        failed = [o for o in outcomes.values() if isinstance(o, TrainingError)]
        if failed:
            raise TrainingError(f"{failed[0]} ({len(failed)} of {len(fits)} fits failed)")
        return index


def _different(studies: Iterable[Study | str]) -> list[Fit]:
    named: dict[str, Fit] = {}
    for study in studies:
        if isinstance(study, Study):
            named |= {fit.name: fit for fit in study.fits}
    return list(named.values())


def _section(
    study: Study | str, outcomes: Mapping[str, Result | TrainingError], page: Page
) -> Section:
    if isinstance(study, str):
        return Section("Left out", [study])
    mine = {fit.name: outcomes[fit.name] for fit in study.fits}
    failed = [o for o in mine.values() if isinstance(o, TrainingError)]
    if failed:
        return Section(study.title, [*study.said, *(f"A fit failed: {error}." for error in failed)])
    return study.section({k: r for k, r in mine.items() if isinstance(r, Result)}, page)


# --- a whole experiment -----------------------------------------------------------------------


class Planned(Protocol):
    """A budget in full: a dataclass with the number of fits side by side."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def jobs(self) -> int:
        """Fits side by side."""

    def lasting(self, minutes: float) -> Self:
        """Return it with another time for every fit."""


Q = TypeVar("Q", bound=Planned)


@dataclass(frozen=True)
class Experiment(Generic[Q]):
    """The studies of a paper.

    Attributes
    ----------
    name, title
        On the command line, and of the page.
    plans
        Budgets.
    studies
        Name for ``--only``, and what prepares the study.
    said
        From the plan, the command and the budget to the paragraphs at the head of the page.
    """

    name: str
    title: str
    plans: Mapping[Budget, Q]
    studies: Mapping[str, Prepare[Setting[Q]]]
    said: Callable[[Q, str, Budget], Sequence[str]]

    def run(
        self,
        budget: Budget,
        out: str | Path,
        seed: int = 0,
        *,
        data: str | Path | None = None,
        only: str | None = None,
        minutes_per_fit: float | None = None,
        jobs: int | None = None,
    ) -> Path:
        """Repeat the studies and write ``index.md``, ``tables/``, ``figures/`` and ``runs/``.

        Started again with the same arguments it continues: finished fits are kept, and so are the
        sections of other studies where ``only`` asks for one.

        Parameters
        ----------
        budget
            ``smoke`` (seconds), ``scaled`` (hours on two cores), ``printed`` (the paper's recipes
            for a time) or ``full`` (the paper's sizes).
        out
            The experiment's folder.
        seed
            Of everything random.
        data
            Folder of real data sets; the experiment's module says which it looks for.
        only
            One study, by its name in ``studies``.
        minutes_per_fit
            Training time of every fit, in place of the budget's own.
        jobs
            Fits side by side, at most one a core, in place of the budget's own.

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
        plan = self._plan(budget, minutes_per_fit, jobs)
        if only is not None and only not in self.studies:
            expected = f"one of {', '.join(self.studies)}"
            raise InputError.of("experiment", "--only", only, expected)
        folder, real = Path(out), None if data is None else Path(data).absolute()
        if real is not None and not real.is_dir():
            raise InputError(f"{data}: no such folder, expected the data sets that --data names")
        record = {
            "experiment": self.name,
            "budget": budget,
            "seed": seed,
            "minutes_per_fit": minutes_per_fit,
            "data": None if real is None else str(real),
        }
        open_folder(folder, record)
        said = self.said(plan, self._command(record), budget)
        conduct = Conduct(self.name, self.title, folder, plan.jobs, said, list(self.studies))
        setting = Setting(plan, (folder / "data").absolute(), real, seed)
        chosen = self.studies if only is None else {only: self.studies[only]}
        return conduct.carry_out(setting, chosen)

    def _plan(self, budget: Budget, minutes_per_fit: float | None, jobs: int | None) -> Q:
        if budget not in self.plans:
            expected = f"one of {', '.join(self.plans)}"
            raise InputError.of("experiment", "--budget", budget, expected)
        whole = self.plans[budget]
        plan = replace(whole, jobs=min(jobs or whole.jobs, usable_cores()))
        if minutes_per_fit is None:
            return plan
        if not minutes_per_fit > 0:
            where, expected = "--minutes-per-fit", "more than zero"
            raise InputError.of("experiment", where, minutes_per_fit, expected)
        return plan.lasting(minutes_per_fit)

    def _command(self, record: Mapping[str, object]) -> str:
        options = ["--budget", str(record["budget"]), "--seed", str(record["seed"]), "-o", "DIR"]
        if record["data"] is not None:
            options += ["--data", "DATA"]
        if record["minutes_per_fit"] is not None:
            options += ["--minutes-per-fit", str(record["minutes_per_fit"])]
        return f"python -m studies.{self.name.replace('-', '_')} {shlex.join(options)}"


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

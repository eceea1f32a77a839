"""Conducting an experiment: prepare its studies, carry their fits out once each, write the page."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from modpose.errors import TrainingError
from modpose.evaluate.experiments.page import Page, Section
from modpose.evaluate.experiments.spatial_vae.common import Study
from modpose.evaluate.experiments.study import Fit, Result, carry_out_all

logger = logging.getLogger("modpose")

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

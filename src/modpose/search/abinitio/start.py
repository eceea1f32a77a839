"""Maps from nothing: several random starts, of which the best goes on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modpose.progress import Progress
from modpose.search.abinitio.checks import covered_directions
from modpose.search.abinitio.images import SearchImages
from modpose.search.abinitio.regroup import regrouped
from modpose.search.abinitio.rounds import Now, Rounds
from modpose.search.abinitio.saved import NOT_SAVED, Unfinished
from modpose.search.abinitio.settings import AbInitioSettings, StartPlan

JUDGED = 1000
"""Images that a start is judged by."""


@dataclass(frozen=True)
class Start:
    """Maps found from a random start.

    Attributes
    ----------
    maps
        (C, D, D, D).
    score
        Mean over some images of the log-likelihood at their best pose, nats.
    covered
        Share of the directions from which these images come.
    """

    maps: Tensor
    score: float
    covered: float


def best_start(
    images: SearchImages,
    settings: AbInitioSettings,
    group: Tensor,
    plan: StartPlan,
    quiet: bool,
    unfinished: Unfinished = NOT_SAVED,
) -> tuple[Start, list[float]]:
    """Try random starts; the likeliest after some rounds goes on.

    Parameters
    ----------
    images
        N images.
    settings
        What is asked for.
    group
        (G, 3, 3) rotations of the symmetry.
    plan
        Rounds.
    quiet
        No progress bar.
    unfinished
        Where to save each start, and to go on from.

    Returns
    -------
    start, scores
        The best, and the score of each when they were compared.
    """
    work, some = Rounds(images, settings, group, plan), plan.compared
    found: list[tuple[Now, float]] = []
    total = settings.starts * some + plan.rounds - some
    with Progress("random starts", total, quiet=quiet, unit="round") as progress:
        for number in range(settings.starts):
            found.append(_begun(work, number, progress, unfinished))
        scores = [score for _, score in found]
        best = max(range(len(found)), key=scores.__getitem__)
        return _finished(work, found[best][0], best, progress, unfinished), scores


def _begun(
    work: Rounds, number: int, progress: Progress, unfinished: Unfinished
) -> tuple[Now, float]:
    """First rounds of a random start, and its score."""
    generator = _generator(work.settings, number)
    saved = unfinished.step(f"start{number + 1}")
    before = saved.read()
    if "round" not in before:  # of an older version
        before = {}
    if before:
        generator.set_state(before["generator"])
        now = Now.of_values(before)
    else:
        now = work.begun(work.settings.classes, generator)
    progress.advance(now.round, 0.0)
    if "score" in before:
        return now, float(before["score"])
    now = work.until(now, work.plan.compared, generator, progress, saved)
    score = float(work.best(slice(0, JUDGED), now, generator).score.mean())
    told = {"score": torch.tensor(score, dtype=torch.float64), "generator": generator.get_state()}
    saved.write(now.values() | told)
    return now, score


def _finished(
    work: Rounds, now: Now, number: int, progress: Progress, unfinished: Unfinished
) -> Start:
    """The other rounds of a random start, and its classes divided anew where that is better."""
    generator = _generator(work.settings, 1000 + number)
    saved = unfinished.step("start")
    before = saved.read()
    if before:
        generator.set_state(before["generator"])
        progress.advance(int(before["round"]) - now.round, 0.0)
        now = Now.of_values(before)
    if "score" in before:
        return Start(now.maps, float(before["score"]), float(before["covered"]))
    now = work.until(now, work.plan.rounds, generator, progress, saved)
    now = regrouped(work, now, generator)
    found = work.best(slice(0, JUDGED), now, generator)
    covered = covered_directions(found.rotation[:, 0], work.group)
    start = Start(now.maps, float(found.score.mean()), covered)
    told = torch.tensor([start.score, start.covered], dtype=torch.float64)
    state = now.values() | {"score": told[0], "covered": told[1]}
    saved.write(state | {"generator": generator.get_state()})
    return start


def _generator(settings: AbInitioSettings, number: int) -> torch.Generator:
    return torch.Generator().manual_seed(10_000 * settings.seed + number)

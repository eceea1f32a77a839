"""Classes that explain nothing of their own give way: another class is divided into two.

In a random start, two structures may share one class while another takes two.  Then no image gains
by moving, and one of the two classes starves later.  So the images of a class are started anew with
two maps, and these take the places of its map and of the one that is needed least.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modpose.fourier.insertion import FourierSums
from modpose.search.abinitio.rounds import Now, Rounds

MEMBERS = 500
"""Images of a class, on average, that are divided."""
HELD_OUT = 4
"""One image of so many is judged, and does not make the maps of the division."""
IDLE = 0.1
"""A class of mean size that is needed for less than so much of its likelihood may give way."""
LEAST = 100
"""Images that a class must have to be divided."""
STARTS = 3
"""Random starts of a division, of which the best goes on."""
TRIES = 2
"""Classes that are tried in vain."""


def regrouped(work: Rounds, now: Now, generator: torch.Generator) -> Now:
    """Divide classes while this explains the images better.

    Parameters
    ----------
    work
        The rounds, and the images.
    now
        Sums and maps of C classes.
    generator
        Of all that is random.
    """
    count = len(now.maps)
    if count == 1 or not work.plan.regroup:
        return now
    rows = torch.randperm(len(work.images), generator=generator)[: count * MEMBERS]
    judged, grid = torch.arange(len(rows)) % HELD_OUT == 0, generator.get_state()
    if _idle(work.scores(rows[judged], now, generator)) is None:
        return now
    generator.set_state(grid)
    score, vain = work.scores(rows, now, generator), 0
    for _ in range(2 * count):
        idle = _idle(score[judged])
        if vain == TRIES or idle is None:
            break
        member = score.index_fill(1, torch.tensor([idle]), -torch.inf).argmax(1)
        sizes = torch.bincount(member, minlength=count)
        split = int(sizes.argsort(descending=True)[vain])
        some = rows[(member == split) & ~judged]
        if len(some) < LEAST:
            break
        new = _divided(work.of_some(some), generator)
        changed = score.clone()
        changed[:, [idle, split]] = work.scores(rows, new, generator)
        gain = float((changed.amax(1) - score.amax(1))[judged].mean())
        if gain <= 0:
            vain += 1
            continue
        now, score, vain = _replaced(now, new, [idle, split]), changed, 0
    return now


def _divided(work: Rounds, generator: torch.Generator) -> Now:
    """Start images anew with two maps, a few times; the likeliest start goes on."""
    starts = [
        work.until(work.begun(2, generator), work.plan.compared, generator) for _ in range(STARTS)
    ]
    scores = [float(work.best(slice(None), one, generator).score.mean()) for one in starts]
    best = max(range(STARTS), key=scores.__getitem__)
    return work.until(starts[best], work.plan.rounds, generator)


def _idle(score: Tensor) -> int | None:
    """Return the class that is hardly needed, by scores (B, C); None if there is none."""
    needed, own = _needed(score)
    least = int(needed.argmin())
    return None if len(own) * needed[least] > IDLE * own[least] else least


def _needed(score: Tensor) -> tuple[Tensor, Tensor]:
    """Return what each class is good for.

    Parameters
    ----------
    score
        (B, C) log-likelihoods, nats.

    Returns
    -------
    needed, own
        (C,) by how much all images would be explained worse without a class, and (C,) how well it
        explains its own: means, nats.
    """
    best, second = score.topk(2, dim=1).values.unbind(1)
    mine = torch.nn.functional.one_hot(score.argmax(1), score.shape[1]).to(score)
    needed = (best - second)[:, None] * mine
    return needed.mean(0), (best[:, None] * mine).sum(0) / mine.sum(0).clamp(min=1)


def _replaced(now: Now, new: Now, classes: list[int]) -> Now:
    """Put the two classes of a division in the places of others."""
    slots = torch.tensor([2 * one + half for one in classes for half in range(2)])
    sums = now.sums
    value = sums.value.index_copy(0, slots, new.sums.value)
    weight = sums.weight.index_copy(0, slots, new.sums.weight)
    maps = now.maps.index_copy(0, torch.tensor(classes), new.maps)
    return Now(now.round, FourierSums(value, weight, sums.padded), maps)

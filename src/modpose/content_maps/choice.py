"""How many functions of content there are, and which shells tell content."""

from __future__ import annotations

from torch import Tensor

UNTOLD = 0.02
"""Largest part of what maps predict that lies in shells from which content is not inferred."""


def fewest(score: Tensor, counts: tuple[int, ...]) -> int:
    """Choose the fewest functions whose score (N, counts) is within one error of the best."""
    best = int(score.mean(0).argmax())
    less = score[:, best, None] - score
    error = less.std(0) / len(score) ** 0.5
    return counts[int((less.mean(0) <= error).nonzero().min())]


def last_telling(gain: Tensor) -> int:
    """Choose the last shell that content needs, from what (N, shells) content predicts in each."""
    each = gain.sum(0).clamp(min=0)
    beyond = each.flip(0).cumsum(0).flip(0)
    return int((beyond >= UNTOLD * beyond[0]).nonzero().max())

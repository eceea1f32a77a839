"""Copies of an image that are turned before they are read, and the pose that most of them tell.

An encoder that follows a turn only nearly reads an object that looks much the same upside down now
the one way up and now the other, as the pixels fall.  What the copies agree on depends on that far
less, and how many do says how sure the pose is.  A second round of copies starts from what the
first agrees on, so that an object gives the same copies wherever it lies and whichever way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from modpose.errors import InputError
from modpose.model.posterior import LatentLayout, Posterior

ALIKE = math.radians(30)
"""Angles that differ by less tell the same pose."""


Read = Callable[[Tensor | None, Tensor | None], Posterior]
"""Angles (B,) and centres (B, 2) to the posterior of B images as read from copies that are turned
by the one about the other; None for not at all, and for about the middle."""


class Copies(NamedTuple):
    """What the second round of copies tells of B images.

    Attributes
    ----------
    posteriors
        One a copy, turned and moved back.
    which, agreement
        As :func:`consensus` gives them.
    """

    posteriors: list[Posterior]
    which: Tensor
    agreement: Tensor


def read_copies(read: Read, count: int, layout: LatentLayout) -> Copies:
    """Read ``count`` copies, turned evenly, and so many again from the pose that most tell.

    Those are also moved to the middle, but for encoders whose cells tell the shift: the prior of
    a cell is that of its place.
    """
    posterior = read(None, None)
    like = posterior.cell_log_q[:, 0]
    turns = [torch.full_like(like, turn) for turn in even_turns(count)]
    first = [posterior, *(read(turn, None) for turn in turns[1:])]
    best = [one.best() for one in first]
    angles = torch.stack([one.angle[:, 0] for one in best])
    which, _ = consensus(angles)
    rows = torch.arange(len(like), device=like.device)
    centre = None
    if layout.shift.inferred and not layout.role.shift:
        centre = torch.stack([one.shift[:, 0] for one in best])[which, rows]
    second = [read(turn - angles[which, rows], centre) for turn in turns]
    told = torch.stack([one.best().angle[:, 0] for one in second])
    return Copies(second, *consensus(told))


def even_turns(copies: int) -> list[float]:
    """Return so many angles, radians, evenly round the circle from 0 on."""
    return [2 * math.pi * k / copies for k in range(copies)]


def consensus(angle: Tensor) -> tuple[Tensor, Tensor]:
    """Find the copy that agrees best with the others.

    Parameters
    ----------
    angle
        (M, B) radians that M copies tell of each image, turned back.

    Returns
    -------
    which, agreement
        (B,) int64, the copy with the largest sum of cosines to all, the first of equals; and (B,)
        the share of copies, itself among them, within 30 degrees of it.
    """
    cosine = (angle.unsqueeze(1) - angle).cos()  # (M, M, B)
    which = cosine.sum(1).argmax(0)
    near = (cosine > math.cos(ALIKE)).float().mean(1)
    return which, near.gather(0, which.unsqueeze(0)).squeeze(0)


def check_copies(copies: int, layout: LatentLayout, *, given: bool, searched: bool) -> None:
    """Check that images of a model may be turned.

    Any angle must be as probable as any other; or else the encoder is the polar one, which weighs
    the angles that it compares by their prior and is told by how much an image was turned.

    Raises
    ------
    InputError
        If there are less than one; or several, and the pose is ``given``, is ``searched`` for, or
        is no such angle.
    """
    if copies < 1:
        raise InputError.of("encode", "copies", copies, "1 or more")
    if copies == 1:
        return
    if searched:
        raise InputError.of("encode", "copies", copies, "1 with search, or no search")
    if layout.reflects:
        raise InputError.of("encode", "copies", copies, "1 where the model infers reflection")
    polar = layout.shared_content
    free = layout.rotation.inferred and (polar or not layout.rotation.precision)
    if given or not free or layout.dim != 2:
        expected = (
            "1 where the model does not infer an angle in the plane, with a uniform prior unless "
            "the encoder is polar"
        )
        raise InputError.of("encode", "copies", copies, expected)


def picked(values: list[dict[str, Tensor]], which: Tensor) -> dict[str, Tensor]:
    """Take, of M dictionaries of (B, ...), each row from the one that ``which`` (B,) says."""
    rows = torch.arange(len(which), device=which.device)
    return {name: torch.stack([one[name] for one in values])[which, rows] for name in values[0]}

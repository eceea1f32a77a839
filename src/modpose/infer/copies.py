"""Rotated copies of an image, and the pose on which most of them agree.

An encoder is often only nearly equivariant.  If an object looks similar upside down, it then reads
the object sometimes one way up and sometimes the other, depending on the pixels.  The consensus of
the copies depends on this much less, and the share of copies that agree tells how certain the pose
is.  A second round of copies starts from the consensus pose of the first, so that the copies of an
object are the same for every position and orientation.
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
"""Angles that differ by less than this are the same pose."""


Read = Callable[[Tensor | None, Tensor | None], Posterior]
"""Function from angles (B,) and centres (B, 2) to the posterior of B images, encoded from copies
that are rotated by the angle about the centre.  None: not rotated, or rotated about the middle.
"""


class Copies(NamedTuple):
    """Results of the second round of copies for B images.

    Attributes
    ----------
    posteriors
        One per copy, rotated and shifted back.
    which, agreement
        As from :func:`consensus`.
    """

    posteriors: list[Posterior]
    which: Tensor
    agreement: Tensor


def read_copies(read: Read, count: int, layout: LatentLayout) -> Copies:
    """Encode ``count`` evenly rotated copies, then ``count`` more from the consensus pose.

    The second copies are also centred, except for encoders whose cells give the shift: there the
    prior of a cell depends on its position.
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
    """Return ``count`` angles, radians, evenly spaced on the circle from 0."""
    return [2 * math.pi * k / copies for k in range(copies)]


def consensus(angle: Tensor) -> tuple[Tensor, Tensor]:
    """Find the copy that agrees best with the others.

    Parameters
    ----------
    angle
        (M, B) radians, the angle of each image from M copies, rotated back.

    Returns
    -------
    which, agreement
        (B,) int64, the copy with the largest sum of cosines to all (the first one if several are
        equal); and (B,) the share of copies, including itself, within 30 degrees of it.
    """
    cosine = (angle.unsqueeze(1) - angle).cos()  # (M, M, B)
    which = cosine.sum(1).argmax(0)
    near = (cosine > math.cos(ALIKE)).float().mean(1)
    return which, near.gather(0, which.unsqueeze(0)).squeeze(0)


def check_copies(copies: int, layout: LatentLayout, *, given: bool, searched: bool) -> None:
    """Check that images of a model may be rotated.

    All angles must be equally probable, or the encoder must be ``polar``: it weighs the angles by
    their prior and receives the angle by which an image was rotated.

    Raises
    ------
    InputError
        If there is less than one copy; or if there are several and the pose is ``given``, is
        ``searched`` for, or is not such an angle.
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
    """Take each row from one of M dictionaries of (B, ...), as given by ``which`` (B,)."""
    rows = torch.arange(len(which), device=which.device)
    return {name: torch.stack([one[name] for one in values])[which, rows] for name in values[0]}

"""Poses drawn on a lattice of shifts, drawn again by what finer shifts say of them.

At the highest frequency of a round, half a step of the lattice changes the phase by more than one
radian.  The best shift of the lattice then says too little of a rotation: right ones may lose
several nats, and images are inserted at many wrong ones.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modpose.devices import near
from modpose.fourier.coefficients import Coefficients, phases
from modpose.fourier.reference import make_references, sample, turned
from modpose.search.abinitio.scores import Poses
from modpose.search.so3_search import pose_score

OFFSETS = (-0.5, 0.0, 0.5)
"""Finer shifts along an axis, over the step of the lattice."""


def at_finer_shifts(
    images: Coefficients,
    maps: Tensor,
    poses: Poses,
    step: float,
    draws: int,
    generator: torch.Generator,
) -> Poses:
    """Draw some of M poses that were drawn from the posterior, each at the best shift near its own.

    Parameters
    ----------
    images
        B images.
    maps
        (C, D, D, D).
    poses
        (B, M) poses; the score is that of amplitude one.
    step
        Of the lattice of their shifts, pixels of the box.
    draws
        How many are drawn, with replacement: in proportion to the posterior at the new shifts over
        that at the old ones.

    Returns
    -------
    Poses
        (B, draws).
    """
    count, many = poses.score.shape
    home, device = images.value.device, near(images.value)
    seen = images.to(device)
    axis = torch.tensor(OFFSETS) * step
    offset = torch.cartesian_prod(axis, axis)
    references = make_references(maps, images.limit)
    frequency = turned(images.frequency, poses.rotation.flatten(0, 1))
    model = sample(references, poses.class_index.flatten(), frequency).to(device)
    model = model.view(count, many, -1) * seen.transfer[:, None]
    back = phases(seen.frequency, -_flat(poses.shift.flatten(0, 1)).to(device))
    product = model.conj() * seen.value[:, None] * back.view(model.shape)
    inner = 2 * (product @ phases(seen.frequency, -_flat(offset).to(device)).T).real
    best, which = inner.amax(-1), inner.argmax(-1).to(home)
    norm = 2 * model.abs().square().sum(-1)
    score = pose_score(best, norm, normalised=False).to(home)
    gain = score - poses.score
    weight = (gain - gain.amax(1, keepdim=True)).exp()
    chosen = torch.multinomial(weight, draws, replacement=True, generator=generator)
    moved = poses._replace(shift=poses.shift + offset.to(home)[which], score=score)
    rows = torch.arange(count)[:, None]
    return Poses(*(part[rows, chosen] for part in moved))


def _flat(shift: Tensor) -> Tensor:
    """Shifts (B, 2) in the plane of a slice."""
    return torch.cat([shift, shift.new_zeros(len(shift), 1)], 1)

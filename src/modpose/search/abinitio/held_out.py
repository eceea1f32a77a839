"""Does a map have a symmetry?  Images that did not make it are asked."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from modpose.fourier.coefficients import Coefficients
from modpose.fourier.fsc import fsc_of_classes, resolution_shell
from modpose.fourier.reference import References, make_references
from modpose.geometry.groups import symmetry_group
from modpose.search.abinitio.axes import Candidate, candidates
from modpose.search.abinitio.images import SearchImages
from modpose.search.abinitio.refine import MARGIN, Refined
from modpose.search.abinitio.shells import weighted_by_shell
from modpose.search.abinitio.symmetry import in_frame, symmetrised
from modpose.search.so3_climb import climb

ASKED = 500
"""Images of each half."""
STEPS = 2
WORTH = 0.7
"""Groups with a lower self-correlation than so much of the best are not tested."""


@dataclass(frozen=True)
class Verdict:
    """What held-out images say of a point group.

    Attributes
    ----------
    candidate
        The group, and where its axes are.
    against
        The smaller group that came nearest.
    gain
        By how much images prefer the group to this, nats per image.
    error
        Standard error of the gain.
    """

    candidate: Candidate
    against: str
    gain: float
    error: float

    @property
    def accepted(self) -> bool:
        """Whether the map has this symmetry."""
        return self.gain > 0

    def sentence(self) -> str:
        """Say whether the group is accepted, and why."""
        much = f"by {abs(self.gain):.2f} ± {self.error:.2f} nats per image"
        if self.accepted:
            return f"symmetry {self.candidate.name}: held-out images prefer it to none {much}"
        return f"not {self.candidate.name}: held-out images prefer {self.against} {much}"


def judge_symmetry(images: SearchImages, found: Refined, half: Tensor) -> list[Verdict]:
    """Test the groups that a map refined without symmetry seems to have, the largest first.

    Parameters
    ----------
    images
        N images.
    found
        One map, refined without symmetry.
    half
        (N,) int64 0 or 1.

    Returns
    -------
    list
        Verdicts up to the first group that is accepted.
    """
    radius = float(resolution_shell(found.fsc, 0.5)[0])
    proposed = candidates(found.maps[0], max(radius, 6.0))
    best = max((one.correlation for one in proposed), default=0.0)
    verdicts: list[Verdict] = []
    for one in proposed:
        if one.correlation < WORTH * best:
            continue
        verdicts.append(_judged(images, found, half, one))
        if verdicts[-1].accepted:
            break
    return verdicts


def accepted(verdicts: list[Verdict]) -> str:
    """Return the group that was accepted, or C1."""
    return next((one.candidate.name for one in verdicts if one.accepted), "C1")


def smaller_groups(name: str) -> dict[str, Tensor]:
    """Return groups (G, 3, 3) within a group, on its axes, that are tested against it."""
    kind, order = name[0], int(name[1:] or 0)
    parts = [n for n in range(2, order) if order % n == 0]
    if kind == "C":
        names = [f"C{n}" for n in parts]
    elif kind == "D":
        names = [f"C{order}", *(f"D{n}" for n in parts)]
    else:
        names = {"T": ["D2"], "O": ["T", "D4"], "I": ["T"]}[kind]
    found = {part: symmetry_group(part).float() for part in ("C1", *names)}
    if kind == "D":  # its two-fold axes across z; there are two kinds where the order is even
        whole = symmetry_group(name).float()
        for number in range(1 if order % 2 else 2):
            which = ("C2 across", "the other C2 across")[number]
            found[which] = whole[[0, order + number]]
    return found


def _judged(images: SearchImages, found: Refined, half: Tensor, candidate: Candidate) -> Verdict:
    """Compare a group with the smaller ones in it; the one that does best against it counts."""
    results = []
    halves = in_frame(found.halves[:, 0], candidate.frame)
    group = symmetry_group(candidate.name).float()
    alike = symmetrised(halves, group)
    for name, part in smaller_groups(candidate.name).items():
        other = symmetrised(halves, part)
        change = _change(images, found, half, candidate, (alike, other))
        results.append((name, float(change.mean()), float(change.std()) / math.sqrt(len(change))))
    name, gain, error = min(results, key=lambda one: one[1])
    return Verdict(candidate, name, gain, error)


def _change(
    images: SearchImages,
    found: Refined,
    half: Tensor,
    candidate: Candidate,
    maps: tuple[Tensor, Tensor],
) -> Tensor:
    """Log-likelihood with a group minus that with a smaller one, of images of the other half.

    The smaller one's is the mean likelihood over the poses that the group calls equal.
    """
    box, side = found.halves.shape[-1], images.side
    fsc = fsc_of_classes(maps[0][:1], maps[0][1:])
    radius = min(float(resolution_shell(fsc)[0]) + 1, box / 2 - MARGIN)
    group = symmetry_group(candidate.name).float()
    filtered = [_filtered(pair) for pair in maps]
    frame, scale = candidate.frame, box / side
    changes = []
    for number in range(2):
        rows = (half == 1 - number).nonzero().squeeze(1)[:ASKED]
        data = images.coefficients(rows, radius, box)
        limit = float(data.radius[-1])
        whole, part = (make_references(pair[number][None], limit, slopes=True) for pair in filtered)
        rotation = found.rotation[rows]
        centre = torch.einsum("nij,j->ni", rotation, frame.centre)[:, :2]
        shift = torch.cat([found.shift[rows] * scale + centre, torch.zeros(len(rows), 1)], 1)
        top = _climbed(data, whole, rotation @ frame.rotation, shift, STEPS)
        changes.append(top[0] - _over_group(data, part, top[1], top[2], group))
    return torch.cat(changes)


def _climbed(
    data: Coefficients, references: References, rotation: Tensor, shift: Tensor, steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Score, rotation and shift of images after some steps; (B, ...) poses of N images in turn."""
    order = torch.arange(len(data)).repeat_interleave(len(rotation) // len(data))
    zero = torch.zeros(len(order), dtype=torch.int64)
    top = climb(data, references, order, zero, rotation, shift, steps=steps)
    return top.score, top.rotation, top.shift


def _over_group(
    data: Coefficients, references: References, rotation: Tensor, shift: Tensor, group: Tensor
) -> Tensor:
    """Log of the mean likelihood (N,) over the poses of a group, each image's best one climbed."""
    count = len(group)
    many = (rotation[:, None] @ group).flatten(0, 1)
    score = _climbed(data, references, many, shift.repeat_interleave(count, 0), 0)[0]
    score = score.view(-1, count)
    highest, which = score.max(1)
    best = many.view(-1, count, 3, 3)[torch.arange(len(data)), which]
    gain = _climbed(data, references, best, shift, STEPS)[0] - highest
    return torch.logsumexp(score, 1) - math.log(count) + gain


def _filtered(pair: Tensor) -> Tensor:
    """Weight each shell of half maps (2, D, D, D) by how far they agree."""
    fsc = fsc_of_classes(pair[:1], pair[1:])[0].clamp(0, 1)
    fsc[int(resolution_shell(fsc[None])[0]) + 2 :] = 0.0
    return weighted_by_shell(pair, fsc)

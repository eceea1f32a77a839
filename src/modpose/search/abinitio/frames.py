"""Maps of one structure in several conformations, brought into one frame and to one hand.

Maps from a random start have arbitrary frames and hands.  Their images tell nothing of the hand, so
a map may be replaced by its mirror image where that resembles the other maps more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from modpose.search.abinitio.refine import Refined
from modpose.search.alike import compare

GRID_LIMIT, LIMIT = 0.2, 0.35
"""Highest frequency of the search and of the comparison, cycles per voxel."""
TRIED = 6
"""Poses that are climbed."""
MIRROR = torch.diag(torch.tensor([1.0, 1.0, -1.0]))


@dataclass(frozen=True)
class Frames:
    """For each of C maps: mirrored where said, it is the first map posed by rotation and shift.

    Attributes
    ----------
    mirrored
        (C,) bool.
    rotation, shift
        (C, 3, 3), and (C, 3) as a fraction of the box.
    """

    mirrored: Tensor
    rotation: Tensor
    shift: Tensor

    def of(
        self, class_index: Tensor, rotation: Tensor, shift: Tensor, side: int
    ) -> tuple[Tensor, Tensor]:
        """Bring poses (N, 3, 3) and (N, 2) pixels of images of a side into the frame of all."""
        other = MIRROR @ rotation @ MIRROR
        rotation = torch.where(self.mirrored[class_index, None, None], other, rotation)
        moved = (rotation @ (side * self.shift[class_index])[..., None]).squeeze(-1)
        return rotation @ self.rotation[class_index], shift + moved[:, :2]


def in_one_frame(found: Refined, side: int) -> Refined:
    """Take images of a side, of several conformations, as images of the first map."""
    if len(found.maps) == 1:
        return found
    frames = common_frames(found.maps)
    rotation, shift = frames.of(found.class_index, found.rotation, found.shift, side)
    one = torch.zeros_like(found.class_index)
    return replace(found, rotation=rotation, shift=shift, class_index=one)


def common_frames(maps: Tensor) -> Frames:
    """Find frames and hands of maps (C, D, D, D): each is compared with the most similar one."""
    count, box = len(maps), maps.shape[-1]
    both = torch.cat([maps, maps.flip(1).roll(1, 1)])
    alike, turns, moves = compare(both, grid_limit=GRID_LIMIT, limit=LIMIT, tried=TRIED)
    mirrored = torch.zeros(count, dtype=torch.bool)
    rotation, shift = torch.eye(3).repeat(count, 1, 1), torch.zeros(count, 3)
    placed, left = [0], list(range(1, count))
    while left:
        known = [k + count * int(mirrored[k]) for k in placed]
        open_ones = [*left, *(count + k for k in left)]
        place = int(alike[open_ones][:, known].argmax())
        one, near = open_ones[place // len(known)], known[place % len(known)]
        new, old = one % count, near % count
        turn, move = turns[one, near], moves[one, near]
        mirrored[new] = one >= count
        rotation[new] = turn @ rotation[old]
        shift[new] = move / box + turn @ shift[old]
        placed.append(new)
        left.remove(new)
    return Frames(mirrored, rotation, shift)

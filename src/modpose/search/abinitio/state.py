"""How far a refinement has come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Found(NamedTuple):
    """Poses of N images.

    Attributes
    ----------
    rotation, shift
        (N, 3, 3), and (N, 2) pixels of the images.
    class_index
        (N,) int64.
    score
        (N,) nats.
    settled
        (N,) bool: a search found the pose again, and nothing far from it is nearly as likely.
    """

    rotation: Tensor
    shift: Tensor
    class_index: Tensor
    score: Tensor
    settled: Tensor

    @classmethod
    def empty(cls, count: int) -> Found:
        """Make room for the poses of so many images."""
        which, score = torch.zeros(count, dtype=torch.int64), torch.zeros(count)
        return cls(torch.zeros(count, 3, 3), torch.zeros(count, 2), which, score, score.bool())


@dataclass
class Refining:
    """How far a refinement has come.

    Attributes
    ----------
    round
        Number of the round.
    radius
        Highest frequency of its climb.
    state
        For each half the maps that its images are compared with.
    before
        Poses of the round before.
    made
        Poses of this round.
    parts
        How many parts of the images have these.
    """

    round: int
    radius: float
    state: list[Tensor]
    before: Found | None
    made: Found
    parts: int

    def values(self) -> dict[str, Tensor]:
        """Return what :meth:`of_values` needs."""
        values = {
            "round": torch.tensor(self.round),
            "radius": torch.tensor(self.radius, dtype=torch.float64),
            "parts": torch.tensor(self.parts),
            "maps1": self.state[0],
            "maps2": self.state[1],
        }
        for kind, poses in (("made", self.made), ("before", self.before)):
            if poses is not None:
                values |= {f"{kind}.{name}": part for name, part in poses._asdict().items()}
        return values

    @classmethod
    def of_values(cls, values: dict[str, Tensor]) -> Refining:
        """Return what was saved; of older versions, without what is settled."""
        none = torch.zeros(len(values["made.score"]), dtype=torch.bool)
        values = {"made.settled": none, "before.settled": none} | values
        made, before = (
            Found(*(values[f"{kind}.{name}"] for name in Found._fields))
            if f"{kind}.score" in values
            else None
            for kind in ("made", "before")
        )
        assert made is not None
        state = [values["maps1"], values["maps2"]]
        number, parts = int(values["round"]), int(values["parts"])
        return cls(number, float(values["radius"]), state, before, made, parts)

"""The result of an alignment."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from modpose.fourier.fsc import resolution_shell
from modpose.search.classify import Assignment
from modpose.search.motion import Motions
from modpose.search.refine import HalfMaps
from modpose.search.settings import LEAST_BOX as LEAST_BOX
from modpose.search.settings import AlignSettings as AlignSettings


class Alignment(NamedTuple):
    """The result of an alignment.

    Attributes
    ----------
    assignment
        Pose and class of each volume; shifts in voxels of the averages.
    maps
        Averages of all volumes and of two independent halves, for each class.
    half
        (N,) 0 or 1, the half of each volume.
    motions
        Principal motions of each class; one row of ``z`` per volume of the class, in input order.
        Empty if not requested.
    binning
        Side of a voxel of the averages, in voxels of the input.
    """

    assignment: Assignment
    maps: HalfMaps
    half: Tensor
    motions: list[Motions] = []  # noqa: RUF012  (a tuple's default, never changed)
    binning: float = 1.0

    @property
    def shift_px(self) -> Tensor:
        """Shifts (N, 3), voxels of the input."""
        return self.binning * self.assignment.shift

    def resolution(self, pixel_size: float | None, box: int) -> list[str]:
        """Return the resolution of each class: where the halves' correlation falls below 0.143.

        Parameters
        ----------
        pixel_size, box
            Of the input: Å per voxel or None, and voxels per side.
        """
        unit = "voxels" if pixel_size is None else "Å"
        found = self._resolutions(pixel_size, box)
        return ["none" if one is None else f"{one:.1f} {unit}" for one in found]

    def _resolutions(self, pixel_size: float | None, box: int) -> list[float | None]:
        shells = resolution_shell(self.maps.fsc).tolist()
        return [(pixel_size or 1.0) * box / shell if shell else None for shell in shells]

    def facts(self, pixel_size: float | None, box: int) -> dict[str, object]:
        """Name the figures of :meth:`lines`; a resolution is None where there is none."""
        counts = torch.bincount(self.assignment.class_index, minlength=len(self.maps.fsc)).tolist()
        found = zip(counts, self._resolutions(pixel_size, box), strict=True)
        return {
            "unit": "px" if pixel_size is None else "A",
            "classes": [{"volumes": count, "resolution": one} for count, one in found],
        }

    def lines(self, pixel_size: float | None, box: int) -> list[str]:
        """Describe the result, one line per class."""
        counts = torch.bincount(self.assignment.class_index, minlength=len(self.maps.fsc)).tolist()
        found = zip(counts, self.resolution(pixel_size, box), strict=True)
        return [
            f"class {number}: {count} volumes, resolution {text}"
            for number, (count, text) in enumerate(found, 1)
        ]

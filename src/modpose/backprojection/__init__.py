"""Back-projection: the map that images and their given poses make, and what it says of them."""

from __future__ import annotations

from modpose.backprojection.check import PoseCheck, check_poses
from modpose.backprojection.halves import HalfMaps, reconstruct_halves

__all__ = ["HalfMaps", "PoseCheck", "check_poses", "reconstruct_halves"]

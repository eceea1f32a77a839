"""Back-projection: a map from images with given poses, and a check of these."""

from __future__ import annotations

from modpose.backprojection.check import PoseCheck, check_poses
from modpose.backprojection.halves import HalfMaps, reconstruct_halves

__all__ = ["HalfMaps", "PoseCheck", "check_poses", "reconstruct_halves"]

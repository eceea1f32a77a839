"""Affinities: similarities of objects, computed from their images."""

from __future__ import annotations

from modpose.affinity.align import AlignedFsc
from modpose.affinity.compute import METRICS, Metric, compute_affinity
from modpose.affinity.differences import MeanAbsoluteDifference, MeanDifference
from modpose.affinity.files import read_affinity, write_affinity
from modpose.affinity.harmonics import PowerSpectrum
from modpose.affinity.matrix import Affinity, nearest_correlation
from modpose.affinity.soap import Soap
from modpose.affinity.spectra import Fsc

__all__ = [
    "METRICS",
    "Affinity",
    "AlignedFsc",
    "Fsc",
    "MeanAbsoluteDifference",
    "MeanDifference",
    "Metric",
    "PowerSpectrum",
    "Soap",
    "compute_affinity",
    "nearest_correlation",
    "read_affinity",
    "write_affinity",
]

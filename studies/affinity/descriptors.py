"""Descriptors with nearest neighbours: what a learned model has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.affinity import Fsc, Metric, PowerSpectrum, Soap
from modpose.affinity.matrix import Matrix
from modpose.affinity.spectra import cosines
from modpose.data.preprocess import fourier_crop
from modpose.data.source import Source
from modpose.errors import InputError
from modpose.evaluate.latent_map import LatentMap
from studies.affinity.common import NAME, Found
from studies.common.samples import Sample

BLOCK = 64
"""Volumes described at a time."""


@dataclass(frozen=True)
class RawCosine:
    """Cosine between images as they lie, their means taken off."""

    def describe(self, images: Tensor) -> Tensor:
        """Return (B, P) unit vectors."""
        flat = images.float().flatten(1)
        return torch.nn.functional.normalize(flat - flat.mean(1, keepdim=True), dim=1)

    def compare(self, features: Tensor) -> Matrix:
        """Multiply: (N, P) to (N, N)."""
        return cosines(features)


@dataclass(frozen=True)
class HalfBox:
    """Another descriptor, of images brought to half as many pixels a side."""

    metric: Metric

    def describe(self, images: Tensor) -> Tensor:
        """Describe the small images."""
        small = fourier_crop(images.float().numpy()[:, None], images.shape[-1] // 2)
        return self.metric.describe(torch.from_numpy(small[:, 0]))

    def compare(self, features: Tensor) -> Matrix:
        """Compare as the other does."""
        return self.metric.compare(features)


DESCRIPTORS: dict[str, Metric] = {
    "raw cosine": RawCosine(),
    "FSC": Fsc(),
    "SH power spectrum": PowerSpectrum(),
    "SH power spectrum, centred on mass": PowerSpectrum(centre="mass"),
    "SOAP": Soap(),
    "FSC, half box": HalfBox(Fsc()),
    "SH power spectrum, half box": HalfBox(PowerSpectrum()),
    "SOAP, half box": HalfBox(Soap()),
}


def features(source: Source, metric: Metric) -> NDArray[np.float64]:
    """Describe every image of a source by unit vectors, (N, F)."""
    parts = []
    for start in range(0, source.n, BLOCK):
        rows = np.arange(start, min(start + BLOCK, source.n))
        images = torch.from_numpy(source.stack.read(rows)[:, 0].astype(np.float32))
        parts.append(metric.describe(images).flatten(1).double().numpy())
    return np.concatenate(parts)


def found_by_descriptors(sample: Sample) -> dict[str, Found]:
    """Classify the held-out images of a sample by each descriptor and the fitted ones.

    SOAP is left out where the package that it needs is not installed.
    """
    found = {}
    known = sample.truth_of_train()[NAME].astype(str).to_numpy()
    truth = sample.truth_of_test()
    truth[NAME] = truth[NAME].astype(str)
    for name, metric in DESCRIPTORS.items():
        try:
            train, test = (
                features(source, metric) for source in (sample.open_train(), sample.open_test())
            )
        except InputError:
            if not name.startswith("SOAP"):
                raise
            continue
        found[name] = Found(LatentMap.of(train, known), test, truth)
    return found

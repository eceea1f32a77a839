"""From images to an affinity matrix: read, describe, compare, average over classes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from modpose.affinity.align import AlignedFsc
from modpose.affinity.differences import MeanAbsoluteDifference, MeanDifference
from modpose.affinity.harmonics import PowerSpectrum
from modpose.affinity.matrix import Affinity, Matrix, class_means, class_names
from modpose.affinity.soap import Soap
from modpose.affinity.spectra import Fsc, refuse_too_large
from modpose.data.labels import read_labels
from modpose.data.source import Source, open_source
from modpose.data.stack import Kind, Stack
from modpose.errors import InputError


class Metric(Protocol):
    """A similarity of two images."""

    def describe(self, images: Tensor) -> Tensor:
        """From (B, *shape) float32 images to (B, ...) descriptors."""

    def compare(self, features: Tensor) -> Matrix:
        """From (N, ...) descriptors to (N, N)."""


METRICS: dict[str, type[Metric]] = {
    "fsc": Fsc,
    "aligned-fsc": AlignedFsc,
    "power-spectrum": PowerSpectrum,
    "soap": Soap,
    "mean-difference": MeanDifference,
    "mean-absolute-difference": MeanAbsoluteDifference,
}
"""The metrics by their names on the command line."""

BLOCK = 2**24
"""Pixels described per batch."""


def compute_affinity(
    images: str | Path | NDArray[Any] | Tensor | Stack | Source,
    metric: Metric | None = None,
    *,
    labels: str | Path | ArrayLike | None = None,
    kind: Kind = "auto",
    datadir: Path | None = None,
    index: Path | NDArray[Any] | None = None,
    partial: bool = False,
) -> Affinity:
    """Compute the similarity of each pair of images or volumes.

    Parameters
    ----------
    images
        What :func:`modpose.open_source` opens: (N, H, W) pictures or (N, D, D, D) volumes.
    metric
        :class:`Fsc` by default.
    labels
        The class of each image (a column, a file or an array); the matrix is then class x class,
        in natural order of the names.  Without labels, each image is one entry.  With m_ab the
        mean over the pairs of images of classes a and b, the affinity is m_ab / sqrt(m_aa m_bb).
    kind
        Meaning of an array's axes.
    datadir
        First folder in which the images of a table are searched.
    index
        Images to keep; see :func:`modpose.open_source`.
    partial
        Leave out the rows of a table as ``index`` that the input does not have.

    Returns
    -------
    Affinity
        Validated, unless the metric gives raw differences.

    Raises
    ------
    InputError
        If the input, the labels or a setting of the metric cannot be used.
    """
    source = images
    if not isinstance(source, Source):
        source = open_source(source, kind=kind, datadir=datadir, index=index, partial=partial)
    metric = Fsc() if metric is None else metric
    known = None if labels is None else class_names(read_labels(labels, source))
    values = metric.compare(_described(source.stack, metric))
    names = _own_names(source)
    if known is not None:
        names, values = known[0], _by_class(values, known[1], metric)
    affinity = Affinity(values, tuple(names), source.stack.name)
    if not gives_differences(metric):
        affinity.validate()
    return affinity


def gives_differences(metric: Metric) -> bool:
    """Return whether the metric gives differences (0 for equal images) and not affinities."""
    return isinstance(metric, MeanDifference | MeanAbsoluteDifference) and metric.raw


def _by_class(values: Matrix, member: NDArray[np.int64], metric: Metric) -> Matrix:
    means = class_means(values, member)
    if gives_differences(metric):
        return means
    _warn_of_poses(values, member, metric)
    scale = 1 / np.sqrt(np.diag(means))
    means = (means * scale * scale[:, None]).clip(-1.0, 1.0)
    means = (means + means.T) / 2
    np.fill_diagonal(means, 1.0)
    return means


def _warn_of_poses(values: Matrix, member: NDArray[np.int64], metric: Metric) -> None:
    """Warn if images of one class hardly correlate without alignment."""
    alike = member[:, None] == member
    np.fill_diagonal(alike, False)
    if not isinstance(metric, Fsc) or not alike.any():
        return
    within = float(values[alike].mean())
    if within < 0.3:
        logging.getLogger("modpose").warning(
            "fsc: two images of one class correlate by %.2f on average, so they seem to have "
            "different poses; use aligned-fsc, power-spectrum or soap",
            within,
        )


def _own_names(source: Source) -> list[str]:
    """Name images by their files if these names differ, else by their rows from 0."""
    if source.particles.has("file"):
        stems = [Path(str(name)).stem for name in source.particles.column("file")]
        if len(set(stems)) == source.n:
            return stems
    rows = range(source.n) if source.selection is None else source.selection.tolist()
    return [str(row) for row in rows]


def _described(stack: Stack, metric: Metric) -> Tensor:
    """Read the stack once and describe it."""
    if stack.channels != 1:
        raise InputError.of(stack.name, "the number of channels", stack.channels, "1 (grey)")
    features: Tensor | None = None
    for start, images in _blocks(stack):
        some = metric.describe(images)
        if features is None:
            refuse_too_large(stack.n, some[0].numel(), type(metric).__name__)
            features = some.new_empty(stack.n, *some.shape[1:])
        features[start : start + len(some)] = some
    assert features is not None  # a stack has at least one image
    return features


def _blocks(stack: Stack) -> Iterator[tuple[int, Tensor]]:
    length = max(1, BLOCK // int(np.prod(stack.shape)))
    for start in range(0, stack.n, length):
        rows = np.arange(start, min(start + length, stack.n))
        images = torch.from_numpy(stack.read(rows)[:, 0])
        flat = images.flatten(1)
        lowest, highest = flat.amin(dim=1), flat.amax(dim=1)
        for i in torch.nonzero(~(highest > lowest) | (highest - lowest).isinf()).flatten().tolist():
            found = "flat" if lowest[i] == highest[i] else "not all finite numbers"
            raise InputError.of(stack.where(start + i), "the image", found, "an object in it")
        yield start, images

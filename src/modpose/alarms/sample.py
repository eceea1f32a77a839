"""The images that alarms check: a bounded sample, cropped and inverted but not normalised."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from modpose.data import preprocess
from modpose.data.dataset import Dataset
from modpose.geometry.windows import squared_radius

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

IMAGES = 1000
BYTES = 2**27
"""Limits of the sample."""
FLATNESS_IMAGES = 100
COMMON_VALUE = 0.1
"""An image with one value in more than this fraction of the pixels is a drawing."""
NOISE_LEVEL = 0.2
"""Smallest noise at the rim of a noisy image, in units of the image's standard deviation."""


@dataclass(frozen=True)
class Sample:
    """Some images of a data set, evenly spread over it.

    Attributes
    ----------
    dataset
        Where they come from.
    rows
        (M,) positions in the data set.
    images
        (M, *shape) float32: cropped, Fourier-cropped and inverted as the model sees them, the
        mean over the channels, each image with zero mean and unit standard deviation.
    spread
        (M,) standard deviation of each image before that.
    common
        (M',) fraction of the pixels of some images that have the image's most common value.
    """

    dataset: Dataset
    rows: Integers
    images: NDArray[np.float32]
    spread: Floats
    common: Floats

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape."""
        return tuple(self.images.shape[1:])

    @cached_property
    def radius(self) -> Floats:
        """Distance of each pixel from the centre; 1 at half the shortest side."""
        return np.sqrt(squared_radius(self.shape)) / (min(self.shape) / 2)

    @cached_property
    def particle_like(self) -> bool:
        """Whether these are noisy grey images, as from a microscope, and not drawings.

        8-bit pictures count only if they have a table or a pixel size.
        """
        dataset = self.dataset
        if dataset.channels != 1 or float(np.median(self.common)) > COMMON_VALUE:
            return False
        source = dataset.source
        known = source.particles.format in ("star", "cs") or source.pixel_size is not None
        if source.stack.dtype == np.uint8 and not known:
            return False
        return self._noise_at_the_rim > NOISE_LEVEL

    @cached_property
    def _noise_at_the_rim(self) -> float:
        """Standard deviation of white noise at the rim, in units of that of the image."""
        rim = self.radius[..., 1:] > 0.9
        steps = np.diff(self.images, axis=-1)[:, rim]
        return float(np.median(steps.std(axis=1)) / np.sqrt(2))


def take_sample(
    dataset: Dataset, most: int = IMAGES, among: NDArray[np.int64] | None = None
) -> Sample:
    """Read a sample of at most ``most`` images and about 128 MiB, of all or among some."""
    shape = dataset.source.stack.shape
    size = 4 * dataset.source.stack.channels * int(np.prod(shape))
    n = dataset.n if among is None else len(among)
    count = max(1, min(n, most, BYTES // size))
    rows = np.unique(np.linspace(0, n - 1, count).round().astype(np.int64))
    rows = rows if among is None else among[rows]
    raw = dataset.source.stack.read(rows)
    np.nan_to_num(raw, copy=False, posinf=0.0, neginf=0.0)  # other code refuses these, by name
    few = raw[:: max(1, len(raw) // FLATNESS_IMAGES)]
    common = np.array([most_common(image) for image in few])
    images = preprocess.resize(raw, dataset.config)
    grey, spread = preprocess.standardize(images.mean(axis=1, keepdims=True))
    return Sample(dataset, rows, grey[:, 0], spread, common)


def smaller(sample: Sample, most: int, box: int = 64) -> Sample:
    """Keep images evenly spread, at most ``most``, Fourier-cropped to ``box`` where larger."""
    step = -(-len(sample.rows) // most)
    images = sample.images[::step]
    if len(sample.shape) == 2 and len(set(sample.shape)) == 1 and sample.shape[0] > box:
        images = preprocess.fourier_crop(images[:, None], box)[:, 0]
    return replace(sample, rows=sample.rows[::step], images=images, spread=sample.spread[::step])


def most_common(image: NDArray[np.float32]) -> float:
    """Return the fraction of the pixels that have the most common value of the image."""
    values = np.sort(image, axis=None)
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1], [True]]))
    return float(np.diff(starts).max() / values.size)

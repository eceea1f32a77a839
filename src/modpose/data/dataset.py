"""Data sets: a source, preprocessed, split and served in batches."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from modpose.config import Config, DataConfig
from modpose.data import preprocess
from modpose.data.agreement import check_one_voltage
from modpose.data.batches import Batch
from modpose.data.poses import given_poses
from modpose.data.restore import Restoration, refuse_aberrations
from modpose.data.source import Source
from modpose.data.statistics import Statistics
from modpose.data.twins import Twins
from modpose.data.wedges import wedges_asked_for
from modpose.errors import InputError
from modpose.geometry.pose import Pose
from modpose.geometry.windows import disc, soft_window

CACHE_BYTES = 2**30
"""A preprocessed stack below this size is kept in memory once read."""
SAMPLE_IMAGES = 1000
SAMPLE_BYTES = 2**28
"""Limits of the sample for statistics."""
CHUNK_BYTES = 2**26
READERS, AHEAD_BYTES = 4, 2**28
"""Threads that read batches, and the most that these batches may take."""


class Labelled(Protocol):
    """Known affinities of images; a data set needs only the labels."""

    @property
    def label(self) -> NDArray[np.int64]:
        """(N,) row of the affinities for each image, -1 if unknown."""


class Dataset:
    """Images in the form that the model sees.

    Parameters
    ----------
    source
        Stack and particles.
    config
        Preprocessing and the fraction held out.
    seed
        Seed for the choice of held-out images.
    ctf
        Include the CTF parameters of each image.
    poses
        Include the given pose of each image, from a consensus refinement.
    wedge
        Include the measured frequencies of each volume; values as in ``model.wedge``.
    value_range
        With ``normalize: range`` or ``set``, the values that become 0 and 1 (for a set, its mean
        and one s.d. above); None computes them from the data.  For new images and a trained model,
        pass those of the training images.
    affinity
        Affinities to train on; batches then include labels.

    Attributes
    ----------
    n, shape, channels
        Number of images, spatial shape after cropping, numbers per pixel.
    pixel_size
        Angstrom per pixel after Fourier cropping, None if it is not known.
    train, val
        Sorted positions of the images to train on and of those held out.
    ctf
        (N, 9), (N, 11) or (N, 12) float32 CTF parameters with the pixel size after Fourier
        cropping; or None.
    rotation, translation
        (N, 3, 3) float32 given rotations, and (N, 2) (volumes: (N, 3)) float32 given shifts in
        pixels after Fourier cropping; or None.
    kept
        Where a search kept several poses of an image: (N, H, 3, 3) rotations, (N, H, 2) shifts in
        pixels after Fourier cropping, and (N,) how many; or None.
    wedges
        Measured frequencies of each volume, or None.
    restoration
        Corrections that are applied to the images as they are read.
    sums
        (N, Q) what the images tell a model (:class:`modpose.fourier.amplitudes.AmplitudeSums`):
        batches hold these and no image; or None.
    mask
        Boolean, of ``shape``: pixels that are used; None for all.
    value_range
        See above; None unless ``normalize`` is ``range`` or ``set``.

    Raises
    ------
    InputError
        If the sizes do not fit the configuration, the CTF parameters are incomplete, or poses are
        requested and missing; later, when reading, if an image is constant or has a value that is
        not finite.
    """

    def __init__(
        self,
        source: Source,
        config: DataConfig,
        *,
        seed: int,
        ctf: bool = False,
        poses: bool = False,
        wedge: str = "off",
        value_range: tuple[float, float] | None = None,
        affinity: Labelled | None = None,
    ) -> None:
        self.source, self.config, self.affinity = source, config, affinity
        sizes = preprocess.geometry(source.stack.shape, config, source.stack.name)
        self.n, self.shape, self.channels = source.n, sizes.shape, source.stack.channels
        stored = source.pixel_size
        self.pixel_size = None if stored is None else stored * sizes.pixel_size_factor
        self.ctf = source.particles.ctf(source.stack.pixel_size) if ctf else None
        check_one_voltage(self.ctf, source.particles.name)
        if self.ctf is not None:
            self.ctf[:, 0] *= sizes.pixel_size_factor
        self.rotation: NDArray[np.float32] | None = None
        self.translation: NDArray[np.float32] | None = None
        if poses:
            rotation, shift = given_poses(source)
            self.rotation = rotation.astype(np.float32)
            self.translation = (shift / sizes.pixel_size_factor).astype(np.float32)
        self.kept: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
        self.sums: torch.Tensor | None = None
        self.wedges = None
        if wedge != "off":
            self.wedges = wedges_asked_for(source, wedge, self.shape, sizes.pixel_size_factor)
        if self.ctf is not None:
            refuse_aberrations(source, self.shape, self.pixel_size)
            if self.wedges is not None and self.wedges.transfers:
                self.ctf = None  # the weights of each volume include it
        self.restoration = Restoration(source, self.wedges)
        self.mask = None if config.mask is None else disc(self.shape, config.mask)
        self.window = None
        if config.window is not None:
            self.window = soft_window(self.shape, *config.window)
        self.twins = Twins(config.twin, self.n, seed)
        self.train, self.val = split(self.n, config.val_fraction, seed)
        self._noise: Statistics | None = None
        self._image_bytes = 4 * self.channels * int(np.prod(self.shape))
        self._cache: NDArray[np.float32] | None = None
        if self.n * self._image_bytes < CACHE_BYTES:
            self._cache = np.empty((self.n, self.channels, *self.shape), dtype=np.float32)
            self._cached = np.zeros(self.n, dtype=bool)
        self.value_range: tuple[float, float] | None = None
        if config.normalize in ("range", "set"):
            self.value_range = value_range or self._find_range()

    @property
    def cached(self) -> bool:
        """Whether images are kept in memory once read."""
        return self._cache is not None

    def with_sums(self, sums: torch.Tensor) -> Dataset:
        """Return the same set, whose batches hold sums (N, Q) of the images and no image."""
        found = copy.copy(self)
        found.sums = sums
        return found

    def batch(self, index: NDArray[np.int64]) -> Batch:
        """Read and preprocess the images at ``index``, in that order."""
        index = np.asarray(index, dtype=np.int64)
        if self.sums is not None:
            rows = torch.from_numpy(index.copy())
            label = None if self.affinity is None else self.affinity.label[index]
            return Batch(
                index=rows,
                image=torch.empty(len(index), 0),
                pose=self._pose(index),
                label=None if label is None else torch.from_numpy(label),
                sums=self.sums[rows],
            )
        return Batch(
            index=torch.from_numpy(index.copy()),
            image=torch.from_numpy(self._images(index)),
            ctf=None if self.ctf is None else torch.from_numpy(self.ctf[index]),
            pose=self._pose(index),
            twin=self._twin(index),
            wedge=None if self.wedges is None else torch.from_numpy(self.wedges.read(index)),
            label=None if self.affinity is None else torch.from_numpy(self.affinity.label[index]),
        )

    def _pose(self, index: NDArray[np.int64]) -> Pose | None:
        if self.rotation is None or self.translation is None:
            return None
        return Pose(
            torch.from_numpy(self.rotation[index]), torch.from_numpy(self.translation[index])
        )

    def _twin(self, index: NDArray[np.int64]) -> torch.Tensor | None:
        if self.twins.kind == "none":
            return None
        if self.twins.kind == "permutation":
            return torch.from_numpy(self._images(self.twins.partner[index]))
        if self._noise is None:
            self._noise = self.statistics()
        shape = (self.channels, *self.shape)
        return torch.from_numpy(self.twins.noise(index, shape, self._noise.mean, self._noise.std))

    def batches(
        self,
        index: NDArray[np.int64],
        batch_size: int,
        *,
        generator: np.random.Generator | None = None,
        skip: int = 0,
    ) -> Iterator[Batch]:
        """Iterate once over the images at ``index``; the next batch is read in the background.

        Parameters
        ----------
        index
            Positions.
        batch_size
            Images per batch; the last one may be shorter.
        generator
            Shuffles; None keeps the order.
        skip
            Leave out this number of batches at the start.
        """
        order = np.asarray(index) if generator is None else generator.permutation(index)
        return self.each(cut(order, batch_size)[skip:])

    def each(self, parts: Sequence[NDArray[np.int64]]) -> Iterator[Batch]:
        """Iterate over batches of these images; the next ones are read in the background."""
        if not parts:
            return
        cached = self._cache is not None and all(self._cached[part].all() for part in parts)
        if cached or self.sums is not None:
            yield from map(self.batch, parts)
            return
        longest = max(1, max(map(len, parts)) * self._image_bytes)
        ahead = max(1, min(READERS, AHEAD_BYTES // longest)) if self._cache is None else 1
        with ThreadPoolExecutor(max_workers=ahead, thread_name_prefix="batches") as readers:
            coming = deque(readers.submit(self.batch, part) for part in parts[:ahead])
            try:
                for part in parts[ahead:]:
                    batch = coming.popleft().result()
                    coming.append(readers.submit(self.batch, part))
                    yield batch
                while coming:
                    yield coming.popleft().result()
            finally:
                for future in coming:
                    future.cancel()

    def statistics(self) -> Statistics:
        """Measure a sample of at most 1,000 preprocessed images, evenly spread."""
        return Statistics(self._images(rows) for rows in self._sample())

    def _images(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        if self._cache is None:
            return self._preprocess(index)
        missing = np.unique(index[~self._cached[index]])
        if missing.size:
            for rows in self._chunks(missing):
                self._cache[rows] = self._preprocess(rows)
                self._cached[rows] = True
        return self._cache[index]

    def _preprocess(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        images = self._resized(index)
        how = self.config.normalize
        if how == "range" and self.value_range is not None:
            images = preprocess.to_unit_range(images, *self.value_range)
        elif how in ("image", "background"):
            outside = ~disc(self.shape, 1.0) if how == "background" else None
            images, std = preprocess.standardize(images, outside)
            flat = np.flatnonzero(std == 0)
            if flat.size:
                where = self.source.stack.where(int(index[flat[0]]))
                part = "background is" if how == "background" else "pixels that are left are"
                raise InputError(f"{where}: its {part} constant, expected noise to normalise by")
        elif how == "set" and self.value_range is not None:
            mean, above = self.value_range
            images = (images - mean) / (above - mean)
        if self.mask is not None:
            images = images * self.mask
        if self.window is not None:
            images = images * self.window
        return np.ascontiguousarray(images, dtype=np.float32)

    def _resized(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read, check, correct, crop and invert."""
        images = self.source.stack.read(index)
        flat = images.reshape(len(images), -1)
        low, high = flat.min(axis=1, initial=np.inf), flat.max(axis=1, initial=-np.inf)
        for bad, found in (
            (~np.isfinite(low) | ~np.isfinite(high), "holds a value that is NaN or infinite"),
            (low == high, f"is constant ({low[0] if len(low) else 0:g} throughout)"),
        ):
            if bad.any():
                row = int(np.flatnonzero(bad)[0])
                where = self.source.stack.where(int(index[row]))
                raise InputError(f"{where}: the image {found}, expected finite, varying numbers")
        if self.restoration:
            images = self.restoration(images, index)
        return preprocess.resize(images, self.config)

    def _find_range(self) -> tuple[float, float]:
        if self.config.normalize == "set":
            found = Statistics(self._resized(rows) for rows in self._sample())
            return found.mean, found.mean + found.std
        by_type = preprocess.stored_range(self.source.stack.dtype, self.config.invert)
        if by_type is not None:
            return by_type
        found = Statistics(self._resized(rows) for rows in self._sample())
        return (0.0, 1.0) if found.min >= 0 and found.max <= 1 else (found.min, found.max)

    def _sample(self) -> Iterator[NDArray[np.int64]]:
        count = min(self.n, SAMPLE_IMAGES, max(1, SAMPLE_BYTES // self._image_bytes))
        return self._chunks(np.linspace(0, self.n - 1, count).round().astype(np.int64))

    def _chunks(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        size = max(1, CHUNK_BYTES // self._image_bytes)
        return (rows[i : i + size] for i in range(0, len(rows), size))


def dataset_of(
    source: Source,
    config: Config,
    *,
    held_out: bool = True,
    value_range: tuple[float, float] | None = None,
    affinity: Labelled | None = None,
) -> Dataset:
    """Prepare images according to a run's configuration, with everything that its model needs.

    Parameters
    ----------
    source
        Stack and particles.
    config
        The complete configuration.
    held_out
        Whether to hold out images for validation; false for new images and a trained model.
    value_range, affinity
        See :class:`Dataset`.

    Raises
    ------
    InputError
        If a wedge is given that the model does not use, or if something that it needs is missing.
    """
    if source.wedge is not None and config.model.wedge == "off":
        raise InputError.of(
            f"recipe {config.recipe}", "model.wedge", "off", "auto, for a wedge is given (--wedge)"
        )
    data = config.data if held_out else config.data.model_copy(update={"val_fraction": 0.0})
    made = Dataset(
        source,
        data,
        seed=config.seed,
        ctf=config.model.ctf == "auto",
        poses=config.model.poses == "given",
        wedge=config.model.wedge,
        value_range=value_range,
        affinity=affinity,
    )
    most = getattr(config.train.start, "volumes", None)
    if held_out and most is not None and most < len(made.train):
        chosen = np.random.default_rng([config.seed, most]).permutation(made.train)[:most]
        made.train = np.sort(chosen)
    return made


def cut(rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Cut rows into parts of this size; the last one may be shorter."""
    return [rows[first : first + size] for first in range(0, len(rows), size)]


def split(n: int, fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Hold out a fraction of the images, at least one and never all.

    Returns
    -------
    train, val
        Sorted positions; ``val`` is empty if ``fraction`` is 0 or there is only one image.
    """
    held = 0 if fraction == 0 or n < 2 else min(n - 1, max(1, round(n * fraction)))
    order = np.random.default_rng(seed).permutation(n).astype(np.int64)
    return np.sort(order[held:]), np.sort(order[:held])

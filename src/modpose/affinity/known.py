"""Known affinities of the images of a set: by class, by sample, or both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modpose.affinity.compute import METRICS, compute_affinity
from modpose.affinity.files import read_affinity, write_affinity
from modpose.affinity.matrix import Affinity, label_name
from modpose.data.npy import read_npy
from modpose.errors import InputError, shorter, shown
from modpose.files.writing import replace_atomically

if TYPE_CHECKING:
    from modpose.data.source import Source

CLASSES_FILE = "affinity.csv"
SAMPLES_FILE = "sample_affinity.npy"
"""Files of the affinities in a run folder."""


@dataclass(frozen=True)
class KnownAffinity:
    """Affinities of N images.

    Attributes
    ----------
    label
        (N,) int64 row of ``classes`` for each image, -1 if its class is unknown.
    classes
        Class x class, or None.
    samples
        (N, N) float32 image x image, or None; used for pairs that ``classes`` does not cover.
    """

    label: NDArray[np.int64]
    classes: Affinity | None = None
    samples: NDArray[np.float32] | None = None

    @property
    def any(self) -> bool:
        """Whether anything is known."""
        return self.classes is not None or self.samples is not None

    def save(self, folder: Path) -> None:
        """Write the matrices into a run folder."""
        if self.classes is not None:
            write_affinity(self.classes, folder / CLASSES_FILE, overwrite=True)
        samples = self.samples
        if samples is not None:
            replace_atomically(
                folder / SAMPLES_FILE, lambda file: np.save(file, samples), overwrite=True
            )


def load_known(folder: Path, labels: ArrayLike | None, n: int) -> KnownAffinity:
    """Read the files of :meth:`KnownAffinity.save`, for n images with these labels."""
    classes = folder / CLASSES_FILE
    samples = folder / SAMPLES_FILE
    by_class = read_affinity(classes) if classes.is_file() else None
    by_sample = read_matrix(samples) if samples.is_file() else None
    try:
        return _known(by_class, by_sample, labels, n)
    except InputError as error:
        raise InputError(f"{error} (labels and n are those of environment.json)") from None


def known_affinity(
    source: Source,
    labels: NDArray[Any] | None = None,
    classes: str | Path | Affinity | None = None,
    samples: str | Path | ArrayLike | Affinity | None = None,
) -> KnownAffinity:
    """Read or compute the affinities of images.

    Parameters
    ----------
    source
        The opened images.
    labels
        (N,) classes, or None; ``-1``, NaN and the empty text mean an unknown class.
    classes
        Class x class: a matrix, a CSV file, or the name of a metric
        (:data:`modpose.affinity.METRICS`), which then compares the labelled images.
    samples
        Image x image, rows in the order of the images: a matrix, a CSV or NPY file, or the name
        of a metric.

    Raises
    ------
    InputError
        If a matrix lacks a class of an image, has another size than the images, or is not an
        affinity; if classes are compared and no image has a label.
    """
    by_class = None
    if classes is not None:
        if labels is None:
            raise InputError(
                "--affinity: labels are missing, expected --labels with the class of each image "
                "(a matrix of images by images is --sample-affinity)"
            )
        by_class = _class_matrix(source, labels, classes)
    by_sample = None if samples is None else _sample_matrix(source, samples)
    return _known(by_class, by_sample, labels, source.n)


def _known(
    classes: Affinity | None,
    samples: NDArray[np.float32] | None,
    labels: ArrayLike | None,
    n: int,
) -> KnownAffinity:
    label = np.full(n, -1, dtype=np.int64)
    if classes is not None and labels is not None:
        label = _rows(classes, labels)
    if samples is not None and samples.shape != (n, n):
        found = " x ".join(map(str, samples.shape))
        expected = f"{n} x {n}, one row per image"
        raise InputError.of("--sample-affinity", "the shape of the matrix", found, expected)
    return KnownAffinity(label, classes, samples)


def _rows(classes: Affinity, labels: ArrayLike) -> NDArray[np.int64]:
    """Return the row of each label's class, -1 for unknown ones."""
    position: dict[str | None, int] = {name: row for row, name in enumerate(classes.names)}
    position[None] = -1
    names = [known_name(label) for label in np.asarray(labels).tolist()]
    missing = next((name for name in names if name not in position), None)
    if missing is not None:
        count = names.count(missing)
        raise InputError(
            f"{classes.where}: there is no class {shown(missing)}, which {count} of the images "
            f"{'has' if count == 1 else 'have'}, expected one of {_listed(classes.names)}"
        )
    if all(name is None for name in names):
        raise InputError("--labels: no image has a label, expected the class of some at least")
    return np.array([position[name] for name in names], dtype=np.int64)


def known_name(label: Any) -> str | None:
    """Return the name of a class as in matrices; None if the label means unknown."""
    name = label_name(label)
    return None if name == "-1" else name


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(shorter(name, 40) for name in names[:8]) + (", ..." if len(names) > 8 else "")


def _class_matrix(source: Source, labels: NDArray[Any], given: str | Path | Affinity) -> Affinity:
    if isinstance(given, Affinity):
        given.validate()
        return given
    metric = _metric(given)
    if metric is None:
        return read_affinity(given)

    names = [known_name(label) for label in labels.tolist()]
    labelled = np.flatnonzero([name is not None for name in names])
    if not labelled.size:
        raise InputError("--labels: no image has a label, expected the class of some at least")
    return compute_affinity(
        source.subset(labelled), metric, labels=np.array([names[i] for i in labelled])
    )


def _sample_matrix(source: Source, given: str | Path | ArrayLike | Affinity) -> NDArray[np.float32]:
    if isinstance(given, (str, Path)):
        metric = _metric(given)
        if metric is not None:
            return compute_affinity(source, metric).values.astype(np.float32)
        npy = Path(given).suffix == ".npy"
        given = read_matrix(Path(given)) if npy else read_affinity(given)
    if not isinstance(given, Affinity):
        values = np.asarray(given, dtype=np.float64)
        given = Affinity(values, tuple(map(str, range(len(values)))), "--sample-affinity")
        given.validate()
    return given.values.astype(np.float32)


def _metric(given: str | Path) -> Any:
    kind = METRICS.get(str(given))
    return None if kind is None else kind()


def read_matrix(path: Path) -> NDArray[np.float32]:
    """Read a matrix of real numbers from a NumPy file."""
    values = read_npy(path)
    if values.dtype.kind not in "biuf":
        raise InputError.of(path, "the type of the numbers", str(values.dtype), "reals")
    with np.errstate(over="ignore", invalid="ignore"):  # too large: infinite, refused later
        return values.astype(np.float32)

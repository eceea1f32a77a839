"""How well conformations were found, where the truth is known: maps, motion, classes.

True maps are those of ``modpose simulate projections --maps``: of each class at several hinge
angles, in the frame of the consensus poses, so that nothing has to be aligned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from modpose.backprojection import reconstruct_halves
from modpose.backprojection.halves import open_posed
from modpose.content.clustering import Method, cluster
from modpose.content.embedding import principal_axes
from modpose.devices import on_its_device
from modpose.errors import InputError
from modpose.estimator import PoseModel
from modpose.evaluate.drawing import check_draws_volumes
from modpose.evaluate.known_maps import KnownMapScores, score_known_maps
from modpose.evaluate.metrics import ari, spearman
from modpose.evaluate.true_maps import TrueMap, read_true_maps
from modpose.fourier.fsc import fsc
from modpose.geometry.windows import soft_window

if TYPE_CHECKING:
    import pandas as pd

    from modpose.data.dataset import Dataset
    from modpose.run import Run

Floats = NDArray[np.floating]
Volume = NDArray[np.float32]

SHARE = 0.1
"""Fraction of the images of a class, nearest to a hinge angle, that represent this angle."""
FOLDS = 5
"""Parts of the images, each read by a discriminant that was fitted to the others."""
BALL = (0.85, 0.95)
"""Radius and edge, in half boxes, of the ball that maps are compared in."""


@dataclass(frozen=True)
class ConformationScores:
    """Figures against the truth; None if the truth lacks the quantity.

    Attributes
    ----------
    areas
        Mean Fourier shell correlation (:meth:`FscCurve.area`) of the model's map with each true
        one.
    reference
        The same of the map that the nearest tenth of the images make by back-projection, with
        their true states known; or None if it was not made.
    motion
        |Spearman rank correlation| of the first principal component of content with the hinge
        angle; with several classes the mean over classes, each with its own components.
    classes
        Adjusted Rand index of k-means of content, with as many clusters as there are classes.
    beside
        The same of classes that share a motion (:mod:`modpose.content.moving_classes`).
    discriminant
        Adjusted Rand index of the classes that a linear discriminant reads from content, fitted to
        other images.  It measures the information in content, clustered or not.
    known
        What someone with the true maps makes of the images; None if it was not found out.
    """

    areas: list[float]
    reference: list[float] | None
    motion: float | None
    classes: float | None
    beside: float | None = None
    discriminant: float | None = None
    known: KnownMapScores | None = None

    def lines(self) -> list[str]:
        """Return all figures, one line each."""
        said = [f"mean FSC with {len(self.areas)} true maps: {np.mean(self.areas):.4f}"]
        if self.reference is not None:
            reference = float(np.mean(self.reference))
            share = ""
            if reference > 0:
                share = f" (the model reaches {np.mean(self.areas) / reference:.1%} of it)"
            said.append(f"back-projection of the images of each true state: {reference:.4f}{share}")
        if self.motion is not None:
            best = "" if self.known is None else f" (true maps known: {self.known.motion:.4f})"
            said.append(
                f"first component of content with the hinge, |Spearman|: {self.motion:.4f}{best}"
            )
        if self.classes is not None:
            best = "" if self.known is None else f" (true maps known: {self.known.classes:.4f})"
            said.append(f"clusters of content with the classes, ARI: {self.classes:.4f}{best}")
        if self.beside is not None:
            limit = None if self.known is None else self.known.classes
            said.append(f"classes that share a motion, ARI: {self.beside:.4f}")
            if limit:
                reached = self.beside / limit
                said[-1] += f" (true maps known: {limit:.4f}; this is {reached:.0%} of it)"
        if self.discriminant is not None:
            said.append(f"linear discriminant of content, ARI: {self.discriminant:.4f}")
        return said


def images_of(truth: pd.DataFrame, of: TrueMap) -> NDArray[np.int64]:
    """Return the images that a true map represents: of its class, the tenth nearest its angle."""
    rows = np.arange(len(truth))
    if "class" in truth:
        rows = rows[truth["class"].to_numpy() == of.label]
    if "hinge_deg" in truth:
        away = np.abs(truth["hinge_deg"].to_numpy()[rows] - of.hinge_deg)
        count = max(1, round(SHARE * len(rows)))
        rows = np.sort(rows[np.argsort(away, kind="stable")[:count]])
    return rows


def typical_content(z: Floats, rows: NDArray[np.int64]) -> Floats:
    """Return the content (k,) of the image, among ``rows``, that is nearest their mean."""
    mine = z[rows]
    nearest = np.linalg.norm(mine - mine.mean(0), axis=1).argmin()
    return np.asarray(mine[nearest])


def map_areas(
    decode: Callable[[Floats], Volume], z: Floats, truth: pd.DataFrame, maps: Sequence[TrueMap]
) -> list[float]:
    """Compare the model's map for each true state with the true one: mean FSC.

    Parameters
    ----------
    decode
        From content (1, k) to a volume (1, D, H, W), as :meth:`modpose.PoseModel.decode` does.
    z
        (N, k) content of all images.
    truth
        (N rows) ``class`` and ``hinge_deg``, as far as they are there.
    maps
        True maps of the box that the model sees.
    """
    areas = []
    for one in maps:
        rows = images_of(truth, one)
        if not len(rows):
            raise InputError(f"no image is of class {one.label}, expected images of every map")
        areas.append(area(decode(typical_content(z, rows)[None])[0], one.volume))
    return areas


def reference_areas(
    dataset: Dataset, truth: pd.DataFrame, maps: Sequence[TrueMap], quiet: bool = False
) -> list[float]:
    """Back-project the images of each true state, and compare with the true map: mean FSC.

    Parameters
    ----------
    dataset
        Images with given poses (:func:`modpose.backprojection.halves.open_posed`).
    truth, maps
        As in :func:`map_areas`.
    quiet
        No progress bars.
    """
    areas = []
    for one in maps:
        rows = images_of(truth, one)
        areas.append(area(reconstruct_halves(dataset, rows, None, quiet).combined(), one.volume))
    return areas


def area(volume: Volume, true: Volume) -> float:
    """Return the mean FSC of a map with the true one, inside a soft ball."""
    return fsc(volume, true, soft_window(true.shape, *BALL)).area()


def motion_found(z: Floats, truth: pd.DataFrame) -> float | None:
    """Return |Spearman| of the first principal component with the hinge; None without one."""
    if "hinge_deg" not in truth or not np.ptp(truth["hinge_deg"].to_numpy()) > 0:
        return None
    hinge = truth["hinge_deg"].to_numpy()
    classes = truth["class"].to_numpy() if "class" in truth else np.zeros(len(z))
    found, counts = [], []
    for k in np.unique(classes):
        mine = classes == k
        if mine.sum() < 3 or not np.ptp(z[mine]) > 0:
            continue
        mean, axes, _ = principal_axes(np.asarray(z[mine], float))
        found.append(abs(spearman((z[mine] - mean) @ axes[0], hinge[mine])))
        counts.append(int(mine.sum()))
    return float(np.average(found, weights=counts)) if found else 0.0


def classes_found(
    z: Floats, truth: pd.DataFrame, seed: int = 0, method: Method = "kmeans"
) -> float | None:
    """Return the adjusted Rand index of clusters of content; None without classes."""
    if "class" not in truth or truth["class"].nunique() < 2:
        return None
    return ari(truth["class"], cluster(z, truth["class"].nunique(), method, seed))


def classes_discriminated(z: Floats, truth: pd.DataFrame) -> float | None:
    """Return the adjusted Rand index of a linear discriminant of content; None without classes.

    The class of each fifth of the images is read by a discriminant fitted to the others; None, too,
    where a class has fewer images than there are parts.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.model_selection import cross_val_predict

    if "class" not in truth or truth["class"].nunique() < 2:
        return None
    if truth["class"].value_counts().min() < FOLDS:
        return None
    classes = truth["class"].to_numpy()
    # shrinkage keeps content that does not vary from making the covariance singular
    reader = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    return ari(classes, cross_val_predict(reader, np.asarray(z, float), classes, cv=FOLDS))


def score_conformations(
    decode: Callable[[Floats], Volume],
    z: Floats,
    truth: pd.DataFrame,
    maps: Sequence[TrueMap],
    dataset: Dataset | None = None,
    seed: int = 0,
    quiet: bool = False,
    in_errors: Floats | None = None,
) -> ConformationScores:
    """Score content and maps against the truth.

    Parameters
    ----------
    decode, z, truth, maps
        As in :func:`map_areas`.
    dataset
        Images with given poses, for the references; None leaves these out.
    seed
        Seed of the clusters.
    quiet
        No progress bars.
    in_errors
        (N, k) content in units of its error, for classes that share a motion; None: ``z``.
    """
    return ConformationScores(
        areas=map_areas(decode, z, truth, maps),
        reference=None if dataset is None else reference_areas(dataset, truth, maps, quiet),
        motion=motion_found(z, truth),
        classes=classes_found(z, truth, seed),
        beside=classes_found(z if in_errors is None else in_errors, truth, seed, "motion"),
        discriminant=classes_discriminated(z, truth),
        known=None if dataset is None else score_known_maps(dataset, truth, maps, quiet),
    )


@on_its_device
def score_run(
    run: Run,
    maps: Path,
    reference: bool = False,
    quiet: bool = False,
    *,
    device: str | None = None,
) -> ConformationScores:
    """Score a run that was fitted to simulated projections.

    Parameters
    ----------
    run
        The run.
    maps
        Folder of the true maps.
    reference
        Also back-project the images of each true state, and classify states by the true maps.
    quiet
        No progress bars.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``; None: as :meth:`modpose.PoseModel.load`.

    Raises
    ------
    InputError
        If the images carry no truth, or the maps have another box than the model.
    """
    dataset = run.dataset()
    truth = dataset.source.particles.truth()
    if truth is None:
        raise InputError(f"{run.path}: its images carry no truth (modposeTruth... columns)")
    model, true = PoseModel.load(run.path), read_true_maps(maps)
    check_draws_volumes(run, model)
    if true[0].volume.shape != (dataset.shape[0],) * 3:
        found = " x ".join(map(str, true[0].volume.shape))
        raise InputError.of(maps, "the box of the maps", found, f"{dataset.shape[0]}, the model's")
    config = dataset.config
    posed = open_posed(dataset.source, config.box, config.invert) if reference else None
    z = model.latents()[[f"z_{k}" for k in range(model.config.model.z_dim)]].to_numpy(float)
    return score_conformations(
        model.decode,
        z,
        truth.reset_index(drop=True),
        true,
        posed,
        model.config.seed,
        quiet,
        run.content_in_errors(),
    )

"""What the content of a run tells: density, clusters, and a path through dense regions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from modpose.content.clustering import cluster, usual_method
from modpose.content.density import (
    NEIGHBOURS,
    FreeEnergy,
    axes_for_density,
    free_energy,
    log_density,
)
from modpose.content.embedding import principal_axes
from modpose.content.paths import DensePath, Landscape
from modpose.errors import InputError
from modpose.infer.latents import content_columns
from modpose.limits import MOST_STEPS, check_whole
from modpose.outputs.columns import CLUSTER, content_of
from modpose.outputs.volumes import content_name, ends_of_path

if TYPE_CHECKING:
    from modpose.content_maps import ContentMaps
    from modpose.run import Run

Floats = NDArray[np.floating]

CLUSTERS = 6
"""Clusters of a run that has none."""
MAPPED = 2
"""Axes of the map of the free energy."""
BLURRED = 0.5
"""Uncertainty of content, relative to its spread, above which barriers are hidden."""


@dataclass
class Analysis:
    """What :func:`analyze_content` found about N images.

    Attributes
    ----------
    z, spread
        (N, d) content, and its posterior standard deviation (0 where it is not known).
    axes, mean
        (a, d) the first principal components of content, along which density and path are measured
        (:func:`modpose.content.density.axes_for_density`), and (d,).
    energy
        Free energy along the first two of them (one where d is 1).
    labels
        (N,) clusters.
    clusters
        One row per cluster: its number, images, share, the image nearest to its mean (position
        from 0), and the content of this image.
    columns
        (N,) each: ``free_energy`` (kT, from the density at the image, 0 at the densest),
        ``path_position`` (0 to 1, NaN beyond the neighbourhood of the path), ``path_distance``.
    path
        Along the axes; None where no two clusters are joined by images.
    along
        (S, d) content of the stops of the path.
    stops
        One row per stop of the path: position, images nearest to it, free energy and its standard
        error in kT, content.
    lines
        Sentences about the result.
    """

    z: Floats
    spread: Floats
    axes: Floats
    mean: Floats
    energy: FreeEnergy
    labels: NDArray[Any]
    clusters: pd.DataFrame
    columns: dict[str, NDArray[Any]]
    path: DensePath | None = None
    along: Floats = field(default_factory=lambda: np.empty((0, 1)))
    stops: pd.DataFrame = field(default_factory=pd.DataFrame)
    lines: list[str] = field(default_factory=list)

    def on_axes(self, z: Floats) -> Floats:
        """Coordinates (M, a) of contents (M, d) along the axes."""
        return np.asarray((z - self.mean) @ self.axes.T)


def analyze_content(
    run: Run,
    *,
    k: int | None = None,
    path: str | None = None,
    steps: int = 10,
    seed: int | None = None,
    content_maps: ContentMaps | None = None,
) -> Analysis:
    """Analyse the content of a run; nothing is written.

    Parameters
    ----------
    run
        A finished run.
    k
        Number of clusters; None: the clusters that the run has, or else six.
    path
        ``a..b``, two images (positions from 0); None: between the two clusters with the longest
        path.
    steps
        Number of stops along the path.
    seed
        Of all random numbers; None: that of the run.
    content_maps
        Sharp maps of the run, to take the content that they tell in place of the model's.

    Raises
    ------
    InputError
        If the run has no content or one that is constant, or the two images of ``path`` are not
        joined by images.
    """
    check_whole("--steps", "the number", steps, 2, MOST_STEPS)
    start = run.config.seed if seed is None else seed
    latents = run.latents()
    if content_maps is None:
        z, spread = content_of(run), model_spread(latents)
    else:
        z, spread = content_maps.z, content_maps.std
    ends = None if path is None else ends_of_path(path, len(z))
    mean, axes = _axes(z, spread, content_name(run, content_maps) == "sharp")
    on_axes = (z - mean) @ axes.T
    landscape = Landscape(on_axes, seed=start)
    if k is None and CLUSTER in latents:
        labels = latents[CLUSTER].to_numpy()
    else:
        most = len(np.unique(z, axis=0))
        labels = cluster(z, min(CLUSTERS, most) if k is None else k, usual_method(len(z)), start)
    density, missing = log_density(on_axes, seed=start), np.full(len(z), np.nan)
    columns = {
        "free_energy": density.max() - density,
        "path_position": missing,
        "path_distance": missing,
    }
    energy, clusters = free_energy(on_axes[:, :MAPPED]), _clusters(z, labels)
    found = Analysis(z, spread, axes, mean, energy, labels, clusters, columns)
    found.lines = [_sizes(clusters), *_axes_told(found), *_caveats(found)]
    _add_path(found, landscape, ends, steps)
    return found


def _axes(z: Floats, spread: Floats, in_errors: bool) -> tuple[Floats, Floats]:
    """Find the mean (d,) of content and the axes (a, d) of density and path.

    ``in_errors`` says that content is in usual errors of one image.  Its own ``spread`` is then
    that between groups of images, and is smaller.
    """
    mean, axes, width = principal_axes(z)
    error = np.ones(len(axes)) if in_errors else np.sqrt((spread**2 @ axes.T**2).mean(0))
    return mean, axes[: axes_for_density(width[: len(axes)], error, len(z))]


# --- clusters ---------------------------------------------------------------------------------


def _clusters(z: Floats, labels: NDArray[Any]) -> pd.DataFrame:
    """Lay out a row per cluster; images without one (missing or -1) are left out."""
    rows = []
    for label in pd.unique(labels[~pd.isna(labels)]):
        own = np.flatnonzero(labels == label)
        if label == -1:
            continue
        nearest = own[np.linalg.norm(z[own] - z[own].mean(0), axis=1).argmin()]
        row = {"cluster": label, "images": len(own), "share": len(own) / len(z), "nearest": nearest}
        rows.append(row | {f"z_{i}": value for i, value in enumerate(z[nearest])})
    if not rows:
        raise InputError("analyze: no image belongs to a cluster, expected --k")
    return pd.DataFrame(rows).sort_values("cluster", ignore_index=True)


def _sizes(clusters: pd.DataFrame) -> str:
    parts = [f"{c}: {n:,}" for c, n in zip(clusters["cluster"], clusters["images"], strict=True)]
    return f"Images of each cluster: {', '.join(parts[:20])}{', ...' * (len(parts) > 20)}."


# --- the free energy --------------------------------------------------------------------------


def model_spread(latents: pd.DataFrame) -> Floats:
    """Posterior standard deviation (N, d) of the model's content; 0 where it is not known."""
    names = content_columns(latents)
    known = [latents.get(f"{name}_std", np.zeros(len(latents))) for name in names]
    return np.stack([np.asarray(part, np.float64) for part in known], axis=1)


def _axes_told(found: Analysis) -> list[str]:
    """Say how many axes are used, if not all."""
    used, every = found.axes.shape
    if used == every:
        return []
    return [
        f"Content has {every} dimensions.  Density and path are measured along its first {used} "
        "principal components: along others one image is told no better than by its error, or "
        "these images are too few for a density in more dimensions.  Clusters are of all."
    ]


def _caveats(found: Analysis) -> list[str]:
    """Say what the free energy means, and how much uncertain content blurs it."""
    lines = [
        "The free energy is -ln of the density of images, in kT.  It is that of the molecule only "
        "if these images are a fair sample of its equilibrium (not chosen by view, by hand or by "
        "class), and if content does not stretch one motion more than another.  Compare places "
        "within one map; do not compare two runs.",
        "Content of one image is uncertain, and a map of the density is blurred by that: wells "
        "look wider and barriers lower than they are.",
    ]
    if not found.spread.any():
        return lines
    axes = found.axes[:MAPPED]
    blur = np.sqrt((found.spread**2 @ axes.T**2).mean(0))
    spread = found.on_axes(found.z).std(0)[:MAPPED]
    for i, (b, s) in enumerate(zip(blur, spread, strict=True), 1):
        strong = "  Barriers narrower than this cannot be seen." if b > BLURRED * s else ""
        lines.append(
            f"Along principal component {i} images spread over {s:.3g} (standard deviation); the "
            f"uncertainty of one image is {b:.3g}.{strong}"
        )
    return lines


# --- the path ---------------------------------------------------------------------------------


def _add_path(
    found: Analysis, landscape: Landscape, ends: tuple[int, int] | None, steps: int
) -> None:
    """Find the path that was asked for, or one between two clusters where there is one."""
    on_axes = found.on_axes(found.z)
    if ends is not None:
        names = tuple(f"image {image}" for image in ends)
        places = on_axes[list(ends)]
    else:
        nearest = found.clusters["nearest"].to_numpy()
        pair = landscape.farthest(on_axes[nearest])
        if pair is None:
            found.lines.append(
                "There is no path: no two clusters are joined by images (--path A..B tries two "
                "images)."
            )
            return
        numbers = found.clusters["cluster"]
        names = tuple(f"cluster {numbers[i]}" for i in pair)
        places = on_axes[nearest[list(pair)]]
    found.path = landscape.path(places, steps, names)
    position, distance = found.path.places(on_axes)
    found.columns |= {"path_position": position, "path_distance": distance}
    found.along = _content_at(found, found.path.z)
    found.stops = _stops(found.along, position)
    found.lines.append(_told(found, names, position))


def _content_at(found: Analysis, places: Floats) -> Floats:
    """Return content (S, d) at places (S, a) on the axes: beside the axes, that of near images."""
    from sklearn.neighbors import NearestNeighbors

    on_axes = found.on_axes(found.z)
    beside = found.z - found.mean - on_axes @ found.axes
    joined = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(found.z))).fit(on_axes)
    near = joined.kneighbors(places, return_distance=False)
    return np.asarray(found.mean + places @ found.axes + beside[near].mean(1))


def _stops(along: Floats, position: Floats) -> pd.DataFrame:
    """Count the images nearest to each stop, and take -ln of their density along the path.

    Images beyond the two ends do not count.
    """
    last = len(along) - 1
    inner = position[(position > 0) & (position < 1)]
    count = np.bincount((inner * last).round().astype(int), minlength=last + 1)
    width = np.ones(last + 1)
    width[[0, -1]] = 0.5  # half of their cell lies beyond the end
    with np.errstate(divide="ignore", invalid="ignore"):
        energy = -np.log(count / width / (count / width).max())
        error = np.where(count > 0, 1 / np.sqrt(count), np.nan)
    energy[count == 0] = np.nan
    table = pd.DataFrame(
        {
            "stop": np.arange(1, last + 2),
            "position": np.linspace(0, 1, last + 1),
            "images": count,
            "free_energy": energy,
            "free_energy_error": error,
        }
    )
    return table.assign(**{f"z_{i}": part for i, part in enumerate(along.T)})


def _told(found: Analysis, names: tuple[str, ...], position: Floats) -> str:
    stops = found.stops
    text = (
        f"The path from {names[0]} to {names[-1]}: "
        f"{int(np.isfinite(position).sum()):,} images lie near it (column path_position)."
    )
    if stops["free_energy"].isna().any():
        return text
    top = stops.iloc[int(stops["free_energy"].to_numpy().argmax())]
    return (
        f"{text}  Its highest place is stop {int(top['stop'])} of {len(stops)}: "
        f"{top['free_energy']:.1f} ± {top['free_energy_error']:.1f} kT above its lowest, "
        f"{int(top['images']):,} images."
    )

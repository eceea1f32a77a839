"""What the content of a run tells: density, clusters, and a path through dense regions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from modpose.content.clustering import cluster, usual_method
from modpose.content.density import FreeEnergy, free_energy, log_density
from modpose.content.few_axes import FewAxes
from modpose.content.paths import DensePath, Landscape
from modpose.errors import InputError
from modpose.limits import MOST_STEPS, check_whole
from modpose.outputs.columns import CLUSTER, content_of, error_of_content
from modpose.outputs.volumes import ends_of_path, usual_error

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
    few
        (N, k) content, and the axes of it along which density and path are measured.
    spread
        (N, k) posterior standard deviation of content; 0 where it is not known.
    energy
        Free energy along the first two axes (one where k is 1).
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
        (S, k) content of the stops of the path.
    stops
        One row per stop of the path: position, images nearest to it, free energy and its standard
        error in kT, content.
    lines
        Sentences about the result.
    """

    few: FewAxes
    spread: Floats
    energy: FreeEnergy
    labels: NDArray[Any]
    clusters: pd.DataFrame
    columns: dict[str, NDArray[Any]]
    path: DensePath | None = None
    along: Floats = field(default_factory=lambda: np.empty((0, 1)))
    stops: pd.DataFrame = field(default_factory=pd.DataFrame)
    lines: list[str] = field(default_factory=list)

    @property
    def z(self) -> Floats:
        """(N, k) content."""
        return self.few.z


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
        z, spread = content_of(run), error_of_content(latents)
    else:
        z, spread = content_maps.z, content_maps.std
    ends = None if path is None else ends_of_path(path, len(z))
    few = FewAxes.of(z, usual_error(run, content_maps))
    on_axes, landscape = few.on(z), few.landscape(start)
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
    found = Analysis(few, spread, energy, labels, clusters, columns)
    found.lines = [_sizes(clusters), *_axes_told(found), *_caveats(found)]
    _add_path(found, landscape, ends, steps)
    return found


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


def _axes_told(found: Analysis) -> list[str]:
    """Say how many axes are used, if not all."""
    used, every = found.few.axes.shape
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
    few, axes = found.few, found.few.axes[:MAPPED]
    along = np.sqrt(axes**2 @ few.unit**2)  # content for one step along each axis
    blur = np.sqrt(((found.spread / few.unit) ** 2 @ axes.T**2).mean(0)) * along
    spread = few.on(found.z).std(0)[:MAPPED] * along
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
    on_axes = found.few.on(found.z)
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
    found.along = found.few.content_at(found.path.z)
    found.stops = _stops(found.along, position)
    found.lines.append(_told(found, names, position))


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

"""The data of a report on images with given poses: volumes along content, sharp maps, views."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from modpose.content.few_axes import FewAxes
from modpose.files.text import in_shell
from modpose.geometry.groups import point_group
from modpose.geometry.views import directions_of
from modpose.outputs.content_maps import has_sharp_maps, symmetry_of
from modpose.outputs.volumes import (
    Stops,
    along_component,
    at_clusters,
    content_name,
    usual_error,
)
from modpose.plot.grids import Floats
from modpose.run.folder import CONTENT_MAPS

if TYPE_CHECKING:
    from modpose.content_maps import ContentMaps
    from modpose.data.dataset import Dataset
    from modpose.estimator import PoseModel
    from modpose.run import Run

STEPS = 7
CENTRES = 6
COMPONENT = (
    "volumes along the first principal component of content, from the 5th to the 95th percentile"
)
PATH = (
    "volumes along the path from cluster {} to cluster {} of k-means, which stays where images are "
    "(0 % to 100 %)"
)


@dataclass(frozen=True)
class PosedVolumes:
    """What is drawn of images with given poses.

    Attributes
    ----------
    draw
        From content (n, k) to volumes (n, D, D, D).
    walk, walked
        Contents along a path or a principal component, and what that is; None without content.
    centres
        Contents at the centres of k-means; None without content.
    name, unit
        Of the content: ``z``, or ``sharp`` for that of the sharp maps; and a sentence on its unit.
    sharp
        Sharp maps of the run, which are then drawn; None: the model's maps are.
    no_sharp
        A sentence that says why there are no sharp maps; empty where there are, or never are.
    directions
        (N, 3) viewing directions of the images, and those that the symmetry of the maps makes
        equal; None without images.
    """

    draw: Callable[[Floats], Floats]
    walk: Stops | None
    walked: str
    centres: Stops | None
    name: str
    unit: str
    sharp: ContentMaps | None
    no_sharp: str
    directions: Floats | None


def look_at_posed(
    run: Run, model: PoseModel, z: Floats, sharp: ContentMaps | None, dataset: Dataset | None
) -> PosedVolumes:
    """Collect it for a run with content z (N, k): that of its sharp maps, if it has some."""
    name = content_name(run, sharp)
    own = name == "sharp"
    unit = "usual errors of one image" if own else "standard deviations of its prior"
    centres = walk = None
    walked = COMPONENT
    if z.shape[1]:
        centres = at_clusters(z, min(CENTRES, len(z)), run.config.seed)
        path = None if sharp is None else _path(run, sharp, centres)
        error = None if sharp is None else usual_error(run, sharp)
        walk, walked = (along_component(z, 1, STEPS, error), COMPONENT) if path is None else path
    return PosedVolumes(
        draw=model.decode if sharp is None else lambda at: np.stack([sharp.volume(c) for c in at]),
        walk=walk,
        walked=walked,
        centres=centres,
        name=name,
        unit=f"Content is {'that of the sharp maps, ' if own else ''}in {unit}.",
        sharp=sharp,
        no_sharp="" if sharp is not None else _no_sharp(run),
        directions=None if dataset is None else _directions(run, dataset),
    )


def _path(run: Run, sharp: ContentMaps, centres: Stops) -> tuple[Stops, str] | None:
    """Find the longest path between two clusters, through images; None if there is none."""
    if len(sharp.z) < 2 or (sharp.z == sharp.z[0]).all():
        return None
    few = FewAxes.of(sharp.z, usual_error(run, sharp))
    landscape, places = few.landscape(), few.on(centres.z)
    pair = landscape.farthest(places)
    if pair is None:
        return None
    content = few.content_at(landscape.path(places[list(pair)], STEPS).z)
    along = [f"{place:.0%}" for place in np.linspace(0, 1, STEPS)]
    return Stops(content, along), PATH.format(*pair)


def _no_sharp(run: Run) -> str:
    command = f"'modpose volumes {in_shell(run.path)} -o FOLDER --cluster {CENTRES}'"
    if (run.path / CONTENT_MAPS).is_file():
        return f"The sharp maps in the run are of another fit; {command} computes new ones."
    if has_sharp_maps(run):
        return f"{command} computes sharp ones, and 'modpose report' then shows those."
    return ""


def _directions(run: Run, dataset: Dataset) -> Floats | None:
    if dataset.rotation is None:
        return None
    return directions_of(dataset.rotation, point_group(symmetry_of(run)))

"""Sections for models that draw the volumes of images with given poses."""

from __future__ import annotations

import numpy as np

from modpose.data.preprocess import fourier_crop
from modpose.plot import figures
from modpose.plot.html import Picture, Section
from modpose.plot.surface import HEIGHT, turning
from modpose.report.material import ReportData

SURFACE_BOX = 48
"""Side of the box in which surfaces are drawn, so that the page stays small."""


def beside_predictions(m: ReportData) -> Section | None:
    """Images beside the model's projections."""
    if len(m.posed) == 0:
        return None
    fig = figures.pairs(m.images[: len(m.posed)], m.posed, m.look, 4)
    return Section(
        "reconstructions",
        "Images and the model's projections",
        "Particles chosen at random: on the left the image as the model sees it, on the right the "
        "model's volume for it, projected in the given pose, moved by the given shift and "
        "filtered by the CTF.",
        "the projection lies on the particle in the image, with the same rings around it.",
        "projections beside the particle (poses or shifts of another convention), dark where the "
        "image is bright (inverted contrast: --invert), or the same for all images.",
        [Picture.of(fig, "reconstructions.png", "Images beside the projections of the model")],
    )


def conformations(m: ReportData) -> Section | None:
    """Volumes along content, and at the centres of k-means."""
    if m.volumes is None or m.volumes.walk is None or m.volumes.centres is None:
        return None
    pictures = [
        Picture.of(
            figures.volume_strip(m.volumes.draw(stops.z), stops.names, pixel_size=m.pixel_size),
            f"volumes-{name}.png",
            alt,
        )
        for stops, name, alt in (
            (m.volumes.walk, "walk", "Volumes along content"),
            (m.volumes.centres, "centres", "Volumes at the centres of k-means of content"),
        )
    ]
    sharp = m.volumes.sharp is not None
    which = "sharp maps, from all images near each content" if sharp else "maps of the model"
    no_sharp = f"{m.volumes.no_sharp}  " if m.volumes.no_sharp else ""
    return Section(
        "conformations",
        "Volumes along content",
        f"These are {which}.  {no_sharp}Above, {m.volumes.walked}; below, at the images nearest "
        "the centres of k-means, with the number of images of each.  Each column is a volume: its "
        "projection along z, its projection along y, and its central slice.  'modpose volumes' "
        "writes such volumes as maps.",
        "a domain that moves or a subunit that appears and disappears, while the rest stays.",
        "volumes that are all alike (content is not used: check its KL), that rotate as a whole "
        "(errors of the poses), or that differ in speckle (noise was learned).",
        pictures,
    )


def surface(m: ReportData) -> Section | None:
    """Surfaces of the volumes along content, to turn."""
    if m.volumes is None or m.volumes.walk is None:
        return None
    small, side = [], SURFACE_BOX
    for z in m.volumes.walk.z:  # one large volume at a time
        volume = np.asarray(m.volumes.draw(z[None]), np.float32)
        side = volume.shape[-1]
        small.append(fourier_crop(volume[:, None], min(side, SURFACE_BOX))[0, 0])
    box = min(side, SURFACE_BOX)
    size = "" if m.pixel_size is None else f" of {m.pixel_size * side / box:.3g} Å"
    coarse = f"  They are drawn in {box} voxels{size} a side." if box < side else ""
    return Section(
        "surface",
        "The surface, to turn",
        f"The {m.volumes.walked}.  The slider goes from one to the next.  Drag or use the arrow "
        f"keys to turn the surface, the wheel to zoom.  All are at one level, {HEIGHT:g} standard "
        f"deviations above the mean of their voxels.{coarse}",
        "one object without dust around it, of which a part moves.",
        "a ball, or dust: the level shows noise.",
        surfaces=turning(np.stack(small), m.volumes.walk.names),
    )

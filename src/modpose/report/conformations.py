"""Sections for models that draw the volumes of images with given poses."""

from __future__ import annotations

from modpose.outputs.volumes import along_component, at_clusters
from modpose.plot import figures
from modpose.plot.html import Picture, Section
from modpose.report.material import ReportData

STEPS = 7
CENTRES = 6


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
    """Volumes along the first principal component, and at the centres of k-means."""
    if m.volumes is None or m.z_dim == 0:
        return None
    walk = along_component(m.z, 1, STEPS)
    centres = at_clusters(m.z, min(CENTRES, len(m.z)), m.seed)
    pictures = [
        Picture.of(
            figures.volume_strip(m.volumes(stops.z), stops.names, pixel_size=m.pixel_size),
            f"volumes-{name}.png",
            alt,
        )
        for stops, name, alt in (
            (walk, "pc1", "Volumes along the first principal component of content"),
            (centres, "centres", "Volumes at the centres of k-means of content"),
        )
    ]
    return Section(
        "conformations",
        "Volumes along content",
        "Above, volumes along the first principal component of content, from the 5th to the 95th "
        "percentile; below, at the images nearest the centres of k-means, with the number of "
        "images of each.  Each column is a volume: its projection along z, its projection along y, "
        "and its central slice.  'modpose volumes' writes such volumes as maps.",
        "a domain that moves or a subunit that appears and disappears, while the rest stays.",
        "volumes that are all alike (content is not used: check its KL), that rotate as a whole "
        "(errors of the poses), or that differ in speckle (noise was learned).",
        pictures,
    )

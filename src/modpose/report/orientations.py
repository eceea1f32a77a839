"""The section on given poses: from where the images show the object."""

from __future__ import annotations

from modpose.alarms.views import sentence_about
from modpose.geometry.views import evenness
from modpose.plot.directions import draw_halves
from modpose.plot.figures import new_figure
from modpose.plot.html import Picture, Section
from modpose.report.material import ReportData


def orientations(m: ReportData) -> Section | None:
    """A map of the viewing directions, and what they leave out."""
    if m.volumes is None or m.volumes.directions is None:
        return None
    seen = m.volumes.directions
    fig = new_figure(3.6, 7.6)
    draw_halves(fig, fig.subplots(1, 2), seen, ("seen from z > 0", "seen from z < 0"))
    found = evenness(seen)
    about = sentence_about(found) or "The views are even enough."
    return Section(
        "orientations",
        "Orientations",
        "From where the images show the object, in its own frame: the direction of the beam, on "
        "equal-area maps of the two halves of the sphere (z in the middle, x to the right, y "
        f"upwards).  {about}",
        "all directions, or at least a band around the sphere: then images tell every direction of "
        "Fourier space.",
        "one or a few spots only (preferred orientation): maps are smeared along the beam there.",
        [Picture.of(fig, "orientations.png", "Map of the viewing directions")],
        ("quantity", "value"),
        [
            ("directions of Fourier space that hardly any image tells", f"{found.gap:.0%}"),
            ("the others are told as by even views of", f"{found.worth:.0%} of the images"),
        ],
    )

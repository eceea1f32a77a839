"""The sections of the report, with captions that describe good and bad results.

Each function makes a section from :class:`ReportData`, or returns None if the run lacks its data
(no pose, no labels, no truth).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from modpose.plot import figures, grids, scatter
from modpose.plot.html import Picture, Section
from modpose.report import pose_figures
from modpose.report.material import Integers, ReportData, sense_of_angle, subscript

THUMBNAILS = 2000
"""Most images shown on hover."""
DECODED_PIXELS = 600_000
"""Pixels to decode for the pictures on hover: enough for 375 pictures of 40 x 40."""


# --- training ---------------------------------------------------------------------------------


def learning(m: ReportData) -> Section | None:
    """Learning curves."""
    if len(m.metrics.get("epoch", [])) == 0:
        return None
    fig = figures.learning_curves(m.metrics)
    of_pose = "" if m.volumes is not None else "for the pose (KL of pose) and "
    return Section(
        "learning",
        "Learning curves",
        "The evidence lower bound (ELBO) measures how well the model explains an image, in nats. "
        f"It is the reconstruction term minus the information used {of_pose}for the content (KL "
        "of content). Validation images are not used for training.",
        "both ELBO curves flatten out close together, and the KL of content stays above zero.",
        "the validation curve falls (the model memorises noise) or still rises steeply (train "
        "longer), or the KL of content is zero (content is not used).",
        [Picture.of(fig, "learning-curves.png", "ELBO, reconstruction and KL terms by epoch")],
    )


# --- pictures ---------------------------------------------------------------------------------


def reconstructions(m: ReportData) -> Section | None:
    """Images beside posed and upright predictions."""
    count = len(m.posed)
    if count == 0:
        return None
    upright = m.decode(m.z[m.rows[:count]])
    fig = figures.comparison(m.images[:count], m.posed, upright, m.look, 1 if m.wide else 4)
    return Section(
        "reconstructions",
        "Images and reconstructions",
        "Images chosen at random. From left to right: the image as the model sees it, the "
        "model's noise-free version in the inferred pose, and the same object upright. "
        "All images share one scale of brightness, and so do all predictions. "
        + sense_of_angle(m.look.origin),
        "the posed version lies on the object in the image, and all upright versions have the "
        "same orientation and differ only where the objects differ.",
        "blurred blobs or rings (the pose was not found), upright versions with different "
        "orientations, or speckle (noise was learned).",
        [Picture.of(fig, "reconstructions.png", "Images, posed and upright reconstructions")],
    )


def average(m: ReportData) -> Section | None:
    """Mean image before and after alignment."""
    if not m.has_pose or len(m.rows) == 0:
        return None
    before = m.images.mean(0, dtype=np.float64)
    after = grids.aligned_average(m.images, *m.pose_of(m.rows))
    typical = m.decode(m.z[m.rows[:100]]).mean(0) if m.z_dim else m.decode(m.z[:1])[0]
    fig = figures.titled_pictures(
        [before, after, typical],
        ["before alignment", "after alignment", "model, mean of upright"],
        m.look.origin,
        3,
        [None, None, m.look.model],
        m.pixel_size,
    )
    return Section(
        "average",
        "Average before and after alignment",
        f"The mean of {len(m.rows):,} images without alignment, and after each was rotated and "
        "shifted upright by its inferred pose. The second picture uses only the poses of the "
        "model, so its details are details of the data. Each average has its own scale of "
        "brightness.",
        "a round blur on the left, a sharp object in the middle.",
        "the middle is as round and blurred as the left (poses not found), or shows an object "
        "with rings or several copies of itself (poses found only up to a symmetry).",
        [Picture.of(fig, "average.png", "Average before alignment, after it, and of the model")],
    )


def clusters(m: ReportData) -> Section | None:
    """Aligned average of each cluster."""
    names = None if m.columns is None else m.columns.get("cluster")
    if names is None or not m.flat or len(m.rows) == 0:
        return None
    own = names[m.rows]
    found = [k for k in np.unique(own) if k == k and str(k) != "-1"][:24]
    if len(found) < 2:
        return None
    averages, titles = [], []
    for k in found:
        chosen = np.flatnonzero(own == k)
        pose = m.pose_of(m.rows[chosen])
        averages.append(grids.aligned_average(m.images[chosen], *pose))
        total = int((names == k).sum())
        titles.append(f"cluster {k:g}: {total:,}" if np.isreal(k) else f"{k}: {total:,}")
    columns, size = min(6, len(found)), m.pixel_size
    fig = figures.titled_pictures(averages, titles, m.look.origin, columns, pixel_size=size)
    return Section(
        "clusters",
        "Clusters",
        "The average of each cluster of similar content after alignment, with its number of "
        "images. These correspond to 2-D class averages. Each has its own grey scale.",
        "each average is sharp, and the averages show different objects or conformations.",
        "averages that differ only in rotation or position (content encodes the pose), or "
        "clusters of a few odd images (junk; remove them with 'modpose select').",
        [Picture.of(fig, "clusters.png", "Aligned average of each cluster")],
    )


# --- walks through content --------------------------------------------------------------------


def manifold(m: ReportData) -> Section | None:
    """Predictions on a regular walk through content."""
    if m.z_dim == 0:
        return None
    n = 4 if m.wide else 12
    pictures = m.decode(grids.manifold_codes(m.z, n))
    names = ["z₀ (quantiles of the prior)", "z₁ (quantiles of the prior)"][: m.z_dim]
    what = "content" if m.z_dim <= 2 else "the first two principal components of content"
    if m.z_dim > 2:
        names = ["first principal component (s.d.)", "second principal component (s.d.)"]
    fig = figures.manifold(pictures, n, m.look, names)
    return Section(
        "manifold",
        "The manifold of content",
        f"The model's upright pictures as {what} changes in steps of equal probability under the "
        "prior (quantiles of the normal distribution). Follow a row or a column to see the object "
        "change.",
        "one object that changes smoothly and plausibly: a hinge that closes, a subunit that "
        "appears and disappears.",
        "the object rotates or shifts as a whole (content encodes the pose), or nothing changes "
        "(content is not used).",
        [Picture.of(fig, "manifold.png", f"Predictions as {what} changes")],
    )


def traversals(m: ReportData) -> Section | None:
    """One row a latent."""
    if m.z_dim < 2:
        return None
    chosen, n = grids.busiest_latents(m.z), 3 if m.wide else 9
    pictures = np.stack([m.decode(grids.traversal_codes(m.z, d, n)) for d in chosen])
    names = [f"z{subscript(d)}  (s.d. {m.z[:, d].std():.2f})" for d in chosen]
    fig = figures.traversals(pictures, names, m.look)
    some = "" if len(chosen) == m.z_dim else f" The {len(chosen)} with the widest spread are shown."
    return Section(
        "traversals",
        "One latent at a time",
        "Each row changes one latent from the 2nd to the 98th percentile of the data; the others "
        "stay at their median. The number after its name is the standard deviation of that latent "
        "over the data: near 1 it is fully used, near 0 not at all." + some,
        "rows differ from one another, and a latent with a small spread changes nothing.",
        "all rows look alike, or a latent rotates or shifts the object as a whole.",
        [Picture.of(fig, "traversals.png", "Predictions as each latent changes alone")],
    )


def interpolations(m: ReportData) -> Section | None:
    """From one particle's content to another's."""
    if m.z_dim == 0 or len(m.rows) < 4:
        return None
    pairs = grids.distant_pairs(m.z[m.rows], 5, m.seed)
    n = 2 if m.wide else 8
    codes = [grids.interpolation_codes(m.z[m.rows[a]], m.z[m.rows[b]], n) for a, b in pairs]
    paths = m.decode(np.concatenate(codes)).reshape(len(pairs), n, *m.images.shape[1:])
    first, last = (m.images[[pair[k] for pair in pairs]] for k in (0, 1))
    fig = figures.interpolations(first, paths, last, m.look)
    return Section(
        "interpolations",
        "From one image to another",
        "Each row starts with one real image and ends with another of distant content. Between "
        "them are the model's upright pictures on the straight line between the two contents.",
        "every step looks like a real object, and the change is gradual.",
        "the middle is a blend of the two ends and unlike any object: no content lies between the "
        "two (they are classes and not a continuum), or the latent space has holes.",
        [Picture.of(fig, "interpolations.png", "Predictions between pairs of images")],
    )


def samples(m: ReportData) -> Section | None:
    """Draws from the prior."""
    if m.z_dim == 0:
        return None
    rng = np.random.default_rng(m.seed)
    columns = 4 if m.wide else 12
    pictures = m.decode(rng.standard_normal((4 * columns, m.z_dim)))
    fig = figures.sheet(pictures, columns, m.look)
    return Section(
        "samples",
        "Samples from the model",
        "The model's upright pictures of random content from the prior, without any data.",
        "samples look like the upright versions of real images, with the same variety.",
        "samples unlike any image: the content of the data fills only part of the prior.",
        [Picture.of(fig, "samples.png", "Predictions for random content")],
    )


# --- content ----------------------------------------------------------------------------------


def content(m: ReportData, points: Integers) -> Section | None:
    """Scatter of content; ``points`` are rows of the arrays, the first ones those of ``rows``."""
    if m.z_dim == 0 or len(points) < 3:
        return None
    angle = None if m.angle_deg is None else m.angle_deg[points]
    views = scatter.content_views(m.z[points], m.seed, angle, m.elbo[points])
    colourings = _colourings(m, points)
    shown = min(len(m.rows), THUMBNAILS)
    drawn = min(shown, max(25, DECODED_PIXELS // (m.shape[0] * m.shape[1])))
    thumbnails = [m.look.image(m.images[:shown])] if shown else []
    if shown and m.volumes is None:
        thumbnails.append(m.look.prediction(m.decode(m.z[m.rows[:drawn]])))
    data = scatter.interactive(views, colourings, m.index[points], thumbnails)
    stills = [
        Picture.of(
            scatter.still(view, colourings[0]),
            f"content-{k + 1}.png",
            f"{view.name}, coloured by {colourings[0].name}",
        )
        for k, view in enumerate(views)
    ]
    good = "labels or clusters form groups or a gradient"
    bad = "odd images form a distant island (junk)."
    if m.angle_deg is not None:
        good += (
            ", and the colours of the inferred angle are mixed at random: content does not depend "
            "on the pose"
        )
        bad = f"the angle's colour forms sectors or bands (content encodes the pose), or {bad}"
    return Section(
        "content",
        "Content of every image",
        _content_caption(m, len(points), shown, any(v.name == "t-SNE" for v in views)),
        f"{good}.",
        bad,
        stills,
        scatter=data,
    )


def _content_caption(m: ReportData, points: int, thumbnails: int, tsne: bool) -> str:
    which = "all images" if points == len(m.z) else f"{points:,} of {len(m.z):,} images"
    caption = "" if m.volumes is None else f"{m.volumes.unit} "
    caption += f"One point per image ({which}). Choose the projection and the colour."
    if thumbnails:
        upright = " and, for some, the model's upright version" if m.volumes is None else ""
        caption += (
            f" Point at a dot to see its image{upright} (pictures of {thumbnails:,} points are in "
            "this page)."
        )
    if tsne:
        caption += " t-SNE keeps neighbours together; its distances and areas mean little."
    return caption


def _colourings(m: ReportData, points: Integers) -> list[scatter.Colouring]:
    """Return every column to colour by, the most informative first."""
    found: list[scatter.Colouring | None] = []
    for name, column in (m.columns or {}).items():
        own = column[points]
        numbers = scatter.Colouring(name, "number", own) if own.dtype.kind in "iuf" else None
        found.append(scatter.categories(name, own) or numbers)
    if m.truth is not None and "hinge_deg" in m.truth:
        hinge = m.truth["hinge_deg"][points]
        found.append(scatter.Colouring("true hinge (degrees)", "number", hinge))
    if m.angle_deg is not None:
        angle = m.angle_deg[points]
        found.append(scatter.Colouring("inferred angle (degrees)", "cyclic", angle))
    if m.mirrored is not None:
        found.append(scatter.categories("mirrored", m.mirrored[points].astype(int)))
    if m.scale is not None:
        found.append(scatter.Colouring("scale", "number", m.scale[points]))
    if m.shift_px is not None:
        length = m.unit.per_pixel * np.linalg.norm(m.shift_px[points], axis=1)
        name = f"length of the shift ({m.unit.name})"
        found.append(scatter.Colouring(name, "number", length))
    found.append(scatter.Colouring("ELBO (nats)", "number", m.elbo[points]))
    for name, column in ({} if m.further is None else m.further(points)).items():
        if name not in (m.columns or {}):
            found.append(_colouring(name, column))
    return [colouring for colouring in found if colouring is not None]


def _colouring(name: str, column: NDArray[Any]) -> scatter.Colouring | None:
    """Colour by a column of any kind; None if it has one value, or too many texts."""
    if column.dtype.kind == "f":
        known = column[np.isfinite(column)]
        varies = len(known) > 0 and known.min() < known.max()
        return scatter.Colouring(name, "number", column.astype(float)) if varies else None
    found = scatter.categories(name, column)
    if found is None and column.dtype.kind in "iu":
        return scatter.Colouring(name, "number", column.astype(float))
    return found if found is not None and len(found.categories) > 1 else None


# --- pose -------------------------------------------------------------------------------------


def pose(m: ReportData) -> Section | None:
    """Histograms of angle and shift."""
    pictures = []
    if m.angle_deg is not None:
        fig = pose_figures.angle_histogram(m.angle_deg, m.angle_std_deg, m.look.origin)
        pictures.append(Picture.of(fig, "angles.png", "Histogram of the inferred angles"))
    if m.shift_px is not None:
        unit, size = m.unit
        prior = None if m.shift_prior_px is None else size * m.shift_prior_px
        fig = pose_figures.shift_histograms(size * m.shift_px, prior, m.look.origin, unit)
        pictures.append(Picture.of(fig, "shifts.png", "Histogram of the inferred shifts"))
    if m.scale is not None:
        fig = pose_figures.scale_histogram(m.scale)
        pictures.append(Picture.of(fig, "scales.png", "Histogram of the inferred scales"))
    if not pictures and m.mirrored is None:
        return None
    mirrored = ""
    if m.mirrored is not None:
        share = m.mirrored.mean()
        mirrored = f"{share:.0%} of the images show the object mirrored (before the rotation). "
    return Section(
        "pose",
        "Inferred poses",
        "Inferred shifts and rotations of the objects. " + mirrored + sense_of_angle(m.look.origin),
        "in-plane angles of particles are spread evenly over the circle, with an uncertainty of "
        "a few degrees, and shifts form one spot about the centre.",
        "spikes of the angle (the grid of pixels favours some angles, or training ended in a local "
        "optimum), an uncertainty of tens of degrees, or shifts far from the centre (neighbours "
        "in the box were taken for the object, or the box is too small).",
        pictures,
    )

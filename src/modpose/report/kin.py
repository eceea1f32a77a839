"""Sections on known classes: latent map, requested and learned affinities, pose channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from modpose.plot import figures, scatter
from modpose.plot.figures import INK, SMALL, TEXT, new_figure, style
from modpose.plot.grids import Floats
from modpose.plot.html import Picture, Section

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from modpose.report.material import ReportData

WRITTEN_NAMES = 40
"""Largest number of classes that are named beside a matrix."""


def class_cosines(z: Floats, labels: NDArray[np.str_], names: tuple[str, ...]) -> Floats:
    """(K, K) mean cosine between contents (N, k) of two classes, without self-pairs."""
    unit = z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
    share = (labels[:, None] == np.array(names)).astype(float)
    count = share.sum(0)
    total = (share.T @ unit) @ (unit.T @ share)
    pairs = np.outer(count, count)
    same = np.diag_indices(len(names))
    total[same] -= count
    pairs[same] -= count
    return np.where(pairs > 0, total / np.maximum(pairs, 1), np.nan)


# --- sections ---------------------------------------------------------------------------------


def classes(m: ReportData) -> Section | None:
    """Content coloured by class, with training and validation marked."""
    kin = m.kin
    if kin is None or m.z_dim == 0:
        return None
    known = np.flatnonzero(kin.labels != "")
    known = np.random.default_rng(m.seed).permutation(known)[:3000]
    if len(known) < 3:
        return None
    colouring = scatter.categories("class", kin.labels[known])
    if colouring is None:
        return None
    views = scatter.content_views(m.z[known], m.seed, None, m.elbo[known])
    view = next((view for view in views if view.name == "t-SNE"), views[0])
    fig = _marked(view, colouring, kin.held_out[known])
    return Section(
        "classes",
        "Known classes in the map",
        "Content coloured by known class. Dots were trained on; rings were held out for "
        "validation. " + ("t-SNE keeps neighbours together; its distances and areas mean little."),
        "rings lie among the dots of their own colour, and similar classes lie side by side.",
        "rings lie apart from dots (the map was memorised), or colours are mixed.",
        [Picture.of(fig, "classes.png", "Content coloured by class, validation marked by rings")],
    )


def affinities(m: ReportData) -> Section | None:
    """Requested and learned cosines."""
    kin = m.kin
    if kin is None or kin.affinity is None:
        return None
    names = tuple(name for name in kin.affinity.names if (kin.labels == name).any())
    if len(names) < 2:
        return None
    asked = kin.affinity.subset(names).values
    held = kin.held_out & (kin.labels != "")
    rows = [("training images", *_gaps(m.z, kin.labels, ~kin.held_out, names, asked))]
    if held.sum() > 1:
        rows.append(("validation images", *_gaps(m.z, kin.labels, held, names, asked)))
    got = class_cosines(m.z[~kin.held_out], kin.labels[~kin.held_out], names)
    fig = _matrices(asked, got, names)
    return Section(
        "affinities",
        "Requested and learned affinities",
        "Left, the affinity matrix that the model was trained on; right, the mean cosine between "
        "the contents of images of two classes (without self-pairs).",
        "the two look alike, and the diagonal of the right one is near 1: every class is one "
        "direction of content.",
        "a pale diagonal (a class is scattered: train longer, or raise gamma), or classes that "
        "are closer than requested (gamma is small compared with the other terms, or no cosines "
        "can match this matrix).",
        [Picture.of(fig, "affinities.png", "Affinity matrix and mean latent cosines by class")],
        ("images", "mean gap between classes", "mean cosine within a class"),
        [(name, f"{gap:.3f}", f"{within:.3f}") for name, gap, within in rows],
    )


def _gaps(
    z: Floats,
    labels: NDArray[np.str_],
    chosen: NDArray[np.bool_],
    names: tuple[str, ...],
    asked: Floats,
) -> tuple[float, float]:
    got = class_cosines(z[chosen], labels[chosen], names)
    off = ~np.eye(len(names), dtype=bool)
    gap = np.abs(got - asked)[off]
    within = np.diag(got)
    return _mean(gap), _mean(within)


def _mean(values: Floats) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def pose_traversals(m: ReportData) -> Section | None:
    """Effect of each number of the pose channel on one object."""
    kin = m.kin
    if kin is None or kin.channel is None or kin.draw is None:
        return None
    n = 3 if m.wide else 9
    start = int(m.rows[0]) if len(m.rows) else 0
    width = kin.channel.shape[1]
    pictures, names = [], []
    for k in range(min(width, 6)):
        channel = np.repeat(kin.channel[start][None], n, axis=0)
        low, high = np.percentile(kin.channel[:, k], [2, 98])
        channel[:, k] = np.linspace(low, high, n)
        pictures.append(kin.draw(np.repeat(m.z[start][None], n, axis=0), channel))
        names.append(f"pose {k}  (s.d. {kin.channel[:, k].std():.2f})")
    fig = figures.traversals(np.stack(pictures), names, m.look)
    return Section(
        "pose-channel",
        "The pose channel",
        f"One image's content and pose channel (image {m.index[start]}); each row changes one "
        "number of the channel from the 2nd to the 98th percentile of the data.",
        "the object stays the same and rotates or moves.",
        "nothing changes (content encodes the pose), or the object becomes another.",
        [Picture.of(fig, "pose-channel.png", "Predictions as the pose channel changes")],
    )


def corners(m: ReportData) -> Section | None:
    """Mixtures of the contents of four images."""
    if m.z_dim == 0 or len(m.rows) < 4:
        return None
    kin = m.kin
    chosen = _four(m)
    n = 4 if m.wide else 8
    codes = interpolation_grid(m.z[chosen], n)
    if kin is not None and kin.channel is not None and kin.draw is not None:
        pictures = kin.draw(codes, interpolation_grid(kin.channel[chosen], n))
    else:
        pictures = m.decode(codes)
    fig = figures.sheet(pictures, n, m.look)
    which = "of any class"
    if kin is not None and (kin.labels[chosen] != "").all():
        which = "of classes " + ", ".join(kin.labels[chosen])
    return Section(
        "corners",
        "Among four images",
        f"At the corners, predictions for the content of four images {which}; between them, "
        "evenly spaced mixtures of the four contents.",
        "every picture looks like a real object, and neighbours differ little.",
        "the middle is a blur unlike any object: the space between the four is empty.",
        [Picture.of(fig, "corners.png", "Predictions between the contents of four images")],
    )


def _four(m: ReportData) -> NDArray[np.int64]:
    """Choose four images, of different classes if these are known, else far from each other."""
    candidates = m.rows[:200]
    if m.kin is not None:
        _, first = np.unique(m.kin.labels[candidates], return_index=True)
        if len(first) >= 4:
            return np.asarray(candidates[np.sort(first)[:4]])
    chosen = [int(candidates[0])]
    while len(chosen) < 4:
        away = np.linalg.norm(m.z[candidates][:, None] - m.z[chosen], axis=-1).min(1)
        chosen.append(int(candidates[int(away.argmax())]))
    return np.array(chosen)


# --- figures ----------------------------------------------------------------------------------


def _marked(
    view: scatter.View, colouring: scatter.Colouring, held_out: NDArray[np.bool_]
) -> Figure:
    fig = new_figure(5.0, 6.6)
    ax = style(fig.subplots(), view.x_name, view.y_name)
    size = float(np.clip(9000 / max(len(view.x), 1), 4, 20))
    for k, name in enumerate(colouring.categories):
        colour = scatter.CATEGORY_COLOURS[k % len(scatter.CATEGORY_COLOURS)]
        own = colouring.values == k
        x, y = view.x, view.y
        dots, rings = own & ~held_out, own & held_out
        ax.scatter(x[dots], y[dots], size, colour, label=name, lw=0, alpha=0.7)
        ax.scatter(x[rings], y[rings], 2.5 * size, "none", edgecolors=colour, lw=1.1)
    ax.legend(
        frameon=False, fontsize=SMALL, labelcolor=INK, loc="center left", bbox_to_anchor=(1, 0.5)
    )
    return fig


def _matrices(asked: Floats, got: Floats, names: tuple[str, ...]) -> Figure:
    fig = new_figure(4.4, 9.0)
    lowest = -1.0 if min(np.nanmin(asked), np.nanmin(got)) < 0 else 0.0
    colours = "RdBu_r" if lowest < 0 else "Blues"
    axes = fig.subplots(1, 2)
    for ax, values, title in zip(axes, (asked, got), ("asked", "got"), strict=True):
        image = ax.imshow(values, vmin=lowest, vmax=1.0, cmap=colours, interpolation="nearest")
        style(ax, title=title)
        shown = list(names) if len(names) <= WRITTEN_NAMES else []
        ax.set_xticks(range(len(shown)), shown, rotation=90)
        ax.set_yticks(range(len(shown)), shown)
        if len(names) <= 12:
            for i, row in enumerate(values):
                for j, value in enumerate(row):
                    dark = abs(value) > 0.6
                    ax.text(
                        j,
                        i,
                        f"{value:.2f}".replace("-", "−"),
                        ha="center",
                        va="center",
                        fontsize=TEXT - 2,
                        color="white" if dark else INK,
                    )
    fig.colorbar(image, ax=axes, shrink=0.8).ax.tick_params(labelsize=SMALL)
    return fig


def interpolation_grid(corner: Floats, n: int) -> Floats:
    """(n * n, k) bilinear mixtures of four points (4, k), in reading order."""
    step = np.linspace(0, 1, n)
    right, down = (part.ravel() for part in np.meshgrid(step, step))
    rows = [(1 - right) * (1 - down), right * (1 - down), (1 - right) * down, right * down]
    return np.asarray(np.stack(rows, 1) @ corner)

"""The report's figures, each drawn from plain arrays with matplotlib's object interface.

Pictures come as (N, H, W) or (N, H, W, 3); ``levels`` are the values drawn black and white;
``origin`` says whether row 0 is drawn at the top (natural images) or at the bottom (EM images).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from modpose.plot.grids import (
    Floats,
    Origin,
    drawn,
    grey_range,
    mosaic,
    normal_quantiles,
    to_unit,
)
from modpose.plot.scale_bar import scale_bar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, BLUE, ORANGE, RULE = "#1f2933", "#6b7785", "#24609f", "#c4552d", "#d8dde3"
WIDTH = 9.6
"""Width of a full figure, inches."""
DPI = 150
TEXT = 9.5
SMALL = 8.5
STRIP_ROWS = ("along z", "along y", "slice")
"""Rows of a strip of volumes: means along two axes, and the section z = D // 2."""


@dataclass(frozen=True)
class DisplayStyle:
    """How pictures are drawn: grey levels of data and of model, where row 0 is, Å per pixel."""

    data: tuple[float, float]
    model: tuple[float, float]
    origin: Origin
    pixel_size: float | None = None

    def image(self, pictures: Floats) -> Floats:
        """Real images, ready to draw from the top in [0, 1]."""
        return drawn(to_unit(pictures, self.data), self.origin)

    def prediction(self, pictures: Floats) -> Floats:
        """Pictures of the model, ready to draw from the top in [0, 1]."""
        return drawn(to_unit(pictures, self.model), self.origin)


# --- helpers ----------------------------------------------------------------------------------


def new_figure(height: float, width: float = WIDTH, constrained: bool = True) -> Figure:
    """Return an empty figure (size in inches) outside matplotlib's global state."""
    from matplotlib.figure import Figure

    return Figure((width, height), dpi=DPI, layout="constrained" if constrained else None)


def style(ax: Axes, x: str = "", y: str = "", title: str = "") -> Axes:
    """Label axes and apply the report's style."""
    ax.set_xlabel(x, fontsize=TEXT, color=INK)
    ax.set_ylabel(y, fontsize=TEXT, color=INK)
    ax.set_title(title, fontsize=TEXT + 1, color=INK, loc="left")
    ax.tick_params(labelsize=SMALL, colors=MUTED, length=3)
    for name, spine in ax.spines.items():
        spine.set_visible(name in ("left", "bottom", "polar"))
        spine.set_color(RULE)
    return ax


def legend(ax: Axes) -> None:
    """Add a legend without a frame."""
    ax.legend(frameon=False, fontsize=SMALL, labelcolor=INK)


def colour_bar(fig: Figure, drawn: Any, axes: Any, name: str) -> None:
    """Add a bar that tells the colours of what is drawn on axes."""
    bar = fig.colorbar(drawn, ax=axes, shrink=0.8)
    bar.set_label(name, fontsize=TEXT, color=INK)
    bar.ax.tick_params(labelsize=SMALL, colors=MUTED)
    bar.outline.set_visible(False)


def _show(ax: Axes, picture: Floats) -> None:
    ax.imshow(picture, cmap="gray", vmin=0, vmax=1)
    ax.set_axis_off()


def _say(ax: Axes, x: float, y: float, text: str, **place: Any) -> None:
    options: dict[str, Any] = {"fontsize": TEXT, "color": INK, "ha": "center", "va": "bottom"}
    ax.text(x, y, text, **(options | place))


def _sheet(
    tiles: Floats,
    columns: int,
    gap: int,
    width: float = WIDTH,
    margins: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0),
) -> tuple[Figure, Axes]:
    """Draw a mosaic; margins are left, bottom, right, top in inches.  Data units are pixels."""
    sheet = mosaic(tiles, columns, gap)
    left, bottom, right, top = margins
    inner = width - left - right
    tall = inner * sheet.shape[0] / sheet.shape[1]
    height = tall + bottom + top
    fig = new_figure(height, width, constrained=False)
    ax = fig.add_axes((left / width, bottom / height, inner / width, tall / height))
    _show(ax, sheet)
    return fig, ax


# --- training ---------------------------------------------------------------------------------


def learning_curves(metrics: Mapping[str, Floats]) -> Figure:
    """ELBO, reconstruction and the two KL terms against the epoch, training and validation.

    Parameters
    ----------
    metrics
        Columns of equal length: ``epoch``; ``elbo``, ``recon``, ``kl_pose``, ``kl_content`` and
        the same with ``val_`` before; one that is missing is left out, and a KL of pose that is
        zero throughout (of given poses) has no panel.
    """
    fig = new_figure(5.6)
    panels = {
        "elbo": "ELBO (higher is better)",
        "recon": "Reconstruction",
        "kl_pose": "KL of pose",
        "kl_content": "KL of content",
    }
    if "kl_pose" in metrics and not np.any(metrics["kl_pose"]):
        del panels["kl_pose"]
    epoch = np.asarray(metrics["epoch"], float)
    axes = list(fig.subplots(2, 2).flat)
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    for ax, (key, title) in zip(axes, panels.items(), strict=False):
        style(ax, "epoch", "nats per image", title)
        ax.grid(axis="y", color=RULE, linewidth=0.6)
        ax.set_axisbelow(True)
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        ax.ticklabel_format(axis="y", useOffset=False)
        drawn_values = []
        for name, label, colour in ((key, "training", BLUE), (f"val_{key}", "validation", ORANGE)):
            values = np.asarray(metrics.get(name, np.full(len(epoch), np.nan)), float)
            if np.isfinite(values).any():
                marker = "o" if len(epoch) < 15 else None
                ax.plot(epoch, values, color=colour, label=label, lw=1.6, marker=marker, ms=3.5)
                drawn_values.append(values)
        if drawn_values:
            legend(ax)
            if key in ("elbo", "recon"):
                _hide_first_climb(ax, np.stack(drawn_values))
    return fig


def _hide_first_climb(ax: Axes, curves: Floats) -> None:
    """Scale a panel to the later epochs: cut values below that at the end of the first tenth."""
    late = curves[:, max(len(curves[0]) // 10, min(2, len(curves[0]) - 1)) :]
    late = late[np.isfinite(late)]
    if len(curves[0]) >= 10 and late.size and late.max() > late.min():
        pad = 0.06 * (late.max() - late.min())
        ax.set_ylim(late.min() - pad, late.max() + pad)


# --- pictures ---------------------------------------------------------------------------------


def comparison(
    images: Floats, posed: Floats, upright: Floats, look: DisplayStyle, blocks: int
) -> Figure:
    """Image, posed reconstruction and upright prediction side by side, in ``blocks`` of rows."""
    n = len(images)
    triples = np.stack(
        [look.image(images), look.prediction(posed), look.prediction(upright)], axis=1
    )
    height, width = triples.shape[2:4]
    gap, space = max(1, width // 24), max(3, width // 5)
    rows = -(-n // blocks)
    columns = []
    for block in range(blocks):
        part = triples[block * rows : (block + 1) * rows]
        if len(part) == 0:
            continue
        blank = np.ones((rows - len(part), *part.shape[1:]), part.dtype)
        columns.append(mosaic(np.concatenate([part, blank]).reshape(-1, *part.shape[2:]), 3, gap))
    fig, ax = _sheet(np.stack(columns), len(columns), space, margins=(0, 0, 0, 0.3))
    for block in range(len(columns)):
        start = block * (columns[0].shape[1] + space)
        for k, title in enumerate(("image", "posed", "upright")):
            x = start + k * (width + gap) + width / 2
            _say(ax, x, -height * 0.06 - 0.5, title, fontsize=SMALL)
    scale_bar(ax, look.pixel_size, height)
    return fig


def pairs(images: Floats, posed: Floats, look: DisplayStyle, columns: int) -> Figure:
    """Draw image and prediction side by side, ``columns`` pairs per row."""
    couples = np.stack([look.image(images), look.prediction(posed)], axis=1)
    wide = [mosaic(couple, 2, 1) for couple in couples]
    fig, ax = _sheet(np.stack(wide), columns, max(3, images.shape[2] // 5))
    scale_bar(ax, look.pixel_size, images.shape[1])
    return fig


def volume_strip(
    volumes: Floats, names: Sequence[str], most: int = 8, pixel_size: float | None = None
) -> Figure:
    """Draw volumes (S, D, H, W), one per column: means along z and y, and the central slice.

    All share one grey scale a row; at most ``most`` stand side by side.  The rows are named at the
    left.  ``pixel_size`` (Å) draws a scale bar.
    """
    looks = [volumes.mean(1), volumes.mean(2), volumes[:, volumes.shape[1] // 2]]
    tiles = np.stack([drawn(to_unit(look, grey_range(look, 0.1)), "lower") for look in looks])
    side = tiles.shape[-1]
    parts = [tiles[:, i : i + most] for i in range(0, len(volumes), most)]
    columns = min(most, len(volumes))
    blank = np.ones((3, columns - parts[-1].shape[1], *tiles.shape[2:]), tiles.dtype)
    parts[-1] = np.concatenate([parts[-1], blank], axis=1)
    blocks = [mosaic(part.reshape(-1, side, side), columns, 1) for part in parts]
    space = max(4, side // 4)
    left, step = 0.6, blocks[0].shape[0] + space
    width = min(WIDTH, 1.6 * columns + left)
    fig, ax = _sheet(np.stack(blocks), 1, space, width, (left, 0, 0, 0.3))
    for row, name in enumerate(STRIP_ROWS * len(blocks)):
        y = row // 3 * step + row % 3 * (side + 1) + side / 2
        _say(ax, -0.06 * side, y, name, ha="right", va="center", fontsize=SMALL)
    for i, name in enumerate(names):
        x = (i % most) * (side + 1) + side / 2
        y = (i // most) * step - 0.06 * side
        _say(ax, x, y, name, fontsize=min(SMALL, 14 * SMALL / max(14, len(name))))
    scale_bar(ax, pixel_size, side)
    return fig


def sheet(pictures: Floats, columns: int, look: DisplayStyle, width: float = WIDTH) -> Figure:
    """Predictions in reading order."""
    gap = max(1, pictures.shape[2] // 24)
    fig, ax = _sheet(look.prediction(pictures), columns, gap, width)
    scale_bar(ax, look.pixel_size, pictures.shape[1])
    return fig


def manifold(pictures: Floats, columns: int, look: DisplayStyle, names: Sequence[str]) -> Figure:
    """Draw predictions on a grid of quantiles; ``names`` of the axis to the right [and upwards].

    The walk is :func:`modpose.plot.grids.manifold_codes`; ticks are standard normal quantiles.
    """
    rows = len(pictures) // columns
    side, high = pictures.shape[2], pictures.shape[1]
    two = len(names) > 1
    width = min(WIDTH, 0.62 * columns * side / high + 1.0) if two else WIDTH
    margins = (0.6 if two else 0.02, 0.55, 0.02, 0.05)
    fig, ax = _sheet(look.prediction(pictures), columns, 0, width, margins)
    ax.set_axis_on()
    style(ax, names[0], names[1] if two else "")
    for spine in ax.spines.values():
        spine.set_visible(False)
    across, up = normal_quantiles(columns), normal_quantiles(rows)
    step = max(1, columns // 9)
    ax.set_xticks(np.arange(columns)[::step] * side + side / 2 - 0.5, _ticks(across[::step]))
    places = np.arange(rows)[::-1][::step] * high + high / 2 - 0.5 if two else []
    ax.set_yticks(places, _ticks(up[::step]) if two else [])
    scale_bar(ax, look.pixel_size, high)
    return fig


def _ticks(values: Floats) -> list[str]:
    return [f"{v:.1f}".replace("-0.0", "0.0").replace("-", "−") for v in values]


def interpolations(starts: Floats, paths: Floats, ends: Floats, look: DisplayStyle) -> Figure:
    """Draw rows of: a real image, predictions on the line between two contents, a real image.

    ``starts`` and ``ends`` are (P, H, W[, 3]); ``paths`` (P, n, H, W[, 3]).
    """
    count, n = paths.shape[:2]
    walk = look.prediction(paths.reshape(-1, *paths.shape[2:])).reshape(paths.shape)
    first, last = look.image(starts)[:, None], look.image(ends)[:, None]
    blank = np.ones_like(first)[:, :, :, : max(2, paths.shape[3] // 6)]
    rows = [
        np.concatenate([*first[i], *blank[i], *walk[i], *blank[i], *last[i]], axis=1)
        for i in range(count)
    ]
    gap = max(2, paths.shape[2] // 16)
    fig, ax = _sheet(np.stack(rows), 1, gap, margins=(0, 0, 0, 0.28))
    side, step, y = paths.shape[3], blank.shape[3], -0.06 * paths.shape[2] - 0.5
    _say(ax, side / 2, y, "image", fontsize=SMALL)
    _say(ax, side + step + n * side / 2, y, "model, upright, from one to the other", fontsize=SMALL)
    _say(ax, side * (n + 1.5) + 2 * step, y, "image", fontsize=SMALL)
    scale_bar(ax, look.pixel_size, paths.shape[2])
    return fig


def traversals(pictures: Floats, names: Sequence[str], look: DisplayStyle) -> Figure:
    """Draw one row per latent: (K, n, H, W[, 3]) predictions as only that latent grows."""
    n, height = pictures.shape[1:3]
    tiles = look.prediction(pictures.reshape(-1, *pictures.shape[2:]))
    gap = max(1, height // 24)
    width = min(WIDTH, 0.95 * n * pictures.shape[3] / height + 1.1)
    fig, ax = _sheet(tiles, n, gap, width, (1.05, 0, 0, 0.02))
    for row, name in enumerate(names):
        y = row * (height + gap) + height / 2
        _say(ax, -0.12 * height, y, name, ha="right", va="center", fontsize=SMALL)
    scale_bar(ax, look.pixel_size, height)
    return fig


def titled_pictures(
    pictures: Sequence[Floats],
    titles: Sequence[str],
    origin: Origin,
    columns: int,
    levels: Sequence[tuple[float, float] | None] | None = None,
    pixel_size: float | None = None,
) -> Figure:
    """Draw a few large pictures (averages) with a title above.

    ``levels`` are black and white of each; a picture with None gets its own grey scale.
    ``pixel_size`` (Å) draws a scale bar into the first.
    """
    levels = [None] * len(pictures) if levels is None else levels
    rows = -(-len(pictures) // columns)
    aspect = pictures[0].shape[0] / pictures[0].shape[1]
    cell = min(2.9, WIDTH / columns)
    fig = new_figure(rows * (cell * aspect + 0.3), cell * columns)
    axes = np.atleast_1d(fig.subplots(rows, columns)).ravel()
    for ax in axes[len(pictures) :]:
        ax.set_axis_off()
    for ax, picture, title, level in zip(axes, pictures, titles, levels, strict=False):
        unit = to_unit(picture, level or grey_range(picture, 0.2))
        _show(ax, drawn(unit[None], origin)[0])
        ax.set_title(title, fontsize=TEXT, color=INK)
    scale_bar(axes[0], pixel_size, pictures[0].shape[0])
    return fig


# --- truth ------------------------------------------------------------------------------------


def error_histogram(error: Floats, name: str, unit: str) -> Figure:
    """Draw a histogram of signed errors, with the median of their absolute value."""
    fig = new_figure(3.2, 4.7)
    ax = style(fig.subplots(), f"{name} ({unit})", "images")
    reach = max(float(np.percentile(np.abs(error), 99.5)), 1e-6)
    ax.hist(np.clip(error, -reach, reach), 60, range=(-reach, reach), color=BLUE, alpha=0.85)
    ax.axvline(0, color=INK, lw=0.8)
    median = float(np.median(np.abs(error)))
    ax.set_title(f"median absolute error {median:.3g} {unit}", fontsize=TEXT, color=INK, loc="left")
    return fig


def error_sizes(error: Floats, name: str, unit: str) -> Figure:
    """Draw a histogram of unsigned errors, with their median."""
    fig = new_figure(3.2, 4.7)
    ax = style(fig.subplots(), f"{name} ({unit})", "images")
    ax.hist(error, 45, color=BLUE, alpha=0.85)
    ax.set_title(f"median {np.median(error):.3g} {unit}", fontsize=TEXT, color=INK, loc="left")
    return fig


def truth_scatter(
    truth: Sequence[Floats], found: Sequence[Floats], names: Sequence[tuple[str, str]], equal: bool
) -> Figure:
    """Draw found against true values, one panel per quantity; ``equal`` adds the identity."""
    fig = new_figure(3.4, 3.6 * len(truth) + 0.2)
    axes = np.atleast_1d(fig.subplots(1, len(truth)))
    for ax, true, value, (across, up) in zip(axes, truth, found, names, strict=True):
        style(ax, across, up)
        size = float(np.clip(6000 / max(len(true), 1), 1.5, 12))
        ax.scatter(true, value, size, BLUE, lw=0, alpha=0.35, rasterized=True)
        if equal:
            both = np.percentile(np.concatenate([true, value]), [0, 100])
            ax.plot(both, both, color=ORANGE, lw=1)
    return fig

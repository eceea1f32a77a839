"""Scatter plots of content: static for the PNG, interactive for the page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from modpose.content.embedding import principal_axes, tsne
from modpose.plot.figures import INK, SMALL, colour_bar, new_figure, style
from modpose.plot.grids import Floats, grey_range, mosaic
from modpose.plot.html import data_uri

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MISSING = 65535
"""Code of a value that is not a number, in the page."""
CATEGORY_COLOURS = (
    "#24609f", "#e08214", "#2e8b57", "#c0392b", "#7d5ba6",
    "#8c6d46", "#d4699e", "#6b7785", "#a8a622", "#2aa3b8",
)  # fmt: skip
MOST_CATEGORIES = 30
"""A column with more distinct values is a number or is not shown."""


@dataclass(frozen=True)
class View:
    """A projection of content onto the page: coordinates (N,) and their names."""

    name: str
    x: Floats
    y: Floats
    x_name: str
    y_name: str


@dataclass(frozen=True)
class Colouring:
    """A column (N,) to colour points by.

    ``categories``: ``values`` are indices into ``categories``; ``cyclic``: degrees in
    (-180, 180]; ``number``: anything else.
    """

    name: str
    kind: Literal["categories", "cyclic", "number"]
    values: Floats
    categories: tuple[str, ...] = ()


def categories(name: str, column: Sequence[Any] | NDArray[Any]) -> Colouring | None:
    """Colour by the distinct values of a column; None if there are too many colours."""
    texts = np.array([_plain(value) for value in column])
    distinct = sorted(set(texts.tolist()), key=_natural)
    if len(distinct) > MOST_CATEGORIES:
        return None
    place = {text: k for k, text in enumerate(distinct)}
    values = np.array([place[text] for text in texts], float)
    return Colouring(name, "categories", values, tuple(distinct))


def _plain(value: Any) -> str:
    """Text of a label: whole numbers without a decimal point, missing ones as a dash."""
    if isinstance(value, float | np.floating):
        return "–" if not np.isfinite(value) else f"{value:g}"
    return str(value)


def _natural(text: str) -> tuple[int, float, str]:
    try:
        return (0, float(text), text)
    except ValueError:
        return (1, 0.0, text)


def content_views(z: Floats, seed: int, angle_deg: Floats | None, score: Floats) -> list[View]:
    """Choose projections of content ``z`` (N, k), k at least 1.

    One latent: the latent against the angle (or, without angles, ``score``, the ELBO).  Two
    latents: both.  More: two pairs of principal components, and t-SNE.
    """
    k = z.shape[1]
    if k == 1:
        views = [View("content and ELBO", z[:, 0], score, "z₀", "ELBO (nats)")]
        if angle_deg is not None:
            turned = View("content and angle", z[:, 0], angle_deg, "z₀", "inferred angle (degrees)")
            views.insert(0, turned)
        return views
    if k == 2:
        return [View("content", z[:, 0], z[:, 1], "z₀", "z₁")]
    mean, axes, spread = principal_axes(z)
    part = (z - mean) @ axes.T
    share = 100 * spread**2 / max(float((spread**2).sum()), 1e-12)
    names = [f"principal component {i + 1} ({share[i]:.0f} %)" for i in range(k)]
    views = [View("PCA, components 1 and 2", part[:, 0], part[:, 1], names[0], names[1])]
    if len(z) >= 20:
        x, y = tsne(z, seed).T
        views.append(View("t-SNE", x, y, "t-SNE 1", "t-SNE 2"))
    if k >= 4:
        views.append(View("PCA, components 3 and 4", part[:, 2], part[:, 3], names[2], names[3]))
    return views


# --- still ------------------------------------------------------------------------------------


def still(view: View, colouring: Colouring) -> Figure:
    """Draw one view with one colouring."""
    fig = new_figure(5.0, 6.6)
    ax = style(fig.subplots(), view.x_name, view.y_name)
    size = float(np.clip(9000 / max(len(view.x), 1), 3, 18))
    if colouring.kind == "categories":
        for k, name in enumerate(colouring.categories):
            own = colouring.values == k
            colour = CATEGORY_COLOURS[k % len(CATEGORY_COLOURS)]
            ax.scatter(view.x[own], view.y[own], size, colour, label=name, lw=0, alpha=0.8)
        legend = ax.legend(
            title=colouring.name, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False,
            fontsize=SMALL, title_fontsize=SMALL, markerscale=2, labelcolor=INK,
            ncols=1 + len(colouring.categories) // 16,
        )  # fmt: skip
        legend.get_title().set_color(INK)
        return fig
    low, high = _limits(colouring)
    points = ax.scatter(
        view.x, view.y, size, colouring.values, cmap=_map_name(colouring),
        vmin=low, vmax=high, lw=0, alpha=0.85,
    )  # fmt: skip
    colour_bar(fig, points, ax, colouring.name)
    return fig


def _limits(colouring: Colouring) -> tuple[float, float]:
    return (-180.0, 180.0) if colouring.kind == "cyclic" else grey_range(colouring.values, 1)


def _map_name(colouring: Colouring) -> str:
    return "twilight_shifted" if colouring.kind == "cyclic" else "viridis"


# --- interactive ------------------------------------------------------------------------------


SHEET_BYTES = 350_000
"""A sheet of thumbnails larger than this is compressed more strongly."""
QUALITIES = (80, 60, 40, 25, 15)
SMALLEST = 32
"""Side of a thumbnail, pixels, where a sheet is too large at any quality."""


def thumbnail_sheet(tiles: Floats, columns: int, side: int = 48) -> str:
    """One WebP picture of all thumbnails as a data URI.

    Parameters
    ----------
    tiles
        (N, H, W) or (N, H, W, 3) in [0, 1], ready to draw from the top.
    columns
        Thumbnails per row, in reading order.
    side
        Pixels of a thumbnail, at most.  It is a multiple of 16, the block of WebP, so that
        neighbours do not mix.
    """
    from PIL import Image

    pictures = [Image.fromarray(tile) for tile in np.round(255 * np.clip(tiles, 0, 1)).astype("u1")]
    for size in (side, min(side, SMALLEST)):
        small = np.stack([np.asarray(_fitted(picture, size)) for picture in pictures])
        sheet = Image.fromarray(mosaic(small, columns, gap=0, fill=255))
        for quality in QUALITIES:
            buffer = io.BytesIO()
            sheet.save(buffer, "WEBP", quality=quality)
            if buffer.tell() <= SHEET_BYTES:
                return data_uri("webp", buffer.getvalue())
    return data_uri("webp", buffer.getvalue())


def _fitted(picture: Any, side: int) -> Any:
    """Scale to fit a white square, keeping the proportions."""
    from PIL import Image

    scale = side / max(picture.size)
    width, height = (max(1, round(length * scale)) for length in picture.size)
    white = 255 if picture.mode == "L" else (255, 255, 255)
    square = Image.new(picture.mode, (side, side), white)
    filtered = picture.resize((width, height), Image.Resampling.BICUBIC)
    square.paste(filtered, ((side - width) // 2, (side - height) // 2))
    return square


def interactive(
    views: Sequence[View],
    colourings: Sequence[Colouring],
    index: NDArray[np.integer],
    thumbnails: Sequence[Floats],
    side: int = 48,
) -> dict[str, Any]:
    """Collect the data for the page's script, ready for JSON.

    Parameters
    ----------
    index
        (N,) position of each point's image in the stack.
    thumbnails
        Image and upright prediction of the first points, (M, H, W[, 3]) in [0, 1]; M is the number
        of thumbnails; none if there are no images.
    """
    return {
        "index": [int(i) for i in index],
        "views": [
            {
                "name": view.name,
                "x": _packed(view.x),
                "y": _packed(view.y),
                "xName": view.x_name,
                "yName": view.y_name,
            }
            for view in views
        ],
        "colourings": [
            {
                "name": colouring.name,
                "kind": colouring.kind,
                "values": _packed(colouring.values),
                "categories": list(colouring.categories),
                "limits": list(_limits(colouring)),
                "scale": _colour_scale(_map_name(colouring)),
            }
            for colouring in colourings
        ],
        "colours": list(CATEGORY_COLOURS),
        "side": side,
        "thumbnails": [
            {
                "title": title,
                "count": len(tiles),
                "columns": columns_of(len(tiles)),
                "sheet": thumbnail_sheet(tiles, columns_of(len(tiles)), side),
            }
            for title, tiles in zip(("image", "model, upright"), thumbnails, strict=False)
        ],
    }


def columns_of(count: int) -> int:
    """Return the number of thumbnails per row that makes the sheet about square."""
    return max(1, math.ceil(math.sqrt(count)))


def _packed(values: Floats) -> dict[str, Any]:
    """Pack numbers into two bytes each: ``low`` + ``step`` × code; code 65535 is not a number."""
    numbers = np.asarray(values, float)
    finite = np.isfinite(numbers)
    low, high = (numbers[finite].min(), numbers[finite].max()) if finite.any() else (0.0, 0.0)
    whole = high - low <= MISSING - 1 and np.array_equal(numbers[finite], numbers[finite].round())
    step = 1.0 if whole else (high - low) / (MISSING - 1)
    codes = np.where(finite, np.round((np.where(finite, numbers, low) - low) / step), MISSING)
    packed = base64.b64encode(codes.astype("<u2").tobytes()).decode()
    return {"low": float(low), "step": float(step), "codes": packed}


def _colour_scale(name: str) -> list[str]:
    """Colours at equal steps from the lowest to the highest value."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colour) for colour in colormaps[name](np.linspace(0, 1, 65))]

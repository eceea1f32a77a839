"""Sprites (squares, ellipses, hearts) with their truth, and fields with several objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from modpose.errors import InputError
from modpose.limits import check_data_set

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.floating]

SHAPES = ("square", "ellipse", "heart")
SYMMETRY = {"square": 4, "ellipse": 2, "heart": 1}
"""How many rotations map each shape onto itself."""
SCALES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Sizes relative to the largest, as in dSprites (Matthey et al. 2017)."""
SQUARE_SIDE = 20.0 / 64
ELLIPSE_AXES = (26.0 / 64, 14.0 / 64)
HEART_SIDES = (19.0 / 64, 19.0 / 64)
"""Sizes at scale 1 as fractions of the box, measured on dSprites: the side, the axes (x, y), the
width and the height of the heart."""
FINE = 4
"""Points per pixel and axis for drawing edges."""
CHUNK = 16
TRIES = 100
"""Number of positions that are tried before an object is left out."""


@dataclass(frozen=True)
class SpriteSettings:
    """A data set of sprites."""

    n: int = 3000
    """Number of images."""
    box: int = 64
    """Side of the images, pixels."""
    reach_px: float | None = None
    """Shifts are uniform within this on each axis; None is a quarter of the box, as in dSprites."""
    binary: bool = True
    """Pixels are 0 or 1, as in dSprites; otherwise the covered fraction."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        expectations = (
            ("n", self.n, self.n >= 1, "at least 1"),
            ("box", self.box, self.box >= 16, "at least 16 pixels"),
            (
                "reach_px",
                self.reach_px,
                self.reach_px is None or 0 <= self.reach_px < float("inf"),
                "0 or more",
            ),
            ("seed", self.seed, self.seed >= 0, "0 or more"),
        )
        for name, value, good, expected in expectations:
            if not good:
                raise InputError.of("sprites", name, value, expected)
        check_data_set("sprites", n=self.n, box=self.box, seed=self.seed)


def simulate_sprites(settings: SpriteSettings) -> tuple[NDArray[np.float32], pd.DataFrame]:
    """Draw sprites of uniform shape, size, angle and shift.

    A set like dSprites (Matthey, Higgins, Hassabis & Lerchner 2017), with angles and shifts that
    are continuous.

    Parameters
    ----------
    settings
        What to draw.

    Returns
    -------
    images
        (N, box, box) float32 in [0, 1].
    truth
        ``class`` (a name of :data:`SHAPES`), ``scale``, ``angle_deg`` in (−180, 180], ``shift_x``
        and ``shift_y`` (pixels), one row per image.
    """
    import pandas as pd

    rng = np.random.default_rng(settings.seed)
    n, box = settings.n, settings.box
    shape = rng.integers(len(SHAPES), size=n)
    scale = np.asarray(SCALES)[rng.integers(len(SCALES), size=n)]
    angle = 180.0 - rng.uniform(0.0, 360.0, size=n)
    reach = box / 4 if settings.reach_px is None else settings.reach_px
    shift = rng.uniform(-reach, reach, size=(n, 2))
    images = np.empty((n, box, box), np.float32)
    for start in range(0, n, CHUNK):
        few = slice(start, start + CHUNK)
        images[few] = draw_sprites(shape[few], scale[few], angle[few], shift[few], box)
    if settings.binary:
        images = (images >= 0.5).astype(np.float32)
    columns = {
        "class": np.asarray(SHAPES)[shape],
        "scale": scale,
        "angle_deg": angle,
        "shift_x": shift[:, 0],
        "shift_y": shift[:, 1],
    }
    return images, pd.DataFrame(columns)


def draw_sprites(
    shape: NDArray[np.int64], scale: Floats, angle_deg: Floats, shift_px: Floats, box: int
) -> NDArray[np.float32]:
    """Draw posed sprites: the fraction of each pixel that lies inside.

    Parameters
    ----------
    shape
        (N,) index into :data:`SHAPES`.
    scale
        (N,) 1 is the size in dSprites at scale 1.
    angle_deg, shift_px
        (N,) degrees and (N, 2) pixels (x, y): signal(x) = f(Rᵀ(x − t)).
    box
        Side of the images, pixels; the centre is pixel ``box // 2``.

    Returns
    -------
    array
        (N, box, box) float32 in [0, 1].
    """
    half = box // 4 + 2  # the largest sprite reaches 0.23 of the box from its centre
    nearest = np.rint(shift_px).astype(np.int64)
    rest = (shift_px - nearest).astype(np.float32)
    fine = ((np.arange(2 * half * FINE, dtype=np.float32) + 0.5) / FINE - 0.5) - half
    x, y = (fine - rest[:, k, None] for k in (0, 1))
    radians, size = np.deg2rad(angle_deg), box * scale
    cosine, sine = (
        np.asarray(f(radians) / size, np.float32)[:, None, None] for f in (np.cos, np.sin)
    )
    across, up = x[:, None, :], y[:, :, None]
    u, v = cosine * across + sine * up, cosine * up - sine * across
    inside = np.empty(u.shape, bool)
    for k, within in enumerate((_square, _ellipse, _heart)):
        mine = shape == k
        inside[mine] = within(u[mine], v[mine])
    cells = inside.reshape(len(scale), 2 * half, FINE, 2 * half, FINE).mean(axis=(2, 4))
    return _paste(cells.astype(np.float32), nearest + box // 2 - half, box)


def _paste(
    windows: NDArray[np.float32], corners: NDArray[np.int64], box: int
) -> NDArray[np.float32]:
    """Paste windows (N, w, w) on black images at corners (N, 2), order (x, y); crop the rest."""
    images = np.zeros((len(windows), box, box), np.float32)
    side = windows.shape[1]
    padded = np.zeros((box + 2 * side, box + 2 * side), np.float32)
    for image, window, (left, top) in zip(
        images, windows, np.clip(corners, -side, box) + side, strict=True
    ):
        padded[top : top + side, left : left + side] = window
        image[:] = padded[side:-side, side:-side]
        padded[top : top + side, left : left + side] = 0.0
    return images


def _square(u: Floats, v: Floats) -> NDArray[np.bool_]:
    return np.maximum(np.abs(u), np.abs(v)) <= SQUARE_SIDE / 2


def _ellipse(u: Floats, v: Floats) -> NDArray[np.bool_]:
    return (u / ELLIPSE_AXES[0]) ** 2 + (v / ELLIPSE_AXES[1]) ** 2 <= 0.25


def _heart(u: Floats, v: Floats) -> NDArray[np.bool_]:
    """Whether within (16 sin³t, 13 cos t − 5 cos 2t − 2 cos 3t − cos 4t), rescaled, tip at +v."""
    t = np.linspace(-np.pi, np.pi, 721)[1:]
    x = np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    y = (y - (y.min() + y.max()) / 2) / np.ptp(y)
    x, y = HEART_SIDES[0] / 2 * x, HEART_SIDES[1] * y
    direction = np.arctan2(y, x)
    order = np.argsort(direction)  # every ray from the centre meets the outline once
    reach = np.interp(np.arctan2(v, u), direction[order], np.hypot(x, y)[order], period=2 * np.pi)
    return np.asarray(np.hypot(u, v) <= reach)


# --- several objects in one field -------------------------------------------------------------


@dataclass(frozen=True)
class FieldSettings:
    """Large pictures with several objects in each."""

    n: int = 16
    """Number of fields."""
    side: int = 150
    """Side of the fields, pixels."""
    objects: tuple[int, int] = (3, 6)
    """Smallest and largest number of objects requested per field."""
    apart_px: float = 30.0
    """Smallest distance of two centres; fields without room get fewer objects."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        check_data_set("fields", n=self.n, box=self.side, seed=self.seed, lengths=(self.apart_px,))


def simulate_fields(
    pictures: NDArray[np.float32],
    centres_px: Floats,
    settings: FieldSettings,
) -> tuple[NDArray[np.float32], pd.DataFrame]:
    """Insert small pictures into large fields at random whole-pixel positions.

    The multi-object set of Nasiri & Bepler 2022, appendix A.4: rotated and shifted digits in
    fields of 150 × 150 pixels.  Where pictures overlap the brighter pixel counts.

    Parameters
    ----------
    pictures
        (M, h, w) objects on zero; each is used at most once in a field.
    centres_px
        (M, 2) position of each object in its picture: (x, y) from pixel ``(w // 2, h // 2)``.
    settings
        Settings of the fields.

    Returns
    -------
    fields
        (n, side, side) float32.
    truth
        One row per object: ``field``, ``picture`` (its row in ``pictures``), ``shift_x`` and
        ``shift_y`` (pixels from the field's centre pixel ``side // 2``).

    Raises
    ------
    InputError
        If the pictures are larger than the field, or there are too few.
    """
    import pandas as pd

    _check_fields(pictures, centres_px, settings)
    rng = np.random.default_rng(settings.seed)
    fields = np.zeros((settings.n, settings.side, settings.side), np.float32)
    rows: list[tuple[int, int, float, float]] = []
    for number, field in enumerate(fields):
        wanted = int(rng.integers(settings.objects[0], settings.objects[1] + 1))
        chosen = rng.choice(len(pictures), wanted, replace=False)
        places: list[Floats] = []
        for picture in chosen:
            place = _insert(field, pictures[picture], centres_px[picture], places, settings, rng)
            if place is not None:
                places.append(place)
                x, y = place - settings.side // 2
                rows.append((number, int(picture), float(x), float(y)))
    return fields, pd.DataFrame(rows, columns=["field", "picture", "shift_x", "shift_y"])


def _insert(
    field: NDArray[np.float32],
    picture: NDArray[np.float32],
    centre_px: Floats,
    taken: Sequence[Floats],
    settings: FieldSettings,
    rng: np.random.Generator,
) -> Floats | None:
    """Insert a picture where its object has room; return its position, or None without room."""
    height, width = picture.shape
    for _ in range(TRIES):
        top, left = rng.integers(0, np.array(field.shape) - (height, width) + 1)
        place = np.array([left + width // 2, top + height // 2]) + centre_px
        if all(np.hypot(*(place - other)) >= settings.apart_px for other in taken):
            window = field[top : top + height, left : left + width]
            np.maximum(window, picture, out=window)
            return place
    return None


def _check_fields(
    pictures: NDArray[np.float32], centres_px: Floats, settings: FieldSettings
) -> None:
    if pictures.ndim != 3 or centres_px.shape != (len(pictures), 2):
        found = f"{pictures.shape} and {centres_px.shape}"
        raise InputError.of("fields", "the shapes", found, "(M, h, w) and (M, 2)")
    low, high = settings.objects
    expectations = (
        ("n", settings.n, settings.n >= 1, "at least 1"),
        ("side", settings.side, settings.side >= max(pictures.shape[1:]), "that of the pictures"),
        ("objects", settings.objects, 1 <= low <= high, "two numbers from 1, the smaller first"),
        ("pictures", len(pictures), len(pictures) >= high, f"at least {high}"),
        ("apart_px", settings.apart_px, settings.apart_px >= 0, "0 or more"),
    )
    for name, value, good, expected in expectations:
        if not good:
            raise InputError.of("fields", name, value, expected)

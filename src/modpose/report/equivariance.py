"""The section on equivariance: whether inferred poses follow an image that is moved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from modpose.evaluate.equivariance import (
    Followed,
    Move,
    Poses,
    RotationErrors,
    follow,
    infer_batch,
    move,
)
from modpose.evaluate.metrics import shift_rmse_px
from modpose.evaluate.symmetry import fold_deg, symmetry
from modpose.geometry.degrees import wrap_deg
from modpose.infer.search import infers_angle, infers_shift
from modpose.observe.ctf import CtfColumn
from modpose.plot import grids
from modpose.plot.html import Picture, Section
from modpose.report import pose_figures
from modpose.report.material import ReportData, Unit
from modpose.report.probe import Probe

if TYPE_CHECKING:
    from modpose.data.batches import Batch

Array = NDArray[np.float64]

IMAGES = 100
"""Most images that are moved."""
STEP_DEG = 10.0
SHIFT_PX = 8.0
"""Shift in pixels; boxes under 40 pixels are shifted by a fifth of their side."""


def equivariance(m: ReportData) -> Section | None:
    """Errors of angle and shift and change of content when images are turned and shifted."""
    probe = None if m.probe is None else m.probe.few(IMAGES)
    if probe is None or not probe.vae.encoder.sees_pixels:
        return None
    has_angle, has_shift = infers_angle(probe.vae), infers_shift(probe.vae)
    if not (has_angle or has_shift):
        return None
    still = infer_batch(probe.vae, probe.batch)

    def infer(way: Move) -> Poses:
        return infer_batch(probe.vae, moved(probe, way))

    reach = shift_of(min(probe.vae.shape))
    turns = np.arange(STEP_DEG, 360.0, STEP_DEG)
    ways = [(reach, 0.0), (-reach, 0.0), (0.0, reach), (0.0, -reach)]
    turned = follow(still, [(turn, (0.0, 0.0)) for turn in turns], infer) if has_angle else None
    shifted = follow(still, [(0.0, way) for way in ways], infer) if has_shift else None
    orders = {} if turned is None else orders_of(probe, turned)
    rows = _rows(probe, turned, shifted, orders, m.unit)
    return Section(
        "equivariance",
        "Equivariance",
        f"{len(probe.rows)} images were {_done(turned, shifted, reach)}, and the model inferred "
        "pose and content again. A pose is equivariant if it moves like the image; content is "
        "invariant if it does not change. The last column explains each number. No truth is "
        "needed: each image is compared with itself. If an object looks the same upside down, "
        "both angles are right: the figure, and the rows that say so, take the error modulo the "
        "symmetry of the class, which is found from the errors.",
        "errors of a few degrees and of a fraction of a pixel at every angle, and content that "
        "moves by a small part of the distance between images.",
        "errors that grow away from 0° or peak at certain angles (the encoder works better for "
        "some orientations), errors of about 180° for an object without symmetry, or content "
        "that moves as far as the distance to another image.",
        _pictures(probe, turns, turned, shifted, reach, orders, m.unit),
        ("measured", "rotated", "shifted", "meaning"),
        rows,
    )


# --- measurement ------------------------------------------------------------------------------


def shift_of(side: int) -> float:
    """Return by how many pixels images of this side are shifted."""
    return min(SHIFT_PX, float(max(1, side // 5)))


def moved(probe: Probe, way: Move) -> Batch:
    """Rotate and shift the images; the direction of astigmatism rotates with them."""
    batch, (angle, shift) = probe.batch, way
    pictures = move(grids.as_pictures(batch.image.cpu().numpy()), angle, shift)
    image = pictures[:, None] if pictures.ndim == 3 else np.moveaxis(pictures, -1, 1)
    if probe.mask is not None:
        image = image * probe.mask
    ctf = batch.ctf
    if ctf is not None:
        ctf = ctf.clone()
        ctf[:, CtfColumn.DEFOCUS_ANGLE] += angle
    pixels = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
    return replace(batch, image=pixels.to(batch.image.device), ctf=ctf)


def orders_of(probe: Probe, turned: Followed) -> dict[str, int | None]:
    """Class → the number of angles at which its angle errors cluster; None if they do not."""
    return {
        name: symmetry(turned.angle_deg[:, probe.classes == name]).order for name in probe.names
    }


def folded(probe: Probe, errors: Array, orders: Mapping[str, int | None]) -> Array:
    """Take errors of the angle (T, n) modulo the symmetry of each image's class."""
    order = np.array([orders.get(name) or 1 for name in probe.classes.tolist()])
    turned: Array = wrap_deg(order * errors) / order
    return turned


# --- what is shown ----------------------------------------------------------------------------


def _done(turned: Followed | None, shifted: Followed | None, reach: float) -> str:
    done = []
    if turned is not None:
        done.append(f"rotated in steps of {STEP_DEG:g}°")
    if shifted is not None:
        done.append(f"shifted by ±{reach:g} px along x and along y")
    return " and ".join(done)


def _rows(
    probe: Probe,
    turned: Followed | None,
    shifted: Followed | None,
    orders: Mapping[str, int | None],
    unit: Unit,
) -> list[tuple[str, ...]]:
    """Return the rows of the table: a quantity, its values, and its meaning."""
    parts = (turned, shifted)
    rows: list[tuple[str, ...]] = []
    if turned is not None:
        rows += _angle_rows(probe, parts, orders)
    if shifted is not None:
        medians = [None if p is None else float(np.median(p.shift_length)) for p in parts]
        means = [None if p is None else shift_rmse_px(p.shift_px) for p in parts]
        rows += [
            (
                "error of the shift, median",
                *(_length(error, unit) for error in medians),
                "half of the inferred shifts have a smaller error",
            ),
            (
                "error of the shift, RMSE",
                *(_length(error, unit) for error in means),
                "the same, but large errors count most",
            ),
        ]
    if probe.vae.layout.z_dim:
        rows.append(
            (
                "change of content, mean",
                *(
                    _cell(None if p is None else 100 * float(p.content.mean()), " %", 0)
                    for p in parts
                ),
                "displacement of z, relative to the mean distance of two images: 0 % is invariant",
            )
        )
    if turned is not None:
        rows += [
            _class_row(f"{probe.kind} {name}", turned.angle_deg[:, probe.classes == name], order)
            for name, order in orders.items()
        ]
    return rows


def _angle_rows(
    probe: Probe, parts: Iterable[Followed | None], orders: Mapping[str, int | None]
) -> list[tuple[str, ...]]:
    raw = [None if p is None else RotationErrors.of(p.angle_deg) for p in parts]
    modulo = [
        None if p is None else RotationErrors.of(folded(probe, p.angle_deg, orders)) for p in parts
    ]
    rows = [
        (
            "error of the angle, median",
            *(_cell(None if e is None else e.median_deg, "°") for e in raw),
            "half of the inferred angles have a smaller error (90° by chance)",
        ),
        (
            "error of the angle, RMSE",
            *(_cell(None if e is None else e.rmse_deg, "°") for e in raw),
            "the same, but large errors count most (104° by chance)",
        ),
        (
            "resultant length of the errors",
            *(_cell(None if e is None else e.resultant, "", 3) for e in raw),
            "1 if the angle always follows the image, 0 if it never does",
        ),
    ]
    if any((order or 1) > 1 for order in orders.values()):
        rows.append(
            (
                "error of the angle modulo the symmetry, RMSE",
                *(_cell(None if e is None else e.rmse_deg, "°") for e in modulo),
                "the same, without errors that are a symmetry of the class",
            )
        )
    return rows


def _cell(value: float | None, unit: str, digits: int = 1) -> str:
    return "–" if value is None else f"{value:.{digits}f}{unit}"


def _length(pixels: float | None, unit: Unit) -> str:
    return _cell(None if pixels is None else unit.per_pixel * pixels, f" {unit.name}", 2)


def _class_row(name: str, errors: Array, order: int | None) -> tuple[str, ...]:
    """Return the row of a class: where its angle errors (T, n) cluster, and how closely."""
    says = {
        None: "the errors do not cluster: the angle does not follow the image",
        1: "the errors cluster at one angle: the same way up at every rotation",
        2: "the errors cluster at two angles, half a turn apart: upside down looks the same",
    }.get(order, f"the errors cluster at {order} angles, 360°/{order} apart")
    median = RotationErrors.of(fold_deg(errors, order or 1)).median_deg
    value = f"C{order}, median {median:.1f}°" if order else f"none, median {median:.1f}°"
    modulo = ", and the median is taken modulo that" if (order or 1) > 1 else ""
    return name.strip(), value, "–", says + modulo


def _pictures(
    probe: Probe,
    turns: Array,
    turned: Followed | None,
    shifted: Followed | None,
    reach: float,
    orders: Mapping[str, int | None],
    unit: Unit,
) -> list[Picture]:
    if turned is None:
        return []

    def sizes(part: Followed) -> dict[tuple[str, str], Array]:
        angle = ("Angle modulo symmetry", "error (degrees)")
        found = {angle: np.abs(folded(probe, part.angle_deg, orders))}
        if infers_shift(probe.vae):
            found["Shift", f"error ({unit.name})"] = unit.per_pixel * part.shift_length
        if probe.vae.layout.z_dim:
            found["Content", "change (% of distance)"] = 100 * part.content
        return found

    panels = [(*name, values) for name, values in sizes(turned).items()]
    levels = [np.nan] * len(panels)
    if shifted is not None:
        levels = [float(np.median(values)) for values in sizes(shifted).values()]
    fig = pose_figures.turning_errors(turns, panels, levels, reach)
    return [Picture.of(fig, "equivariance.png", "Errors against the angle of rotation")]

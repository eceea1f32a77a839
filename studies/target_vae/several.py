"""Several objects in one field, found by models of single ones: appendix A.4, Figure 8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modpose.evaluate.equivariance import RotationErrors, twin_angle_errors
from modpose.geometry.degrees import wrap_deg
from modpose.plot.grids import Floats
from studies.common import plots
from studies.common.conduct import Study
from studies.common.equivariance import infer_poses
from studies.common.page import Page, Row
from studies.common.study import Result
from studies.target_vae.budgets import Contender
from studies.target_vae.common import Setting, quiet_model
from studies.target_vae.digit_findings import Found, find
from studies.target_vae.digits import BOX, UNIFORM, digit_fits, twins

if TYPE_CHECKING:
    import pandas as pd

    from modpose.estimator import PoseModel

STRIDE = 5
"""Pixels between the windows that are looked into."""
REACH = 12.0
"""Radius within which a digit's pixels are explained, and around which no other is found."""
NEAR = 6.0
"""A detection is right within so many pixels of a true centre."""
LEAST = 0.4
"""A detection explains at least this part of the light within its reach."""


def prepare(setting: Setting) -> Study:
    """Take the models of MNIST(U) that infer poses; nothing more is fitted."""
    fits = {c: f for c, f in digit_fits(setting, UNIFORM).items() if c in setting.plan.several}

    def show(results: Mapping[str, Result], page: Page) -> Sequence[str]:
        return _show(setting, {c: results[fit.name] for c, fit in fits.items()}, page)

    return Study(
        "Several objects in one field: appendix A.4, Figure 8",
        [
            f"Fields ({setting.plan.fields}) of 150 × 150 px with three to six held-out digits of "
            "MNIST(U) at least 30 px apart. Models fitted to single digits look into "
            f"{BOX} × {BOX} px windows every {STRIDE} px; where a window's inferred shift says "
            "that its object is near the middle, the object is kept if the model's drawing "
            f"explains at least {LEAST:.0%} of the light about it, the best one first."
        ],
        list(fits.values()),
        show,
    )


@dataclass(frozen=True)
class Detections:
    """Objects found in a field.

    Attributes
    ----------
    place
        (M, 2) pixels (x, y) from the field's centre pixel.
    angle_deg
        (M,) degrees.
    z
        (M, k) content.
    explained
        (M,) part of the light within reach that the drawing explains.
    drawing
        (H, W) the objects as the model draws them, in the units of the field.
    """

    place: NDArray[np.float64]
    angle_deg: NDArray[np.float64]
    z: NDArray[np.float64]
    explained: NDArray[np.float64]
    drawing: Floats


def detect(model: PoseModel, field: Floats) -> Detections:
    """Find objects in a field larger than the model's box.

    Parameters
    ----------
    model
        Of single objects, with rotation and shift.
    field
        (H, W) with a background of zero, in the units that the model was fitted in.
    """
    box = model.vae.shape[0]
    half = box // 2
    padded = np.pad(np.asarray(field, np.float32), half + STRIDE)
    corners = _corners(padded.shape, box)
    windows = np.stack([padded[y : y + box, x : x + box] for x, y in corners])
    lit = windows.reshape(len(windows), -1).max(1) > 0
    corners, windows = corners[lit], windows[lit]
    if not len(windows):
        return _none(model, field)
    poses = infer_poses(model, windows)
    central = np.abs(poses.shift).max(1) <= STRIDE
    if not central.any():
        return _none(model, field)
    drawn = model.reconstruct(windows[central]) * _scale(model)
    shift, corners, windows = poses.shift[central], corners[central], windows[central]
    gain = _explained(windows, drawn, shift)
    centre = np.array(field.shape[::-1]) // 2
    place = corners + half + shift - (half + STRIDE) - centre
    chosen = _best_apart(place, gain)
    drawing = _draw(padded.shape, corners[chosen], drawn[chosen], shift[chosen])
    inside = slice(half + STRIDE, -(half + STRIDE))
    return Detections(
        place=place[chosen],
        angle_deg=poses.angle_deg[central][chosen],
        z=poses.z[central][chosen],
        explained=gain[chosen],
        drawing=drawing[inside, inside],
    )


def _corners(shape: tuple[int, ...], box: int) -> NDArray[np.int64]:
    rows, columns = (np.arange(0, side - box + 1, STRIDE) for side in shape)
    grid = np.meshgrid(columns, rows)
    return np.stack([part.ravel() for part in grid], axis=1)


def _none(model: PoseModel, field: Floats) -> Detections:
    k = model.config.model.z_dim
    empty = np.zeros(0)
    return Detections(np.zeros((0, 2)), empty, np.zeros((0, k)), empty, np.zeros_like(field))


def _scale(model: PoseModel) -> float:
    """Return the light of a field in that of prepared images."""
    low, high = model.environment.get("value_range") or (0.0, 1.0)
    return float(high - low)


def _near(shape: tuple[int, ...], shift: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return the pixels within reach of (M, 2) places from the centre: (M, H, W)."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    dx = x - shape[1] // 2 - shift[:, 0, None, None]
    dy = y - shape[0] // 2 - shift[:, 1, None, None]
    return np.asarray(np.hypot(dx, dy) <= REACH)


def _explained(windows: Floats, drawn: Floats, shift: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 − Σ(y − ŷ)²/Σy² within reach; −∞ where there is next to nothing."""
    near = _near(windows.shape[1:], shift)
    light = (np.square(windows, dtype=float) * near).sum((1, 2))
    left = (np.square(windows - drawn, dtype=float) * near).sum((1, 2))
    enough = light > 0.1 * light.max()
    return np.where(enough, 1 - left / np.where(enough, light, 1.0), -np.inf)


def _best_apart(place: NDArray[np.float64], gain: NDArray[np.float64]) -> list[int]:
    """Take the best first, and none within reach of one that is taken."""
    chosen: list[int] = []
    for k in np.argsort(-gain, kind="stable"):
        if gain[k] < LEAST:
            break
        if all(np.hypot(*(place[k] - place[other])) > REACH for other in chosen):
            chosen.append(int(k))
    return chosen


def _draw(
    shape: tuple[int, ...],
    corners: NDArray[np.int64],
    drawn: Floats,
    shift: NDArray[np.float64],
) -> Floats:
    drawing = np.zeros(shape, np.float32)
    for (x, y), picture, near in zip(corners, drawn, _near(drawn.shape[1:], shift), strict=True):
        window = drawing[y : y + picture.shape[0], x : x + picture.shape[1]]
        np.maximum(window, picture * near, out=window)
    return drawing


# --- scores -----------------------------------------------------------------------------------


def match(found: NDArray[np.float64], true: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Pair detections (M, 2) with true places (K, 2) one to one, within :data:`NEAR` pixels."""
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    if not len(found) or not len(true):
        return []
    distance = cdist(found, true)
    pairs = zip(*linear_sum_assignment(np.minimum(distance, 2 * NEAR)), strict=True)
    return [(int(i), int(j)) for i, j in pairs if distance[i, j] <= NEAR]


def _show(setting: Setting, by: Mapping[Contender, Result], page: Page) -> Sequence[str]:
    from studies.target_vae.shapes import FieldSettings, simulate_fields

    sample = next(iter(by.values())).fit.sample
    few = min(sample.open_test().n, 1000)
    pictures = sample.open_test().stack.read(np.arange(few))[:, 0]
    truth = sample.truth_of_test().iloc[:few]
    centres = truth[["shift_x", "shift_y"]].to_numpy(float)
    fields, objects = simulate_fields(
        pictures.astype(np.float32),
        centres,
        FieldSettings(n=setting.plan.fields, seed=setting.seed),
    )
    rows, tiles = list[Row](), {"fields": fields[:6] / 255.0}
    for contender, result in by.items():
        twin = find(contender, result, lambda: twins(setting))
        model = quiet_model(result)
        found = [detect(model, field) for field in fields]
        rows.append({"model": contender.name, **_scores(found, objects, truth, twin)})
        tiles[contender.name] = np.stack([f.drawing for f in found[:6]]) / 255.0
    caption = "Figure 8: fields, and the objects that models of single digits find and draw"
    digits = {"found": 3, "right": 3, "resultant": 3, "place, median (px)": 2}
    note = (
        "Found: part of the objects with a detection within 6 px; right: part of the detections "
        "within 6 px of an object; place and rotation (against the digit's twin) of those found."
    )
    return [
        page.table("figure-8", "Several objects: found, posed", rows, digits),
        note,
        page.figure("figure-8", plots.titled_mosaics(tiles, 3, min(3, len(tiles)), 2), caption),
    ]


def _scores(
    found: Sequence[Detections],
    objects: pd.DataFrame,
    truth: pd.DataFrame,
    twin: Found,
) -> dict[str, Any]:
    """Compare detections in every field with the objects inserted there."""
    inferred_of_twin = _twin_angles(twin)
    distances: list[float] = []
    errors: list[float] = []
    for number, detections in enumerate(found):
        own = objects[objects["field"] == number]
        places = own[["shift_x", "shift_y"]].to_numpy(float)
        for i, j in match(detections.place, places):
            picture = int(own["picture"].iloc[j])
            distances.append(float(np.hypot(*(detections.place[i] - places[j]))))
            true = float(truth["angle_deg"].iloc[picture])
            error = twin_angle_errors(
                [detections.angle_deg[i]], [inferred_of_twin[picture]], [true]
            )
            errors.append(float(error[0]))
    seen = sum(len(f.place) for f in found)
    right = RotationErrors.of(errors) if errors else None
    return {
        "objects": len(objects),
        "found": len(distances) / len(objects),
        "right": len(distances) / seen if seen else None,
        "place, median (px)": float(np.median(distances)) if distances else None,
        "rotation, median (°)": right.median_deg if right else None,
        "resultant": right.resultant if right else None,
    }


def _twin_angles(twin: Found) -> NDArray[np.float64]:
    """Return the angle inferred of each twin: that of the image minus its error and the truth."""
    assert twin.angle_errors is not None
    inferred = twin.result.held_out()["angle_deg"].to_numpy(float)
    return wrap_deg(inferred - twin.angle - twin.angle_errors)

"""The section on simulated data: inferred against true values."""

from __future__ import annotations

import numpy as np

from modpose.evaluate.metrics import (
    align_angles,
    align_shifts,
    right_reflection,
    scale_errors,
    spearman,
)
from modpose.plot import figures
from modpose.plot.grids import Floats
from modpose.plot.html import Picture, Section
from modpose.report.material import ReportData, subscript


def truth(m: ReportData) -> Section | None:
    """Compare inferred and true values."""
    if m.truth is None:
        return None
    content, poses = _hinge_pictures(m), _pose_pictures(m)
    if not content and not poses and not m.recovery:
        return None
    about = "These images are simulated, so the truth is known; it is used only for this section."
    good, bad = "content follows the hinge along one curve.", "two branches, or a cloud."
    if m.volumes is None:  # poses are inferred, not given
        about += (
            " The model chooses its own upright frame, so poses are compared after one global "
            "rotation and offset."
        )
        good = (
            "content follows the hinge along one curve, angle errors form one narrow peak about "
            "zero, and shifts lie on the line."
        )
        bad = (
            "two branches or two peaks (a local optimum: some of the images are wrong by half a "
            "turn), or a cloud."
        )
    return Section(
        "truth",
        "Recovery of the truth",
        about,
        good,
        bad,
        [*content, *poses],
        ("quantity", "value"),
        list(m.recovery),
    )


def _hinge_pictures(m: ReportData) -> list[Picture]:
    if m.truth is None or "hinge_deg" not in m.truth or m.z_dim == 0:
        return []
    hinge = m.truth["hinge_deg"]
    best = strongest_latent(m.z, hinge)
    own = m.volumes is not None and m.volumes.name != "z"
    name = f"content of sharp maps, {best}" if own else f"content z{subscript(best)}"
    axes = [("true hinge (degrees)", name)]
    fig = figures.truth_scatter([hinge], [m.z[:, best]], axes, equal=False)
    return [Picture.of(fig, "truth-hinge.png", f"{name} against the true hinge angle")]


def strongest_latent(z: Floats, values: Floats) -> int:
    """Return the latent of (N, k) whose rank correlation with ``values`` (N,) is largest."""
    strength = [abs(spearman(column, values)) if np.ptp(column) > 0 else 0.0 for column in z.T]
    return int(np.argmax(strength))


def _pose_pictures(m: ReportData) -> list[Picture]:
    pictures = []
    if m.truth is None:
        return []
    right, mirrored = np.ones(len(m.z), bool), np.zeros(len(m.z), bool)
    if m.mirrored is not None:
        mirrored = np.asarray(m.truth.get("mirrored", mirrored)) == 1
        right = right_reflection(m.mirrored, mirrored)
    if m.angle_deg is not None and "angle_deg" in m.truth:
        found, known = m.angle_deg[right], m.truth["angle_deg"][right]
        error, _ = align_angles(found, known, mirrored[right])
        fig = figures.error_histogram(error, "error of the angle", "degrees")
        pictures.append(Picture.of(fig, "truth-angle.png", "Histogram of the error of the angle"))
    if m.flat and m.shift_px is not None and {"shift_x", "shift_y"} <= m.truth.keys():
        true = np.column_stack([m.truth["shift_x"], m.truth["shift_y"]])
        turned = m.truth.get("angle_deg", np.zeros(len(true)))
        true, turned, shift = true[right], turned[right], m.shift_px[right]
        scale = np.ones(len(m.z))
        if m.scale is not None and "scale" in m.truth:
            scale = np.asarray(m.truth["scale"], float)
        residual, _ = align_shifts(shift, true, turned, mirrored[right], scale[right])
        unit, size = m.unit
        known, found = size * true.T, size * (true + residual).T
        axes = [
            (f"true shift along {a} ({unit})", f"inferred shift along {a} ({unit})") for a in "xy"
        ]
        fig = figures.truth_scatter(list(known), list(found), axes, equal=True)
        alt = "Inferred against true shift along x and y"
        pictures.append(Picture.of(fig, "truth-shift.png", alt))
    if m.scale is not None and "scale" in m.truth:
        error = 100 * scale_errors(m.scale, m.truth["scale"])
        fig = figures.error_histogram(error, "error of the scale", "%")
        pictures.append(Picture.of(fig, "truth-scale.png", "Histogram of the error of the scale"))
    return pictures

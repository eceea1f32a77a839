"""Recovery of a known truth by a fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from modpose.errors import InputError
from modpose.evaluate import metrics
from modpose.infer.latents import content_columns

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor


@dataclass(frozen=True)
class Recovery:
    """Figures against the truth; None if the truth or the model lacks the quantity."""

    images: int
    """Number of images compared."""
    hinge_pearson: float | None = None
    """|r| of the hinge angle with the z component that has the largest."""
    hinge_component: str | None = None
    """That component."""
    hinge_pearson_linear: float | None = None
    """r of the hinge angle with its best linear fit by all of z (the same as
    ``hinge_pearson`` for one component)."""
    hinge_spearman: float | None = None
    """|rank correlation| of the hinge angle with that component."""
    rotation_resultant: float | None = None
    """Mean resultant length of the angular errors."""
    rotation_rmse_deg: float | None = None
    """Circular RMSE of the angular errors after the one global rotation."""
    rotation_rmse_given_hinge_deg: float | None = None
    """The same after regressing out a dependence of the upright frame on the hinge (the model may
    let its frame turn with the arm; at most as far as the arm itself does)."""
    rotation_circular_correlation: float | None = None
    """Jammalamadaka-SenGupta coefficient; ill-conditioned for uniform angles."""
    shift_rmse_px: float | None = None
    """RMS length of the shift errors after the one offset of the content frame."""
    shift_pearson: float | None = None
    """Mean over x and y of Pearson's r of the shifts, after that offset."""
    scale_median_error: float | None = None
    """Median size of the relative errors of the scale, after the one factor of the model's
    frame."""
    scale_median_error_given_hinge: float | None = None
    """The same after a linear dependence on the hinge angle is removed: the model may draw the
    upright object larger as the arm turns."""
    mirrored_accuracy: float | None = None
    """Fraction of images whose reflection is right, after the one global reflection that the model
    cannot know; the figures of rotation and shift are then of these images."""
    rotation_median_raw_deg: float | None = None
    """In three dimensions: median angle to the true rotation, as it is."""
    rotation_median_deg: float | None = None
    """The same after one global rotation per class, which no model can know."""
    shift_median_px: float | None = None
    """Median length of the error of the shift, after one offset per class."""
    cluster_accuracy: float | None = None
    """Fraction of images whose cluster, matched one to one, is their class."""
    cluster_ari: float | None = None
    """Adjusted Rand index of clusters and classes."""

    def to_dict(self) -> dict[str, float | int | str]:
        """Return the figures that apply."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def lines(self) -> list[str]:
        """Describe the figures in words, one line each."""
        out = [f"recovery of the truth on {self.images} images"]
        if self.hinge_pearson is not None:
            line = (
                f"hinge angle: |r| {self.hinge_pearson:.3f} with {self.hinge_component}"
                f" (rank correlation {self.hinge_spearman:.3f})"
            )
            linear = self.hinge_pearson_linear
            if linear is not None and linear > self.hinge_pearson + 5e-4:
                line += f", {linear:.3f} with the best linear combination of all z"
            out.append(line)
        if self.mirrored_accuracy is not None:
            out.append(
                f"reflection: {100 * self.mirrored_accuracy:.1f} % right after one global "
                "reflection (chance is 50 %); rotation and shift are those of these images"
            )
        if self.rotation_rmse_deg is not None:
            given = self.rotation_rmse_given_hinge_deg
            out.append(
                f"rotation: RMS error {self.rotation_rmse_deg:.1f}°"
                + ("" if given is None else f" ({given:.1f}° given the hinge angle)")
                + f", resultant length {self.rotation_resultant:.3f}"
            )
        if self.rotation_median_deg is not None:
            out.append(
                f"rotation in space: median error {self.rotation_median_deg:.1f}° after one global "
                f"rotation per class ({self.rotation_median_raw_deg:.1f}° as it is; chance is 132°)"
            )
        if self.shift_median_px is not None:
            out.append(f"shift: median error {self.shift_median_px:.2f} px")
        if self.rotation_circular_correlation is not None:
            out.append(
                f"rotation: circular correlation {self.rotation_circular_correlation:.2f}"
                " (ill-conditioned for uniform angles)"
            )
        if self.shift_rmse_px is not None:
            r = "" if self.shift_pearson is None else f", correlation {self.shift_pearson:.3f}"
            out.append(f"shift: RMS error {self.shift_rmse_px:.2f} px{r}")
        if self.scale_median_error is not None:
            error = 100 * self.scale_median_error
            given = self.scale_median_error_given_hinge
            more = "" if given is None else f" ({100 * given:.2f} % given the hinge angle)"
            out.append(f"scale: median error {error:.2f} % after one global factor{more}")
        if self.cluster_accuracy is not None:
            out.append(
                f"classes: {100 * self.cluster_accuracy:.1f} % of the images in the cluster matched"
                f" with their class, adjusted Rand index {self.cluster_ari:.3f}"
            )
        return out


def recover(latents: pd.DataFrame, truth: pd.DataFrame) -> Recovery:
    """Compare inferred latents with the truth.

    Parameters
    ----------
    latents
        One row per image, columns ``z_0``…, ``angle_deg``, ``shift_x``, ``shift_y``, ``mirrored``,
        ``scale``, ``cluster``,
        as far as the model has them; ``index``, where present, says which row of ``truth`` each
        belongs to.
    truth
        Columns ``hinge_deg``, ``angle_deg``, ``shift_x``, ``shift_y``, ``mirrored`` (where it is
        missing, nothing is mirrored), ``scale``, ``class``, as far as known
        (see :meth:`modpose.data.particles.Particles.truth`).

    Returns
    -------
    Recovery
        The figures that both tables allow.

    Raises
    ------
    InputError
        If the tables do not belong together.
    """
    truth = _matched(latents, truth)
    figures: dict[str, float | str | None] = {}
    if "hinge_deg" in truth:
        figures |= _hinge_figures(latents, _values(truth, "hinge_deg"))
    if "angle_deg" in truth and "mirrored" in latents:
        truth = truth.assign(mirrored=truth.get("mirrored", 0))
        right = metrics.right_reflection(latents["mirrored"], truth["mirrored"])
        figures["mirrored_accuracy"] = float(right.mean())
        figures |= _plane_figures(latents[right], truth[right])
    elif "angle_deg" in truth:
        figures |= _plane_figures(latents, truth)
    if "scale" in truth and "scale" in latents:
        figures |= _scale_figures(latents, truth)
    if {"r00", "shift_z"} <= set(truth) & set(latents):
        aligned, raw, moved = space_errors(latents, truth)
        figures["rotation_median_deg"] = float(np.median(aligned))
        figures["rotation_median_raw_deg"] = float(np.median(raw))
        figures["shift_median_px"] = float(np.median(moved))
    if "class" in truth and "cluster" in latents and truth["class"].nunique() > 1:
        classes, clusters = truth["class"].to_numpy(), latents["cluster"].to_numpy()
        figures["cluster_accuracy"] = metrics.hungarian_accuracy(classes, clusters)[0]
        figures["cluster_ari"] = metrics.ari(classes, clusters)
    return Recovery(images=len(latents), **figures)  # type: ignore[arg-type]


Values = NDArray[np.float64]


def space_errors(
    latents: pd.DataFrame, truth: pd.DataFrame, symmetry: Sequence[Tensor] | None = None
) -> tuple[Values, Values, Values]:
    """Errors of poses in three dimensions, class by class (:func:`pose_errors`).

    Parameters
    ----------
    latents, truth
        Row by row, columns ``r00`` ... ``r22``, ``shift_x`` ... and, of the truth, ``class``.
    symmetry
        Rotations (G, 3, 3) that leave each class as it is, by its number; None for none.

    Returns
    -------
    aligned_deg, raw_deg, shift_px
        (N,) after one global rotation and offset per class, modulo symmetry, and as they are.
    """
    import torch

    from modpose.evaluate.pose_errors import pose_errors

    names = [f"shift_{axis}" for axis in "xyz"]
    found, true = rotations_of(latents), rotations_of(truth)
    shift, true_shift = (torch.tensor(_values(t, *names)) for t in (latents, truth))
    classes = truth["class"].to_numpy() if "class" in truth else np.zeros(len(truth))
    out = np.empty((3, len(truth)))
    for name in np.unique(classes):
        rows = torch.from_numpy(np.flatnonzero(classes == name))
        group = None if symmetry is None else symmetry[int(name)]
        errors = pose_errors(found[rows], shift[rows], true[rows], true_shift[rows], group)
        own = torch.stack([errors.angle_deg, errors.raw_deg, errors.shift_px])
        out[:, rows.numpy()] = own.numpy()
    return out[0], out[1], out[2]


def rotations_of(table: pd.DataFrame) -> Tensor:
    """Read columns r00 ... r22 as matrices (N, 3, 3), float64."""
    import torch

    entries = _values(table, *[f"r{i}{j}" for i in range(3) for j in range(3)])
    return torch.from_numpy(entries.reshape(-1, 3, 3).copy())


def _matched(latents: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    if "index" in latents:
        rows = latents["index"].to_numpy()
        if len(rows) and (rows.min() < 0 or rows.max() >= len(truth)):
            raise InputError.of(
                "latents", "the largest index", rows.max(), f"less than {len(truth)} rows of truth"
            )
        truth = truth.iloc[rows]
    if len(latents) != len(truth) or len(truth) == 0:
        raise InputError.of("latents", "the number of rows", len(latents), f"{len(truth)} of truth")
    return truth.reset_index(drop=True)


def _values(table: pd.DataFrame, *columns: str) -> NDArray[np.float64]:
    wanted = columns[0] if len(columns) == 1 else list(columns)
    return table[wanted].to_numpy(dtype=float)


def _hinge_figures(
    latents: pd.DataFrame, hinge: NDArray[np.float64]
) -> dict[str, float | str | None]:
    columns = [c for c in content_columns(latents) if latents[c].nunique() > 1]
    if not columns or np.ptp(hinge) == 0:
        return {}
    correlations = [abs(metrics.pearson(_values(latents, c), hinge)) for c in columns]
    best = int(np.argmax(correlations))
    return {
        "hinge_pearson": correlations[best],
        "hinge_component": columns[best],
        "hinge_pearson_linear": metrics.multiple_correlation(
            latents[columns].to_numpy(dtype=float), hinge
        ),
        "hinge_spearman": abs(metrics.spearman(_values(latents, columns[best]), hinge)),
    }


def _plane_figures(latents: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float | str | None]:
    """Figures of rotation and shift in the plane, of images whose reflection is right."""
    figures: dict[str, float | str | None] = {}
    if "angle_deg" in latents:
        figures |= _rotation_figures(latents, truth)
    if {"shift_x", "shift_y"} <= set(truth) & set(latents):
        figures |= _shift_figures(latents, truth)
    return figures


def _mirrored(latents: pd.DataFrame, truth: pd.DataFrame) -> NDArray[np.bool_] | None:
    """Whether objects are mirrored, where the model asks."""
    return truth["mirrored"].to_numpy() == 1 if "mirrored" in latents else None


def _rotation_figures(latents: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float | str | None]:
    predicted, true = _values(latents, "angle_deg"), _values(truth, "angle_deg")
    mirrored = _mirrored(latents, truth)
    errors, _ = metrics.align_angles(predicted, true, mirrored)
    sense = 1.0 if mirrored is None else np.where(mirrored, -1.0, 1.0)
    correlation = metrics.circular_correlation(sense * predicted, sense * true)
    given = None
    if "hinge_deg" in truth and np.ptp(_values(truth, "hinge_deg")) > 0:
        residuals = metrics.remove_linear_drift(errors, _values(truth, "hinge_deg"))[0]
        given = metrics.circular_rmse_deg(residuals)
    return {
        "rotation_resultant": metrics.resultant_length(errors),
        "rotation_rmse_deg": metrics.circular_rmse_deg(errors),
        "rotation_rmse_given_hinge_deg": given,
        "rotation_circular_correlation": correlation if np.isfinite(correlation) else None,
    }


def _shift_figures(latents: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float | str | None]:
    predicted, true = _values(latents, "shift_x", "shift_y"), _values(truth, "shift_x", "shift_y")
    turned, mirrored = _values(truth, "angle_deg"), _mirrored(latents, truth)
    scale = _values(truth, "scale") if "scale" in truth and "scale" in latents else 1.0
    residuals, _ = metrics.align_shifts(predicted, true, turned, mirrored, scale)
    aligned = residuals + true
    correlation = np.mean([metrics.pearson(aligned[:, i], true[:, i]) for i in range(2)])
    return {
        "shift_rmse_px": metrics.shift_rmse_px(residuals),
        "shift_pearson": float(correlation) if np.isfinite(correlation) else None,
    }


def _scale_figures(latents: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float | str | None]:
    errors = metrics.scale_errors(latents["scale"], truth["scale"])
    given = None
    if "hinge_deg" in truth and np.ptp(_values(truth, "hinge_deg")) > 0:
        ratio, hinge = np.log1p(errors), _values(truth, "hinge_deg")
        left = np.expm1(ratio - np.polyval(np.polyfit(hinge, ratio, 1), hinge))
        given = float(np.median(np.abs(left)))
    error = float(np.median(np.abs(errors)))
    return {"scale_median_error": error, "scale_median_error_given_hinge": given}

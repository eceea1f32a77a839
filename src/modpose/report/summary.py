"""The head of the page: the facts of a run, and warnings about its result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from modpose.config import Config
from modpose.plot.grids import Floats
from modpose.run.describe import ENDINGS


def duration(seconds: float) -> str:
    """Format a time span in hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def nats(value: float) -> str:
    """Write an ELBO with a thousands separator and one decimal."""
    return f"{value:,.1f} nats".replace("-", "−")


def facts(
    config: Config,
    environment: Mapping[str, Any],
    metrics: Mapping[str, Floats],
    split: Mapping[str, int],
) -> list[tuple[str, str]]:
    """Return name and value of the facts that identify a run.

    Parameters
    ----------
    environment
        ``input``, ``shape``, ``channels``, ``pixel_size``, ``best_epoch``, ``training_seconds``,
        ``device`` and ``stopped``, where known.
    metrics
        Columns of the learning curves.
    split
        Number of images of each split.
    """
    pixel = environment.get("pixel_size")
    shape = environment.get("shape") or ()
    box = " × ".join(str(n) for n in shape)
    if environment.get("channels") == 3:
        box += " RGB"
    counts = ", ".join(f"{n:,} {name}" for name, n in split.items())
    found = [
        ("Recipe", config.recipe),
        ("Data", str(environment.get("input") or "an array")),
        ("Images", counts),
        ("Box", f"{box} pixels" if box else ""),
        ("Pixel size", f"{pixel:.4g} Å" if pixel else "not known"),
        ("Latents", str(config.model.z_dim)),
        ("Seed", str(config.seed)),
    ]
    found += _training_facts(environment, metrics)
    return [(name, value) for name, value in found if value]


def _training_facts(
    environment: Mapping[str, Any], metrics: Mapping[str, Floats]
) -> list[tuple[str, str]]:
    epochs = len(metrics.get("epoch", []))
    if not epochs:
        return []
    seconds = environment.get("training_seconds")
    time = "" if seconds is None else f" in {duration(float(seconds))}"
    found = [("Training", f"{epochs:,} epochs{time}")]
    kept = environment.get("best_epoch")
    row = np.flatnonzero(np.asarray(metrics["epoch"]) == kept)
    at = int(row[0]) if len(row) else -1
    when = f" (epoch {kept}, the best)" if len(row) else ""
    for key, name in (("elbo", "ELBO, training"), ("val_elbo", "ELBO, validation")):
        value = float(metrics[key][at]) if key in metrics else np.nan
        if np.isfinite(value):
            found.append((name, nats(value) + when))
    stopped = str(environment.get("stopped") or "")
    return [
        *found,
        ("Ended", ENDINGS.get(stopped, stopped)),
        ("Machine", str(environment.get("device") or "")),
    ]


def notes(
    metrics: Mapping[str, Floats],
    z: Floats,
    angle_std_deg: Floats | None,
    shift_px: Floats | None,
    box: int,
) -> list[str]:
    """Return sentences about what looks wrong, if anything does."""
    pose = _pose_notes(angle_std_deg, shift_px, box)
    return [*_training_notes(metrics), *_content_notes(metrics, z), *pose]


def _training_notes(metrics: Mapping[str, Floats]) -> list[str]:
    curve = np.asarray(metrics.get("val_elbo", []), float)
    curve = curve[np.isfinite(curve)]
    if len(curve) < 10:
        return []
    best = int(curve.argmax())
    climb = curve.max() - curve[len(curve) // 10]
    if best < 0.8 * (len(curve) - 1) and curve[best] - curve[-1] > max(1.0, 0.02 * climb):
        return [
            f"The validation ELBO was best at epoch {best + 1} of {len(curve)} and fell by "
            f"{curve[best] - curve[-1]:.1f} nats after it: further training memorised the images. "
            "This report shows the model of the best epoch."
        ]
    return []


def _content_notes(metrics: Mapping[str, Floats], z: Floats) -> list[str]:
    if z.shape[1] == 0:
        return []
    found = []
    kl = np.asarray(metrics.get("val_kl_content", metrics.get("kl_content", [np.nan])), float)
    if len(kl) and kl[-1] < 0.1:
        found.append(
            f"Content carries almost no information ({kl[-1]:.2f} nats): the model draws "
            "nearly the same object for all."
        )
    idle = int((z.std(0) < 0.1).sum())
    if idle and not found:
        found.append(f"Hardly used latents: {idle} of {z.shape[1]} (spread below 0.1).")
    return found


def _pose_notes(angle_std_deg: Floats | None, shift_px: Floats | None, box: int) -> list[str]:
    found = []
    if angle_std_deg is not None:
        unsure = float(np.nanmedian(angle_std_deg))
        if unsure > 45:
            found.append(
                f"The model is unsure of the angle (median s.d. {unsure:.0f}°): the object may be "
                "round, or its pose was not found."
            )
    if shift_px is not None and len(shift_px):
        far = float((np.linalg.norm(shift_px, axis=1) > box / 4).mean())
        if far > 0.02:
            found.append(
                f"{100 * far:.0f} % of the objects were found more than a quarter of the box from "
                "its centre: neighbours may have been taken for the object."
            )
    return found

"""The section on volumes: averages by pose, and walks through the six pose variables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from modpose.evaluate.recovery import rotations_of, space_errors
from modpose.geometry.grids import lattice
from modpose.geometry.pose import Pose, sample_images
from modpose.geometry.rotations import rotation_of_yaw_pitch_roll
from modpose.infer.latents import content_columns
from modpose.model.latents import Latents
from modpose.plot import figures, grids
from modpose.plot.figures import DisplayStyle
from modpose.plot.grids import Floats
from modpose.plot.html import Picture, Section

if TYPE_CHECKING:
    import pandas as pd

    from modpose.data.dataset import Dataset
    from modpose.estimator import PoseModel

AVERAGED = 256
"""Largest number of volumes in an average."""
STEPS = 5
LARGEST_ANGLE = 2.0
"""End of a walk in radians (Yi et al. 2021, section 4.5)."""
LARGEST_SHIFT = 0.3
"""End of a walk, as a fraction of the box."""
VARIABLES = ("yaw", "pitch", "roll", "shift x", "shift y", "shift z")


@dataclass(frozen=True)
class Space:
    """Volumes of a run, as pictures of three projections each.

    Attributes
    ----------
    averages
        Title and picture of each average.
    walk
        (6, n, H, W) predictions as only one pose variable changes.
    error_deg
        (N,) errors of the rotation, aligned; None without truth.
    """

    averages: list[tuple[str, Floats]]
    walk: Floats
    error_deg: Floats | None = None


def look_at_volumes(
    model: PoseModel, dataset: Dataset, latents: pd.DataFrame, known: pd.DataFrame | None
) -> Space | None:
    """Collect the data of the section; None if the model infers no 3-D rotation."""
    if len(dataset.shape) != 3 or "r00" not in latents:
        return None
    content = content_columns(latents)
    z = latents[content].to_numpy(np.float32).reshape(len(latents), len(content))
    rows = np.linspace(0, len(latents) - 1, min(len(latents), AVERAGED)).astype(np.int64)
    volumes = dataset.batch(rows).image
    averages = [("as they are", volumes.mean((0, 1)))]
    averages.append(("by the inferred poses", average(volumes, pose_of(latents.iloc[rows]))))
    error = None
    if known is not None and "r00" in known:
        true = pose_of(known.iloc[rows])
        averages.append(("by the true poses", average(volumes, true)))
        error = space_errors(latents, known)[0]
    pictures = [(title, grids.volume_pictures(v.numpy()[None])[0]) for title, v in averages]
    return Space(pictures, pose_walk(model, np.median(z, axis=0)), error)


def pose_of(table: pd.DataFrame) -> Pose:
    """Read poses (N,) from columns r00 ... r22 and shift_x, shift_y, shift_z."""
    shift = np.stack([table.get(f"shift_{a}", np.zeros(len(table))) for a in "xyz"], axis=1)
    return Pose(rotations_of(table).float(), torch.from_numpy(shift.astype(np.float32)))


def average(volumes: torch.Tensor, pose: Pose) -> torch.Tensor:
    """Average volumes (N, 1, D, H, W) at posed coordinates, volume(R u + t): (D, H, W)."""
    total, u = torch.zeros(volumes.shape[2:]), lattice(volumes.shape[2:])
    for volume, rotation, shift in zip(volumes, *pose, strict=True):
        x = Pose(rotation, shift).to_image(u)
        total += sample_images(volume[None], x[None]).reshape(total.shape)
    return total / len(volumes)


def pose_walk(model: PoseModel, z: NDArray[np.float32], steps: int = STEPS) -> Floats:
    """Predictions for content z (k,) as yaw, pitch, roll or a shift changes alone, (6, n, H, W)."""
    vae = model.vae
    angle = torch.zeros(6, steps, 3)
    shift = torch.zeros(6, steps, 3)
    reach = torch.linspace(-1, 1, steps)
    for axis in range(3):
        angle[axis, :, axis] = LARGEST_ANGLE * reach
        shift[3 + axis, :, axis] = LARGEST_SHIFT * max(vae.shape) * reach
    device = model.device
    rotation = rotation_of_yaw_pitch_roll(angle).to(device)
    still = torch.zeros(1, 1, 3, device=device)
    code = torch.tensor(z, dtype=torch.float32, device=device)[None, None]
    drawn = []
    with torch.no_grad():
        for turn, move in zip(rotation.flatten(0, 1), shift.to(device).flatten(0, 1), strict=True):
            cell = torch.zeros(1, 1, dtype=torch.int64, device=device)
            posed = Latents(code, still, move[None, None], cell, turn[None, None])
            mean = vae.likelihood.mean(vae.predict(posed))
            drawn.append(mean.reshape(vae.shape).cpu().numpy())
    pictures = grids.volume_pictures(np.stack(drawn))
    return pictures.reshape(6, steps, *pictures.shape[1:])


def space(found: Space | None, pixel_size: float | None) -> Section | None:
    """3-D poses: averages, walks, errors."""
    if found is None:
        return None
    titles, pictures = zip(*found.averages, strict=True)
    strip = figures.titled_pictures(pictures, titles, "lower", 1, pixel_size=pixel_size)
    levels = grids.grey_range(found.walk, 0.1)
    look = DisplayStyle(levels, levels, "lower", pixel_size)
    walk = figures.traversals(found.walk, VARIABLES, look)
    shown = [
        Picture.of(strip, "average.png", "Averages before and after alignment, three projections"),
        Picture.of(walk, "pose-walk.png", "Predictions as each of the six pose variables changes"),
    ]
    if found.error_deg is not None:
        histogram = figures.error_sizes(found.error_deg, "error of the rotation", "degrees")
        shown.append(Picture.of(histogram, "rotation-errors.png", "Histogram of rotation errors"))
    return Section(
        "space",
        "3-D poses",
        "Every volume is shown as its means along z, y and x, side by side. First the average of "
        "the volumes without alignment; then rotated and shifted upright by the inferred poses "
        "(only the poses come from the model) and, if known, by the true poses. Below are the "
        "model's pictures as only yaw, pitch or roll (-2 to 2 radians) or one shift (-0.3 to 0.3 "
        "of the box) changes. Errors of simulated data are angles to the true rotation after one "
        "global rotation per class; chance has a median of 132 degrees.",
        "the average with inferred poses is as sharp as that with true ones, and each row of the "
        "walk rotates or shifts one rigid object.",
        "a round blur in both (poses were not found), or a walk in which nothing changes (the "
        "model draws a ball: content and noise explain the data without pose).",
        shown,
    )

"""The data of a report: arrays, and a function that draws content."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from modpose.affinity.matrix import Affinity
from modpose.plot import grids
from modpose.plot.figures import DisplayStyle
from modpose.plot.grids import Floats
from modpose.report.posed import PosedVolumes
from modpose.report.probe import Probe
from modpose.report.volumes import Space

Integers = NDArray[np.int64]


class PlanePose(NamedTuple):
    """Angles (n,), degrees, shifts (n, 2), pixels, whether mirrored, and scale, (n,) or None."""

    angle_deg: Floats
    shift_px: Floats
    mirrored: NDArray[np.bool_] | None
    scale: Floats | None


class Unit(NamedTuple):
    """Unit of lengths in a report: its name, and how many of it a pixel is."""

    name: str
    per_pixel: float


@dataclass(frozen=True)
class KnownClasses:
    """Classes, affinities and pose channel of N images.

    Attributes
    ----------
    labels
        (N,) classes, empty where they are not known.
    held_out
        (N,) whether the image is a validation image.
    affinity
        Requested cosines between classes; None without an affinity.
    channel
        (N, p) pose channel, or None.
    draw
        From content (n, k) and pose channel (n, p) to pictures.
    """

    labels: NDArray[np.str_]
    held_out: NDArray[np.bool_]
    affinity: Affinity | None = None
    channel: Floats | None = None
    draw: Callable[[Floats, Floats], Floats] | None = None


@dataclass(frozen=True)
class ReportData:
    """The data of a report.

    Attributes
    ----------
    look
        How pictures are drawn.
    decode
        From content (n, k) to upright pictures (n, H, W[, 3]).
    z, elbo
        (N, k) posterior means of content and (N,) nats of every image.
    angle_deg, angle_std_deg, shift_px
        (N,), (N,) and (N, 2); None where the model has no such pose.
    mirrored
        (N,) whether the object is mirrored; None if the model does not infer it.
    scale
        (N,) how many times larger than upright; None if the model does not infer it.
    columns
        Columns (N,) of classes: label, cluster.
    further
        From rows (n,) to further columns (n,) to colour by, of numbers or text.
    rows
        (M,) positions in these arrays, in random order, of the images that were read.
    images
        (M, H, W[, 3]) those images, preprocessed.
    posed
        (m, H, W[, 3]) the model's posed reconstruction of the first m of them.
    index
        (N,) position in the stack.
    metrics
        Columns of the learning curves.
    truth
        Truth of each image: ``angle_deg``, ``shift_x``, ``shift_y``, ``mirrored``, ``scale``,
        ``hinge_deg``.
    recovery
        Lines of name and value: how well the truth was recovered.
    flat
        Whether the pose rotates pictures in the plane (images, not volumes).
    volumes
        What is drawn of images with given poses; None if the model draws images or volumes
        directly.
    space
        Averages and walks of volumes with 3-D poses; None otherwise.
    kin
        Known classes, affinities and the pose channel; None without any of them.
    probe
        Images for tests of the inference, with the model; None without images.
    """

    look: DisplayStyle
    decode: Callable[[Floats], Floats]
    z: Floats
    elbo: Floats
    index: Integers
    rows: Integers
    images: Floats
    posed: Floats
    metrics: Mapping[str, Floats]
    angle_deg: Floats | None = None
    angle_std_deg: Floats | None = None
    shift_px: Floats | None = None
    mirrored: NDArray[np.bool_] | None = None
    scale: Floats | None = None
    columns: Mapping[str, NDArray[Any]] | None = None
    further: Callable[[Integers], Mapping[str, NDArray[Any]]] | None = None
    truth: Mapping[str, Floats] | None = None
    recovery: tuple[tuple[str, str], ...] = ()
    shift_prior_px: float | None = None
    pixel_size: float | None = None
    flat: bool = True
    probe: Probe | None = None
    volumes: PosedVolumes | None = None
    space: Space | None = None
    kin: KnownClasses | None = None
    seed: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of a picture."""
        return int(self.images.shape[1]), int(self.images.shape[2])

    @property
    def unit(self) -> Unit:
        """Å where the pixel size is known, else pixels."""
        return Unit("px", 1.0) if self.pixel_size is None else Unit("Å", self.pixel_size)

    @property
    def wide(self) -> bool:
        """Whether pictures are much wider than high (the projections of volumes)."""
        return self.shape[1] > 1.6 * self.shape[0]

    @property
    def z_dim(self) -> int:
        """Number of latents."""
        return int(self.z.shape[1])

    def pose_of(self, rows: Integers) -> PlanePose:
        """Poses of some images, zero where the model has none."""
        angle = np.zeros(len(rows)) if self.angle_deg is None else self.angle_deg[rows]
        shift = np.zeros((len(rows), 2)) if self.shift_px is None else self.shift_px[rows]
        mirrored = None if self.mirrored is None else self.mirrored[rows]
        return PlanePose(angle, shift, mirrored, None if self.scale is None else self.scale[rows])

    @property
    def has_pose(self) -> bool:
        """Whether the model rotates, shifts, mirrors or scales pictures."""
        inferred = (self.angle_deg, self.shift_px, self.mirrored, self.scale)
        return self.flat and any(part is not None for part in inferred)


def sense_of_angle(origin: grids.Origin) -> str:
    """Describe where row 0 is drawn and in which direction a positive angle rotates."""
    if origin == "lower":
        return (
            "Pictures are drawn as in EM viewers, row 0 at the bottom; a positive angle rotates "
            "the object counter-clockwise."
        )
    return (
        "Pictures are drawn like photographs, row 0 at the top; a positive angle rotates the "
        "object clockwise."
    )


def subscript(number: int) -> str:
    """Write a number in subscript digits."""
    return "".join("₀₁₂₃₄₅₆₇₈₉"[int(digit)] for digit in str(number))

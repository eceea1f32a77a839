"""Results of inference for a stack: content and pose of every image, as arrays and as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Encoded:
    """Posterior means of N images (of the most probable cell), in input order.

    Attributes
    ----------
    z, z_std
        (N, k) content and its posterior s.d.
    rotation
        (N, d, d) matrices that rotate the upright object into the image; (N, 3, 3) for images that
        are projections of volumes.
    shift
        (N, d) pixels of the box that the model sees.
    angle_deg, angle_std_deg
        (N,) in-plane angle in (-180, 180], or None if rotation is not inferred.
    rotation_std_deg
        (N,) s.d. about an axis (the root mean square of three) of a rotation in space, or None.
    shift_std
        (N, d), or None if shift is not inferred.
    pose_entropy
        (N,) nats.
    elbo, recon, kl_pose, kl_content
        (N,) nats; the ELBO is a single-sample estimate (the mean of several where poses were
        searched for), with the KL that makes it a bound.
    elbo_gain
        (N,) nats that search gained over the encoder's posterior, 0 where that was kept; None
        without search, or if there is no encoder to compare with.
    pose_channel
        (N, p) numbers besides content that only the field sees, or None if the model has none.
    mirrored, mirrored_prob
        (N,) bool, whether the object is more probably mirrored than not (before rotation), and the
        probability of this; None if reflection is not inferred.
    scale, scale_std
        (N,) scale of the object relative to its upright size, the posterior median, and its s.d.;
        None if scale is not inferred.
    contrast, contrast_std
        (N,) factor on the signal of an image of given pose, 1 on average, and its s.d.; None if it
        is not inferred.
    pose_agreement
        (N,) share of the rotated copies of each image with this pose; None without copies.
    """

    z: Floats
    z_std: Floats
    rotation: Floats
    shift: Floats
    angle_deg: Floats | None
    angle_std_deg: Floats | None
    shift_std: Floats | None
    pose_entropy: Floats
    elbo: Floats
    recon: Floats
    kl_pose: Floats
    kl_content: Floats
    elbo_gain: Floats | None = None
    rotation_std_deg: Floats | None = None
    pose_channel: Floats | None = None
    pose_agreement: Floats | None = None
    scale: Floats | None = None
    scale_std: Floats | None = None
    mirrored: NDArray[np.bool_] | None = None
    mirrored_prob: Floats | None = None
    contrast: Floats | None = None
    contrast_std: Floats | None = None

    def to_dataframe(self, index: NDArray[np.int64] | None = None) -> pd.DataFrame:
        """One row per image: the columns of ``latents.parquet`` that come from inference.

        ``index`` are the positions of the images in the stack, for its column ``index``; None: they
        are its first N.
        """
        import pandas as pd

        columns: dict[str, NDArray[np.generic]] = {
            "index": np.arange(len(self.z)) if index is None else index
        }
        columns |= {f"z_{k}": self.z[:, k] for k in range(self.z.shape[1])}
        columns |= {f"z_{k}_std": self.z_std[:, k] for k in range(self.z.shape[1])}
        if self.angle_deg is not None and self.angle_std_deg is not None:
            columns |= {"angle_deg": self.angle_deg, "angle_std_deg": self.angle_std_deg}
        if self.rotation.shape[-1] > self.shift.shape[-1]:  # projections, of given pose
            entries = [(i, j) for i in range(3) for j in range(3)]
            columns |= {f"r{i}{j}": self.rotation[:, i, j] for i, j in entries}
            columns |= {"shift_x": self.shift[:, 0], "shift_y": self.shift[:, 1]}
        if self.rotation_std_deg is not None:
            entries = [(i, j) for i in range(3) for j in range(3)]
            columns |= {f"r{i}{j}": self.rotation[:, i, j] for i, j in entries}
            columns["rotation_std_deg"] = self.rotation_std_deg
        if self.shift_std is not None:
            axes = "xyz"[: self.shift.shape[1]]
            columns |= {f"shift_{axis}": self.shift[:, k] for k, axis in enumerate(axes)}
            columns |= {f"shift_{axis}_std": self.shift_std[:, k] for k, axis in enumerate(axes)}
        if self.scale is not None and self.scale_std is not None:
            columns |= {"scale": self.scale, "scale_std": self.scale_std}
        if self.mirrored is not None and self.mirrored_prob is not None:
            columns |= {"mirrored": self.mirrored.astype(np.int64)}
            columns |= {"mirrored_prob": self.mirrored_prob}
        if self.pose_channel is not None:
            columns |= {f"pose_{k}": part for k, part in enumerate(self.pose_channel.T)}
        for name in ("pose_entropy", "elbo", "recon", "kl_pose", "kl_content"):
            columns[name] = getattr(self, name)
        for name in ("contrast", "contrast_std", "elbo_gain", "pose_agreement"):
            if getattr(self, name) is not None:
                columns[name] = getattr(self, name)
        return pd.DataFrame(columns)

    def _repr_html_(self) -> str:
        return str(self.to_dataframe().to_html(max_rows=8))


def gain_summary(encoded: Encoded) -> str:
    """Describe the gain of search over the encoder in one sentence."""
    gain = encoded.elbo_gain
    if gain is None:
        return (
            f"search: ELBO {encoded.elbo.mean():.2f} nats per image on average; the model's lookup "
            "table has no rows for these images, so there is nothing to compare with"
        )
    return (
        f"search: ELBO {encoded.elbo.mean():.2f} nats per image on average, "
        f"{gain.mean():.2f} over the encoder (the amortisation gap: median {np.median(gain):.2f}, "
        f"largest {gain.max():.2f}); {(gain > 0).mean():.0%} of the images improved"
    )

"""What inference gives for a stack: content and pose of every image, as arrays and as a table."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from modpose.data.batches import Batch
from modpose.data.dataset import Dataset
from modpose.geometry.rotations import wrap
from modpose.progress import Progress
from modpose.vae import Elbo, Vae

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
        (N, d, d) matrices that carry the upright object into the image.
    shift
        (N, d) pixels of the box that the model sees.
    angle_deg, angle_std_deg
        (N,) in-plane angle in (-180, 180], or None where rotation is not inferred.
    shift_std
        (N, d), or None where shift is not inferred.
    pose_entropy
        (N,) nats.
    elbo, recon, kl_pose, kl_content
        (N,) nats; the ELBO is a single-sample estimate, with the KL that makes it a bound.
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

    def to_dataframe(self) -> pd.DataFrame:
        """One row an image: the columns of ``latents.parquet`` that inference gives."""
        import pandas as pd

        columns: dict[str, NDArray[np.generic]] = {"index": np.arange(len(self.z))}
        columns |= {f"z_{k}": self.z[:, k] for k in range(self.z.shape[1])}
        columns |= {f"z_{k}_std": self.z_std[:, k] for k in range(self.z.shape[1])}
        if self.angle_deg is not None and self.angle_std_deg is not None:
            columns |= {"angle_deg": self.angle_deg, "angle_std_deg": self.angle_std_deg}
        if self.shift_std is not None:
            axes = "xyz"[: self.shift.shape[1]]
            columns |= {f"shift_{axis}": self.shift[:, k] for k, axis in enumerate(axes)}
            columns |= {f"shift_{axis}_std": self.shift_std[:, k] for k, axis in enumerate(axes)}
        for name in ("pose_entropy", "elbo", "recon", "kl_pose", "kl_content"):
            columns[name] = getattr(self, name)
        return pd.DataFrame(columns)


@torch.no_grad()
def encode_dataset(
    vae: Vae,
    dataset: Dataset,
    *,
    device: torch.device,
    seed: int,
    quiet: bool = False,
) -> Encoded:
    """Infer content and pose of every image of a data set, in order."""
    vae.eval()
    generator = torch.Generator(device).manual_seed(seed)
    parts: list[dict[str, torch.Tensor]] = []
    with Progress("encode", dataset.n, quiet=quiet) as progress:
        for batch in dataset.batches(np.arange(dataset.n), vae.whole_batch):
            parts.append(_encode_batch(vae, batch.to(device), generator))
            progress.advance(len(batch), 0.0)
    columns: dict[str, Any] = {
        field.name: torch.cat([part[field.name] for part in parts]).cpu().numpy()
        if field.name in parts[0]
        else None
        for field in fields(Encoded)
    }
    return Encoded(**columns)


def _encode_batch(vae: Vae, batch: Batch, generator: torch.Generator) -> dict[str, torch.Tensor]:
    posterior = vae.posterior(batch)
    best = posterior.best()
    elbo: Elbo = vae.elbo(batch, posterior, generator)
    pose = best.pose()
    spread = posterior.spread(best.cell)
    values = {
        "z": best.z[:, 0],
        "z_std": spread.z[:, 0],
        "rotation": pose.rotation[:, 0],
        "shift": pose.shift[:, 0],
        "pose_entropy": posterior.pose_entropy(),
        "elbo": elbo.value(),
    } | elbo._asdict()
    if posterior.angle is not None:
        values["angle_deg"] = wrap(best.angle[:, 0]).rad2deg()
        values["angle_std_deg"] = spread.angle[:, 0].rad2deg()
    if posterior.shift is not None:
        values["shift_std"] = spread.shift[:, 0]
    return values

"""A batch: some images and their known properties, from the data to the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from modpose.geometry.pose import Pose
from modpose.observe.observation import Observation


@dataclass(frozen=True)
class Batch:
    """A few images, ready for the model.

    Attributes
    ----------
    index
        (B,) int64, position in the stack (the row of a lookup table).
    image
        (B, C, H, W) or (B, C, D, H, W) float32, preprocessed.
    ctf
        (B, 9) float32 CTF parameters, columns as in :class:`modpose.observe.ctf.CtfColumn`, or
        None if no CTF is modelled.
    pose
        Given poses: rotation matrices (B, 3, 3), also for images (projections along z), and shifts
        (B, 2) (volumes: (B, 3)) in pixels; None if the pose is inferred.
    wedge
        (B, D, H, W // 2 + 1) float32, the measured frequencies of each volume
        (:func:`modpose.observe.wedge.wedge_mask`), or None if all were measured.
    twin
        (B, C, ...) input of the encoder in place of ``image`` (``data.twin``), or None.
    label
        (B,) int64 known classes, -1 if unknown; None if they are not used.
    sums
        (B, Q) float32 what the images tell a model of maps that stay
        (:class:`modpose.fourier.amplitudes.AmplitudeSums`), in place of ``image``; or None.
    fitted
        Whether the model is fitted to these images, so that its per-image rows
        (:mod:`modpose.model.image_rows`) are theirs.
    """

    index: Tensor
    image: Tensor
    ctf: Tensor | None = None
    pose: Pose | None = None
    wedge: Tensor | None = None
    twin: Tensor | None = None
    label: Tensor | None = None
    sums: Tensor | None = None
    fitted: bool = True

    def __len__(self) -> int:
        return int(self.index.shape[0])

    @property
    def observation(self) -> Observation | None:
        """CTF and wedge; None if neither is known."""
        if self.ctf is None and self.wedge is None:
            return None
        return Observation(self.ctf, self.wedge)

    def with_image(self, image: Tensor) -> Batch:
        """Return the same batch with other pixels."""
        return replace(self, image=image)

    def rows(self, index: Tensor | slice) -> Batch:
        """Return the images at ``index`` (P,), which may repeat, or of a stretch of the batch."""
        return self._map(lambda part: part[index])

    def chunks(self, size: int | None) -> Iterator[Batch]:
        """Iterate over the batch in chunks of this many images; None: all at once."""
        if size is None or size >= len(self):
            yield self
            return
        for start in range(0, len(self), size):
            yield self.rows(slice(start, start + size))

    def to(self, device: torch.device) -> Batch:
        """Move every tensor to ``device``."""
        return self._map(lambda part: part.to(device))

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        changed: dict[str, Tensor | Pose] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Pose):
                changed[field.name] = Pose(*map(change, value))
            elif isinstance(value, Tensor):
                changed[field.name] = change(value)
        return replace(self, **changed)  # type: ignore[arg-type]

"""What travels from the data to the model: a batch of images and what is known of each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass  # not frozen: mixed precision casts the fields of a copy
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
        None where no CTF is modelled.
    """

    index: Tensor
    image: Tensor
    ctf: Tensor | None = None

    def __len__(self) -> int:
        return int(self.index.shape[0])

    def with_image(self, image: Tensor) -> Batch:
        """Return the same batch with other pixels."""
        return replace(self, image=image)

    def to(self, device: torch.device) -> Batch:
        """Move every tensor to ``device``."""
        return replace(
            self,
            index=self.index.to(device),
            image=self.image.to(device),
            ctf=None if self.ctf is None else self.ctf.to(device),
        )

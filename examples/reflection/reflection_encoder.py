"""The network of the example: one perceptron sees every copy of an image, turned and mirrored."""

from __future__ import annotations

import math

import torch
from reflection_vae import CopiesEncoderConfig
from torch import Tensor, nn

from modpose.data.batches import Batch
from modpose.geometry.grids import lattice
from modpose.geometry.pose import rotate_images
from modpose.geometry.rotations import rotation_2d, wrap
from modpose.model.cells import Cells
from modpose.model.encoders import Place
from modpose.model.encoders.encoder import Context, Encoder
from modpose.model.posterior import Posterior
from modpose.model.reflection import either_way_round


def build(section: CopiesEncoderConfig, place: Place) -> Encoder:
    """Make the encoder for images of a size."""
    return CopiesEncoder(section, place)


class CopiesEncoder(Encoder):
    """A cell for each angle and reflection: what the network says of that copy, turned back."""

    turns: Tensor
    lattice: Tensor

    def __init__(self, section: CopiesEncoderConfig, place: Place) -> None:
        super().__init__()
        self.layout = place.layout
        count = section.rotations if place.layout.role.angle else 1
        turns = torch.arange(count) * (2 * math.pi / count)
        self.register_buffer("turns", turns, persistent=False)
        self.register_buffer("lattice", lattice(place.shape), persistent=False)
        self.network = nn.Sequential(
            nn.Linear(place.channels * math.prod(place.shape), section.hidden),
            nn.SiLU(),
            nn.Linear(section.hidden, section.hidden),
            nn.SiLU(),
            nn.Linear(section.hidden, place.layout.n_params + 1),
        )

    def forward(self, batch: Batch, context: Context) -> Posterior:
        """Read the image, and its mirror image where a reflection is inferred."""
        if self.layout.reflects:
            return either_way_round(self._read, batch.image)
        return self._read(batch.image)[0]

    def _read(self, image: Tensor) -> tuple[Posterior, Tensor]:
        """Return the posterior over the angles, and how well it explains the image, (B,)."""
        count = len(self.turns)
        back = -self.turns.repeat(len(image))
        copies = rotate_images(image.repeat_interleave(count, 0), back, self.lattice)
        numbers = self.network(copies.flatten(1)).reshape(len(image), count, -1)
        params, logits = numbers[..., :-1].clone(), numbers[..., -1]
        if self.layout.shift.inferred:  # means of the shift, read from a turned copy
            first = 2 * self.layout.z_dim + self.layout.sizes[1]
            here = params[..., None, first : first + 2] @ rotation_2d(-self.turns)
            params[..., first : first + 2] = here.squeeze(-2)
        cells = None
        if self.layout.role.angle:
            prior = self.layout.rotation.log_prob(wrap(self.turns)[:, None]).log_softmax(0)
            cells = Cells(self.turns, None, prior, angle_std=math.pi / count)
        return self.layout.posterior(params, logits, cells), logits.logsumexp(-1)

"""A variational lookup table (Edelberg & Lederman 2023): one row of parameters per image."""

from __future__ import annotations

import torch
from torch import Tensor

from modpose.config import TableEncoderConfig
from modpose.data.batches import Batch
from modpose.model.encoders.encoder import Context, Encoder
from modpose.model.image_rows import ImageRows
from modpose.model.posterior import LatentLayout, Posterior

ZERO_START = -4.0
"""Log s.d. of content where the means start at zero: log σ² = -8 (appendix C.1.1)."""


class TableEncoder(Encoder):
    """Rows are looked up by the index of the image; pixels are not used.

    A row begins with the mean and the log s.d. of content.  The numbers of the pose, if any,
    follow and start at zero.
    """

    sees_pixels = False

    def __init__(self, config: TableEncoderConfig, n_images: int, layout: LatentLayout) -> None:
        super().__init__()
        self.layout = layout
        self.z_dim = z_dim = layout.z_dim
        self.rows = ImageRows(n_images, layout.n_params, config.lr)
        self.rows.weight.requires_grad_(not config.frozen)
        mean, log_std = torch.zeros(n_images, z_dim), torch.full((n_images, z_dim), ZERO_START)
        if config.init == "random":
            noise = torch.randn(2, n_images, z_dim)
            mean = config.mean + config.spread * noise[0]
            log_std = config.log_std + config.log_std_spread * noise[1]
        self.set_content(mean, log_std)

    @torch.no_grad()
    def set_content(self, mean: Tensor, log_std: Tensor) -> None:
        """Write means and log s.d. of content, (N, z_dim) each, into the rows."""
        self.rows.weight[:, : self.z_dim] = mean
        self.rows.weight[:, self.z_dim : 2 * self.z_dim] = log_std

    def forward(self, batch: Batch, context: Context) -> Posterior:
        """Look up the rows of the images at ``batch.index``."""
        return self.layout.one_cell(self.rows(batch.index))

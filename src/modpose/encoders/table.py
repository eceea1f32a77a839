"""A variational lookup table (Edelberg & Lederman 2023): one row of parameters an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modpose.config import TableEncoderConfig
from modpose.data.batches import Batch
from modpose.posterior.cells import Proposal


class TableEncoder(nn.Module):
    """Rows are looked up by the image's index; no pixel is seen.

    A row begins with the mean and the log s.d. of content; numbers of a pose, where there are any,
    follow and start at zero.
    """

    def __init__(
        self, config: TableEncoderConfig, n_images: int, n_params: int, z_dim: int
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.rows = nn.Embedding(n_images, n_params, sparse=True)
        self.rows.weight.requires_grad_(not config.frozen)
        spread = config.spread if config.init == "random" else 0.0
        with torch.no_grad():
            self.rows.weight.zero_()
            noise = torch.randn(2, n_images, z_dim)
            log_std = config.log_std + config.log_std_spread * noise[1]
            self.set_content(config.mean + spread * noise[0], log_std)

    @torch.no_grad()
    def set_content(self, mean: Tensor, log_std: Tensor) -> None:
        """Write means and log s.d. of content, (N, z_dim) each, into the rows."""
        self.rows.weight[:, : self.z_dim] = mean
        self.rows.weight[:, self.z_dim : 2 * self.z_dim] = log_std

    def forward(self, batch: Batch) -> Proposal:
        """Return parameters (B, 1, n_params) and cell logits (B, 1)."""
        params = self.rows(batch.index).unsqueeze(1)
        return Proposal(params, torch.zeros_like(params[..., 0]))

"""A variational lookup table (Edelberg & Lederman 2023): one row of parameters an image."""

from __future__ import annotations

import torch
from torch import nn

from modpose.config import TableEncoderConfig
from modpose.data.batches import Batch
from modpose.posterior.cells import Proposal


class TableEncoder(nn.Module):
    """Rows are looked up by the image's index; no pixel is seen."""

    def __init__(self, config: TableEncoderConfig, n_images: int, n_params: int) -> None:
        super().__init__()
        self.rows = nn.Embedding(n_images, n_params, sparse=True)
        if config.init == "zeros":
            nn.init.zeros_(self.rows.weight)

    def forward(self, batch: Batch) -> Proposal:
        """Return parameters (B, 1, n_params) and cell logits (B, 1)."""
        params = self.rows(batch.index).unsqueeze(1)
        return Proposal(params, torch.zeros_like(params[..., 0]))

"""Coordinate networks: spatial-VAE's generator (Bepler et al. 2019, section 2.1).

The first layer of the published network acts on the concatenation of coordinates and content at
every pixel.  Here it is split, W [x; z] + b = W_x x + (W_z z + b), so that the content half is
computed once an image; the numbers are the same.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from modpose.config import FourierFeatures, ImplicitFieldConfig
from modpose.nn.perceptron import ACTIVATIONS, hidden_layers


class ImplicitField(nn.Module):
    """An MLP of (coordinates, content), evaluated at every given coordinate."""

    def __init__(self, config: ImplicitFieldConfig, z_dim: int, n_outputs: int, dim: int) -> None:
        super().__init__()
        self.squared = config.squared_coordinates
        self.fourier = None if config.fourier is None else FourierLayer(config.fourier, dim)
        n_coordinates = dim + (dim * (dim + 1) // 2 if self.squared else 0)
        if config.fourier is not None:
            n_coordinates = 2 * config.fourier.count
        self.from_coordinates = nn.Linear(n_coordinates, config.hidden)
        self.from_content = nn.Linear(z_dim, config.hidden, bias=False) if z_dim else None
        self.bilinear = (
            nn.Linear(z_dim, n_coordinates * config.hidden, bias=False)
            if config.bilinear and z_dim
            else None
        )
        self.activation = ACTIVATIONS[config.activation]()
        self.hidden = hidden_layers(
            config.hidden, config.depth - 1, config.activation, config.residual
        )
        self.output = nn.Linear(config.hidden, n_outputs)
        self._match_concatenated_start(n_coordinates + z_dim)

    def forward(self, u: Tensor, z: Tensor) -> Tensor:
        """Values (B, P, n_outputs) at network coordinates u (B, P, d) for content z (B, z_dim)."""
        x = self.encode_coordinates(u)
        if self.bilinear is None:
            h = self.from_coordinates(x)
        else:  # content turns and stretches the coordinates: W_x + sum_k z_k B_k, image by image
            weight = self.from_coordinates.weight.t() + self.bilinear(z).unflatten(
                -1, (x.shape[-1], -1)
            )
            h = x @ weight + self.from_coordinates.bias
        if self.from_content is not None:
            h = h + self.from_content(z).unsqueeze(1)
        return cast(Tensor, self.output(self.hidden(self.activation(h))))

    def encode_coordinates(self, u: Tensor) -> Tensor:
        """Return the input of the first layer; phases are always float32."""
        with torch.autocast(u.device.type, enabled=False):
            u = u.float()
            if self.squared:
                row, column = torch.triu_indices(u.shape[-1], u.shape[-1], device=u.device)
                return torch.cat([u, u[..., row] * u[..., column]], dim=-1)
            return u if self.fourier is None else self.fourier(u)

    @torch.no_grad()
    def _match_concatenated_start(self, n_inputs: int) -> None:
        """Initialise the split first layer like one layer with ``n_inputs`` inputs."""
        bound = 1 / math.sqrt(n_inputs)
        self.from_coordinates.weight.uniform_(-bound, bound)
        self.from_coordinates.bias.uniform_(-bound, bound)
        if self.from_content is not None:
            self.from_content.weight.uniform_(-bound, bound)
        if self.bilinear is not None:
            self.bilinear.weight.uniform_(-bound, bound)


class FourierLayer(nn.Module):
    """Random Fourier features, cos and sin of 2 pi W u with a fixed W ~ N(0, sigma²)."""

    frequencies: Tensor

    def __init__(self, config: FourierFeatures, dim: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", config.sigma * torch.randn(dim, config.count))

    def forward(self, u: Tensor) -> Tensor:
        """(..., d) to (..., 2 count)."""
        phase = 2 * math.pi * u @ self.frequencies
        return torch.cat([phase.cos(), phase.sin()], dim=-1)

"""The multi-layer perceptron of encoders and fields."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from modpose.config import Activation

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky-relu": nn.LeakyReLU,
    "silu": nn.SiLU,
}


class ResidualLayer(nn.Module):
    """x + layer(x), then the activation."""

    def __init__(self, width: int, activation: Activation) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        """Apply to (..., width)."""
        return cast(Tensor, self.activation(x + self.linear(x)))


def hidden_layers(width: int, depth: int, activation: Activation, residual: bool) -> nn.Sequential:
    """``depth`` layers of ``width`` units, (..., width) to (..., width)."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        if residual:
            layers.append(ResidualLayer(width, activation))
        else:
            layers += [nn.Linear(width, width), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers)


def perceptron(
    n_in: int, n_out: int, hidden: int, depth: int, activation: Activation, residual: bool
) -> nn.Sequential:
    """``depth`` hidden layers between ``n_in`` and ``n_out`` numbers."""
    return nn.Sequential(
        nn.Linear(n_in, hidden),
        ACTIVATIONS[activation](),
        *hidden_layers(hidden, depth - 1, activation, residual),
        nn.Linear(hidden, n_out),
    )


@torch.no_grad()
def start_small(layer: nn.Linear, scale: float = 0.1) -> None:
    """Scale down the weights of a last layer, so that training starts near its bias."""
    layer.weight.mul_(scale)
    layer.bias.zero_()

"""Shared parts of convolutional encoders and fields, in two and three dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

CONVOLUTION = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
GROUP = 4
"""Channels per group of the normalisation."""


def widths_of(channels: int, depth: int, widths: Sequence[int] | None) -> list[int]:
    """Channels of each layer from the finest: as given, or doubling."""
    return [channels * 2**k for k in range(depth)] if widths is None else list(widths)


def reduced(shape: Sequence[int], factor: int) -> tuple[int, ...]:
    """Return the box divided by a factor, rounded up."""
    return tuple(math.ceil(side / factor) for side in shape)


def normalization(kind: str, channels: int) -> list[nn.Module]:
    """Return the layer that normalises this many channels, or nothing."""
    if kind == "none":
        return []
    return [nn.GroupNorm(math.gcd(channels, max(1, channels // GROUP)), channels)]


def channels_innermost(network: nn.Module, dim: int) -> None:
    """Store weights with channels innermost, which makes convolutions on CPUs faster.

    The results are the same; a training step of affinity-VAE takes about an eighth less time.
    """
    layout = {2: torch.channels_last, 3: torch.channels_last_3d}[dim]
    network.to(memory_format=layout)  # type: ignore[call-overload]

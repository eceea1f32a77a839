"""The convolutional encoder of affinity-VAE, for images and volumes of any box: one cell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

from torch import nn

from modpose.config import ConvEncoderConfig
from modpose.data.batches import Batch
from modpose.model.encoders.encoder import Context, Encoder
from modpose.model.posterior import LatentLayout, Posterior
from modpose.nn.conv import CONVOLUTION, channels_innermost, normalization, reduced, widths_of
from modpose.nn.perceptron import ACTIVATIONS, start_small


class ConvEncoder(Encoder):
    """Convolutions of stride 2, flattened, then posterior parameters.

    Parameters
    ----------
    config
        Depth, channels and the rest.
    channels, shape
        Of the images, (H, W) or (D, H, W); odd sides are rounded up when halved.
    layout
        Which latent variables there are.
    """

    def __init__(
        self,
        config: ConvEncoderConfig,
        *,
        channels: int,
        shape: Sequence[int],
        layout: LatentLayout,
    ) -> None:
        super().__init__()
        self.layout = layout
        convolution, activation = CONVOLUTION[len(shape)], ACTIVATIONS[config.activation]
        widths = widths_of(config.channels, config.depth, config.widths)
        left = (config.kernel - 1) // 2
        pad = [left, config.kernel - 1 - left] * len(shape)
        layers: list[nn.Module] = []
        for before, after in zip([channels, *widths], widths, strict=False):
            if config.kernel % 2 == 0:  # an even kernel has no middle
                layers.append(nn.ZeroPad3d(pad) if len(shape) == 3 else nn.ZeroPad2d(pad))  # type: ignore[arg-type]
            padding = left if config.kernel % 2 else 0
            layers.append(convolution(before, after, config.kernel, stride=2, padding=padding))
            layers += [*normalization(config.normalize, after), activation()]
        layers.append(nn.Flatten())
        features = widths[-1] * math.prod(reduced(shape, 2 ** len(widths)))
        if config.hidden:
            layers += [nn.Linear(features, config.hidden), activation()]
            features = config.hidden
        self.network = nn.Sequential(*layers, nn.Linear(features, layout.n_params))
        start_small(cast(nn.Linear, self.network[-1]))
        channels_innermost(self.network, len(shape))

    def forward(self, batch: Batch, context: Context) -> Posterior:
        """Propose one cell."""
        return self.layout.one_cell(self.network(batch.image))

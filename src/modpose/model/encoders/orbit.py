"""TARGET-VAE's encoder (Nasiri & Bepler 2022, section 3.3.1): a group convolution over P_n.

Kernels as large as the whole object are rotated to n angles and slid over the zero-padded image;
layers one pixel wide then act in the same way on every (rotation, position).  So an image that is
rotated by 2 pi / n and shifted by whole strides gives the same numbers, in other cells.

Kernels are sums of circular harmonics on rings, which rotate without interpolation.  With bilinear
interpolation, a rotated copy of a pixel kernel would keep only about 0.6 of its norm, and the
logits would favour the angles of the lattice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from modpose.config import Activation, ModelConfig, OrbitEncoderConfig
from modpose.data.batches import Batch
from modpose.geometry.rotations import wrap
from modpose.model.cells import Cells
from modpose.model.encoders.encoder import Context, Encoder
from modpose.model.posterior import LatentLayout, Posterior
from modpose.model.reflection import either_way_round
from modpose.nn.perceptron import ACTIVATIONS

RING_WIDTH = 0.6
WAVES_A_PIXEL = 1.5
"""Harmonics of a ring, per pixel of its radius: waves of four pixels and more."""
SHARPEST, CUT = 2.0, 8
"""Waves a pixel of radius, above which a harmonic fades towards the middle, and how fast: finer
ones would be cut by the lattice, differently at every angle."""


class OrbitEncoder(Encoder):
    """Map an image to the parameters of q in every cell: rotations x rows x columns, in this order.

    Parameters
    ----------
    model
        Its encoder is ``config``; its priors of rotation and shift give the priors of the cells.
    config
        Of the encoder.
    layout
        Which latent variables there are.
    channels, shape
        Of the images.
    """

    def __init__(
        self,
        model: ModelConfig,
        config: OrbitEncoderConfig,
        *,
        layout: LatentLayout,
        channels: int,
        shape: Sequence[int],
    ) -> None:
        super().__init__()
        self.layout = layout
        self.config, self.role = config, config.cell_role(model)
        self.window = fit_window(config, shape, centred=not self.role.shift)
        self.discrete = config.infers_rotation(model)
        width = config.channels
        self.lift = LiftingConvolution(channels, width, self.window.kernel, config.rotations)
        self.merge = (
            None
            if self.discrete or config.rotations == 1
            else nn.Sequential(
                _in_place(config.activation), nn.Conv2d(config.rotations * width, width, 1)
            )
        )
        layers: list[nn.Module] = [_in_place(config.activation)]
        for _ in range(config.depth):
            layers += [nn.Conv2d(width, width, 1), _in_place(config.activation)]
        last = nn.Conv2d(width, layout.n_params + 1, 1)
        with torch.no_grad():
            last.weight.mul_(0.1)
            torch.nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.network = nn.Sequential(*layers, last)

    def forward(self, batch: Batch, context: Context) -> Posterior:
        """Propose a cell for each rotation, position and (if it is inferred) reflection.

        Images may be larger than those that the encoder was made for; they have more cells.
        """
        if self.layout.reflects:
            return either_way_round(self._read, batch.image)
        return self._read(batch.image)[0]

    def _read(self, image: Tensor) -> tuple[Posterior, Tensor]:
        params, logits, cells = self.numbers(image)
        return self.layout.posterior(params, logits, cells), logits.float().logsumexp(-1)

    def numbers(self, image: Tensor) -> tuple[Tensor, Tensor, Cells | None]:
        """Return parameters (B, C, n_params) and logits (B, C) of the cells, and the cells."""
        window = self.window
        padded = window.pad(image)
        maps = self.lift(padded, window.stride)
        if self.merge is not None:
            maps = self.merge(maps)
        groups = self.config.rotations if self.discrete else 1
        size = maps.shape[-2:]
        numbers = self.network(maps.reshape(-1, self.config.channels, *size))
        numbers = (
            numbers.reshape(len(image), groups, -1, size.numel()).transpose(2, 3).flatten(1, 2)
        )
        cells = self.cells(image.shape[2:], image.device)
        return numbers[..., :-1], numbers[..., -1], cells

    def cells(self, shape: Sequence[int], device: torch.device) -> Cells | None:
        """Return angle, shift and prior of every cell of images of ``shape``."""
        count = self.config.rotations if self.discrete else 1
        turns = torch.arange(count, device=device) * (2 * math.pi / count)
        places = self.window.places(shape).to(device)
        if not (self.role.angle or self.role.shift):
            return None
        log_prior = torch.full_like(turns, -math.log(count))[:, None]
        if self.role.angle:
            log_prior = self.layout.rotation.log_prob(wrap(turns)[:, None])
            log_prior = log_prior.log_softmax(0)[:, None]
        if self.role.shift:
            log_prior = log_prior + self.layout.shift.log_prob(places).log_softmax(0)
        return Cells(
            angle=turns.repeat_interleave(len(places)) if self.role.angle else None,
            shift=places.repeat(count, 1) if self.role.shift else None,
            log_prior=log_prior.flatten(),
            angle_std=math.pi / count,
            shift_std=self.window.stride / 2 if self.role.shift_residual else None,
        )


def _in_place(activation: Activation) -> nn.Module:
    """Make an activation that overwrites its input if its gradient allows it: half the memory."""
    module = ACTIVATIONS[activation]()
    if isinstance(module, nn.LeakyReLU | nn.ReLU):
        module.inplace = True
    return module


class Window(NamedTuple):
    """Where kernels are placed on an image.

    Attributes
    ----------
    kernel, padding, stride
        Pixels.
    centred
        Place them only once, on the box centre (if the shift is not inferred).
    """

    kernel: int
    padding: int
    stride: int
    centred: bool

    def pad(self, image: Tensor) -> Tensor:
        """Surround images (B, C, H, W) with zeros, or cut out what the centred kernels cover."""
        sides: list[int] = []
        for n in reversed(image.shape[2:]):
            before = (self.kernel - 1) // 2 - n // 2 if self.centred else self.padding
            sides += [before, self.kernel - n - before if self.centred else self.padding]
        return functional.pad(image, sides)

    def places(self, shape: Sequence[int]) -> Tensor:
        """Middle of the kernel in each position, (T, 2) pixels (x, y) relative to the box centre.

        Half pixels where the side of the kernel is even.
        """
        axes = []
        for n in shape:
            count = 1 if self.centred else (n + 2 * self.padding - self.kernel) // self.stride + 1
            first = 0.0 if self.centred else (self.kernel - 1) / 2 - self.padding - n // 2
            axes.append(first + self.stride * torch.arange(count, dtype=torch.float32))
        rows, columns = torch.meshgrid(*axes, indexing="ij")
        return torch.stack([columns.flatten(), rows.flatten()], dim=-1)


def fit_window(config: OrbitEncoderConfig, shape: Sequence[int], *, centred: bool) -> Window:
    """Place the kernels of an encoder on a box."""
    kernel, padding = config.sizes(min(shape), centred)
    return Window(kernel, padding, config.stride, centred)


class LiftingConvolution(nn.Module):
    """Convolution with every kernel at n angles; (B, C, H, W) to (B, n * width, rows, columns).

    Parameters
    ----------
    channels
        Of the images.
    width
        Number of kernels.
    kernel
        Their side, pixels; they fill the disc inscribed.
    rotations
        n.
    """

    basis: Tensor

    def __init__(self, channels: int, width: int, kernel: int, rotations: int) -> None:
        super().__init__()
        self.quarter_turns = rotations % 4 == 0
        turned = rotations // 4 if self.quarter_turns else rotations
        angles = torch.arange(turned) * (2 * math.pi / rotations)
        self.register_buffer("basis", harmonic_basis(kernel, angles), persistent=False)
        count = self.basis.shape[1]
        self.weight = nn.Parameter(torch.randn(width, channels, count))
        self.bias = nn.Parameter(torch.zeros(width))
        with torch.no_grad():  # of the norm that torch gives the kernels of a convolution
            self.weight.div_(math.sqrt(3 * channels * count))

    def kernels(self) -> Tensor:
        """Return the kernels at each angle, (n, width, C, k, k)."""
        kernels = torch.einsum("ocb,qbyx->qocyx", self.weight, self.basis)
        if not self.quarter_turns:
            return kernels
        # rot90 turns rows towards columns, from y to x: against the sense of a positive angle
        return torch.cat([kernels.rot90(-turn, (-2, -1)) for turn in range(4)])

    def forward(self, image: Tensor, stride: int) -> Tensor:
        """Convolve without padding; maps are ordered angle by angle."""
        kernels = self.kernels()
        bias = self.bias.repeat(len(kernels))
        return functional.conv2d(image, kernels.flatten(0, 1), bias, stride=stride)


def harmonic_basis(kernel: int, angles: Tensor) -> Tensor:
    """Return circular harmonics on rings, rotated about the middle of a square of pixels.

    Parameters
    ----------
    kernel
        Side of the square, k pixels.
    angles
        (q,) radians.

    Returns
    -------
    Tensor
        (q, count, k, k), of about unit norm each; zero outside the inscribed disc.  Rings are
        Gaussian in radius, one pixel apart, with cos and sin of up to 1.5 waves per pixel of
        their radius.
    """
    axis = torch.arange(kernel, dtype=torch.float64) - (kernel - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    radius, direction = torch.hypot(x, y), torch.atan2(y, x)
    inside = radius <= kernel / 2
    turned = direction - angles.double()[:, None, None]
    functions = []
    for ring in range((kernel + 1) // 2):
        profile = torch.exp(-0.5 * ((radius - ring) / RING_WIDTH).square()) * inside
        functions.append((profile / profile.norm()).expand_as(turned))
        for waves in range(1, int(WAVES_A_PIXEL * ring) + 1):
            fineness = waves / (SHARPEST * radius.clamp(min=1e-6))
            fading = profile / (1 + fineness**CUT)
            scaled = fading * (math.sqrt(2) / fading.norm())
            functions += [scaled * (waves * turned).cos(), scaled * (waves * turned).sin()]
    return torch.stack(functions, dim=1).float()

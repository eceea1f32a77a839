"""The recipe ``modpose``: find the centre, sample rings around it, match the model's prediction.

On rings about the object's centre, a rotation is a shift along the angle.  Circular convolutions
pooled over the angle give a first content that does not change when the object rotates.  The
model's picture of this content is correlated with the rings at every angle at once (a fast Fourier
transform); this gives the angle.  The image rotated upright by it gives the content.  The picture
of that content gives the few angles that are proposed, each with its weight and width.  So the
angle is found by search, and only the centre and the content are regressed.  The first content and
centre have their own bound in training: if the first pass finds an object upside down, the second
pass cannot correct it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from modpose.config import ModelConfig, PolarEncoderConfig
from modpose.data.batches import Batch
from modpose.distributions.normal import DiagonalNormal
from modpose.geometry.pose import sample_images
from modpose.geometry.rotations import wrap
from modpose.model.encoders.centre import Centre
from modpose.model.encoders.encoder import Context, Encoder
from modpose.model.posterior import LatentLayout, Posterior
from modpose.nn.perceptron import ACTIVATIONS, perceptron, start_small
from modpose.observe.ctf import apply_ctf

MAX_RINGS = 32
ANGLE_STD_RANGE = (0.01, 0.6)


class PolarEncoder(Encoder):
    """Image to one centre, one content, and a few angles, each a cell.

    Parameters
    ----------
    model
        Sizes of the latent variables and their priors; its encoder is ``config``.
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
        config: PolarEncoderConfig,
        *,
        layout: LatentLayout,
        channels: int,
        shape: Sequence[int],
    ) -> None:
        super().__init__()
        self.layout = layout
        self.z_dim, turns = layout.z_dim, layout.rotation.inferred
        self.hypotheses = config.hypotheses if turns else 1
        self.read_again = config.read_again
        self.first_pass_weight = config.first_look if turns else 0.0
        radius = config.radius * min(shape) / 2
        self.rings = Rings(config.angles, radius)
        self.centre = Centre(channels, shape, config)
        numbers = 2 * self.z_dim + layout.scale.numbers
        self.look = InvariantPerceptron(channels * self.rings.count, numbers + 1, config)
        self.look_again = perceptron(
            channels * self.rings.count * config.angles,
            numbers,
            config.hidden,
            2,
            config.activation,
            False,
        )
        start_small(cast(nn.Linear, self.look_again[-1]))

    def forward(self, batch: Batch, context: Context) -> Posterior:
        """Propose a cell for each of the K best angles."""
        image = self.seen(batch)
        at = self.around(image)
        content, log_spread = self.look(at.rings).tensor_split([-1], dim=-1)
        with torch.no_grad():
            found = self.search(context, at, content, 1)
            upright = self.rings.read(image, at.centre, found.angle[:, 0])
        shift = DiagonalNormal(at.centre.unsqueeze(1), log_spread.expand(-1, 2).unsqueeze(1))
        first = None
        if self.training and self.first_pass_weight:
            first = self._posterior(content, found, shift)
        content = content + self.look_again(upright.flatten(1))
        with torch.no_grad():
            found = self.search(context, at, content, self.hypotheses)
        return self._posterior(content, found, shift, first)

    def around(self, image: Tensor) -> Around:
        """Find the centre and read rings about it; after training, always from the same pose.

        Numbers that follow a turn only nearly make content depend a little on how an object lies.
        Where the picture of the content is about to turn over, half a turn follows.  So the image
        is brought to the axis along which the object is spread, and read again: the numbers are
        then the same however the object was rotated, but for interpolation and for half turns,
        which permute them.
        """
        centre, start = image.new_zeros(len(image), 2), image.new_zeros(len(image))
        if self.layout.shift.inferred:
            centre = self.centre(image)
        rings = self.rings.read(image, centre)
        for _ in range(0 if self.training else self.read_again):
            start = start + self.rings.axis(rings)
            if self.layout.shift.inferred:
                centre = self.centre.again(image, centre, start)
            rings = self.rings.read(image, centre, start)
        return Around(rings, centre, start)

    def _posterior(
        self, content: Tensor, found: Angles, shift: DiagonalNormal, first: Posterior | None = None
    ) -> Posterior:
        """Make cells of the angles found, (B, K), with one content and shift (B, 1, 2) for all.

        Numbers of the scale, where it is inferred, follow those of ``content``.
        """
        cells = found.angle.shape[1]
        numbers = content.float().unsqueeze(1).expand(-1, cells, -1)
        angle = DiagonalNormal(wrap(found.angle).unsqueeze(-1), found.std.log().unsqueeze(-1))
        return self.layout.made_of(
            found.log_weight,
            self.layout.content.read(numbers[..., : 2 * self.z_dim]),
            angle.clamped() if self.layout.rotation.inferred else None,
            DiagonalNormal(*(part.expand(-1, cells, -1) for part in shift)).clamped()
            if self.layout.shift.inferred
            else None,
            scale=self.layout.scale.read(numbers[..., 2 * self.z_dim :]),
            first=first,
        )

    def seen(self, batch: Batch) -> Tensor:
        """Return the images (B, C, H, W), filtered by their CTF where there is one."""
        return batch.image if batch.ctf is None else apply_ctf(batch.image, batch.ctf)

    def contents(self, image: Tensor, centre: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
        """Return the content, (B, 2 z_dim) each, of the first and second pass (pose known)."""
        content = self.look(self.rings.read(image, centre))[:, :-1]
        upright = self.rings.read(image, centre, angle)
        return content, content + self.look_again(upright.flatten(1))

    def search(self, context: Context, at: Around, content: Tensor, count: int) -> Angles:
        """Correlate rings with the picture of ``content`` at every angle; weigh by the prior."""
        if not self.layout.rotation.inferred:
            zero = content.new_zeros(len(content), 1)
            return Angles(zero, zero, zero)
        draw = context.render.upright_natural
        picture = draw(self.rings.points, content[:, : self.z_dim])
        score = self.rings.correlate(at.rings, self.rings.fold(picture))
        angle = self.rings.angles + at.start[:, None]
        prior = self.layout.rotation.log_weight(
            wrap(angle if context.turn is None else angle - context.turn[:, None])[..., None]
        )
        found = best_angles(score + context.angle_prior * prior, count)
        return found._replace(angle=found.angle + at.start[:, None])


class Around(NamedTuple):
    """An image as it lies about the object.

    Attributes
    ----------
    rings
        (B, C, A, R) read about the centre.
    centre
        (B, 2) pixels.
    start
        (B,) radians, the angle that rings are read from.
    """

    rings: Tensor
    centre: Tensor
    start: Tensor


class InvariantPerceptron(nn.Module):
    """Circular convolutions along the angle, pooled over it: rotation-invariant numbers.

    Convolutions keep every fourth angle, so numbers change as rings turn by one, two or three.
    After training they are pooled over all four ways to begin, and do not.
    """

    def __init__(self, n_in: int, n_out: int, config: PolarEncoderConfig) -> None:
        super().__init__()
        act, width = ACTIVATIONS[config.activation], config.channels

        def layer(i: int, o: int, stride: int) -> nn.Module:
            return nn.Conv1d(i, o, 5, stride, padding=2, padding_mode="circular")

        self.convolutions = nn.Sequential(
            layer(n_in, width, 2),
            act(),
            layer(width, width, 1),
            act(),
            layer(width, 2 * width, 2),
            act(),
            layer(2 * width, 2 * width, 1),
            act(),
        )
        self.again = config.read_again > 0
        self.perceptron = perceptron(
            4 * width, n_out, config.hidden // 2, 1, config.activation, False
        )
        start_small(cast(nn.Linear, self.perceptron[-1]), 0.3)

    def forward(self, rings: Tensor) -> Tensor:
        """(B, C, A, R) to (B, n_out)."""
        sequence = rings.transpose(2, 3).flatten(1, 2)
        thinned, rest = self.convolutions[:4], self.convolutions[4:]
        halves = [thinned(sequence)]
        if self.again and not self.training:
            halves.append(thinned(sequence.roll(1, -1)))
            halves += [half.roll(1, -1) for half in halves]  # as those of sequences rolled by two
        features = torch.cat([rest(half) for half in halves], dim=-1)
        pooled = torch.cat([features.mean(-1), features.amax(-1)], dim=-1)
        return cast(Tensor, self.perceptron(pooled))


class Rings(nn.Module):
    """A polar grid: A angles on each of R rings, about a pixel apart."""

    points: Tensor
    radii: Tensor
    area: Tensor
    angles: Tensor

    def __init__(self, angles: int, radius: float) -> None:
        super().__init__()
        self.count = max(2, min(MAX_RINGS, round(radius)))
        step = radius / self.count
        angle = torch.arange(angles) * (2 * math.pi / angles)
        radii = (torch.arange(self.count) + 0.5) * step
        direction = torch.stack([angle.cos(), angle.sin()], dim=-1)
        points = (direction[:, None] * radii[:, None]).flatten(0, 1)
        self.register_buffer("points", points, persistent=False)
        self.register_buffer("radii", radii, persistent=False)
        self.register_buffer("area", radii * step * (2 * math.pi / angles), persistent=False)
        self.register_buffer("angles", angle, persistent=False)

    def read(self, image: Tensor, centre: Tensor, angle: Tensor | None = None) -> Tensor:
        """Read images (B, C, H, W) on rings about ``centre`` (B, 2), from ``angle`` (B,) on."""
        turned = self.angles if angle is None else self.angles + angle[:, None]
        direction = torch.stack([turned.cos(), turned.sin()], -2).unsqueeze(-1)
        points = torch.addcmul(centre[..., None, None], direction, self.radii)  # axis by axis
        return self.fold(sample_images(image, points.flatten(2).transpose(1, 2)))

    def fold(self, values: Tensor) -> Tensor:
        """(B, A * R, C) to (B, C, A, R)."""
        return values.transpose(1, 2).reshape(len(values), -1, len(self.angles), self.count)

    def axis(self, rings: Tensor) -> Tensor:
        """Return the axis along which rings (B, C, A, R) are spread, (B,) radians modulo pi."""
        by_angle, twice = (rings.float() * self.area).sum((1, 3)), 2 * self.angles
        return torch.atan2((by_angle * twice.sin()).sum(1), (by_angle * twice.cos()).sum(1)) / 2

    def correlate(self, rings: Tensor, picture: Tensor) -> Tensor:
        """Integrate rings times the picture turned to each angle over the disc, (B, A)."""
        seen, expected = (torch.fft.rfft(part.float(), dim=2) for part in (rings, picture))
        product = (seen * expected.conj() * self.area).sum((1, 3))
        score: Tensor = torch.fft.irfft(product, n=len(self.angles), dim=1)
        return score


class Angles(NamedTuple):
    """K angles per image, radians, best first: their width and log weight, (B, K) each."""

    angle: Tensor
    std: Tensor
    log_weight: Tensor


def best_angles(score: Tensor, count: int) -> Angles:
    """Find the highest peaks of a log-likelihood on the circle.

    Parameters
    ----------
    score
        (B, A) nats at evenly spaced angles.
    count
        Peaks wanted, K.  Where there are fewer, the rest have no weight.

    Returns
    -------
    Angles
        Of parabolas through each peak and its neighbours; the s.d. is that of their curvature
        (Laplace's approximation), the weight is the integral under the peak.
    """
    before, after = score.roll(1, 1), score.roll(-1, 1)
    is_peak = (score >= before) & (score > after)
    height, index = score.masked_fill(~is_peak, -torch.inf).topk(min(count, score.shape[1]), dim=-1)
    top, before, after = (part.gather(1, index) for part in (score, before, after))
    bend = (2 * top - before - after).clamp(min=1e-6)
    offset = (0.5 * (after - before) / bend).clamp(-0.5, 0.5)
    step = 2 * math.pi / score.shape[1]
    std = (step / bend.sqrt()).clamp(*ANGLE_STD_RANGE)
    peak = top + (after - before).square() / (8 * bend)
    log_weight = (peak + std.log()).masked_fill(height == -torch.inf, -1e4)
    return Angles((index + offset) * step, std, log_weight.log_softmax(-1))

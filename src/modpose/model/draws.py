"""Which latents are decoded: one sample or, in training, a summary of many cells."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from modpose.config import CellsConfig, TopCellsConfig
from modpose.distributions.normal import DiagonalNormal
from modpose.model.latents import Latents, joined
from modpose.model.posterior import Posterior


class Drawn(NamedTuple):
    """Latents to decode and the log weight of each, (B, K)."""

    latents: Latents
    log_weight: Tensor


Draw = Callable[[Posterior, torch.Generator | None], Drawn]


def one_sample(posterior: Posterior, generator: torch.Generator | None) -> Drawn:
    """Draw one sample an image."""
    latents = posterior.sample(1, generator)
    return Drawn(latents, torch.zeros_like(latents.cell, dtype=torch.float32))


def training_draw(config: CellsConfig) -> Draw:
    """Return the latents to decode in training: cells are mixed or enumerated, as configured."""

    def draw(posterior: Posterior, generator: torch.Generator | None) -> Drawn:
        if posterior.cell_log_q.shape[-1] == 1:
            return one_sample(posterior, generator)
        if isinstance(config, TopCellsConfig):
            return top_cells(posterior, config.count, generator)
        return mixed_cells(posterior, config.temperature, generator)

    return draw


def top_cells(posterior: Posterior, count: int, generator: torch.Generator | None) -> Drawn:
    """Draw from each of the ``count`` most probable cells (or all of them), best first.

    Their weights, renormalised to sum to one, carry the gradient of q(cell).
    """
    few = min(count, posterior.cell_log_q.shape[-1])
    log_q, cell = posterior.cell_log_q.topk(few, dim=-1)
    return Drawn(posterior.sample_in(cell, generator), log_q.log_softmax(-1))


def mixed_cells(
    posterior: Posterior, temperature: float, generator: torch.Generator | None
) -> Drawn:
    """Draw a soft sample; if cells include reflection, one for each, with its probability."""
    reflection = posterior.log_reflection()
    if reflection is None:
        latents = soft_sample(posterior, temperature, generator)
        return Drawn(latents, torch.zeros_like(latents.cell, dtype=torch.float32))
    each = [soft_sample(posterior, temperature, generator, m) for m in (False, True)]
    return Drawn(joined(each), reflection)


def soft_sample(
    posterior: Posterior,
    temperature: float,
    generator: torch.Generator | None,
    mirrored: bool | None = None,
) -> Latents:
    """Draw one sample whose parameters are mixed across cells, K = 1, as published.

    Weights are a Gumbel-softmax sample (Jang et al. 2017); they mix the cells' shifts, and the
    means and s.d. of their Gaussians (Nasiri & Bepler 2022, section 3.3.1).  Angles are mixed as
    directions on the circle, where a mean of numbers would put 179 and -179 degrees at 0. Such a
    sample gives no bound.  With ``mirrored``, only the cells of this reflection are mixed: the
    poses of an object and of its mirror image have no mean.
    """
    cells = posterior.cells
    waiting = torch.empty_like(posterior.cell_log_q).exponential_(generator=generator)
    noisy = posterior.cell_log_q - waiting.clamp(min=1e-30).log()
    if mirrored is not None and cells is not None and cells.mirrored is not None:
        noisy = noisy.masked_fill(cells.mirrored ^ mirrored, -math.inf)
    weight = (noisy / temperature).softmax(-1).unsqueeze(1)

    def mixed(gaussian: DiagonalNormal) -> DiagonalNormal:
        return DiagonalNormal(weight @ gaussian.mean, (weight @ gaussian.log_std.exp()).log())

    angle, shift = posterior.angle, posterior.shift
    if angle is not None:
        x, y = weight @ angle.mean.cos(), weight @ angle.mean.sin()
        angle = DiagonalNormal(torch.atan2(y, x), (weight @ angle.log_std.exp()).log())
    if shift is not None and posterior.shift_is_fixed:
        shift = DiagonalNormal(weight @ shift.mean, shift.log_std[:, :1])
    elif shift is not None:
        shift = mixed(shift)
    blend = Posterior(
        layout=posterior.layout,
        cell_log_q=noisy.new_zeros(len(noisy), 1),
        content=mixed(posterior.content),
        angle=angle,
        shift=shift,
        turn=None if posterior.turn is None else posterior.turn.mixed(weight),
        scale=None if posterior.scale is None else mixed(posterior.scale),
        channel=None if posterior.channel is None else weight @ posterior.channel,
    )
    latents = blend.sample_in(torch.zeros_like(noisy[:, :1], dtype=torch.int64), generator)
    cell = noisy.argmax(-1, keepdim=True)
    if cells is not None:
        latents = latents._replace(mirrored=cells.mirrored_at(cell))
    return latents._replace(cell=cell)

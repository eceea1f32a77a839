"""Reflection as a latent variable: an image and its mirror image, read by the same network.

If an image shows an object at pose (theta, m, t), its mirror image shows it at (-theta, 1 - m,
mirror(t)).  So a network without reflection reads both images.  Its answer for the image holds if
the object is not mirrored; its answer for the mirror image, mirrored back, holds if it is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from modpose.distributions.normal import DiagonalNormal
from modpose.geometry.pose import mirror, mirror_images
from modpose.model.cells import Cells
from modpose.model.posterior import Posterior


def either_way_round(
    read: Callable[[Tensor], tuple[Posterior, Tensor]], image: Tensor
) -> Posterior:
    """Read images and their mirror images in the same way; the posterior includes the reflection.

    The posterior of a mirrored image is the mirrored posterior, exactly.

    Parameters
    ----------
    read
        Function from images (B, C, H, W) to their posterior (without reflection) and a score (B,)
        of its fit: the probability of a reflection is the softmax of the two scores.
    image
        (B, C, H, W).
    """
    posterior, score = read(image)
    other, other_score = read(mirror_images(image))
    return or_mirrored(posterior, mirrored_back(other), score - other_score)


def mirrored_back(posterior: Posterior) -> Posterior:
    """Return the posterior of an image from that of its mirror image, without the reflection."""
    angle, shift, cells = posterior.angle, posterior.shift, posterior.cells
    if angle is not None:
        angle = DiagonalNormal(-angle.mean, angle.log_std)
    if shift is not None:
        shift = DiagonalNormal(mirror(shift.mean), shift.log_std)
    cells = None if cells is None else cells.mirrored_back()
    return posterior._replace(angle=angle, shift=shift, cells=cells)


def or_mirrored(posterior: Posterior, other: Posterior, log_odds: Tensor) -> Posterior:
    """Join a posterior if the object is not mirrored with ``other`` if it is.

    Parameters
    ----------
    posterior, other
        Of the same latent variables; neither includes reflection.
    log_odds
        (B,) log q(not mirrored) - log q(mirrored).
    """
    odds = log_odds[:, None]
    weights = (functional.logsigmoid(odds), functional.logsigmoid(-odds))
    parts = (posterior, other)
    log_q = [part.cell_log_q + weight for part, weight in zip(parts, weights, strict=True)]
    channels = [part.channel for part in parts if part.channel is not None]
    nothing = Cells(None, None, log_odds.new_zeros(posterior.cell_log_q.shape[-1]))
    cells = [part.cells or nothing for part in parts]
    return posterior._replace(
        cell_log_q=torch.cat(log_q, -1),
        content=_beside(posterior.content, other.content),
        angle=posterior.angle and _beside(posterior.angle, other.angle),
        shift=posterior.shift and _beside(posterior.shift, other.shift),
        scale=posterior.scale and _beside(posterior.scale, other.scale),
        channel=torch.cat(channels, 1) if channels else None,
        cells=cells[0].or_mirrored(cells[1]),
    )


def _beside(one: DiagonalNormal, other: DiagonalNormal | None) -> DiagonalNormal:
    assert other is not None, "the two posteriors are of different latent variables"
    return DiagonalNormal(*(torch.cat(pair, 1) for pair in zip(one, other, strict=True)))

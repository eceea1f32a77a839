"""The null model: the mean image and the spread that it leaves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.config import BernoulliConfig, GaussianConfig
from modpose.data.dataset import Dataset, dataset_of
from modpose.data.source import Source
from modpose.geometry.windows import disc
from modpose.observe.noise import Prediction, build_likelihood
from studies.common.conduct import Study
from studies.common.page import Page, Row
from studies.common.study import Fit, Result

LABEL = "null: the mean image"
NOTE = (
    "*Null*: the mean of the fitted images, the same for every image, with the noise standard "
    "deviation that it leaves (of every pixel where the models have one for every pixel). A model "
    "whose bound is not above this one has not learned what the images show."
)
BLOCK = 256
"""Images read at a time."""
Array = NDArray[np.float64]


def null_bounds(fit: Fit, others: Source | None = None) -> Array:
    """Log-likelihood of each held-out image under the null model of a fit's images, (N,) nats.

    Parameters
    ----------
    fit
        Its images, how they are prepared, which pixels count and the kind of noise.  It must
        compare images pixel by pixel; nothing has to be fitted.
    others
        Images to score in place of those held out from the fit.
    """
    config = fit.config()
    noise, mask = config.model.likelihood, config.data.mask
    fitted = dataset_of(fit.sample.open_train(), config, held_out=False)
    counted = np.ones(fitted.shape, bool) if mask is None else disc(fitted.shape, mask)
    pixels = torch.from_numpy(np.flatnonzero(counted))
    mean, left = _moments(_blocks(fitted, pixels))
    if isinstance(noise, BernoulliConfig):
        null = Prediction(mean.clamp(1e-6, 1 - 1e-6).logit(), None)
    else:
        assert isinstance(noise, GaussianConfig), "projections have no mean image"
        if noise.noise == "fixed":
            left = torch.full_like(left, noise.std)
        elif noise.noise == "learned":  # one for all pixels
            left = left.square().mean().sqrt().expand_as(left)
        null = Prediction(mean, left.clamp(min=1e-6).log())
    likelihood, bounds = build_likelihood(noise), []
    scored = dataset_of(
        others or fit.sample.open_test(), config, held_out=False, value_range=fitted.value_range
    )
    for block in _blocks(scored, pixels):
        signal = null.signal.expand_as(block)
        bounds.append(likelihood.log_prob(null._replace(signal=signal), block).sum((1, 2)))
    return np.asarray(torch.cat(bounds).detach().numpy(), np.float64)


def _blocks(dataset: Dataset, pixels: Tensor) -> Iterator[Tensor]:
    """Prepared images, those pixels that count, (B, C, P) at a time."""
    for rows in np.array_split(np.arange(dataset.n), -(-dataset.n // BLOCK)):
        yield dataset.batch(rows).image.flatten(2)[..., pixels]


def _moments(blocks: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the mean and s.d. of every pixel, (C, P)."""
    count, total, square = 0, torch.zeros(()), torch.zeros(())
    for block in blocks:
        images = block.double()
        count, total, square = (
            count + len(images),
            total + images.sum(0),
            square + images.square().sum(0),
        )
    mean = total / count
    return mean.float(), (square / count - mean.square()).clamp(min=0).sqrt().float()


def null_row(result: Result, like: Row, labels: Row) -> dict[str, Any]:
    """Return a row of the null model for a table of scores.

    Parameters
    ----------
    result
        A fit of the same images with the same noise.
    like
        A row of the table; columns that say nothing of the null model stay empty.
    labels
        What the row says of itself.
    """
    bounds = null_bounds(result.fit)
    known = {
        "ELBO": float(bounds.mean()),
        "s.e.": float(bounds.std() / np.sqrt(len(bounds))),
        "reconstruction": float(bounds.mean()),
        **dict.fromkeys(("KL", "KL pose", "KL content"), 0.0),
    }
    empty = dict.fromkeys(like)
    return empty | {name: value for name, value in known.items() if name in like} | dict(labels)


def first_fits(studies: Iterable[Study | str]) -> dict[str, Fit]:
    """Name the first fit of every sample of the studies that can be prepared."""
    found: dict[str, Fit] = {}
    for study in studies:
        if isinstance(study, Study):
            for fit in study.fits:
                found.setdefault(f"{study.title}: {fit.sample.name}", fit)
    return found


def null_study(fits: Mapping[str, Fit]) -> Study:
    """The null model's bounds of several sets, beside which other tables can be read.

    Parameters
    ----------
    fits
        Name of a set → a fit of it, which is not carried out.
    """

    def show(results: Mapping[str, Result], page: Page) -> Sequence[str]:
        rows: list[Row] = []
        for name, fit in fits.items():
            bounds = null_bounds(fit)
            rows.append(
                {
                    "set": name,
                    "fitted": fit.sample.open_train().n,
                    "held out": len(bounds),
                    "ELBO": float(bounds.mean()),
                    "s.e.": float(bounds.std() / math.sqrt(len(bounds))),
                }
            )
        return [page.table("null", "The null model's bounds", rows), NOTE]

    return Study("Null model", ["Nothing is fitted here."], [], show)

"""Whether new images are like those that a model was fitted to."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modpose.data.dataset import Dataset
from modpose.errors import InputError

logger = logging.getLogger("modpose")

ALIKE, FAR_APART = 0.01, 0.1
"""Relative differences of the pixel size: above the first there is a warning, above the second an
error."""
DEFOCUS = {"rlnDefocusU", "ctf/df1_A"}
FEWEST, WORST = 10, 0.01
"""Fewest images whose fit is compared, and the fraction of the fitted images that fit worst."""


def check_alike(dataset: Dataset, environment: Mapping[str, Any], ctf: bool) -> None:
    """Refuse images of another pixel size; warn if it differs a little or the CTF is missing.

    Parameters
    ----------
    dataset
        The new images, prepared as those of the fit were.
    environment
        Of the fit.
    ctf
        Whether the model uses the CTF of images that have one.

    Raises
    ------
    InputError
        The pixel size differs by more than 10 %.  That of a stack without a table which says 1 Å
        is not compared: many programs write it where it is not known.
    """
    source = dataset.source
    name, known, found = source.particles.name, environment.get("pixel_size"), dataset.pixel_size
    unknown = source.particles.pixel_size() is None and source.stack.pixel_size == 1.0
    if known is not None and found is not None and not unknown:
        apart = abs(found / known - 1)
        if apart > FAR_APART:
            expected = f"{known:.4g} Å, that of the images of the fit (see modpose preprocess)"
            raise InputError.of(name, "the pixel size", f"{found:.4g} Å", expected)
        if apart > ALIKE:
            logger.warning(
                "%s: the pixel size is %.4g Å, but was %.4g Å in the fit, so objects are %.1f %% "
                "%s than the model expects",
                name,
                found,
                known,
                100 * apart,
                "smaller" if found > known else "larger",
            )
    columns = (environment.get("data") or {}).get("columns") or {}
    had_ctf = environment.get("ctf") is not None or not DEFOCUS.isdisjoint(columns)
    if ctf and had_ctf and dataset.ctf is None:
        logger.warning(
            "%s: it gives no CTF, but the images of the fit had one; the images are read as if "
            "the microscope had none",
            name,
        )


def say_if_unlike(elbo: NDArray[np.floating], known: NDArray[np.floating], name: str) -> None:
    """Warn if most images fit worse than nearly all that the model was fitted to.

    Parameters
    ----------
    elbo
        (N,) bounds of the new images, nats.
    known
        (M,) those of the fitted images.
    name
        Of the new images.
    """
    if len(elbo) >= FEWEST and np.median(elbo) < np.quantile(known, WORST):
        logger.warning(
            "%s: most of these images fit worse than 99 %% of those of the fit; check that they "
            "show the same object, with the same contrast, pixel size and normalisation",
            name,
        )

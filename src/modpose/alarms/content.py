"""Content that encodes only the contrast or the defocus of an image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from modpose.alarms.sample import Floats, Sample
from modpose.errors import InputError
from modpose.observe.ctf import CtfColumn
from modpose.run.alarm import Alarm

USED = 0.3
"""Smallest standard deviation of a latent that is used."""
OF_DEFOCUS = 0.35
"""Smallest fraction of the variance of content explained by defocus that raises an alarm."""
PROPORTIONAL = 0.85
"""Smallest fraction of the differences between pictures that is only a change of strength."""
BOTH = (0.6, 0.3)
"""The same limit, and that for the fraction of content explained by the images' strength; both
must hold.
"""
OF_STRENGTH = 0.7
"""The second limit if the model draws no pictures."""
VARIED = 0.1
"""Smallest difference between pictures, relative to their mean."""
PICTURES = 16
FEWEST = 50
POWERS = 3

Decode = Callable[[Floats], Floats]


def content_alarm(
    sample: Sample,
    z: Floats,
    decode: Decode | None = None,
    index: NDArray[np.int64] | None = None,
) -> Alarm | None:
    """Check whether content is only the contrast or the defocus of an image.

    Parameters
    ----------
    sample
        Some of the images.
    z
        (N, k) content of all images of the data set.
    decode
        From content (n, k) to pictures or volumes; None where they cannot be drawn.
    index
        (N,) rising positions of the images of ``z``, the sample's among them; None: 0 to N - 1.
    """
    if not sample.particle_like or len(sample.rows) < FEWEST:
        return None
    used = z[:, z.std(axis=0) > USED]
    if not used.shape[1]:
        return None
    place = sample.rows if index is None else np.searchsorted(index, sample.rows)
    of_sample, defocus = used[place], _defocus(sample)
    if defocus is not None and explained(of_sample, defocus) > OF_DEFOCUS:
        return Alarm(
            "content",
            "Content follows the defocus of an image and says little about the object. The CTF "
            "may be wrong or unused; do not interpret content as conformations.",
        )
    of_strength = explained(of_sample, np.log(np.maximum(sample.spread, 1e-30)))
    same = None if decode is None else proportional(z, decode)
    if _only_strength(of_strength, same):
        return Alarm(
            "content",
            "Content is little more than the contrast of an image: the objects that it draws "
            "differ only in strength. Normalise the images (--normalize background), or do "
            "not interpret the content further.",
        )
    return None


def _defocus(sample: Sample) -> Floats | None:
    """Return the mean defocus of each image, also where the model does not use the CTF."""
    source, ctf = sample.dataset.source, sample.dataset.ctf
    if ctf is None:
        try:
            ctf = source.particles.ctf(source.stack.pixel_size)
        except InputError:  # an incomplete CTF, which the model does not use
            return None
    if ctf is None:
        return None
    columns = [CtfColumn.DEFOCUS_U, CtfColumn.DEFOCUS_V]
    return np.asarray(ctf[sample.rows][:, columns].mean(axis=1), np.float64)


def explained(z: Floats, cause: Floats) -> float:
    """Return the fraction of the variance of content (M, k) that a smooth curve of (M,) explains.

    The curve is a polynomial of the ranks, fitted to one half of the images and tested on the
    other, so that chance explains nothing.
    """
    rank = np.argsort(np.argsort(cause, kind="stable"), kind="stable") / max(1, len(cause) - 1)
    if float(np.ptp(cause)) == 0:
        return 0.0
    terms = np.vander(2 * rank - 1, POWERS + 1)
    fitted, judged = slice(0, None, 2), slice(1, None, 2)
    weights = np.linalg.lstsq(terms[fitted], z[fitted], rcond=None)[0]
    rest = ((z[judged] - terms[judged] @ weights) ** 2).sum()
    total = ((z[judged] - z[fitted].mean(axis=0)) ** 2).sum()
    return float(1 - rest / max(float(total), 1e-30))


def _only_strength(of_strength: float, same: float | None) -> bool:
    if same is None:
        return of_strength > OF_STRENGTH
    return same > PROPORTIONAL or (same > BOTH[0] and of_strength > BOTH[1])


def proportional(z: Floats, decode: Decode) -> float:
    """Return the fraction of the differences between pictures that is a multiple of their mean.

    Pictures that hardly differ give 0.
    """
    rows = np.random.default_rng(0).permutation(len(z))[:PICTURES]
    pictures = np.asarray(decode(z[rows]), np.float64).reshape(len(rows), -1)
    mean = pictures.mean(axis=0)
    different = pictures - mean
    size = float(((mean - mean.mean()) ** 2).sum())
    total = float((different**2).sum())
    if total < VARIED**2 * size * len(rows):
        return 0.0
    basis, _ = np.linalg.qr(np.stack([np.ones_like(mean), mean], axis=1))
    return float(((different @ basis) ** 2).sum()) / total

"""Pictures of the object that an image is searched for, in every orientation.

Templates that differ by a few degrees are much alike: a few maps, correlated with the image once,
add up to the correlation with every one of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft, ndimage

from modpose.devices import at_once, near
from modpose.errors import InputError
from modpose.estimator import PoseModel
from modpose.infer.latents import content_columns
from modpose.limits import check_real, check_whole
from modpose.pick.spectrum import Spectrum

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float32]

KEPT = 0.99
"""Power of the templates that the few maps hold."""
MOST_MAPS = 24
INSIDE = 0.95
"""Power of a picture within what is called its radius."""
STEP = 3.0
"""Pixels that the rim of the object moves from one angle to the next."""
CONTENTS = 4
"""Contents of a model that are searched for."""
BLOCK = 1 << 22
"""Numbers of a block of scores."""


@dataclass(frozen=True)
class Templates:
    """Pictures that an image is compared with.

    Attributes
    ----------
    pictures
        (K, n, n) upright, the object's middle at n // 2, zero around it.
    scale
        Pixels of the image that a pixel of a picture is.
    angles
        How many turns of each are tried.
    radius
        Of the object, pixels of the image.
    """

    pictures: Floats
    scale: float
    angles: int
    radius: float

    @property
    def count(self) -> int:
        """How many templates."""
        return len(self.pictures) * self.angles

    def named(
        self, index: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64] | None]:
        """Return the picture and the angle (degrees, -180 to 180) of templates (N,)."""
        which, turn = np.divmod(index, self.angles)
        angle = (turn * (360.0 / self.angles) + 180.0) % 360.0 - 180.0
        return which, angle

    def turned(self, reduced: int) -> Floats:
        """Draw every template for an image that is reduced by a factor, (count, m, m)."""
        zoom = self.scale / reduced
        side = self.pictures.shape[-1]
        middle, new = side // 2, 2 * math.ceil(side * zoom / 2) + 1
        drawn = np.empty((self.count, new, new), np.float32)
        for index in range(self.count):
            which, angle = self.named(np.array([index]))
            turn = math.radians(float(angle[0])) if angle is not None else 0.0
            cos, sin = math.cos(turn), math.sin(turn)
            matrix = np.array([[cos, -sin], [sin, cos]]) / zoom  # of (row, column): R^T of (x, y)
            offset = middle - matrix @ np.full(2, new // 2)
            drawn[index] = ndimage.affine_transform(
                self.pictures[which[0]], matrix, offset, (new, new), order=3
            )
        return drawn

    def match(self, spectrum: Spectrum, reduced: int) -> tuple[Floats, NDArray[np.int64], float]:
        """Score every pixel by the best template, in standard deviations of the noise.

        The filter of a template is matched to noise with the spectrum of the image.

        Returns
        -------
        score, best, roughness
            (H, W), (H, W) which template, and the roughness of the score of noise
            (:meth:`Spectrum.roughness`).
        """
        drawn = self.turned(reduced)
        side = drawn.shape[-1]
        small = fft.next_fast_len(2 * side, True)
        few = _resampled(spectrum, small)
        waves = fft.rfft2(drawn, s=(small, small))
        column = np.full(few.shape[1], 2.0)
        column[0] = 1
        column[-1] = 1 if small % 2 == 0 else 2
        white = (waves * np.sqrt(column / few)).reshape(len(drawn), -1) / small
        numbers = np.concatenate([white.real, white.imag], axis=1)
        norm = np.linalg.norm(numbers, axis=1)
        left, strength, _ = np.linalg.svd(numbers / norm[:, None], full_matrices=False)
        power = np.cumsum(strength**2) / np.sum(strength**2)
        maps = min(int(np.searchsorted(power, KEPT)) + 1, MOST_MAPS)
        share = left[:, :maps] * strength[:maps]
        basis = np.tensordot(left[:, :maps].T / strength[:maps, None] / norm, drawn, 1)
        share /= np.linalg.norm(share, axis=1, keepdims=True)
        responses = np.empty((maps, *spectrum.shape), np.float32)
        for index, picture in enumerate(basis):
            responses[index] = spectrum.apply(_filter(picture, spectrum))
        score, best = _best(responses, share.astype(np.float32))
        of_one = np.abs(_filter(drawn[0], spectrum)) ** 2 * spectrum.power
        return score, best, spectrum.roughness(of_one)


def _filter(picture: NDArray[Any], spectrum: Spectrum) -> NDArray[np.complex64]:
    """Conjugate transform of a picture, its middle at the first pixel, over the spectrum."""
    side = picture.shape[-1]
    whole = np.zeros(spectrum.padded, np.float32)
    whole[:side, :side] = picture
    whole = np.roll(whole, (-(side // 2), -(side // 2)), (0, 1))
    transform: Any = fft.rfft2(whole, workers=-1)
    found: NDArray[np.complex64] = transform.conj() / spectrum.power
    return found


def _resampled(spectrum: Spectrum, side: int) -> Floats:
    """Power of the rings at the frequencies of a smaller transform, (side, side // 2 + 1)."""
    ky, kx = fft.fftfreq(side)[:, None], fft.rfftfreq(side)[None]
    rows = np.rint(np.abs(ky) * spectrum.padded[0]).astype(np.int64)
    columns = np.rint(kx * spectrum.padded[1]).astype(np.int64)
    rows = np.minimum(rows, spectrum.power.shape[0] - 1)
    few: Floats = spectrum.power[rows, np.minimum(columns, spectrum.power.shape[1] - 1)]
    return few


def _best(responses: Floats, share: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Mix responses (C, H, W) by shares (K, C); take the largest of each pixel, and which it is."""
    flat = torch.from_numpy(responses.reshape(len(responses), -1))
    device = near(flat)
    mixing = torch.from_numpy(share).to(device)
    step = max(1, at_once(BLOCK, device) // len(share))
    parts = [(mixing @ part.to(device)).max(0) for part in torch.split(flat, step, 1)]
    score, best = (torch.cat([part[k].cpu() for part in parts]) for k in (0, 1))
    shape = responses.shape[1:]
    return score.numpy().reshape(shape), best.numpy().reshape(shape)


def templates_of(
    pictures: NDArray[Any], *, scale: float = 1.0, angles: int | None = None
) -> Templates:
    """Prepare pictures as templates.

    Parameters
    ----------
    pictures
        (K, n, n) or (n, n), the object's middle at n // 2.  What lies outside the disc that fits
        into the box is not looked at; the median of its rim is taken as the background.
    scale
        Pixels of the image that a pixel of a picture is.
    angles
        How many turns of each are tried; None takes enough that the rim moves by three pixels.
    """
    check_real("--scale", "the factor", scale, 0.01, 100)
    if angles is not None:
        check_whole("--angles", "the number", angles, 1, 720)
    given = np.asarray(pictures, np.float32)
    given = given[None] if given.ndim == 2 else given
    side = given.shape[-1] if given.ndim == 3 else 0
    if side < 4 or given.shape[1] != side or not np.isfinite(given).all():
        found = " x ".join(map(str, given.shape))
        raise InputError.of("pick", "the templates", found, "finite numbers, (K, n, n), n from 4")
    y, x = np.mgrid[:side, :side] - side // 2
    distance = np.hypot(x, y)
    rim = (distance > 0.4 * side) & (distance < 0.5 * side)
    level = np.median(given[:, rim], axis=1)
    shown = (given - level[:, None, None]) * np.clip(0.5 * side - distance, 0, 1)
    power = (shown**2).sum(0).ravel()
    order = np.argsort(distance.ravel(), kind="stable")
    if not power.sum() > 0:
        raise InputError("pick: the templates are empty, expected pictures of an object")
    within = np.cumsum(power[order]) / power.sum()
    radius = max(1.0, float(distance.ravel()[order][np.searchsorted(within, INSIDE)])) * scale
    if angles is None:
        angles = 4 * math.ceil(np.clip(2 * math.pi * radius / STEP, 8, 72) / 4)
    return Templates(shown.astype(np.float32), scale, angles, radius)


def templates_of_run(
    run: str | Path,
    *,
    contents: int = CONTENTS,
    angles: int | None = None,
    pixel_size: float | None = None,
    scale: float | None = None,
) -> Templates:
    """Draw what a model of single images learned, at the centres of so many clusters of content.

    Parameters
    ----------
    run
        The folder of a finished run.
    contents
        How many.
    angles
        As in :func:`templates_of`; one where the model does not infer a rotation.
    pixel_size
        Of the image that is searched, angstrom.
    scale
        Pixels of the image that a pixel of the model is; None compares the pixel sizes.

    Raises
    ------
    InputError
        If the run has no pictures of single images, or the scale is not known.
    """
    check_whole("--contents", "the number", contents, 1, 100)
    model = PoseModel.load(run)
    vae, config = model.vae, model.config
    if len(vae.shape) != 2 or vae.channels != 1 or vae.imaging.shown_in != 2:
        found = "of volumes" if vae.imaging.shown_in == 3 or len(vae.shape) == 3 else "in colour"
        raise InputError.of(str(run), "the model", found, "one of grey pictures, for pick --run")
    if scale is None:
        scale = _scale(str(run), model.environment.get("pixel_size"), pixel_size, config.data.box)
    if angles is None and config.model.rotation.prior == "none":
        angles = 1
    pictures = model.decode(_centres(model.latents(), config.model.z_dim, contents))
    return templates_of(-pictures if config.data.invert else pictures, scale=scale, angles=angles)


def _scale(where: str, of_model: Any, of_image: float | None, box: int | None) -> float:
    if of_model and of_image:
        return float(of_model) / float(of_image)
    if box is None:
        return 1.0
    raise InputError(
        f"{where}: the model's images were reduced (data.box) and a pixel size is not known, "
        "expected --scale"
    )


def _centres(latents: pd.DataFrame, z_dim: int, count: int) -> NDArray[np.float32]:
    """Centres of clusters of content, (K, z_dim), those of most images first."""
    z = latents[content_columns(latents)].to_numpy(np.float32)
    count = min(count, len(np.unique(z, axis=0)))
    if z_dim == 0 or count <= 1:
        return z.mean(0, keepdims=True) if z_dim else np.zeros((1, 0), np.float32)
    from sklearn.cluster import KMeans

    found = KMeans(count, n_init=4, random_state=0).fit(z)
    order = np.argsort(-np.bincount(found.labels_, minlength=count), kind="stable")
    centres: NDArray[np.float32] = found.cluster_centers_[order].astype(np.float32)
    return centres

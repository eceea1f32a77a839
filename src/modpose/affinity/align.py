"""Shell correlation at the best rotation and shift.

For every pair, one matrix product searches an even grid of rotations and a lattice of shifts at low
frequency.  Then gradient steps optimise the best few poses while the frequency limit rises.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modpose.affinity.matrix import Matrix
from modpose.affinity.spectra import cosines
from modpose.errors import InputError
from modpose.fourier.shells import Shells, make_shells, whiten, whitened_spectra
from modpose.geometry.groups import so3_grid
from modpose.geometry.rotations import rotation_2d, rotation_of_vector
from modpose.limits import check_real

logger = logging.getLogger("modpose")

PADDING = 2
"""Transforms are padded to this multiple of the longest side before interpolation."""
STARTS = 12
"""Number of poses of the grid that are optimised."""
STEPS = 30
"""Gradient steps at each frequency limit."""
CHUNK = 512
"""Rotations scored per batch."""

MOST_SHIFT = 1000.0
"""Largest shift, pixels."""


@dataclass(frozen=True)
class AlignedFsc:
    """The largest weighted shell correlation over rotations and shifts of one of the two.

    For objects in unknown poses: a moved copy gives about 1; mirror images are different objects.
    It compares pair by pair, so it is for tens of templates, not for thousands of samples.  The
    search may miss the best pose.  It never gives less than the correlation without alignment.
    The matrix is not always positive semi-definite.

    Attributes
    ----------
    kmax
        Highest shell, cycles per box; None is Nyquist.
    step_deg
        Angle between neighbours on the grid of rotations, degrees.
    max_shift
        Largest shift along each axis, pixels; None is a quarter of the longest side.
    """

    kmax: int | None = None
    step_deg: float = 15.0
    max_shift: float | None = None

    def __post_init__(self) -> None:
        if not 2 <= self.step_deg <= 60:
            raise InputError.of("step", "the step of the rotations", self.step_deg, "2 to 60 deg")
        if self.max_shift is not None:
            check_real("max-shift", "the largest shift", self.max_shift, 0, MOST_SHIFT)

    def describe(self, images: Tensor) -> Tensor:
        """Keep the images: (B, *shape)."""
        return images.float()

    def compare(self, features: Tensor) -> Matrix:
        """Align every pair of (N, *shape) images: (N, N)."""
        shells = make_shells(features.shape[1:], self.kmax)
        best = torch.from_numpy(cosines(whitened_spectra(features, shells)))
        count = len(features)
        if count * (count - 1) // 2 > 1:
            logger.info("aligning %d pairs", count * (count - 1) // 2)
        for j in range(1, count):
            moving = Moving(features[j])
            for i in range(j):
                found = self._align(features[i], moving)
                best[i, j] = best[j, i] = max(float(best[i, j]), found)
        return best.numpy()

    def _align(self, fixed: Tensor, moving: Moving) -> float:
        shape = fixed.shape
        limit = min(shape) // 2 if self.kmax is None else self.kmax
        reach = max(shape) / 4 if self.max_shift is None else min(self.max_shift, max(shape))
        low = min(limit, max(3, round(90 / self.step_deg)))
        scorer = Scorer(fixed, moving, low)
        rotations = rotation_grid(len(shape), self.step_deg)
        rotation, shift = grid_search(scorer, rotations, reach, math.radians(self.step_deg))
        while True:
            rotation, shift, score = climb(scorer, rotation, shift, reach)
            if low == limit:
                return min(1.0, float(score.max()))
            low = min(limit, 2 * low)
            keep = score.argsort(descending=True)[: max(3, len(score) // 2)]
            rotation, shift = rotation[keep], shift[keep]
            scorer = Scorer(fixed, moving, low)


class Moving:
    """The transform of an image, for interpolation at any frequency.

    Parameters
    ----------
    image
        (H, W) or (D, H, W).  It is padded to a square (cube), and divided by the transform of
        the linear interpolation that follows.
    """

    def __init__(self, image: Tensor) -> None:
        d, side = image.ndim, PADDING * max(image.shape)
        image = image - image.mean()
        for axis, length in enumerate(image.shape):
            place = torch.arange(length, dtype=torch.float32) - length // 2
            gain = torch.sinc(place / side).square()
            image = image / gain.reshape(-1, *(1,) * (d - 1 - axis))
        padded = torch.zeros((side,) * d)
        padded[tuple(slice(side // 2 - n // 2, side // 2 - n // 2 + n) for n in image.shape)] = (
            image
        )
        transform = torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(padded)))
        self._side = side
        self._table = torch.view_as_real(transform).movedim(-1, 0)[None].contiguous()

    def at(self, frequencies: Tensor) -> Tensor:
        """Interpolate at (K, F, d) frequencies (x, y[, z]) in cycles per pixel: (K, F) complex."""
        d = frequencies.shape[-1]
        index = frequencies * self._side + self._side // 2
        grid = (2 * index / (self._side - 1) - 1)[None]
        grid = grid if d == 2 else grid[:, :, :, None]
        found = torch.nn.functional.grid_sample(
            self._table, grid, mode="bilinear", padding_mode="zeros", align_corners=True
        )
        found = found.reshape(2, *frequencies.shape[:-1])
        return torch.complex(found[0], found[1])


class Scorer:
    """Weighted shell correlation of a fixed image with a moved one, up to a frequency limit.

    Parameters
    ----------
    fixed
        (H, W) or (D, H, W).
    moving
        The other image, of the same shape.
    kmax
        The limit, cycles per box.
    """

    def __init__(self, fixed: Tensor, moving: Moving, kmax: int) -> None:
        self.kmax, self.side = kmax, min(fixed.shape)
        self._moving = moving
        self._shells: Shells = make_shells(fixed.shape, kmax)
        self.frequencies = _frequencies(fixed.shape)[self._shells.position]
        spectrum = torch.fft.rfftn(torch.fft.ifftshift(fixed - fixed.mean())).reshape(1, -1)
        self._fixed = whiten(spectrum[:, self._shells.position], self._shells).conj()

    def products(self, rotation: Tensor) -> Tensor:
        """Terms of the correlation at (K, d, d) rotations, before any shift: (K, F) complex."""
        turned = self._moving.at(self.frequencies @ rotation)  # row vectors: k R is R^T k
        return self._fixed * whiten(turned, self._shells)

    def __call__(self, rotation: Tensor, shift: Tensor) -> Tensor:
        """Correlation at (K, d, d) rotations with a (K, d) shift in pixels each: (K,)."""
        phase = -2 * math.pi * torch.einsum("fd,kd->kf", self.frequencies, shift)
        products = self.products(rotation)
        return (products.real * phase.cos() - products.imag * phase.sin()).sum(dim=1)


def rotation_grid(d: int, step_deg: float) -> Tensor:
    """Spread rotations evenly, neighbours ``step_deg`` apart, the identity first: (K, d, d)."""
    step = math.radians(step_deg)
    if d == 2:
        count = math.ceil(2 * math.pi / step)
        return rotation_2d(torch.arange(count) * (2 * math.pi / count))
    grid = so3_grid(math.ceil(8 * math.pi**2 / step**3)).float()
    return torch.cat([torch.eye(3)[None], grid])


def grid_search(
    scorer: Scorer, rotations: Tensor, max_shift: float, step: float
) -> tuple[Tensor, Tensor]:
    """Find the best poses of a grid that are not neighbours of each other.

    Parameters
    ----------
    scorer
        Computes the correlation.
    rotations
        (K, d, d).
    max_shift
        Largest shift along each axis, pixels.
    step
        Angle between neighbours of the grid, radians.

    Returns
    -------
    rotation, shift
        (S, d, d) and (S, d), the best first.
    """
    shifts = _shift_lattice(rotations.shape[-1], max_shift, scorer.side / (3 * scorer.kmax))
    phase = -2 * math.pi * scorer.frequencies @ shifts.T
    cos, sin = phase.cos(), phase.sin()
    scores, places = [], []
    for some in torch.split(rotations, CHUNK):
        products = scorer.products(some)
        best = (products.real @ cos - products.imag @ sin).max(dim=1)
        scores.append(best.values)
        places.append(best.indices)
    score, place = torch.cat(scores), torch.cat(places)
    far = 2 * math.cos(1.5 * step) + (1 if rotations.shape[-1] == 3 else 0)  # the trace there
    chosen: list[int] = []
    for k in score.argsort(descending=True).tolist():
        traces = torch.einsum("sij,ij->s", rotations[chosen], rotations[k])
        if bool((traces < far).all()):
            chosen.append(k)
        if len(chosen) == STARTS:
            break
    return rotations[chosen], shifts[place[chosen]]


def climb(
    scorer: Scorer, rotation: Tensor, shift: Tensor, max_shift: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Follow the gradient from (S, d, d) rotations and (S, d) shifts; return the best pose.

    In the units of the steps, rotation and shift change the correlation at the frequency limit
    equally.
    """
    d = rotation.shape[-1]
    turn = torch.zeros(len(rotation), 3 if d == 3 else 1, requires_grad=True)
    slide = torch.zeros_like(shift, requires_grad=True)
    unit = scorer.side / (2 * math.pi * scorer.kmax)
    angle = 4 * unit / scorer.side
    optimiser = torch.optim.Adam([turn, slide])
    best = torch.full((len(rotation),), -torch.inf)
    at_rotation, at_shift = rotation.clone(), shift.clone()
    for i in range(STEPS):
        optimiser.param_groups[0]["lr"] = 0.3 * (1 - i / STEPS) ** 2 + 0.002
        small = rotation_of_vector(angle * turn) if d == 3 else rotation_2d(angle * turn[:, 0])
        now_rotation = small @ rotation
        now_shift = (shift + unit * slide).clamp(-max_shift, max_shift)
        score = scorer(now_rotation, now_shift)
        with torch.no_grad():
            better = score > best
            best = torch.where(better, score, best)
            at_rotation[better], at_shift[better] = now_rotation[better], now_shift[better]
        optimiser.zero_grad()
        score.sum().neg().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return at_rotation, at_shift, best


def _frequencies(shape: Sequence[int]) -> Tensor:
    """Frequencies (x, y[, z]), cycles per pixel, of a flattened ``rfftn``: (P, d)."""
    axes = [torch.fft.fftfreq(side) for side in shape[:-1]]
    axes.append(torch.fft.rfftfreq(shape[-1]))
    mesh = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([axis.reshape(-1) for axis in reversed(mesh)], dim=-1)


def _shift_lattice(d: int, max_shift: float, spacing: float) -> Tensor:
    """Shifts up to ``max_shift`` along each axis, at most ``spacing`` apart: (S, d)."""
    count = math.ceil(max_shift / spacing)
    axis = torch.linspace(-max_shift, max_shift, 2 * count + 1)
    return torch.cartesian_prod(*[axis] * d)

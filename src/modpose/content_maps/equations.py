"""Least squares for J maps at once, in the box about a mask, by conjugate gradients.

The maps are V_j = M_j w_j with a mask or an amplitude M_j, and w_j is a stationary random field
with spectrum S_j.  Sums over images enter as convolutions, which is exact for any distribution of
views.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modpose.content_maps.transforms import MatrixTransform
from modpose.fourier.coefficients import shell_of

TOLERANCE = 1e-3
"""Residual, relative to the first, at which iterations end."""
MEAN_FIRST = 2
"""The mean alone is solved for in so many times the steps that all maps together get."""
LEAST_BELOW = 1e-3
"""Precision of low frequencies, relative to the best, that is never undercut: the CTF leaves more,
but kernels are cut at the box, and what leaks from other shells may be negative."""
FAINT = 1e-4
"""Square of an amplitude below which maps to begin with are not divided by it."""
CHUNK = 1 << 11
"""Frequencies at which the equations are applied at a time."""


class MaskBox:
    """The box about a mask, and a grid of twice its side for convolutions.

    Parameters
    ----------
    mask
        (D, D, D), from 0 to 1; everything is on its device.
    limit
        Highest frequency with data, cycles per voxel; ``last`` is its shell.
    """

    def __init__(self, mask: Tensor, limit: float) -> None:
        self.box = box = mask.shape[-1]
        inside = (mask > 1e-3).nonzero() - box // 2
        self.reach = reach = _quick(min(int(inside.abs().max()) + 1, box // 2), box // 2)
        self._cut = (slice(box // 2 - reach, box // 2 + reach),) * 3
        self.mask = mask[self._cut].contiguous()
        self.side = 4 * reach
        axes = [torch.fft.fftfreq(self.side)] * 2 + [torch.fft.rfftfreq(self.side)]
        frequency = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).to(mask.device)
        has_data = (frequency.norm(dim=-1) <= min(limit, 0.5 - 0.5 / self.side)).flatten()
        seen = has_data.nonzero().squeeze(1)
        wide = self.side // 2 + 1
        z, y, x = seen // wide // self.side, seen // wide % self.side, seen % wide
        z, y = (torch.where(one > self.side // 2, one - self.side, one) for one in (z, y))
        places = torch.arange(2 * reach)
        self._transform = MatrixTransform(places, int(x.max()), self.side, mask.device)
        self._place, order = self._transform.number(z, y, x).sort()
        self.seen = seen[order]
        self.shell = shell_of(frequency, box).clamp(max=box // 2).flatten()
        self.last = min(math.ceil(limit * box), box // 2)
        own = [torch.fft.fftfreq(2 * reach)] * 2 + [torch.fft.rfftfreq(2 * reach)]
        frequency = torch.stack(torch.meshgrid(*own, indexing="ij"), -1).to(mask.device)
        shell = shell_of(frequency, box).clamp(max=box // 2)
        beyond = frequency.norm(dim=-1) > limit
        self._own_shell = shell.masked_fill(beyond, box // 2 + 1)
        twice = mask.new_full((self.side // 2 + 1,), 2.0)
        twice[0] = twice[-1] = 1.0
        self.weight = twice.expand(self.side, self.side, -1).flatten()
        self.count = torch.bincount(self.shell, self.weight)

    def cut(self, volumes: Tensor) -> Tensor:
        """Cut the box out of volumes (..., D, D, D)."""
        return volumes[(..., *self._cut)]

    def whole(self, maps: Tensor) -> Tensor:
        """Put maps (J, b, b, b) into volumes (J, D, D, D)."""
        volumes = maps.new_zeros(len(maps), *(self.box,) * 3)
        volumes[(slice(None), *self._cut)] = maps
        return volumes

    def forward(self, maps: Tensor) -> Tensor:
        """Transform maps (J, b, b, b) on the finer grid; (J, F).

        One axis after the other, so that lines of zeros are not transformed.
        """
        half = torch.fft.fft(torch.fft.rfft(maps, self.side), self.side, dim=-2)
        found: Tensor = torch.fft.fft(half, self.side, dim=-3).flatten(1)
        return found

    def backward(self, spectrum: Tensor) -> Tensor:
        """Transform back and keep the box, (J, b, b, b)."""
        b = 2 * self.reach
        wide = spectrum.reshape(-1, self.side, self.side, self.side // 2 + 1)
        wide = torch.fft.ifft(wide, dim=-3)[:, :b]
        wide = torch.fft.ifft(wide, dim=-2)[:, :, :b]
        found: Tensor = torch.fft.irfft(wide, self.side)[..., :b]
        return found

    def forward_seen(self, maps: Tensor) -> Tensor:
        """Transform maps (J, b, b, b), one at a time, at the frequencies with data; (J, seen)."""
        found = maps.new_empty(len(maps), len(self.seen), dtype=torch.complex64)
        for one, volume in zip(found, maps, strict=True):
            torch.index_select(self._transform.forward(volume), 0, self._place, out=one)
        return found

    def backward_seen(self, spectrum: Tensor) -> Tensor:
        """Transform (J, seen) back, one map at a time, and keep the box, (J, b, b, b)."""
        found = self.mask.new_empty(len(spectrum), *self.mask.shape)
        table = spectrum.new_zeros(len(self._transform))
        for one, values in zip(found, spectrum, strict=True):
            table[self._place] = values
            one.copy_(self._transform.backward(table))
        return found.div_(self.side**3)

    def filtered(self, fields: Tensor, table: Tensor, rest: Tensor) -> Tensor:
        """Multiply shells of fields (J, b, b, b), periodic in the box, by ``table`` (J, shells).

        Frequencies without data are multiplied by ``rest`` (J,).
        """
        found = torch.empty_like(fields)
        every = torch.cat([table, rest[:, None]], 1)
        for one, field, values in zip(found, fields, every, strict=True):
            spectrum = torch.fft.rfftn(field) * values[self._own_shell]
            one.copy_(torch.fft.irfftn(spectrum, s=field.shape))
        return found

    def power(self, maps: Tensor, others: Tensor | None = None) -> Tensor:
        """Mean (cross) power (J, shells) of maps (J, b, b, b), a shell a step of 1 / D."""
        rows, shell, weight = [], self.shell[self.seen], self.weight[self.seen]
        for number, one in enumerate(maps):
            first = self.forward_seen(one[None])[0]
            second = first if others is None else self.forward_seen(others[number][None])[0]
            product = (first * second.conj()).real * weight
            rows.append(product.new_zeros(len(self.count)).index_add_(0, shell, product))
        return torch.stack(rows) / self.count


class Equations:
    """The normal equations of J maps for some images.

    Attributes
    ----------
    right
        (J, b, b, b) right sides.
    kernels
        (K, seen) transforms of the convolution of each cell of images.
    values
        (K, J) amounts of the maps in each cell.
    """

    def __init__(self, box: MaskBox, right: Tensor, kernels: Tensor, values: Tensor) -> None:
        self.box, self.right, self.kernels, self.values = box, right, kernels, values

    def __len__(self) -> int:
        return len(self.right)

    def add(self, other: Equations) -> Equations:
        """Add the images of another, of the same cells, to this one; return it."""
        self.right.add_(other.right)
        self.kernels.add_(other.kernels)
        return self

    def remove(self, other: Equations) -> Equations:
        """Take away the images of another that were added to this one; return it."""
        self.right.sub_(other.right)
        self.kernels.sub_(other.kernels)
        return self

    def of_the_mean(self) -> Equations:
        """Return the equations of the first map, as if there were no others."""
        kernels = self.values[:, :1].square().T @ self.kernels
        return Equations(self.box, self.right[:1], kernels, self.values.new_ones(1, 1))

    def precision(self) -> Tensor:
        """Mean precision (J, shells) that the images give to a coefficient of each map."""
        shell, weight = self.box.shell[self.box.seen], self.box.weight[self.box.seen]
        cells = self.kernels.new_zeros(len(self.kernels), len(self.box.count))
        cells.index_add_(1, shell, self.kernels * weight)
        mean = (self.values.square().T @ cells / self.box.count).clamp(min=1e-9)
        best, at = mean.max(1, keepdim=True)
        below = torch.arange(mean.shape[1], device=mean.device) < at
        return torch.where(below, mean.maximum(LEAST_BELOW * best), mean)

    def solve(
        self,
        spectrum: Tensor,
        amplitude: Tensor,
        iterations: int,
        start: Tensor | None = None,
    ) -> Tensor:
        """Return the maps (J, b, b, b) of largest posterior probability.

        Parameters
        ----------
        spectrum
            (J, shells) variance of unitary coefficients of the stationary fields.
        amplitude
            (J, b, b, b) or (1, b, b, b), what the fields are multiplied by.
        iterations
            Largest number of steps.
        start
            (J, b, b, b) maps to begin with; None: nothing but the mean, solved for alone.
        """
        if start is not None:
            start = start * amplitude / (amplitude.square() + FAINT)
        return amplitude * self._fields(spectrum, amplitude, iterations, start)

    def _fields(
        self, spectrum: Tensor, amplitude: Tensor, iterations: int, start: Tensor | None = None
    ) -> Tensor:
        """Solve for the stationary fields (J, b, b, b), with some to begin with.

        The fields are periodic in the box: their amplitude is small at its faces.
        """
        box = self.box
        penalty = 1 / spectrum.clamp(min=1e-12)
        # at frequencies without data; the largest of all maps would stop the strong ones
        beyond = penalty.amax(1)
        inverse = 1 / (self.precision() + penalty)

        def apply(fields: Tensor) -> Tensor:
            seen = box.forward_seen(amplitude * fields)
            self._convolve(seen)
            return (box.backward_seen(seen).mul_(amplitude)).add_(
                box.filtered(fields, penalty, beyond)
            )

        residual = amplitude * self.right
        guess = box.filtered(residual, inverse, 1 / beyond)
        now = first = (residual * guess).sum()
        x = torch.zeros_like(residual) if start is None else start
        if start is None and len(self) > 1:
            x[:1] = self.of_the_mean()._fields(spectrum[:1], amplitude[:1], MEAN_FIRST * iterations)
        if start is not None or len(self) > 1:
            residual.sub_(apply(x))
            guess = box.filtered(residual, inverse, 1 / beyond)
            now = (residual * guess).sum()
        direction = guess
        for _ in range(iterations):
            if not now > TOLERANCE**2 * first:
                break
            applied = apply(direction)
            step = now / (direction * applied).sum()
            x.add_(direction * step)
            residual.sub_(applied.mul_(step))
            guess = box.filtered(residual, inverse, 1 / beyond)
            last, now = now, (residual * guess).sum()
            direction = guess + now / last * direction
        return x

    def _convolve(self, spectrum: Tensor) -> None:
        """Apply the data's part of the equations to transforms (J, seen), in place.

        At each frequency that is a sum over cells of outer products of amounts.
        """
        for first in range(0, spectrum.shape[1], CHUNK):
            held = spectrum[:, first : first + CHUNK]
            part = torch.stack([held.real, held.imag], 1)
            cells = (self.values @ part.flatten(1)).reshape(-1, *part.shape[1:])
            cells.mul_(self.kernels[:, None, first : first + CHUNK])
            found = (self.values.T @ cells.flatten(1)).reshape(part.shape)
            torch.complex(found[:, 0], found[:, 1], out=held)


def _quick(least: int, most: int) -> int:
    """Return a number from ``least`` to ``most``, of small factors if there is one, for the FFT."""
    for number in range(least, most + 1):
        rest = number
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return number
    return least

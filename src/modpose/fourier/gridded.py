"""Coefficients on planes of their own, summed on one lattice that all rows share.

The search of all rotations compares every row at the same frequencies.  Those of tilt series lie
on planes in all directions.  With y = h F(q) + noise, and F at q interpolated between the points g
of a lattice, the log-likelihood depends on the data through sum h y and sum h^2 near each g, up to
the curvature of F between the points.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from modpose.devices import at_once, near
from modpose.fourier.coefficients import Coefficients, half_sphere
from modpose.fourier.reference import corners

POINTS_AT_ONCE = 1 << 19
"""Coefficients that are summed at a time."""


def gridded(data: Coefficients, fineness: float = 1.0) -> Coefficients:
    """Sum the coefficients of each row on a lattice; those on a lattice are returned as they are.

    Parameters
    ----------
    data
        N tilt series, whitened.
    fineness
        Points of the lattice in a step of 1 / box.

    Returns
    -------
    Coefficients
        Of the same box, with noise of about unit variance; frequencies without data are left out,
        unless this process holds only some of the rows.
    """
    if data.frequency.ndim == 2:
        return data
    padded = 2 * round(fineness * data.box / 2)
    limit = float(data.radius[-1])
    frequency, _ = half_sphere(padded, min(limit + 1 / padded, 0.5))
    middle = int(limit * padded) + 2
    side = 2 * middle + 1
    x, y, z = (frequency * padded).round().long().unbind(1)
    at = ((z + middle) * side + y + middle) * side + x + middle
    inside = torch.stack([x, y, z], 1).abs().amax(1) <= middle
    frequency, at = frequency[inside], at[inside]
    place, data = data.place, replace(data, place=None)
    found = data.value.new_zeros(len(data), len(at))
    weight = data.value.real.new_zeros(len(data), len(at))
    home, device = data.value.device, near(data.value)
    here = at.to(device)
    mate = side**3 - 1 - here
    step = max(1, at_once(POINTS_AT_ONCE, device) // data.width)
    for first in range(0, len(data), step):
        part = data.rows(slice(first, first + step)).to(device)
        index, share = corners(part.frequency, side, padded)
        rows = torch.arange(len(part), device=index.device)[:, None, None]
        flat = (index.long() + rows * side**3).flatten()
        adjoint = part.value * part.transfer
        columns = (adjoint.real, adjoint.imag, part.transfer.square())
        sums = []
        for column in columns:
            total = column.new_zeros(len(part) * side**3)
            total.index_add_(0, flat, (share * column[..., None]).flatten())
            sums.append(total.view(len(part), side**3))
        real = sums[0][:, here] + sums[0][:, mate]
        imaginary = sums[1][:, here] - sums[1][:, mate]
        found[first : first + step] = torch.complex(real, imaginary).to(home)
        weight[first : first + step] = (sums[2][:, here] + sums[2][:, mate]).to(home)
    seen = weight.amax(0) > 1e-6 * weight.max()
    if place is not None:  # what one process has not measured, another one may have
        seen = torch.ones_like(seen)
    weight = weight[:, seen].sqrt()
    value = torch.where(weight > 0, found[:, seen] / weight.clamp(min=1e-12), 0)
    return Coefficients(frequency[seen], value, weight, data.box, place)

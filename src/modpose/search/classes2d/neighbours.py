"""Neighbours of a particle in an average of its images: they are no part of its centre of mass."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import label
from torch import Tensor

from modpose.geometry.grids import FAINT, lattice
from modpose.search.classes2d.sums import EDGE_PX

OWN_MASS = 0.5
"""Smallest share of the mass of an average that is the particle's own, the rest its neighbours'."""


def without_neighbours(pictures: Tensor, diameter: float) -> Tensor:
    """Set to zero what the edge of the mask cuts: neighbours of the particle, which lie beside it.

    Connected bright pixels are one part.  A part that reaches the edge is a neighbour.  Where the
    other parts hold less than half of the mass, the particle itself reaches the edge, and the
    picture stays as it is.

    Parameters
    ----------
    pictures
        (C, D, D) averages.
    diameter
        Of the circle outside of which they are zero, pixels.
    """
    radius = lattice(pictures.shape[1:]).norm(dim=1).reshape(pictures.shape[1:])
    edge = (radius > (diameter - EDGE_PX) / 2).numpy()
    kept = []
    for picture in pictures:
        mass = (picture - FAINT * picture.amax()).clamp(min=0)
        part, _ = label(mass.numpy() > 0)
        own = torch.from_numpy(~np.isin(part, np.unique(part[edge & (part > 0)])))
        whole = float(mass[own].sum()) < OWN_MASS * float(mass.sum())
        kept.append(picture if whole else torch.where(own, picture, 0.0))
    return torch.stack(kept)

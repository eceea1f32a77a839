"""Smooth overlap of atomic positions, through the optional package dscribe."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modpose.affinity.foreground import otsu_threshold
from modpose.affinity.matrix import Matrix
from modpose.affinity.spectra import check_zeta, cosines
from modpose.errors import InputError

REACH = 10.0
"""Every object is scaled to this cut-off radius, which suits dscribe's radial functions."""


@dataclass(frozen=True)
class Soap:
    """SOAP kernel of the foreground pixels, each an atom (Bartok et al. 2013, PRB 87, 184115).

    The density of Gaussians at the foreground pixels is expanded in radial functions and spherical
    harmonics about its centre of mass, out to the corner of the box.  The kernel is the cosine of
    the power spectra, to the power ``zeta``.  It is invariant to rotations and reflections in
    space.  For 2-D images this includes flipping them over: b is d.

    Attributes
    ----------
    threshold
        Pixels above this value are foreground; None: Otsu's threshold of each image.
    radial, lmax
        Numbers of radial functions, and highest degree of the harmonics.
    width
        Standard deviation of the Gaussians, in pixels.
    zeta
        Power of the cosine; a larger one separates objects more.
    """

    threshold: float | None = None
    radial: int = 8
    lmax: int = 8
    width: float = 1.0
    zeta: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.lmax <= 20:  # the limit of dscribe
            raise InputError.of("lmax", "the highest degree", self.lmax, "0 to 20")
        if self.radial < 1:
            raise InputError.of("radial", "the number of functions", self.radial, "at least 1")
        if not self.width > 0:
            raise InputError.of("width", "the width of the Gaussians", self.width, "above zero")
        check_zeta(self.zeta)

    def describe(self, images: Tensor) -> Tensor:
        """Return (B, F) unit vectors."""
        soap_of = _descriptor()
        arrays = images.numpy()
        reach = 0.5 * float(np.linalg.norm(arrays.shape[1:]))
        soap = soap_of(
            species=["H"],
            periodic=False,
            r_cut=REACH,
            n_max=self.radial,
            l_max=self.lmax,
            sigma=self.width * REACH / reach,
        )
        rows = [self._one(soap, image, REACH / reach) for image in arrays]
        features = torch.from_numpy(np.stack(rows))
        return torch.nn.functional.normalize(features, dim=1, eps=1e-300)

    def compare(self, features: Tensor) -> Matrix:
        """Multiply: (N, F) to (N, N)."""
        return cosines(features, self.zeta)

    def _one(self, soap: Any, image: NDArray[np.float32], scale: float) -> NDArray[np.float64]:
        threshold = otsu_threshold(image) if self.threshold is None else self.threshold
        atoms = np.argwhere(image > threshold).astype(float)[:, ::-1]
        if not len(atoms):
            found = f"not exceeded anywhere (largest value {image.max():.4g})"
            raise InputError.of("--threshold", f"{threshold:.4g}", found, "some foreground")
        atoms = (atoms - atoms.mean(axis=0)) * scale
        positions = np.pad(atoms, ((0, 0), (0, 3 - atoms.shape[1])))
        system = importlib.import_module("ase").Atoms(["H"] * len(positions), positions=positions)
        return np.asarray(soap.create(system, centers=[[0.0, 0.0, 0.0]])[0], dtype=np.float64)


def _descriptor() -> Any:
    try:
        return importlib.import_module("dscribe.descriptors").SOAP
    except ImportError:
        raise InputError(
            "--metric soap: the package dscribe is not installed; install it with "
            "pip install 'modpose[soap]'"
        ) from None

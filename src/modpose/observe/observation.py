"""The instrument's effect on a signal: the contrast transfer function and the missing wedge.

An image's CTF is applied in a doubled box (:func:`modpose.observe.ctf.apply_ctf`).  A volume's CTF
(:func:`modpose.observe.ctf.ctf_3d`) and wedge multiply the Fourier transform of the box itself,
because wedge masks are given for it.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from modpose.observe.ctf import apply_ctf, ctf_3d
from modpose.observe.wedge import filter_volumes


class Observation(NamedTuple):
    """CTF and wedge of B images; not both are None.

    Attributes
    ----------
    ctf
        (B, 9) parameters, columns as in :class:`modpose.observe.ctf.CtfColumn`, or None.
    wedge
        (B, D, H, W // 2 + 1) mask of measured frequencies, or None.
    """

    ctf: Tensor | None = None
    wedge: Tensor | None = None

    def at(self, images: slice) -> Observation:
        """Return the observation of some images."""
        ctf, wedge = self
        return Observation(
            None if ctf is None else ctf[images], None if wedge is None else wedge[images]
        )

    def apply(self, signal: Tensor) -> Tensor:
        """Filter K signals of each image, (B, K, H, W) or (B, K, D, H, W)."""
        if signal.dim() == 4:
            assert self.ctf is not None
            return apply_ctf(signal, self.ctf)
        transfer = self.wedge
        if self.ctf is not None:
            of_ctf = ctf_3d(self.ctf, signal.shape[2:])
            transfer = of_ctf if transfer is None else transfer * of_ctf
        assert transfer is not None
        several = transfer.repeat_interleave(signal.shape[1], 0)
        return filter_volumes(signal.flatten(0, 1), several).reshape(signal.shape)

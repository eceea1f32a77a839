"""Settings of a simulated data set of subtomograms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from modpose.errors import InputError
from modpose.limits import check_data_set
from modpose.simulate.settings import ordered

Noise = Literal["white", "wedge", "coloured", "none"]
SnrOver = Literal["box", "tomogram"]
Orientations = Literal["haar", "grid"]


@dataclass(frozen=True)
class SubtomogramSettings:
    """A data set of subtomograms."""

    n: int = 400
    """Number of volumes."""
    box: int = 28
    """Side of the volumes, voxels."""
    pixel_size: float = 7.0
    """Å per voxel."""
    snr: float = 0.1
    """var(signal) / var(noise), one noise variance for the set; see ``snr_over``."""
    snr_over: SnrOver = "box"
    """Region for the variance of the signal, after the observation.  ``box``: the written boxes.
    ``tomogram``: 300³ voxels about each molecule, most of them empty, as in a widely used
    simulator; the same number is then up to (300 / box)³ times easier, about a thousand times for
    a box of 28.
    """
    tilt_range_deg: tuple[float, float] = (-60.0, 60.0)
    """Smallest and largest tilt; the rest is the missing wedge.  −90 to 90: no wedge."""
    max_shift_px: float = 2.0
    """Shifts are uniform between − and + this on each axis, voxels."""
    ctf: bool = False
    """Whether the microscope's contrast transfer function filters the volumes."""
    defocus_range: tuple[float, float] = (30000.0, 50000.0)
    """Smallest and largest defocus with ``ctf``, Å."""
    noise: Noise = "white"
    """``none``: the signal alone, scaled to a largest voxel of 1; ``snr`` is not used.  ``white``:
    independent voxels.  ``wedge``: equal power at every measured frequency, none in the wedge.
    ``coloured``: weighted back-projection of white noise in every tilt; its power is proportional
    to the distance from the tilt axis, and zero in the wedge.
    """
    abundances: tuple[float, ...] | None = None
    """Relative abundance of each molecule; None for equal ones."""
    hinge_range_deg: tuple[float, float] | None = None
    """The hinge angle of a molecule that has a hinge is uniform between these; None for 0."""
    elongation_range: tuple[float, float] | None = None
    """The elongation of a molecule made of blocks is uniform between these; None for 1."""
    orientations: Orientations = "haar"
    """``haar``: uniform over SO(3).  ``grid``: rotations by 10, 20, ... 360 degrees about x, then
    y, then z, as in affinity-VAE's paper (section 2.5); these are denser near two poles."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        low, high = self.tilt_range_deg
        hinge = self.hinge_range_deg or (0.0, 0.0)
        longer = self.elongation_range or (1.0, 1.0)
        shares = self.abundances or (1.0,)
        tilts = "two angles from -90 to 90, the smaller first"
        if low >= high:
            tilts += ": this wedge hides everything"
        finite, turns = math.isfinite, get_args(Orientations)
        factors = "two factors above 0, the smaller first"
        expectations = (
            ("n", self.n, self.n >= 1, "at least 1"),
            ("box", self.box, self.box >= 8, "at least 8 voxels"),
            ("pixel_size", self.pixel_size, 0 < self.pixel_size < math.inf, "more than 0 Å"),
            ("snr", self.snr, 0 < self.snr < math.inf, "more than 0"),
            ("snr_over", self.snr_over, self.snr_over in get_args(SnrOver), "box or tomogram"),
            ("tilt_range_deg", self.tilt_range_deg, -90 <= low < high <= 90, tilts),
            ("max_shift_px", self.max_shift_px, 0 <= self.max_shift_px < math.inf, "0 or more"),
            ("defocus_range", self.defocus_range, *ordered(self.defocus_range)),
            ("noise", self.noise, self.noise in get_args(Noise), "white, wedge, coloured or none"),
            (
                "abundances",
                self.abundances,
                all(finite(a) and a > 0 for a in shares),
                "positive numbers",
            ),
            ("hinge_range_deg", hinge, *ordered(hinge)),
            ("elongation_range", longer, longer[0] > 0 and ordered(longer)[0], factors),
            ("orientations", self.orientations, self.orientations in turns, "haar or grid"),
            ("seed", self.seed, self.seed >= 0, "0 or more"),
        )
        for name, value, good, expected in expectations:
            if not good:
                raise InputError.of("subtomograms", name, value, expected)
        check_data_set(
            "subtomograms",
            n=self.n,
            box=self.box,
            seed=self.seed,
            dimensions=3,
            pixel_size=self.pixel_size,
            snr=self.snr,
            lengths=(self.max_shift_px, *hinge, *self.defocus_range),
            held=False,
        )

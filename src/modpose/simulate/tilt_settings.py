"""What a data set of tilt series is to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from modpose.errors import InputError
from modpose.limits import check_data_set

Order = Literal["angle", "dose"]
Layout = Literal["relion5", "warptools"]


@dataclass(frozen=True)
class TiltSettings:
    """A data set of tilt series."""

    n: int = 150
    """Number of particles."""
    tomograms: int = 3
    """Number of tomograms that they are spread over."""
    tilts: int = 41
    """Images of each tilt series."""
    max_tilt_deg: float = 60.0
    """Tilts are evenly spread from minus this to this."""
    dose: float = 3.0
    """Electrons per Å² for each image; the images near 0 degrees are taken first."""
    box: int = 32
    """Side of the images, pixels."""
    pixel_size: float = 8.0
    """Å per pixel."""
    snr: float = 0.05
    """var(signal) / var(noise) over all images, one noise variance for the set."""
    max_shift_px: float = 1.0
    """Shifts are uniform between minus and plus this on each axis, pixels."""
    defocus_range: tuple[float, float] = (25000.0, 45000.0)
    """Smallest and largest defocus of a tilt series at its centre, Å."""
    hand: int = -1
    """rlnTomoHand: whether depth adds to the defocus (1) or takes from it (-1)."""
    hidden: float = 0.05
    """Fraction of the images of a particle that are marked as not visible."""
    premultiplied: bool = False
    """Whether images are multiplied by CTF and dose, as RELION writes them by default."""
    order: Order = "angle"
    """Order of the images: of their angles, or of the dose before them."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated."""
        expectations = (
            ("tomograms", self.tomograms, 1 <= self.tomograms <= self.n, "1 or more, at most n"),
            ("tilts", self.tilts, 3 <= self.tilts <= 1000, "3 to 1,000"),
            ("max_tilt_deg", self.max_tilt_deg, 0 < self.max_tilt_deg <= 90, "more than 0, to 90"),
            ("dose", self.dose, 0 <= self.dose <= 100, "0 to 100"),
            ("hand", self.hand, self.hand in (1, -1), "1 or -1"),
            ("hidden", self.hidden, 0 <= self.hidden <= 0.5, "0 to 0.5"),
            ("order", self.order, self.order in get_args(Order), "angle or dose"),
        )
        for name, value, good, expected in expectations:
            if not good:
                raise InputError.of("tilt series", name, value, expected)
        check_data_set(
            "tilt series",
            n=self.n * self.tilts,
            box=self.box,
            seed=self.seed,
            pixel_size=self.pixel_size,
            snr=self.snr,
            lengths=(self.max_shift_px, *self.defocus_range),
        )

"""What simulated images are to be; neither numpy nor torch is needed to say it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from modpose.errors import InputError
from modpose.limits import check_data_set

CHARACTERS = "aebdpijz2kxu"
"""The classes that affinity-VAE's paper draws."""
JunkKind = Literal["noise", "object", "both"]
"""Junk shows nothing, a wrong object, or one half each."""


@dataclass(frozen=True)
class HingeSettings:
    """A data set of hinged particles.

    The default hinge range is that of the 5HDB set of Bepler et al. 2019: 20 steps of about 2°.
    """

    n: int = 3000
    """Number of images."""
    box: int = 40
    """Side of the images, pixels."""
    pixel_size: float = 4.0
    """Å per pixel."""
    snr: float = 0.5
    """var(signal) / var(noise) inside the box, after the CTF; one noise variance for the set."""
    hinge_range_deg: tuple[float, float] = (-20.0, 20.0)
    """The hinge angle is uniform between these."""
    shift_std_px: float = 1.0
    """Standard deviation of the shift on each axis, pixels."""
    mirrored: float = 0.0
    """Mean fraction of the images with an object that is mirrored before the rotation."""
    scale_std: float = 0.0
    """Standard deviation of the logarithm of the scale (size relative to upright)."""
    ctf: bool = False
    """Whether the microscope's contrast transfer function filters the images."""
    defocus_range: tuple[float, float] = (8000.0, 20000.0)
    """Smallest and largest mean defocus with ``ctf``, Å."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        expectations = (
            ("n", self.n, self.n >= 1, "at least 1"),
            ("box", self.box, self.box >= 8, "at least 8 pixels"),
            ("pixel_size", self.pixel_size, 0 < self.pixel_size < math.inf, "more than 0 Å"),
            ("snr", self.snr, 0 < self.snr < math.inf, "more than 0"),
            ("shift_std_px", self.shift_std_px, 0 <= self.shift_std_px < math.inf, "0 or more"),
            ("scale_std", self.scale_std, 0 <= self.scale_std <= 1, "0 to 1"),
            ("mirrored", self.mirrored, 0 <= self.mirrored <= 1, "0 to 1"),
            ("hinge_range_deg", self.hinge_range_deg, *ordered(self.hinge_range_deg)),
            ("defocus_range", self.defocus_range, *ordered(self.defocus_range)),
            ("seed", self.seed, self.seed >= 0, "0 or more"),
        )
        for name, value, good, expected in expectations:
            if not good:
                raise InputError.of("simulate", name, value, expected)
        check_data_set(
            "simulate",
            n=self.n,
            box=self.box,
            seed=self.seed,
            pixel_size=self.pixel_size,
            snr=self.snr,
            lengths=(self.shift_std_px, *self.hinge_range_deg, *self.defocus_range),
        )


@dataclass(frozen=True)
class ProjectionSettings:
    """A data set of projections."""

    n: int = 5000
    """Number of images."""
    box: int = 64
    """Side of the images, pixels."""
    pixel_size: float = 2.5
    """Å per pixel."""
    snr: float = 0.1
    """var(signal) / var(noise) inside the box, after the CTF; one noise variance for the set."""
    hinge_range_deg: tuple[float, float] | None = None
    """The hinge angle is uniform between these; None takes the molecule's own range."""
    abundances: tuple[float, ...] | None = None
    """Relative abundance of each class; None: equal."""
    shift_std_px: float = 1.5
    """Standard deviation of the shift on each axis, pixels."""
    ctf: bool = False
    """Whether the microscope's contrast transfer function filters the images."""
    defocus_range: tuple[float, float] = (8000.0, 22000.0)
    """Smallest and largest mean defocus with ``ctf``, Å."""
    rotation_error_deg: float = 0.0
    """RMS error of the consensus rotations, degrees."""
    shift_error_px: float = 0.0
    """Standard deviation of the error of the consensus shifts on each axis, pixels."""
    views: tuple[float, float] | None = None
    """Share of the images seen within so many degrees of the molecule's z axis; the others, or all
    with None, are seen from everywhere alike."""
    junk: float = 0.0
    """Share of the images that do not show the molecule."""
    junk_kind: JunkKind = "both"
    """What they show."""
    contrast: float = 0.0
    """Standard deviation of a factor on the signal of each image, whose mean is one."""
    noise_spectrum: float = 1.0
    """How many times stronger noise is at the lowest frequency than at half the sampling rate;
    1 is white."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        positive, least = "more than 0", "0 or more"
        for name, good, expected in (
            ("n", self.n >= 1, "at least 1"),
            ("box", self.box >= 8, "at least 8 pixels"),
            ("pixel_size", 0 < self.pixel_size < math.inf, positive),
            ("snr", 0 < self.snr < math.inf, positive),
            ("hinge_range_deg", *ordered(self.hinge_range_deg or (0.0, 0.0))),
            ("abundances", all(0 < a < 1e9 for a in self.abundances or ()), "positive numbers"),
            ("shift_std_px", 0 <= self.shift_std_px < math.inf, least),
            ("defocus_range", *ordered(self.defocus_range)),
            ("rotation_error_deg", 0 <= self.rotation_error_deg <= 180, "0 to 180"),
            ("shift_error_px", 0 <= self.shift_error_px < math.inf, least),
            ("views", *_cone(self.views or (0.0, 180.0))),
            ("junk", 0 <= self.junk < 1, "0 to less than 1"),
            ("junk_kind", self.junk_kind in get_args(JunkKind), "noise, object or both"),
            ("contrast", 0 <= self.contrast <= 1, "0 to 1"),
            ("noise_spectrum", 1e-4 <= self.noise_spectrum <= 1e4, "0.0001 to 10000"),
            ("seed", self.seed >= 0, least),
        ):
            if not good:
                raise InputError.of("projections", name, getattr(self, name), expected)
        lengths = (self.shift_std_px, self.shift_error_px, *self.defocus_range)
        check_data_set(
            "projections",
            n=self.n,
            box=self.box,
            seed=self.seed,
            pixel_size=self.pixel_size,
            snr=self.snr,
            lengths=lengths,
        )


@dataclass(frozen=True)
class CharacterSettings:
    """A data set of characters."""

    n: int = 3000
    """Number of images."""
    characters: str = CHARACTERS
    """Classes; equally frequent, up to a remainder."""
    box: int = 64
    """Side of the images, pixels."""
    max_angle_deg: int = 45
    """Angles are whole degrees, uniform between − and + this (both ends excluded)."""
    max_shift_px: float = 0.0
    """Shifts are uniform between − and + this on each axis, pixels."""
    binary: bool = True
    """Pixels are 0 or 1, as in the paper; otherwise the grey values of smooth edges."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        different = len(set(self.characters)) == len(self.characters) > 0
        expectations = (
            ("n", self.n, self.n >= len(self.characters), "at least one of each character"),
            ("characters", repr(self.characters), different, "characters that differ"),
            ("box", self.box, self.box >= 16, "at least 16 pixels"),
            ("max_angle_deg", self.max_angle_deg, 1 <= self.max_angle_deg <= 180, "1 to 180"),
            (
                "max_shift_px",
                self.max_shift_px,
                0 <= self.max_shift_px < float("inf"),
                "0 or more",
            ),
            ("seed", self.seed, self.seed >= 0, "0 or more"),
        )
        for name, value, good, expected in expectations:
            if not good:
                raise InputError.of("alphanumeric", name, value, expected)
        lengths = (self.max_angle_deg, self.max_shift_px)
        check_data_set("alphanumeric", n=self.n, box=self.box, seed=self.seed, lengths=lengths)
        blank = next((one for one in self.characters if one.isspace()), None)
        if blank is not None:
            raise InputError.of("alphanumeric", "a character", repr(blank), "one with ink")


def ordered(limits: tuple[float, float]) -> tuple[bool, str]:
    """Tell whether two limits are in order, and say what is expected."""
    good = all(map(math.isfinite, limits)) and limits[0] <= limits[1]
    return good, "two finite numbers, the smaller first"


def _cone(views: tuple[float, float]) -> tuple[bool, str]:
    """Tell whether a share and an angle can be, and say what is expected."""
    good = 0 <= views[0] <= 1 and 0 <= views[1] <= 180
    return good, "a share from 0 to 1 and degrees from 0 to 180"

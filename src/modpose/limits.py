"""Limits of numbers: impossible ones are refused before any work begins."""

from __future__ import annotations

import operator
import os

from modpose.errors import InputError

LONGEST_MINUTES = 1e6
"""Almost two years."""
MOST_EPOCHS = 1_000_000
MOST_COPIES = 999
"""Largest number of rotated copies per image."""
MOST_MAPS = 1000
"""Largest number of true maps per class of a simulation."""
MOST_STEPS = 1000
"""Largest number of volumes along a path."""
LARGEST_SEED = 2**32 - 1
"""Largest seed that every random number generator accepts."""

UNKNOWN_MEMORY = 64 * 2**30
"""Bytes of memory if the system does not report it."""
LARGEST_SET = 2**44
"""Largest set that is written volume by volume, bytes."""


def check_minutes(minutes: object) -> None:
    """Refuse an invalid training time; None is no limit."""
    if minutes is not None:
        where, field = "--max-minutes", "the time"
        check_real(where, field, minutes, 0, LONGEST_MINUTES, low_counts=False)


def check_epochs(epochs: object) -> None:
    """Refuse an invalid number of epochs; None does not change it."""
    if epochs is not None:
        check_whole("--epochs", "the number", epochs, 1, MOST_EPOCHS)


def check_clusters(clusters: object, n: int) -> None:
    """Refuse more clusters than images; None is no clustering."""
    if clusters is not None:
        check_whole("--clusters", "the number", clusters, 2, n, "the number of images")


def check_seed(where: str, seed: object) -> None:
    """Refuse a seed that some generator does not accept."""
    check_whole(where, "the seed", seed, 0, LARGEST_SEED)


def check_resolution(where: str, resolution: object) -> None:
    """Refuse an impossible resolution, angstrom, of a density from atoms."""
    check_real(where, "the resolution", resolution, 0.1, 1000)


def check_whole(
    where: str, field: str, value: object, low: int, high: int, meaning: str = ""
) -> None:
    """Refuse what is not a whole number from ``low`` to ``high``.

    Parameters
    ----------
    where, field
        The option, and its meaning, for the message.
    value
        The given value.
    low, high
        The range, both ends included.
    meaning
        Meaning of ``high``, for the message.
    """
    try:
        whole = None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        whole = None
    if whole is None or not low <= whole <= high:
        of = f", {meaning}" if meaning else ""
        raise InputError.of(where, field, value, f"a whole number from {low:,} to {high:,}{of}")


def check_real(
    where: str, field: str, value: object, low: float, high: float, *, low_counts: bool = True
) -> None:
    """Refuse what is not a finite number from ``low`` to ``high``.

    Parameters
    ----------
    where, field, value, low, high
        See :func:`check_whole`.
    low_counts
        Whether ``low`` itself is allowed.
    """
    try:
        real = float("nan") if isinstance(value, bool | str) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        real = float("nan")
    if not (low <= real <= high) or (real == low and not low_counts):
        span = f"from {low:,.15g} to" if low_counts else f"above {low:,.15g}, up to"
        raise InputError.of(where, field, value, f"a number {span} {high:,.15g}")


def check_data_set(
    where: str,
    *,
    n: object,
    box: int,
    seed: object,
    dimensions: int = 2,
    pixel_size: object = 1.0,
    snr: object = 1.0,
    lengths: tuple[object, ...] = (),
    held: bool = True,
) -> None:
    """Refuse a set of images that cannot be simulated.

    Parameters
    ----------
    where
        Name of the simulator, for the message.
    n, box, seed
        Number of images, their side in pixels, and the seed of all random numbers.
    dimensions
        2 for images, 3 for volumes.
    pixel_size, snr
        In angstrom; var(signal) / var(noise).
    lengths
        Shifts, angles and defocus values, in any unit.
    held
        Whether all images are in memory at once.
    """
    check_whole(where, "the number of images", n, 1, 10**9)
    check_whole(where, "the box", box, 1, 65_536)
    check_seed(where, seed)
    check_real(where, "the pixel size", pixel_size, 1e-3, 1e4)
    check_real(where, "the SNR", snr, 1e-9, 1e9)
    for length in lengths:
        check_real(where, "a shift, angle or defocus", length, -1e7, 1e7)
    needed = operator.index(n) * box**dimensions * 4  # type: ignore[arg-type]
    most = physical_memory() // 2 if held else LARGEST_SET
    if needed > most:
        expected = f"at most {most / 2**30:,.0f} GB" + (", half of the memory" if held else "")
        raise InputError.of(where, "the size of all images", f"{needed / 2**30:,.0f} GB", expected)


def physical_memory() -> int:
    """Return the memory of this machine, bytes."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not on every system
        return UNKNOWN_MEMORY

"""Numbers that no work can be done with are refused before it begins."""

from __future__ import annotations

import operator

from modpose.errors import InputError

LONGEST_MINUTES = 1e6
"""Almost two years."""
MOST_EPOCHS = 1_000_000
LARGEST_SEED = 2**32 - 1
"""What every generator of random numbers takes."""


def check_minutes(minutes: object) -> None:
    """Refuse a training time that is not one; None is no limit."""
    if minutes is not None:
        where, field = "--max-minutes", "the time"
        check_real(where, field, minutes, 0, LONGEST_MINUTES, low_counts=False)


def check_epochs(epochs: object) -> None:
    """Refuse a number of epochs that is not one; None leaves it as it is."""
    if epochs is not None:
        check_whole("--epochs", "the number", epochs, 1, MOST_EPOCHS)


def check_clusters(clusters: object, n: int) -> None:
    """Refuse more clusters than there are images; None asks for none."""
    if clusters is not None:
        check_whole("--clusters", "the number", clusters, 2, n, "the number of images")


def check_seed(where: str, seed: object) -> None:
    """Refuse a seed that some generator does not take."""
    check_whole(where, "the seed", seed, 0, LARGEST_SEED)


def check_whole(
    where: str, field: str, value: object, low: int, high: int, meaning: str = ""
) -> None:
    """Refuse what is not a whole number from ``low`` to ``high``.

    Parameters
    ----------
    where, field
        The option, and what it gives, for the sentence.
    value
        What was given.
    low, high
        The range, both ends included.
    meaning
        What ``high`` is, for the sentence.
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
        Whether ``low`` itself may be given.
    """
    try:
        real = float("nan") if isinstance(value, bool | str) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        real = float("nan")
    if not (low <= real <= high) or (real == low and not low_counts):
        span = f"from {low:,.15g} to" if low_counts else f"above {low:,.15g}, up to"
        raise InputError.of(where, field, value, f"a number {span} {high:,.15g}")

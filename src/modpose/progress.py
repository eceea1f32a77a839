"""The progress bar of training and inference: images per second, time left."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from tqdm.auto import tqdm

logger = logging.getLogger("modpose")

TIMED = (5, 25)
"""Batches between which the time of a fit is measured; the first ones are slower."""


_hidden = False


def hide_bars(hidden: bool) -> None:
    """Show no bar from now on, or show them again."""
    global _hidden
    _hidden = hidden


def bar(
    items: Iterable[Any] | None = None,
    label: str = "",
    unit: str = "img",
    *,
    total: int | None = None,
    quiet: bool = False,
) -> tqdm[Any]:
    """Make a bar over items, or over a total; work of less than a second shows none."""
    return tqdm(items, label, total, unit=unit, disable=quiet or _hidden, delay=1.0)


class Progress:
    """A bar over images, or over seconds if the run has a time budget.

    Parameters
    ----------
    label
        Name of the task.
    images
        Total number of images.
    seconds
        Time budget, if there is one.
    quiet
        Show nothing.
    unit
        Name of the counted items.
    foretell
        After 25 batches, log the time that all images will take.
    """

    def __init__(
        self,
        label: str,
        images: int,
        *,
        seconds: float | None = None,
        quiet: bool = False,
        unit: str = "img",
        foretell: bool = False,
    ) -> None:
        self._budget, self._total = seconds, images
        self._foretell, self._batches, self._timed = foretell, 0, (0, 0.0)
        self._images = 0
        self._bar = tqdm(
            total=images if seconds is None else max(1, math.ceil(seconds)),
            desc=label,
            unit=unit if seconds is None else "s",
            disable=quiet or _hidden,
            file=sys.stderr,
            mininterval=0.5,
            dynamic_ncols=True,
            bar_format=None if seconds is None else "{l_bar}{bar}| {n:.0f}/{total_fmt} s{postfix}",
        )
        self._shown: dict[str, str] = {}

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def advance(self, images: int, seconds: float) -> None:
        """Count a batch; ``seconds`` is the training time so far."""
        self._images += images
        self._batches += 1
        if self._foretell and self._batches in TIMED:
            self._measure(seconds)
        if self._budget is None:
            self._bar.update(images)
            return
        self._bar.update(min(seconds, self._budget) - self._bar.n)
        elapsed = self._bar.format_dict["elapsed"] or 1e-9
        self.show(images_per_s=self._images / elapsed)

    def finish(self) -> None:
        """Fill a bar over images whose total was the most that could be needed."""
        self._bar.total = self._bar.n
        self._bar.refresh()

    def _measure(self, seconds: float) -> None:
        """Log the time of a fit, from the speed between two batches."""
        if self._batches == TIMED[0]:
            self._timed = self._images, seconds
            return
        images, before = self._timed
        minutes = (seconds - before) / (self._images - images) * self._total / 60
        self._bar.clear()
        logger.info("the training takes %s at this speed", in_words(minutes))

    def show(self, **figures: float) -> None:
        """Put figures at the end of the bar."""
        self._shown |= {name: f"{value:.4g}" for name, value in figures.items()}
        self._bar.set_postfix(self._shown, refresh=False)


def in_words(minutes: float) -> str:
    """Return a time for the user: about so many minutes, or less than a minute."""
    count = round(minutes)
    return (
        f"about {count:,} minutes" if count > 1 else f"{'about' if count else 'less than'} a minute"
    )

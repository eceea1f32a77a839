"""The progress bar of training and inference: images per second, time left."""

from __future__ import annotations

import math
import sys
from types import TracebackType

from tqdm.auto import tqdm


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
    """

    def __init__(
        self,
        label: str,
        images: int,
        *,
        seconds: float | None = None,
        quiet: bool = False,
        unit: str = "img",
    ) -> None:
        self._budget = seconds
        self._images = 0
        self._bar = tqdm(
            total=images if seconds is None else max(1, math.ceil(seconds)),
            desc=label,
            unit=unit if seconds is None else "s",
            disable=quiet,
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
        if self._budget is None:
            self._bar.update(images)
            return
        self._bar.update(min(seconds, self._budget) - self._bar.n)
        elapsed = self._bar.format_dict["elapsed"] or 1e-9
        self.show(images_per_s=self._images / elapsed)

    def show(self, **figures: float) -> None:
        """Put figures at the end of the bar."""
        self._shown |= {name: f"{value:.4g}" for name, value in figures.items()}
        self._bar.set_postfix(self._shown, refresh=False)

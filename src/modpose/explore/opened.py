"""A run that is shown: what the page asks about it."""

from __future__ import annotations

import threading
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modpose.config.model import SpectralConfig
from modpose.errors import InputError, shown
from modpose.explore.columns import Column, input_columns, latent_columns
from modpose.explore.pictures import Pictures
from modpose.explore.places import Places
from modpose.explore.selections import Selections
from modpose.limits import check_whole
from modpose.outputs.select import choose
from modpose.outputs.selected import LISTS, STACK, WRITABLE
from modpose.run import Run


class OpenRun:
    """A finished run with its columns, pictures and selections.

    Parameters
    ----------
    run
        The run.

    Raises
    ------
    InputError
        If the run is not finished, or its selections are of other images.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.latents = run.latents()
        self.places = Places(run, self.latents)
        self.pictures = Pictures(run, self.latents, self.places)
        self.selections = Selections(run)
        self._columns = {
            column.name: column for column in latent_columns(self.latents, self.places.names)
        }
        self._lock = threading.Lock()

    def about(self) -> dict[str, Any]:
        """Describe the run for the page, without opening its images."""
        environment, config = self.run.environment, self.run.config
        projected = isinstance(config.model.likelihood, SpectralConfig)
        return {
            "name": self.run.path.resolve().name,
            "recipe": config.recipe,
            "n": len(self.latents),
            "content": self.places.names,
            "sharp": self.places.sharp,
            "columns": [column.about() for column in self._columns.values()],
            "images": self.run.has_images,
            "quick": self.places.quick,
            "volumes": projected or len(environment["shape"]) == 3,
            "box": environment["shape"][-1],
            "stack": len(environment["shape"]),
            "pixel_size": environment.get("pixel_size"),
            "same": environment.get("images") or environment.get("fingerprint"),
            "alarms": [alarm.sentence for alarm in self.run.alarms],
        }

    @cached_property
    def _of_input(self) -> dict[str, Column]:
        if not self.run.has_images:
            return {}
        particles = self.pictures.dataset.source.particles
        return {column.name: column for column in input_columns(particles, set(self._columns))}

    def input_columns(self) -> list[dict[str, Any]]:
        """Describe the columns of the input's table, which is opened now."""
        with self._lock:
            return [column.about() for column in self._of_input.values()]

    def column(self, name: str) -> NDArray[np.float32]:
        """Return the numbers of a column, (N,)."""
        found = self._columns.get(name)
        if found is None:
            with self._lock:
                found = self._of_input.get(name)
        if found is None:
            raise InputError.of("column", "the name", shown(name), "a column of the run")
        return found.values

    def where(self, expression: str) -> NDArray[np.bool_]:
        """Mark the images for which an expression holds, as ``modpose select --where`` does."""
        return choose(self.run, where=expression)

    def path(self, ends: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
        """Contents (steps, k) on a path through images between two contents (2, k).

        Raises
        ------
        InputError
            If there is no such path, or the ends are no places of this run's content.
        """
        check_whole("path", "the number of steps", steps, 2, 1000)
        with self._lock:
            return np.asarray(self.places.path(ends, steps))

    def formats(self) -> list[str]:
        """Extensions that a selection of this run can be written to."""
        if not self.run.has_images:
            return list(LISTS)
        source = self.pictures.dataset.source
        tables = {"star": [".star"], "cs": [".cs"]}.get(source.particles.format, [])
        stack = [STACK] if source.stack.channels == 1 else []
        return [*tables, *LISTS, *stack]

    def write(self, name: str, suffix: str) -> tuple[Path, list[str]]:
        """Write a selection to a file in the folder of selections."""
        if suffix not in WRITABLE:
            raise InputError.of("write", "the extension", shown(suffix), " ".join(WRITABLE))
        return self.selections.write(name, suffix)

    def written(self, name: str) -> Path:
        """Return a file that a selection was written to.

        Raises
        ------
        InputError
            If it is not one.
        """
        path = self.selections.folder / name
        known = {one.name + suffix for one in self.selections.all() for suffix in WRITABLE}
        if name not in known or not path.is_file() or path.is_symlink():
            raise InputError.of("explore", "the file", shown(name), "a selection that was written")
        return path
